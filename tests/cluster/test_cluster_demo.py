"""The demo on a real cluster, from outside: the whole story, Ctrl-C on the way, and owners whose site is restarted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.errors import MeshError
from syftmesh_standalone.demo.cluster.installation import Installation
from syftmesh_standalone.demo.cluster.session import ConsoleSession, remote_client
from syftmesh_standalone.demo.step import steadily
from syftmesh_standalone.demo.story import OWNERS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
Values = dict[str, tuple[Path, ...]]


def command(values: Values, *arguments: str) -> list[str]:
    named = [f"--values={chart}={file}" for chart, files in values.items() for file in files]
    return [sys.executable, "-m", "syftmesh.cli", "demo", "--cluster", *named, *arguments]


def environment(folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "KUBECONFIG") if name in os.environ}
    return {**kept, "TMPDIR": str(folder)}


def namespaces(prefix: str) -> list[str]:
    found = subprocess.run(
        ["kubectl", "get", "namespaces", "-o", "name"], check=True, capture_output=True, text=True
    ).stdout.split()
    return [name for name in found if name.startswith(f"namespace/{prefix}-")]


def volumes(prefix: str) -> list[str]:
    found = json.loads(
        subprocess.run(["kubectl", "get", "pv", "-o", "json"], check=True, capture_output=True).stdout
    )
    claims = [item["spec"].get("claimRef", {}).get("namespace", "") for item in found["items"]]
    return [name for name in claims if name.startswith(f"{prefix}-")]


@pytest.mark.usefixtures("on_cluster")
def test_the_whole_story_holds_on_a_cluster_and_leaves_nothing_there(
    tmp_path: Path, chart_values: Values
) -> None:
    done = subprocess.run(
        command(chart_values, "--json", "--prefix=demowhole"),
        cwd=ROOT,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert [step["number"] for step in found["steps"]] == list(range(1, 16))
    assert sum(row["n"] for row in found["results"]["pooled"]) == 569
    canary = found["canary"]
    assert (canary["findings"], canary["unreadable"]) == (0, 0)
    parts = ("objects", "nats", "s3", "superlink", "logs", "manifests")
    assert all(canary["places"][part] > 0 for part in parts), canary["places"]
    assert set(canary["controls"]) == {"public copy", "unsealed call", "unsealed update"}
    assert all(canary["controls"].values())
    assert (found["federated"]["state"], found["federated"]["rounds"]) == ("succeeded", 3)
    checks = "\n".join(check for step in found["steps"] for check in step["checks"])
    for target in ("hub", "message bus", "object store", "API server"):
        assert f"network {target}: " in checks
    assert "job/" in done.stderr  # what the API server tells of the runs
    assert namespaces("demowhole") == []
    _gone(lambda: volumes("demowhole"))
    assert list(tmp_path.glob("syftmesh-demo-*")) == []


@pytest.mark.usefixtures("on_cluster")
def test_ctrl_c_takes_everything_away(tmp_path: Path, chart_values: Values) -> None:
    process = subprocess.Popen(
        command(chart_values, "--json", "--prefix=demoend"),
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "helm install" in line:
            break
    deadline = time.monotonic() + 30
    while not namespaces("demoend"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=240)
    assert (process.returncode, out) == (130, ""), said[-2000:]
    assert namespaces("demoend") == []


async def test_an_owner_goes_on_when_the_sites_pod_is_replaced(installed_mesh: Installation) -> None:
    owner = OWNERS[0]
    namespace = installed_mesh.site_of(owner)
    session = ConsoleSession(installed_mesh.kubectl, namespace, "site-0", owner)
    async with remote_client(session) as client:
        before = await client.keys.show()
        state = await client.site.audit.verify()
        await installed_mesh.kubectl.run("delete", "pod", "site-0", "-n", namespace, timeout_s=120)
        await installed_mesh.kubectl.run(
            *("wait", "-n", namespace, "--for=condition=Ready", "pod/site-0", "--timeout=120s"), timeout_s=130
        )
        assert await steadily(lambda: client.keys.show(), within_s=60) == before
        after = await steadily(lambda: client.site.audit.verify(), within_s=60)
        assert after.entries >= state.entries
        status = await steadily(lambda: _connected(client), within_s=60)
        assert status.connected


async def test_an_owner_of_another_site_is_nobody_in_this_console(installed_mesh: Installation) -> None:
    namespace = installed_mesh.site_of(OWNERS[0])
    stranger = ConsoleSession(installed_mesh.kubectl, namespace, "site-0", OWNERS[1])
    with pytest.raises(MeshError) as refused:
        await stranger.ask("client", "keys.show")
    assert refused.value.reason == "PROFILE_UNKNOWN"
    await stranger.close()


async def _connected(client: Any) -> Any:
    status = await client.site.status()
    if not status.connected:
        raise MeshError("not connected yet", reason="SITE_NOT_RUNNING")
    return status


def _gone(left: Any, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    found: Sequence[str] = left()
    while found:
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
        found = left()
