"""A hub and two sites, installed by helm on the cluster of KUBECONFIG for all tests that use them, and taken away."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from syftmesh_standalone.demo.cluster.installation import ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool
from syftmesh_standalone.demo.story import OWNERS

ROOT = Path(__file__).parents[2]
VALUES = {
    "syftmesh": (ROOT / "charts/syftmesh/values-dev.yaml", ROOT / "tests/chart/values-test.yaml"),
    "datasite": (ROOT / "charts/datasite/values-dev.yaml", ROOT / "tests/cluster/values-site.yaml"),
}


@pytest.fixture(scope="session")
def on_cluster() -> None:
    """Skip where there is no cluster: kubectl and helm on the path, and KUBECONFIG."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: KUBECONFIG is not set; bash docker/test-cluster.sh brings one")
    if missing := [name for name in ("kubectl", "helm") if shutil.which(name) is None]:
        pytest.skip(f"no cluster: {' and '.join(missing)} are not on the path")


@pytest.fixture(scope="session")
def installed_mesh(on_cluster: None) -> Iterator[Installation]:
    """A hub and a site for each owner of the demo, all ready."""
    del on_cluster
    options = ClusterOptions(prefix="demotest", charts=ROOT / "charts", values=VALUES)
    made = Installation(options, OWNERS, Tool("kubectl"), Tool("helm"), lambda line: None)

    async def install() -> None:
        await made.install_hub()
        await asyncio.gather(*(made.install_site(owner) for owner in OWNERS))

    try:
        asyncio.run(install())
        yield made
    finally:
        asyncio.run(made.uninstall())
