# syntax=docker/dockerfile:1
# nginx from Debian's packages for the hub's one public address, without anything else of Debian: a shell to look
# around with, and the libraries these link to. The configuration comes from who runs it (`-c FILE`).
FROM python:3.11-slim-bookworm AS system
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends nginx > /dev/null
COPY docker/rootfs.py docker/proxy.conf /build/
RUN ["python3", "/build/rootfs.py", "/rootfs", "--frame", "--program", "nginx", "sh", "sleep", "cat", "ls", "grep", \
     "--path", "/etc/nginx/mime.types"]
# The package's own folder for bodies in transit is not ours to write to; what is left over is /tmp.
RUN cp /build/proxy.conf /rootfs/etc/nginx/nginx.conf \
    && mkdir -p /rootfs/var/lib /rootfs/var/log && ln -s /tmp /rootfs/var/lib/nginx && ln -s /tmp /rootfs/var/log/nginx

FROM scratch
COPY --from=system /rootfs /
ENV PATH=/usr/sbin:/usr/bin:/bin LANG=C.UTF-8
USER 65532:65532
WORKDIR /tmp
# Quit, so that calls in flight end; an ordinary TERM would cut them.
STOPSIGNAL SIGQUIT
ENTRYPOINT ["/usr/sbin/nginx"]
CMD ["-g", "daemon off;"]
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=""
LABEL org.opencontainers.image.title="syftmesh-proxy" \
      org.opencontainers.image.description="SyftMesh: nginx for the hub's one public address" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0 AND BSD-2-Clause"
