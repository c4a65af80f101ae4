#!/bin/sh
# Join the hub once: the token is looked at the first time alone, and may be gone later.
set -eu
exec syftmesh site init --email "$SYFTMESH_PROFILE" --server "$SYFTMESH_SERVER" --ca-file /etc/syftmesh/hub-ca.pem \
  --token-file /run/secrets/join-token --wait 120s
