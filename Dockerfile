# mailbus in an image: `docker build -t mailbus .`; any base with python3 (3.11 or newer), venv and glibc will do.
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /src
# With a compiler and Python's headers parsing takes half the time; without them nothing is compiled, and the log says so.
# Versions are the base's own (DL3008); one word or none (SC2046).
# hadolint ignore=DL3008,SC2046
RUN python3 -c "import shutil, sysconfig, pathlib, sys; \
sys.exit(not (shutil.which('cc') and pathlib.Path(sysconfig.get_path('include'), 'Python.h').exists()))" \
    || (apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
        $(test -e /usr/local/bin/python3 || echo python3-dev)) \
    || echo "no compiler: parsing will take twice as long"
COPY requirements.lock requirements-run.lock ./
# The build's own tools stay behind, pip with them, in their own environment.
RUN python3 -m venv /opt/build \
    && /opt/build/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.lock
RUN python3 -m venv --without-pip /opt/mailbus \
    && /opt/build/bin/python -m pip --python /opt/mailbus/bin/python install --no-cache-dir --no-compile \
        --require-hashes -r requirements-run.lock
COPY pyproject.toml README.md LICENSE ./
COPY tools ./tools
COPY service ./service
RUN /opt/build/bin/python -m tools.compile \
    && /opt/build/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/build/bin/python -m pip --python /opt/mailbus/bin/python install --no-cache-dir --no-compile \
        --no-deps --no-index /wheel/*.whl \
    && /opt/mailbus/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/mailbus/lib
# What is in the image, for whoever has to know: CycloneDX.
RUN mkdir -p /opt/mailbus/share \
    && /opt/build/bin/cyclonedx-py environment --output-reproducible --pyproject pyproject.toml \
        --output-file /opt/mailbus/share/sbom.cdx.json /opt/mailbus/bin/python

FROM ${BASE}
LABEL org.opencontainers.image.title="mailbus" \
      org.opencontainers.image.description="Mailboxes become events on NATS JetStream; requests on the bus become mail" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="GPL-3.0-or-later"
COPY --from=build /opt/mailbus /opt/mailbus
ENV PATH=/opt/mailbus/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# For a volume of refresh tokens that their provider replaces; without one nothing is written there.
RUN mkdir -m 0700 /var/lib/mailbus && chown 65532:65532 /var/lib/mailbus
USER 65532:65532
EXPOSE 8080
# Kubernetes has probes of its own and does not look at this.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=6 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8080/healthz', timeout=4)"]
ENTRYPOINT ["mailbus"]
CMD ["run", "--config", "/etc/mailbus/mailbus.yaml"]
