#!/usr/bin/env bash
# Build the images named (all without names) as IMAGE_REGISTRY/NAME:IMAGE_TAG, by docker when its daemon answers, else
# by buildah; print their sizes. The second time without changes takes seconds: every step is cached.
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${IMAGE_REGISTRY:-syftmesh} tag=${IMAGE_TAG:-dev} out=build/images
services=(identity sync permissions crypto router gateway superlink agent runner tools)
names=("$@")
[ ${#names[@]} -gt 0 ] && [ "${names[*]}" != all ] || names=("${services[@]}" job proxy)
mkdir -p "$out"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if docker version > /dev/null 2>&1; then
  builder=docker
elif command -v buildah > /dev/null; then
  builder=buildah
else
  echo "images: neither a docker daemon nor buildah is here; install one of them" >&2
  exit 1
fi

# The stand-in of the public base image, on a machine whose cluster brings one and which no registry reaches.
base=python:3.11-slim-bookworm cluster=${CLUSTER:-../shared/cluster/cluster}
if [ "$builder" = buildah ] && [ -x "$cluster" ] && ! buildah inspect --type image "docker.io/library/$base" > /dev/null 2>&1; then
  printf 'FROM %s\n' "$base" > "$scratch/Dockerfile"
  "$cluster" image "$scratch/Dockerfile" "$registry/base:$tag" "$scratch" > /dev/null
fi

# Where packages come from is the environment's business: it reaches the build as secrets, which no layer keeps.
(
  umask 077
  {
    [ -z "${PIP_INDEX_URL:-}" ] || printf 'export PIP_INDEX_URL=%q UV_DEFAULT_INDEX=%q\n' "$PIP_INDEX_URL" "$PIP_INDEX_URL"
    [ -z "${PIP_EXTRA_INDEX_URL:-}" ] \
      || printf 'export PIP_EXTRA_INDEX_URL=%q UV_INDEX=%q\n' "$PIP_EXTRA_INDEX_URL" "$PIP_EXTRA_INDEX_URL"
  } > "$scratch/index"
  cat "${SSL_CERT_FILE:-/dev/null}" > "$scratch/authorities"
)

# A copy of what git knows, so that an edit while it builds cannot mix two states, nor caches of Python enter.
context=$scratch/context
mkdir "$context"
git ls-files -z --cached --others --exclude-standard -- requirements docker protos/pyproject.toml protos/gen libs services \
  | while IFS= read -r -d '' file; do [ ! -e "$file" ] || printf '%s\0' "$file"; done \
  | tar --null --create --files-from - | tar --extract --directory "$context"
revision=$(git log -1 --format=%H -- requirements docker protos libs services)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' libs/core/pyproject.toml)

build() { # NAME
  local name=$1 file=docker/service.Dockerfile command
  case "$name" in job | proxy) file=docker/$name.Dockerfile ;; esac
  local arguments=(
    --build-arg "SERVICE=$name" --build-arg "VERSION=$version" --build-arg "REVISION=$revision"
    --build-arg "SOURCE=${IMAGE_SOURCE:-}" --secret "id=index,src=$scratch/index"
    --secret "id=authorities,src=$scratch/authorities" --tag "$registry/$name:$tag" --file "$context/$file" "$context"
  )
  if [ "$builder" = docker ]; then
    command=(env DOCKER_BUILDKIT=1 docker build --quiet)
  else
    command=(
      buildah bud --isolation chroot --network host --layers --format docker
      --pull-never --ignorefile "$context/$file.dockerignore" --iidfile "$scratch/$name.id"
    )
  fi
  local log=$out/$name.log
  if ! "${command[@]}" "${arguments[@]}" > "$log" 2>&1; then
    tail -n 40 "$log" >&2
    echo "images: $name was not built; the whole log is $log" >&2
    return 1
  fi
}

printf '%-14s %10s %9s  %s\n' image size seconds id
for name in "${names[@]}"; do
  started=$SECONDS
  build "$name"
  if [ "$builder" = docker ]; then
    read -r bytes id < <(docker image inspect --format '{{.Size}} {{.Id}}' "$registry/$name:$tag")
  else
    id=$(buildah inspect --type image --format '{{.FromImageID}}' "$registry/$name:$tag")
    bytes=$(buildah images --json "$registry/$name:$tag" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["size"])')
  fi
  printf '%-14s %10s %9s  %s\n' "$name" "$bytes" "$((SECONDS - started))" "${id#sha256:}"
done
