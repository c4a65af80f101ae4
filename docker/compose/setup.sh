#!/bin/sh
# Make certificates, passwords and keys below /var/lib/syftmesh once, and keep them; lay out what servers want to find
# in one folder. Runs at every `up`, so that certificates near their end are made anew.
set -eu
secrets=/var/lib/syftmesh
sed "s/@HUB_HOST@/$HUB_HOST/" /etc/syftmesh/plan.json > /tmp/plan.json
python -m syftmesh_cluster.bootstrap --config /tmp/plan.json --folder "$secrets"
umask 077
mkdir -p "$secrets/nats-config" "$secrets/store-certs/CAs"
cp /etc/syftmesh/nats.conf /etc/syftmesh/users.conf "$secrets/nats-server/passwords.conf" "$secrets/nats-config/"
cp "$secrets/tls-store/tls.crt" "$secrets/store-certs/public.crt"
cp "$secrets/tls-store/tls.key" "$secrets/store-certs/private.key"
cp "$secrets/tls-store/ca.crt" "$secrets/store-certs/CAs/ca.crt"
