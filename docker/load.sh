#!/usr/bin/env bash
# Import the images of IMAGE_REGISTRY:IMAGE_TAG into the nodes of a cluster that has no registry to pull from: the one
# beside the checkout (SYFTMESH_LOCAL_CLUSTER), or kind (KIND_CLUSTER=name). Layers travel once, however many images share them, and
# what these nodes got before does not travel again (FORCE=1: all the same).
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${IMAGE_REGISTRY:-syftmesh} tag=${IMAGE_TAG:-dev} cluster=${SYFTMESH_LOCAL_CLUSTER:-../shared/cluster/cluster}
stamps=build/images/loaded
names=("$@")
if [ ${#names[@]} = 0 ] || [ "${names[*]}" = all ]; then
  names=(identity sync permissions crypto router gateway superlink agent runner tools job proxy)
fi

if [ -n "${KIND_CLUSTER:-}" ]; then
  references=("${names[@]/#/$registry/}")
  exec kind load docker-image --name "$KIND_CLUSTER" "${references[@]/%/:$tag}"
fi
if [ ! -x "$cluster" ]; then
  echo "images-load: no cluster at $cluster; set SYFTMESH_LOCAL_CLUSTER or KIND_CLUSTER, or push the images to a registry that your cluster pulls from" >&2
  exit 1
fi
if docker version > /dev/null 2>&1; then
  id_of() { docker image inspect --format '{{.Id}}' "$1"; }
else
  id_of() { buildah inspect --type image --format '{{.FromImageID}}' "$1"; }
fi

# A node made anew has another uid, and none of the images.
nodes=$("$cluster" exec kubectl get nodes --output 'jsonpath={.items[*].metadata.uid}')
mkdir -p "$stamps"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
changed=()
for name in "${names[@]}"; do
  reference=$registry/$name:$tag
  stamp="$nodes $(id_of "$reference")" || {
    echo "images-load: there is no image $reference; run: make images" >&2
    exit 1
  }
  known=$stamps/${reference//[\/:]/_}
  if [ -z "${FORCE:-}" ] && [ -e "$known" ] && [ "$(< "$known")" = "$stamp" ]; then
    continue
  fi
  printf '%s' "$stamp" > "$scratch/$name.stamp"
  changed+=("$name")
done
if [ ${#changed[@]} = 0 ]; then
  echo "images-load: every node has them already"
  exit 0
fi

if docker version > /dev/null 2>&1; then
  references=("${changed[@]/#/$registry/}")
  docker save --output "$scratch/images.tar" "${references[@]/%/:$tag}"
else
  for name in "${changed[@]}"; do
    reference=$registry/$name:$tag
    buildah push --quiet --compression-format zstd --compression-level 1 "$reference" "oci:$scratch/layout:$reference"
  done
  python3 docker/archive.py "$scratch/layout" "$scratch/images.tar"
fi
"$cluster" load "$scratch/images.tar"
for name in "${changed[@]}"; do
  reference=$registry/$name:$tag
  mv "$scratch/$name.stamp" "$stamps/${reference//[\/:]/_}"
  echo "loaded $reference"
done
