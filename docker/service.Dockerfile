# syntax=docker/dockerfile:1
# One image of a service: --build-arg SERVICE=identity|sync|permissions|crypto|router|gateway|superlink|agent|runner|tools
# (tools: the syftmesh command and the programs of the charts' Jobs). `make images` builds them all; the context is
# the repository. Layers from below: the stripped system (all images), the locked packages (all services whose locks
# are equal), the service's own code. Where packages come from is told by secret mounts and stays in no layer.

# --- the stripped system, shared by every image ---
FROM python:3.11-slim-bookworm AS system
COPY docker/rootfs.py /build/
RUN ["python3", "/build/rootfs.py", "/rootfs", "--frame", "--python", "--program", "sh", "sleep", "cat", "ls", "cp", "mv", \
     "rm", "ln", "mkdir", "rmdir", "touch", "chmod", "stat", "head", "tail", "wc", "sort", "cut", "tr", "tee", "date", "df", \
     "du", "id", "env", "test", "[", "echo", "printf", "pwd", "true", "false", "mktemp", "readlink", "realpath", "basename", \
     "dirname", "sha256sum", "base64", "timeout", "nproc", "seq", "grep", "sed", "tar", "setpriv"]

FROM scratch AS base
COPY --from=system /rootfs /

# --- the sandbox of sites without Kubernetes ---
FROM python:3.11-slim-bookworm AS sandbox
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null
COPY docker/rootfs.py /build/
COPY --from=system /rootfs /below
RUN ["python3", "/build/rootfs.py", "/rootfs", "--below", "/below", "--program", "bwrap"]

# --- the locked packages ---
FROM python:3.11-slim-bookworm AS builder
COPY requirements/bootstrap.lock requirements/build.lock /build/
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=index --mount=type=secret,id=authorities \
    [ ! -s /run/secrets/index ] || . /run/secrets/index; \
    [ ! -s /run/secrets/authorities ] || export SSL_CERT_FILE=/run/secrets/authorities PIP_CERT=/run/secrets/authorities; \
    pip install --quiet --root-user-action=ignore --no-deps --require-hashes --target /opt/uv -r /build/bootstrap.lock \
    && /opt/uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/build \
    && /opt/uv/bin/uv pip sync --quiet --link-mode copy --python /opt/build/bin/python --require-hashes /build/build.lock

FROM scratch AS lock
ARG SERVICE
COPY requirements/${SERVICE}.lock /service.lock

FROM builder AS dependencies
COPY docker/package.sh /build/
COPY --from=lock /service.lock /build/
RUN --mount=type=cache,target=/root/.cache --mount=type=secret,id=index --mount=type=secret,id=authorities \
    sh /build/package.sh /build/service.lock

# --- our own code, laid out for every service at once ---
FROM builder AS members
RUN /opt/uv/bin/uv venv --quiet --python "$(command -v python3)" /opt/venv
COPY protos/pyproject.toml /build/workspace/protos/
COPY protos/gen /build/workspace/protos/gen
COPY libs /build/workspace/libs
COPY services /build/workspace/services
COPY docker/member.py docker/service.py docker/health.py /build/
COPY --from=sandbox /rootfs /build/sandbox
RUN /opt/build/bin/python /build/member.py /build/workspace /out \
    && for site in agent runner tools; do cp -a /build/sandbox/. "/out/$site/"; done

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
ENTRYPOINT ["/opt/venv/bin/service"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["/opt/venv/bin/health"]
COPY --from=dependencies /opt/venv /opt/venv
ARG SERVICE
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=""
COPY --from=members /out/${SERVICE} /
ENV SYFTMESH_SERVICE=${SERVICE}
LABEL org.opencontainers.image.title="syftmesh-${SERVICE}" \
      org.opencontainers.image.description="SyftMesh: ${SERVICE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
