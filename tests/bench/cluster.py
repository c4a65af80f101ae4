"""The hub and a site on a cluster: how fast they are installed, what they ask for and use, how fast a pod is replaced.

Needs KUBECONFIG, kubectl and helm, and nodes that have the images.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from bench.cluster_footprint import Footprint, footprints
from bench.cluster_recovery import recoveries
from bench.measure import Row, alone
from bench.startup import demo_rows, run_demo
from syftmesh_core.errors import NotFound
from syftmesh_standalone.demo.cluster.installation import ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool

ROOT: Final = Path(__file__).parents[2]
OWNER: Final = "olga@bench.example"
RUNS: Final = 3
DEMO_RUNS: Final = 1
DEMO_TIMEOUT_S: Final = 900.0
HUB_S, SITE_S = 60.0, 30.0
HUB_CPU, HUB_MIB, SITE_CPU, SITE_MIB = 1.0, 1536.0, 0.5, 512.0
IDLE_S: Final = 30.0
"""Until what start-up took of memory is given back, and kubelet has looked again."""
VALUES: Final = {
    "syftmesh": (ROOT / "charts/syftmesh/values-dev.yaml", ROOT / "tests/chart/values-test.yaml"),
    "datasite": (ROOT / "charts/datasite/values-dev.yaml", ROOT / "tests/cluster/values-site.yaml"),
}


class TimedTool(Tool):
    """A program of the cluster whose commands are timed.

    Attributes:
        took: First argument and seconds of each command.
    """

    def __init__(self, *command: str) -> None:
        super().__init__(*command)
        self.took: list[tuple[str, float]] = []

    async def run(self, *arguments: str, stdin: bytes | None = None, timeout_s: float = 60.0) -> bytes:
        """Run it; see `Tool.run`."""
        started = time.monotonic()
        try:
            return await super().run(*arguments, stdin=stdin, timeout_s=timeout_s)
        finally:
            self.took.append((arguments[0], time.monotonic() - started))

    def last(self, verb: str) -> float:
        """Return the seconds of the latest command with this first argument."""
        return next(seconds for word, seconds in reversed(self.took) if word == verb)


async def cluster(_folder: Path, _count: int) -> list[Row]:
    """Install hub and site some times; look at the first of them when idle, and at the end of each of its pods."""
    hub_s, site_s = [], []
    found: list[Row] = []
    for number in range(RUNS):
        helm = TimedTool("helm")
        async with _installation(helm) as made:
            await made.install_hub()
            hub_s.append(helm.last("install"))
            await made.install_site(OWNER)
            site_s.append(helm.last("install"))
            sys.stderr.write(f"  installed: hub {hub_s[-1]:.1f} s, site {site_s[-1]:.1f} s\n")
            if number == 0:
                await asyncio.sleep(IDLE_S)
                found += await _footprints(made)
                found += await recoveries(made, OWNER, RUNS)
    return [
        alone("helm install --wait of the hub, images present", "s", hub_s, HUB_S),
        alone("helm install --wait of a site, images present", "s", site_s, SITE_S),
        *found,
    ]


async def demo(folder: Path, _count: int) -> list[Row]:
    """Run the demo on the cluster, with the images that its nodes have; its own steps are shown."""
    needs_cluster()
    named = [f"--values={chart}={file}" for chart, files in VALUES.items() for file in files]
    where = ("--cluster", f"--prefix=bench-{secrets.token_hex(3)}", f"--charts={ROOT / 'charts'}")
    runs = [
        await run_demo(folder / "demo.log", *where, *named, timeout_s=DEMO_TIMEOUT_S)
        for _ in range(DEMO_RUNS)
    ]
    return demo_rows("demo on a cluster", runs, None)


def needs_cluster() -> None:
    """Raise NotFound (CLUSTER_MISSING) where there is no cluster to measure on."""
    missing = [name for name in ("kubectl", "helm") if shutil.which(name) is None]
    if not os.environ.get("KUBECONFIG"):
        missing.append("KUBECONFIG")
    if missing:
        raise NotFound(
            f"no cluster: {', '.join(missing)} missing; run it by docker/with-cluster.sh",
            reason="CLUSTER_MISSING",
        )


@asynccontextmanager
async def _installation(helm: Tool) -> AsyncIterator[Installation]:
    needs_cluster()
    options = ClusterOptions(prefix=f"bench-{secrets.token_hex(3)}", charts=ROOT / "charts", values=VALUES)
    made = Installation(options, (OWNER,), Tool("kubectl"), helm, lambda line: None)
    try:
        yield made
    finally:
        await asyncio.shield(made.uninstall())


async def _footprints(made: Installation) -> list[Row]:
    hub = await footprints(made.kubectl, made.options.hub_namespace)
    site = await footprints(made.kubectl, made.site_of(OWNER))
    return [
        *_asked("hub", hub, HUB_CPU, HUB_MIB),
        *_asked("site", site, SITE_CPU, SITE_MIB),
        *_used("hub", hub),
        *_used("site", site),
    ]


def _asked(name: str, found: Sequence[Footprint], cpu: float, mib: float) -> list[Row]:
    return [
        alone(f"{name}, dev preset: CPU asked for", "CPU", [sum(pod.cpu for pod in found)], cpu),
        alone(f"{name}, dev preset: memory asked for", "MiB", [sum(pod.mib for pod in found)], mib),
    ]


def _used(name: str, found: Sequence[Footprint]) -> list[Row]:
    every = [container for pod in found for container in pod.containers]
    cpu = sum(container.used_cpu for container in every)
    mib = sum(container.used_mib for container in every)
    return [
        alone(f"{name}, idle: CPU used", "CPU", [cpu], None),
        alone(f"{name}, idle: memory used", "MiB", [mib], sum(pod.mib for pod in found)),
        *(
            alone(
                f"{name}, idle: memory of {one.name}, which asks for {one.mib:.0f}",
                "MiB",
                [one.used_mib],
                None,
            )
            for one in every
        ),
    ]
