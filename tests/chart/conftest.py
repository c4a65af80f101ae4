"""Helm and kubectl for the tests of the charts: rendering needs helm alone, the rest a cluster."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chart_render import Program

ROOT = Path(__file__).parents[2]
_LOCAL_CLUSTER = Path(os.environ.get("SYFTMESH_LOCAL_CLUSTER", ROOT.parent / "shared/cluster/cluster"))


@pytest.fixture(scope="session")
def helm() -> Program:
    """Helm: ``helm("template", ...)`` gives its output; what it renders needs no cluster."""
    candidates = (os.environ.get("HELM"), shutil.which("helm"), _local_helm())
    found = next((path for path in candidates if path and Path(path).is_file()), None)
    if found is None:
        pytest.skip("helm is neither in HELM, on the path, nor beside ../shared/cluster")
    return Program(found)


@pytest.fixture(scope="session")
def kubectl() -> Program:
    """Kubectl on the cluster of KUBECONFIG, or on the local one when that is up."""
    return Program(*_on_cluster(), "kubectl")


@pytest.fixture(scope="session")
def cluster_helm() -> Program:
    """Helm on the same cluster as `kubectl`."""
    return Program(*_on_cluster(), "helm")


@pytest.fixture
def scratch_namespace(kubectl: Program) -> Iterator[str]:
    """A namespace of one's own, with Pod Security ``restricted``; it is gone afterwards."""
    name = f"charttest-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def _local_helm() -> str | None:
    """Return the helm of the local cluster, which says where its programs are."""
    if not _LOCAL_CLUSTER.is_file():
        return None
    said = subprocess.run([_LOCAL_CLUSTER, "env"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PATH=([^:]+):", said)
    return f"{found[1]}/helm" if found else None


def _on_cluster() -> tuple[str, ...]:
    if os.environ.get("KUBECONFIG"):
        return ()
    is_up = (
        _LOCAL_CLUSTER.is_file()
        and not subprocess.run(
            [str(_LOCAL_CLUSTER), "exec", "true"], capture_output=True, check=False
        ).returncode
    )
    if not is_up:
        pytest.skip("no cluster: neither KUBECONFIG is set nor is the local cluster up")
    return (str(_LOCAL_CLUSTER), "exec")
