#!/usr/bin/env bash
# Make sure that bubblewrap, the sandbox of data owners' machines, is there.
set -euo pipefail
command -v bwrap > /dev/null && exit 0
if [ "$(uname -s)" != Linux ]; then
  echo "setup: no bubblewrap on $(uname -s): this machine can be a scientist's, not a data owner's" >&2
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  echo "setup: installing bubblewrap (the sandbox) from Debian's packages"
  export DEBIAN_FRONTEND=noninteractive
  install() { apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null; }
  if install 2> /dev/null || { apt-get update -qq > /dev/null && install; }; then
    exit 0
  fi
  echo "setup: bubblewrap could not be installed (see above); run: apt-get install bubblewrap" >&2
else
  echo "setup: bubblewrap is missing and this user cannot install it; run: sudo apt-get install bubblewrap" >&2
fi
echo "setup: without it no job runs on private data (everything else works)" >&2
