#!/usr/bin/env bash
# Import the images of IMAGE_REGISTRY:IMAGE_TAG into the nodes of a cluster that has no registry to pull from: the one
# beside the checkout (CLUSTER), or kind (KIND_CLUSTER=name). Layers travel once, however many images share them.
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${IMAGE_REGISTRY:-syftmesh} tag=${IMAGE_TAG:-dev} cluster=${CLUSTER:-../shared/cluster/cluster}
names=("$@")
if [ ${#names[@]} = 0 ] || [ "${names[*]}" = all ]; then
  names=(identity sync permissions crypto router gateway superlink agent runner tools job proxy)
fi
references=("${names[@]/#/$registry/}")
references=("${references[@]/%/:$tag}")

if [ -n "${KIND_CLUSTER:-}" ]; then
  exec kind load docker-image --name "$KIND_CLUSTER" "${references[@]}"
fi
if [ ! -x "$cluster" ]; then
  echo "images-load: no cluster at $cluster; set KIND_CLUSTER, or push the images to a registry that your cluster pulls from" >&2
  exit 1
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if docker version > /dev/null 2>&1; then
  docker save --output "$scratch/images.tar" "${references[@]}"
else
  for reference in "${references[@]}"; do
    buildah push --quiet --disable-compression "$reference" "oci:$scratch/layout:$reference"
  done
  python3 docker/archive.py "$scratch/layout" "$scratch/images.tar"
fi
"$cluster" load "$scratch/images.tar"
printf 'loaded %s\n' "${references[@]}"
