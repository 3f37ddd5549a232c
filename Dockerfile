# mailbus in an image: `docker build -t mailbus .`; any base with python3 (3.11 or newer), venv and glibc will do.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
# With a compiler (and Python's headers, which Debian's own python3 leaves to python3-dev) parsing takes half the time.
RUN command -v cc || (apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev)
COPY requirements.lock requirements-run.lock ./
RUN python3 -m venv /opt/mailbus \
    && /opt/mailbus/bin/python -m pip install --no-cache-dir --require-hashes -r requirements-run.lock
# The build's own tools stay behind, in their own environment.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY tools ./tools
COPY service ./service
RUN /opt/build/bin/python -m tools.compile \
    && /opt/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/mailbus/bin/python -m pip install --no-cache-dir --no-deps --no-index /wheel/*.whl

FROM ${BASE}
COPY --from=build /opt/mailbus /opt/mailbus
ENV PATH=/opt/mailbus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["mailbus"]
CMD ["run", "--config", "/etc/mailbus/mailbus.yaml"]
