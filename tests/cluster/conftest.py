"""A hub and two sites, installed by helm on the cluster of KUBECONFIG for all tests that use them, and taken away."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from syftmesh_standalone.demo.cluster.installation import ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool
from syftmesh_standalone.demo.story import OWNERS

ROOT = Path(__file__).parents[2]
Values = dict[str, tuple[Path, ...]]


@pytest.fixture(scope="session")
def chart_values(tmp_path_factory: pytest.TempPathFactory) -> Values:
    """Files of values by chart: small nodes, and the images of IMAGE_REGISTRY and IMAGE_TAG."""
    image = tmp_path_factory.mktemp("values") / "image.yaml"
    registry, tag = os.environ.get("IMAGE_REGISTRY", "syftmesh"), os.environ.get("IMAGE_TAG", "dev")
    image.write_text(json.dumps({"image": {"registry": registry, "tag": tag}}))
    return {
        "syftmesh": (ROOT / "charts/syftmesh/values-dev.yaml", ROOT / "tests/chart/values-test.yaml", image),
        "datasite": (
            ROOT / "charts/datasite/values-dev.yaml",
            ROOT / "tests/cluster/values-site.yaml",
            image,
        ),
    }


@pytest.fixture(scope="session")
def on_cluster() -> None:
    """Skip where there is no cluster: kubectl and helm on the path, and KUBECONFIG."""
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: KUBECONFIG is not set; bash docker/test-cluster.sh brings one")
    if missing := [name for name in ("kubectl", "helm") if shutil.which(name) is None]:
        pytest.skip(f"no cluster: {' and '.join(missing)} are not on the path")


@pytest.fixture(scope="session")
def installed_mesh(on_cluster: None, chart_values: Values) -> Iterator[Installation]:
    """A hub and a site for each owner of the demo, all ready.

    SYFTMESH_INSTALLED names the prefix of one that is there already, which is used and left.
    """
    del on_cluster
    there = os.environ.get("SYFTMESH_INSTALLED")
    prefix = there or f"meshtest-{secrets.token_hex(3)}"
    options = ClusterOptions(prefix=prefix, charts=ROOT / "charts", values=chart_values)
    made = Installation(options, OWNERS, Tool("kubectl"), Tool("helm"), lambda line: None)
    if there:
        yield made
        return

    async def install() -> None:
        await made.install_hub()
        await asyncio.gather(*(made.install_site(owner) for owner in OWNERS))

    try:
        asyncio.run(install())
        yield made
    finally:
        asyncio.run(made.uninstall())
