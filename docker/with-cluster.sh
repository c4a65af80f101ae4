#!/usr/bin/env bash
# Run a command on a Kubernetes cluster: the one of KUBECONFIG, or else the one that lies beside this checkout
# (../shared/cluster), which is brought up for it when it is not up, and then always taken down again.
#
#   docker/with-cluster.sh [--images] COMMAND [ARGUMENT...]
#
# --images builds the images first and loads them into the nodes; a cluster of KUBECONFIG is expected to find those of
# IMAGE_REGISTRY and IMAGE_TAG by itself.
# Exit code: the command's; 69 (EX_UNAVAILABLE of sysexits.h) with a plain line when there is no cluster, or the local
# one cannot be brought up on this machine.
set -euo pipefail
cd "$(dirname "$0")/.."

local_cluster=${SYFTMESH_LOCAL_CLUSTER:-../shared/cluster/cluster}
images=
if [ "${1:-}" = --images ]; then
	images=yes
	shift
fi

if [ -n "${KUBECONFIG:-}" ]; then
	exec "$@"
fi
if [ ! -x "$local_cluster" ]; then
	echo "cluster: neither KUBECONFIG nor ../shared/cluster is there" >&2
	exit 69
fi

ours=
finish() {
	if [ -n "$ours" ]; then "$local_cluster" down; fi
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! "$local_cluster" exec true 2>/dev/null; then
	ours=yes
	if ! "$local_cluster" setup || ! "$local_cluster" up --nodes 2; then
		echo "cluster: the one beside this checkout could not be brought up" >&2
		exit 69
	fi
fi
# Built out here: the cluster's own network has no way out.
if [ -n "$images" ]; then make --no-print-directory images images-load; fi
"$local_cluster" exec "$@"
