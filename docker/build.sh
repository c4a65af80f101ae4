#!/usr/bin/env bash
# Build the images named (all without names) as IMAGE_REGISTRY/NAME:IMAGE_TAG, by docker when its daemon answers, else
# by buildah; print their sizes. The second time without changes takes seconds: every step is cached.
#
# Beside them: build/sbom/NAME.cdx.json, what each is made of; build/images/NAME.log, what the builder said.
set -euo pipefail
cd "$(dirname "$0")/.."
registry=${IMAGE_REGISTRY:-syftmesh} tag=${IMAGE_TAG:-dev} out=build/images
services=(identity sync permissions crypto router gateway superlink agent runner tools)
names=("$@")
[ ${#names[@]} -gt 0 ] && [ "${names[*]}" != all ] || names=("${services[@]}" job proxy)
mkdir -p "$out"
exec 9> "$out/.lock"
flock 9 # two builds at once would do the same work twice
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
base=python:3.11-slim-bookworm cluster=${SYFTMESH_LOCAL_CLUSTER:-../shared/cluster/cluster}
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
version=$(sed -n 's/^version = "\(.*\)"/\1/p' libs/core/pyproject.toml)

declare -A needs=()
for name in "${names[@]}"; do
  case "$name" in job | proxy) ;; *) needs[$name]=$("${PYTHON:-python3}" docker/member.py --needs "$name") ;; esac
done

inputs() { # NAME: the paths that its image is made of
  case "$1" in
    proxy) echo docker/proxy.Dockerfile docker/proxy.conf docker/rootfs.py ;;
    job)
      echo docker/job.Dockerfile docker/rootfs.py docker/package.sh requirements/{bootstrap,build,job}.lock
      echo libs/executor/src/syftmesh_executor/pod
      ;;
    *)
      echo docker/{service.Dockerfile,rootfs.py,package.sh,member.py,service.py,health.py}
      echo requirements/{bootstrap,build,"$1"}.lock "${needs[$1]}"
      ;;
  esac
}

state_of() { # NAME: a digest of everything that decides what its image is
  local paths
  read -r -d '' -a paths < <(inputs "$1") || true
  {
    echo "$builder $base $version ${IMAGE_SOURCE:-} $(revision_of "$1")"
    (cd "$context" && find "${paths[@]}" -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)
  } | sha256sum | cut -d ' ' -f 1
}

revision_of() { # NAME: the last commit that changed what its image is made of
  local paths
  read -r -d '' -a paths < <(inputs "$1") || true
  git log -1 --format=%H -- "${paths[@]}"
}

id_of() { # NAME: the id of its image, nothing when there is none
  if [ "$builder" = docker ]; then
    docker image inspect --format '{{.Id}}' "$registry/$1:$tag" 2> /dev/null || true
  else
    buildah inspect --type image --format '{{.FromImageID}}' "$registry/$1:$tag" 2> /dev/null || true
  fi
}

size_of() { # NAME: what its files take, in MB
  if [ "$builder" = docker ]; then
    docker image inspect --format '{{.Size}}' "$registry/$1:$tag" | awk '{printf "%.0f MB", $1 / 1e6}'
  else
    buildah images --json "$registry/$1:$tag" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["size"])'
  fi
}

build() { # NAME
  local name=$1 file=docker/service.Dockerfile command
  case "$name" in job | proxy) file=docker/$name.Dockerfile ;; esac
  local arguments=(
    --build-arg "SERVICE=$name" --build-arg "VERSION=$version" --build-arg "REVISION=$(revision_of "$name")"
    --build-arg "SOURCE=${IMAGE_SOURCE:-}" --secret "id=index,src=$scratch/index"
    --secret "id=authorities,src=$scratch/authorities" --tag "$registry/$name:$tag" --file "$context/$file" "$context"
  )
  if [ "$builder" = docker ]; then
    command=(env DOCKER_BUILDKIT=1 docker build --quiet)
  else
    command=(
      buildah bud --isolation chroot --network host --layers --format docker
      --pull-never --timestamp 315532800 --ignorefile "$context/$file.dockerignore" --iidfile "$scratch/$name.id"
    )
  fi
  local log=$out/$name.log attempt
  for attempt in 1 2 3; do
    if "${command[@]}" "${arguments[@]}" > "$log" 2>&1; then return 0; fi
    # Somebody else took a layer out of buildah's store while it was compared with: look again.
    grep -q 'layer not known' "$log" || break
  done
  tail -n 40 "$log" >&2
  echo "images: $name was not built; the whole log is $log" >&2
  return 1
}

bill() { # NAME: write the bill of materials of its image
  local container root=$scratch/root file=build/sbom/$1.cdx.json
  if [ "$builder" = docker ]; then
    mkdir -p "$root"
    container=$(docker create "$registry/$1:$tag")
    docker export "$container" | tar -x -C "$root" --wildcards 'var/lib/dpkg/status.d' 'opt/venv/lib/*.dist-info/*' 2> /dev/null || true
    python3 docker/sbom.py "$root" "$registry/$1" "$version" > "$file"
    docker rm "$container" > /dev/null
    rm -rf "$root"
  else
    container=$(buildah from --pull-never "$registry/$1:$tag")
    python3 docker/sbom.py "$(buildah mount "$container")" "$registry/$1" "$version" > "$file"
    buildah rm "$container" > /dev/null
  fi
}

main() {
  local name started stamp state id
  mkdir -p build/sbom
  printf '%-14s %10s %9s  %s\n' image size seconds id
  for name in "${names[@]}"; do
    started=$SECONDS stamp=$out/${registry//\//_}_${name}_$tag.stamp state=$(state_of "$name")
    if [ ! -e "$stamp" ] || [ "$(< "$stamp")" != "$state $(id_of "$name")" ]; then
      build "$name"
      bill "$name"
      printf '%s %s\n' "$state" "$(id_of "$name")" > "$stamp"
    fi
    id=$(id_of "$name")
    printf '%-14s %10s %9s  %s\n' "$name" "$(size_of "$name")" "$((SECONDS - started))" "${id#sha256:}"
  done
  exit # what follows in a file that was edited meanwhile is not run
}

main
