"""Hub and site are taken away and installed anew on what they left: their volumes, and with them all that they knew."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from syftmesh_standalone.demo.cluster.installation import HUB, SITE, ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool
from syftmesh_standalone.demo.cluster.session import ConsoleSession, remote_client
from syftmesh_standalone.demo.step import steadily
from syftmesh_standalone.demo.story import OWNERS

sys.path.insert(0, str(Path(__file__).parent))

from mesh_pod import eventually, helm, kubectl

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
OWNER = OWNERS[0]
KINDS = (
    "all,secrets,configmaps,networkpolicies,serviceaccounts,roles,rolebindings,persistentvolumeclaims,"
    "poddisruptionbudgets,resourcequotas,limitranges"
)
OWN = {"configmap/kube-root-ca.crt", "serviceaccount/default", "secret/demo-join"}
"""What every namespace has, and what the test brought."""
FILES = {f"{OWNER}/private/note.txt": b"for me alone", f"{OWNER}/public/note.txt": b"for everybody"}


@dataclass
class Found:
    """What an owner sees: files, devices and the state of the audit."""

    files: dict[str, bytes]
    devices: set[str]
    entries: int


@pytest.fixture(scope="module")
def mesh(on_cluster: None, chart_values: dict[str, tuple[Path, ...]]) -> Iterator[Installation]:
    """A hub and one site, which nobody else uses."""
    del on_cluster
    options = ClusterOptions(f"meshtest-{secrets.token_hex(3)}", ROOT / "charts", chart_values)
    made = Installation(options, (OWNER,), Tool("kubectl"), Tool("helm"), lambda line: None)

    async def install() -> None:
        await made.install_hub()
        await made.install_site(OWNER)

    try:
        asyncio.run(install())
        yield made
    finally:
        asyncio.run(made.uninstall())


async def look(mesh: Installation, *, write: bool = False) -> Found:
    """Return what the owner sees in the site's console."""
    session = ConsoleSession(mesh.kubectl, mesh.site_of(OWNER), "site-0", OWNER)
    async with remote_client(session) as client:
        if write:
            for path, data in FILES.items():
                await steadily(lambda path=path, data=data: client.files.write(path, data), within_s=60)  # type: ignore[misc]
        files = {
            path: await steadily(lambda path=path: client.files.read(path), within_s=60)  # type: ignore[misc]
            for path in FILES
        }
        devices = await steadily(lambda: client.keys.devices(), within_s=60)
        audit = await steadily(lambda: client.site.audit.verify(), within_s=60)
        return Found(files, {device.device_id for device in devices}, audit.entries)


def left(namespace: str) -> set[str]:
    """Return the names of all objects of a namespace but those that are no part of a release."""
    return set(kubectl("get", KINDS, "-n", namespace, "-o", "name").split()) - OWN


def gone(namespace: str) -> bool:
    return not kubectl("get", "namespace", namespace, "--ignore-not-found", "-o", "name").strip()


async def test_what_an_uninstallation_leaves_is_all_that_a_new_installation_needs(mesh: Installation) -> None:
    hub, site = mesh.options.hub_namespace, mesh.site_of(OWNER)
    before = await look(mesh, write=True)
    assert before.files == FILES
    assert len(before.devices) == 3

    helm("uninstall", SITE, "-n", site, "--wait", "--timeout", "120s")
    eventually(
        lambda: left(site) == {"persistentvolumeclaim/state-site-0"}, 60, f"nothing but the volume in {site}"
    )
    kubectl("wait", "--for=delete", f"namespace/{site}-jobs", "--timeout=90s")
    assert gone(f"{site}-jobs")

    helm("uninstall", HUB, "-n", hub, "--wait", "--timeout", "120s")
    volumes = {
        f"persistentvolumeclaim/{name}"
        for name in ("data-hub-nats-0", "data-hub-store-0", "state-hub-superlink-0")
    }
    # Helm waits for workloads, not for pods that are given time to end.
    eventually(lambda: left(hub) == volumes, 60, f"nothing but volumes in {hub}")

    await _install(mesh, HUB, hub, "syftmesh", {"hub": {"host": f"{HUB}-gateway.{hub}.svc"}})
    # The authority is another one, and so are the keys that logins are signed with: a new login is what it takes.
    token = await mesh.join_token(OWNER)
    values = {
        "email": OWNER,
        "hub": {"url": f"https://{HUB}-gateway.{hub}.svc", "ca": (await mesh.hub_ca()).decode()},
        "joinToken": {"value": token},
    }
    await _install(mesh, SITE, site, "datasite", values)
    after = await look(mesh)
    assert after.files == FILES
    assert after.devices == before.devices
    assert after.entries >= before.entries


async def _install(mesh: Installation, name: str, namespace: str, chart: str, values: dict[str, Any]) -> None:
    given = [f"--values={file}" for file in mesh.options.values[chart]]
    await asyncio.to_thread(
        helm, "install", name, str(mesh.options.charts / chart), "-n", namespace, *given, "--values=-", "--wait",
        "--timeout=240s", text=json.dumps(values),
    )  # fmt: skip
