#!/usr/bin/env bash
# The demo on a cluster: that of KUBECONFIG, or else the one beside the checkout, with images built from it.
# IMAGE_REGISTRY and IMAGE_TAG say which images (syftmesh and dev unless set). Arguments go to `syftmesh demo
# --cluster`; exit code: its own, or with-cluster.sh's 69 where there is no cluster.
set -euo pipefail
cd "$(dirname "$0")/.."

image=build/cluster-demo/image.yaml
mkdir -p "$(dirname "$image")"
printf 'image: {registry: "%s", tag: "%s"}\n' "${IMAGE_REGISTRY:-syftmesh}" "${IMAGE_TAG:-dev}" > "$image"
hub=("$image") site=("$image")
if [ -z "${KUBECONFIG:-}" ]; then
	# Small nodes, whose images were loaded by hand.
	hub=(charts/syftmesh/values-dev.yaml tests/chart/values-test.yaml "$image")
	site=(charts/datasite/values-dev.yaml tests/cluster/values-site.yaml "$image")
fi
exec bash docker/with-cluster.sh --images .venv/bin/syftmesh demo --cluster \
	"${hub[@]/#/--values=syftmesh=}" "${site[@]/#/--values=datasite=}" "$@"
