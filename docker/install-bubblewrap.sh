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
  apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null 2>&1 || {
    apt-get update -qq > /dev/null
    apt-get install -qq -y --no-install-recommends bubblewrap > /dev/null
  }
  exit 0
fi
echo "setup: bubblewrap is missing and this user cannot install it; run: sudo apt-get install bubblewrap" >&2
echo "setup: without it no job runs on private data (everything else works)" >&2
