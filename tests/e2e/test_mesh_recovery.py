"""Parts of a running mesh are killed, one after the other: each comes back where it was, and the mesh works again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mesh.identity.v1 import identity_service_pb2
from syftmesh_client.node import Node, open_node
from syftmesh_client.profile import ProfileStore, node_login
from syftmesh_core.errors import MeshError

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

ALICE = "alice@hospital.example"
STORES = ("nats-server", "seaweedfs")
WITHIN_S = 20.0


@contextmanager
def running(state: Path, *arguments: str) -> Iterator[None]:
    command = [sys.executable, "-m", "syftmesh_standalone", "--state", str(state)]
    command += ["--http-port", "0", "--grpc-port", "0", "--sites", ALICE, *arguments]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    log = state.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=kept, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 60
        while not (state / "hub/mesh.json").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield
        assert process.poll() is None, log.read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def info(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "hub/mesh.json").read_bytes())
    return found


async def works_again(node: Node, number: int, since: float) -> float:
    """Ask who we are and write a file until both succeed; return the seconds since `since`."""
    while True:
        try:
            await node.session.identity.WhoAmI(identity_service_pb2.WhoAmIRequest(), timeout=5)
            await node.files.write(f"{ALICE}/public/{number}.txt", str(number).encode())
            return time.monotonic() - since
        except MeshError:
            if time.monotonic() - since > WITHIN_S:
                raise
            await asyncio.sleep(0.1)


async def all_is_well(state: Path, since: float) -> None:
    command = [Path(sys.executable).parent / "syftmesh", "status", "--state", state]
    while True:
        status = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
        if status.returncode == 0:
            return
        assert time.monotonic() - since < WITHIN_S, status.stdout + status.stderr
        await asyncio.sleep(0.2)


async def kill_each(state: Path, names: Sequence[str]) -> None:
    profile = ProfileStore(state).choose(ALICE)
    login = node_login(state, profile.server)
    async with open_node(profile.folder, profile.server, login=login) as node:
        for number, name in enumerate(names):
            before = info(state)
            pid = before["children"][name]
            os.kill(pid, signal.SIGKILL)
            since = time.monotonic()
            while info(state)["children"][name] in (0, pid):
                assert time.monotonic() - since < WITHIN_S, name
                await asyncio.sleep(0.05)
            took = await works_again(node, number, since)
            sys.stdout.write(f"{name} is back after {took:.2f} s\n")
            after = info(state)
            assert (after["server"], after["grpc"], after["pid"]) == (
                before["server"],
                before["grpc"],
                before["pid"],
            )
            others = {key: value for key, value in before["children"].items() if key != name}
            assert {key: value for key, value in after["children"].items() if key != name} == others
        for number in range(len(names)):
            content = await node.files.read(f"{ALICE}/public/{number}.txt")
            assert content.data == str(number).encode()
    await all_is_well(state, time.monotonic())


async def test_bus_and_object_store_come_back_on_their_ports(tmp_path: Path) -> None:
    with running(tmp_path / "state"):
        await kill_each(tmp_path / "state", STORES)


async def test_every_service_of_its_own_comes_back(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running(state, "--processes"):
        names = [name for name in info(state)["children"] if name not in STORES]
        assert {"identity", "sync", "permissions", "crypto", "router", "superlink", "gateway"} < set(names)
        assert {f"agent {ALICE}", f"runner {ALICE}"} < set(names)
        await kill_each(state, names)
