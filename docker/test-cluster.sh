#!/usr/bin/env bash
# The tests that need images and a real Kubernetes: images, charts, executors, whole releases. Says in one line when
# there is no cluster; takes down the one that it brought up.
set -euo pipefail
cd "$(dirname "$0")/.."

code=0
SYFTMESH_IMAGES=1 bash docker/with-cluster.sh --images \
	.venv/bin/pytest tests/images tests/chart tests/contract/test_executor_{channel,contract}.py tests/cluster "$@" || code=$?
if [ "$code" -eq 69 ]; then
	echo "no cluster: the tests of images, charts and releases were NOT run; the line above says why (it takes KUBECONFIG, or ../shared/cluster beside this folder)"
	exit 0
fi
exit "$code"
