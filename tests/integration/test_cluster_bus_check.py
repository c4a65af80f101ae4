"""The check of the bus accepts a bus with TLS, users and durable writes, and names what another one lacks."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cluster_bus import Server, bus_cluster, bus_server

pytestmark = pytest.mark.integration


def program(server: Server, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    leaf = server.secrets / "m-tls-tools"
    own = {
        "SYFTMESH_NATS_URL": server.url,
        "SYFTMESH_NATS_USER": "tools",
        "SYFTMESH_NATS_PASSWORD": server.password("tools"),
        "SYFTMESH_NATS_MONITOR_URL": server.monitor,
        "SYFTMESH_TLS_CERT_FILE": str(leaf / "tls.crt"),
        "SYFTMESH_TLS_KEY_FILE": str(leaf / "tls.key"),
        "SYFTMESH_TLS_CA_FILE": str(leaf / "ca.crt"),
        "SYFTMESH_WAIT_S": "0",
    }
    command = [sys.executable, "-m", "syftmesh_cluster.bus_check"]
    return subprocess.run(command, env={**kept, **own, **more}, capture_output=True, text=True, check=False)


async def check(server: Server, **more: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(program, server, **more)


async def test_a_bus_as_the_chart_makes_it_is_accepted(tmp_path):
    async with bus_server(tmp_path, tls=True) as server:
        done = await check(server)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == [
            f"ok    durable {server.monitor}: every write is on disk before it is acknowledged",
            "ok    encrypted: mutual TLS",
            "ok    login: as tools, JetStream holds 0 streams",
            "The message bus conforms.",
        ]
        assert server.violations() == []
        unasked = await check(server, SYFTMESH_NATS_MONITOR_URL="")
        assert unasked.returncode == 0
        assert "note  durable: not asked" in unasked.stdout


async def test_a_wrong_password_or_too_few_servers_are_named(tmp_path):
    async with bus_server(tmp_path, tls=True) as server:
        done = await check(server, SYFTMESH_NATS_PASSWORD="wrong-password")
        assert done.returncode == 1
        assert "fail  login: BUS_REFUSED: " in done.stdout
        assert done.stderr.startswith(
            "BUS_NOT_CONFORMANT: The message bus is not as SyftMesh needs it: login."
        )
        assert "wrong-password" not in done.stdout + done.stderr
        done = await check(server, SYFTMESH_NATS_REPLICAS="3")
        assert done.returncode == 1
        assert "fail  servers: BUS_INCOMPLETE: 1 of 3 servers take part" in done.stdout


async def test_a_bus_without_tls_or_durable_writes_is_refused(tmp_path):
    async with bus_server(tmp_path, sync="2m") as server:
        done = await check(server)
        assert done.returncode == 1
        failed = [line.split(": ")[1] for line in done.stdout.splitlines() if line.startswith("fail")]
        assert failed == ["STORE_NOT_DURABLE", "BUS_NOT_ENCRYPTED"]


async def test_a_bus_that_is_away_is_waited_for_only_so_long(tmp_path):
    async with bus_server(tmp_path, tls=True) as server:
        pass
    done = await check(server, SYFTMESH_WAIT_S="2")
    assert done.returncode == 1
    assert "fail  login: BUS_UNREACHABLE" in done.stdout


async def test_a_wrong_setting_is_named(tmp_path):
    server = Server("nats://127.0.0.1:9", "http://127.0.0.1:9", tmp_path, tmp_path / "log")
    (tmp_path / "m-nats-tools").mkdir()
    (tmp_path / "m-nats-tools/password").write_text("x")
    done = await check(server, SYFTMESH_NATS_REPLICAS="many")
    assert done.returncode == 2
    assert "SYFTMESH_NATS_REPLICAS" in done.stderr


async def test_servers_of_a_cluster_are_counted(tmp_path):
    async with bus_cluster(tmp_path, 3) as (servers, children):
        more = {
            "SYFTMESH_NATS_REPLICAS": "3",
            "SYFTMESH_NATS_MONITOR_URL": ",".join(server.monitor for server in servers),
            "SYFTMESH_NATS_URL": ",".join(server.url for server in servers),
        }
        done = await check(servers[0], SYFTMESH_WAIT_S="30", **more)
        lines = done.stdout.splitlines()
        assert sum(line.startswith("ok    durable http://") for line in lines) == 3
        assert any(line.startswith("ok    servers: 3 take part, n") for line in lines), done.stdout
        await children[2].stop()
        more["SYFTMESH_NATS_MONITOR_URL"] = servers[0].monitor
        async with asyncio.timeout(60):
            while "fail  servers: BUS_INCOMPLETE: 2 of 3 servers" not in done.stdout:
                done = await check(servers[0], **more)
