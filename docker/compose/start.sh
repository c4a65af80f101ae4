#!/bin/sh
# Start what the image is for, with the passwords that lie in files: a volume can be shown to one service alone, a
# variable of compose.yaml to whoever reads the file.
set -eu
prefix=SYFTMESH_$(printf %s "$SYFTMESH_SERVICE" | tr '[:lower:]' '[:upper:]')
[ "$SYFTMESH_SERVICE" != tools ] || prefix=SYFTMESH
give() { # FILE VARIABLE
  [ ! -e "/etc/syftmesh/$1" ] || export "${prefix}_$2=$(cat "/etc/syftmesh/$1")"
}
give nats/password NATS_PASSWORD
give store/access-key S3_ACCESS_KEY
give store/secret-key S3_SECRET_KEY
exec "${@:-service}"
