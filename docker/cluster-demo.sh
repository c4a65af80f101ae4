#!/usr/bin/env bash
# The demo on a cluster: that of KUBECONFIG, or else the one beside the checkout, with images built from it.
# Arguments go to `syftmesh demo --cluster`; exit code: its own, or with-cluster.sh's 69 where there is no cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

values=()
if [ -z "${KUBECONFIG:-}" ]; then
	# A small node whose images were loaded by hand.
	for file in charts/syftmesh/values-dev.yaml tests/chart/values-test.yaml; do values+=(--values "syftmesh=$file"); done
	for file in charts/datasite/values-dev.yaml tests/cluster/values-site.yaml; do values+=(--values "datasite=$file"); done
fi
exec bash docker/with-cluster.sh --images .venv/bin/syftmesh demo --cluster "${values[@]}" "$@"
