# mailbus in an image: `docker build -t mailbus .`; any base with python3 (3.11 or newer), venv and glibc will do.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
RUN python3 -m venv /opt/mailbus
COPY requirements-run.lock ./
RUN /opt/mailbus/bin/python -m pip install --no-cache-dir --require-hashes -r requirements-run.lock
COPY pyproject.toml README.md LICENSE ./
COPY service ./service
# Pure Python: the wheel's contents and its console script. The build tool stays behind, in its own environment.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel . \
    && /opt/mailbus/bin/python -m pip install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM ${BASE}
COPY --from=build /opt/mailbus /opt/mailbus
ENV PATH=/opt/mailbus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["mailbus"]
CMD ["run", "--config", "/etc/mailbus/mailbus.yaml"]
