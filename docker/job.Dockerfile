# syntax=docker/dockerfile:1
# The image in which people's code runs: Python with numpy, pandas, scikit-learn, pyarrow and flwr in the versions of
# the services, and the programs a pod of a run starts with. Nothing of a site lies in it: no key, no client, no service.

# --- the stripped system: the same layer as below the services ---
FROM python:3.11-slim-bookworm AS system
COPY docker/rootfs.py /build/
RUN ["python3", "/build/rootfs.py", "/rootfs", "--frame", "--python", "--program", "sh", "sleep", "cat", "ls", "cp", "mv", \
     "rm", "ln", "mkdir", "rmdir", "touch", "chmod", "stat", "head", "tail", "wc", "sort", "cut", "tr", "tee", "date", "df", \
     "du", "id", "env", "test", "[", "echo", "printf", "pwd", "true", "false", "mktemp", "readlink", "realpath", "basename", \
     "dirname", "sha256sum", "base64", "timeout", "nproc", "seq", "grep", "sed", "tar", "setpriv"]

FROM scratch AS base
COPY --from=system /rootfs /

# --- the locked packages ---
FROM python:3.11-slim-bookworm AS builder
COPY requirements/bootstrap.lock requirements/build.lock /build/
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=index --mount=type=secret,id=authorities \
    [ ! -s /run/secrets/index ] || . /run/secrets/index; \
    [ ! -s /run/secrets/authorities ] || export SSL_CERT_FILE=/run/secrets/authorities PIP_CERT=/run/secrets/authorities; \
    pip install --quiet --root-user-action=ignore --no-deps --require-hashes --target /opt/uv -r /build/bootstrap.lock \
    && /opt/uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/build \
    && /opt/uv/bin/uv pip sync --quiet --link-mode copy --python /opt/build/bin/python --require-hashes /build/build.lock

FROM builder AS dependencies
COPY docker/package.sh /build/
COPY requirements/job.lock /build/service.lock
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=index --mount=type=secret,id=authorities \
    sh /build/package.sh /build/service.lock

# --- the image ---
FROM base
ENV PATH=/opt/venv/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/tmp \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    FLWR_TELEMETRY_ENABLED=0 \
    FLWR_DISABLE_UPDATE_CHECK=1 \
    FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION=1
USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["/opt/venv/bin/python"]
COPY --from=dependencies /opt/venv /opt/venv
COPY libs/executor/src/syftmesh_executor/pod /opt/syftmesh/pod
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=""
LABEL org.opencontainers.image.title="syftmesh-job" \
      org.opencontainers.image.description="SyftMesh: what people's code finds when it runs at a site" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
