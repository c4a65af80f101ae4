"""The bus over mutual TLS, with a user and a password for each service."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from google.protobuf.wrappers_pb2 import StringValue
from syftmesh_core.errors import Unavailable
from syftmesh_kit.bus import Bus
from syftmesh_kit.native import NatsServer
from syftmesh_kit.process import free_ports
from syftmesh_kit.stream import StreamSpec
from syftmesh_kit.testing_authority import TestAuthority
from syftmesh_kit.tls import TlsIdentity

pytestmark = pytest.mark.integration

PASSWORD = "hunter2-of-the-bus"


class TlsNatsServer(NatsServer):
    """A nats-server as the chart makes it: certificates of clients verified, one user for each service."""

    def __init__(self, state: Path, identity: TlsIdentity, port: int) -> None:
        super().__init__(state, port=port)
        self._identity = identity

    def drop_user(self, name: str) -> None:
        """Take a user out of the configuration of the running server."""
        config = self._state / "nats.conf"
        text = config.read_text()
        head, _, rest = text.partition("authorization ")
        users, _, tail = rest.partition("\n")
        kept = [user for user in json.loads(users)["users"] if user["user"] != name]
        config.write_text(f"{head}authorization {json.dumps({'users': kept})}\n{tail}")
        os.kill(self.pid, signal.SIGHUP)

    def _config(self, port: int, monitor_port: int, password: str) -> str:
        users = [
            {"user": "sync", "password": PASSWORD},
            {
                "user": "router",
                "password": PASSWORD,
                "permissions": {"publish": ["calls.>", "_INBOX.>"], "subscribe": ["_INBOX.>"]},
            },
        ]
        identity = self._identity
        tls = {
            "cert_file": str(identity.cert_file),
            "key_file": str(identity.key_file),
            "ca_file": str(identity.ca_file),
            "verify": True,
        }
        plain = super()._config(port, monitor_port, password).rpartition("authorization")[0]
        return f"{plain}\nauthorization {json.dumps({'users': users})}\ntls {json.dumps(tls)}\n"


class World:
    def __init__(self, folder: Path) -> None:
        self.authority, self.foreign = TestAuthority(), TestAuthority("foreign")
        self.server = self.authority.issue(folder / "nats-tls", "nats")
        self.sync = self.authority.issue(folder / "sync", "sync")
        self.stranger = self.foreign.issue(folder / "stranger", "sync", trusted=self.authority.pem)
        self.misled = self.authority.issue(folder / "misled", "sync", trusted=self.foreign.pem)
        (self.port,) = free_ports(1)
        self.url = f"tls://localhost:{self.port}"

    async def connect(
        self,
        identity: TlsIdentity | None = None,
        *,
        user: str = "sync",
        password: str = PASSWORD,
        url: str = "",
    ) -> Bus:
        tls = (identity or self.sync).client_context()
        return await Bus.connect(
            url or self.url, name=user, user=user, password=password, tls=tls, connect_timeout_s=1.5
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    found = World(tmp_path)
    async with _server(tmp_path, found):
        yield found


@asynccontextmanager
async def _server(state: Path, world: World) -> AsyncIterator[TlsNatsServer]:
    server = TlsNatsServer(state / "nats", world.server, world.port)
    async with asyncio.TaskGroup() as tasks:
        await server.start(tasks)
        try:
            yield server
        finally:
            await server.stop()


async def test_streams_work_over_mutual_tls_and_through_several_addresses(world: World) -> None:
    (nobody,) = free_ports(1)
    bus = await world.connect(url=f"tls://localhost:{nobody},{world.url}")
    await bus.ensure_stream(StreamSpec("S", ("s.>",)))
    ack = await bus.publish("s.1", StringValue(value="x"), message_id="1")
    assert ack.sequence == 1
    await bus.ready()
    await bus.close()


@pytest.mark.parametrize(
    ("who", "user", "password", "reason"),
    [
        ("sync", "sync", "wrong", "BUS_REFUSED"),
        ("sync", "nobody", PASSWORD, "BUS_REFUSED"),
        ("stranger", "sync", PASSWORD, "BUS_UNTRUSTED"),
        ("misled", "sync", PASSWORD, "BUS_UNTRUSTED"),
    ],
)
async def test_why_a_connection_is_refused_is_said_once_and_without_secrets(
    world: World, who: str, user: str, password: str, reason: str
) -> None:
    with structlog.testing.capture_logs() as lines, pytest.raises(Unavailable) as caught:
        await world.connect(getattr(world, who), user=user, password=password)
    assert caught.value.reason == reason
    told = [line["reason"] for line in lines if line["event"] == "bus.waiting"]
    assert told[-1] == reason  # before it, at most, that an answer was cut off
    assert set(told) <= {reason, "BUS_UNREACHABLE"}
    assert len(told) == len(set(told))
    assert password not in str(lines) + caught.value.message


async def test_without_a_certificate_there_is_no_connection(world: World) -> None:
    anonymous = ssl.create_default_context(cadata=world.authority.pem.decode())
    with pytest.raises(Unavailable) as caught:
        await Bus.connect(
            world.url, name="sync", user="sync", password=PASSWORD, tls=anonymous, connect_timeout_s=1.5
        )
    assert caught.value.reason in {"BUS_UNTRUSTED", "BUS_UNREACHABLE"}


async def test_nobody_there_is_unreachable() -> None:
    (nobody,) = free_ports(1)
    with structlog.testing.capture_logs() as lines, pytest.raises(Unavailable) as caught:
        await Bus.connect(f"nats://127.0.0.1:{nobody}", name="sync", connect_timeout_s=1.0)
    assert caught.value.reason == "BUS_UNREACHABLE"
    assert [line["reason"] for line in lines if line["event"] == "bus.waiting"] == ["BUS_UNREACHABLE"]


async def test_a_server_that_speaks_no_tls_is_told_nothing(world: World) -> None:
    heard = bytearray()

    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576,"auth_required":true}\r\n'
        )
        while data := await reader.read(1024):
            heard.extend(data)
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(Unavailable) as caught:
        await world.connect(url=f"tls://127.0.0.1:{port}")
    server.close()
    assert caught.value.reason == "BUS_UNTRUSTED"
    assert bytes(heard) == b""


async def test_a_missing_permission_is_told_with_no_more_than_the_kind_of_subject(world: World) -> None:
    bus = await world.connect(user="router")
    with structlog.testing.capture_logs() as lines:
        await bus.notify("files.alice.secret", StringValue(value="x"))
        async with asyncio.timeout(5):
            while not any(line["event"] == "bus.permission_denied" for line in lines):
                await asyncio.sleep(0.02)
    (told,) = [line for line in lines if line["event"] == "bus.permission_denied"]
    assert (told["verb"], told["subject"], told["log_level"]) == ("publish", "files.alice", "error")
    assert bus.is_connected
    await bus.close()


async def test_a_bus_that_is_restarted_is_found_again_with_renewed_certificates(tmp_path: Path) -> None:
    world = World(tmp_path)
    context = world.sync.client_context()
    async with _server(tmp_path, world):
        bus = await Bus.connect(
            world.url, name="sync", user="sync", password=PASSWORD, tls=context, connect_timeout_s=5
        )
        generation = bus.generation
    world.authority.issue(world.server.cert_file.parent, "nats")
    world.authority.issue(world.sync.cert_file.parent, "sync")
    world.sync.load(context)
    async with _server(tmp_path, world), asyncio.timeout(15):
        while bus.generation == generation:
            await asyncio.sleep(0.02)
        await bus.ready()
        await bus.close()


async def test_a_user_that_is_removed_is_told_and_found_again(tmp_path: Path) -> None:
    world = World(tmp_path)
    async with _server(tmp_path, world) as server:
        bus = await world.connect()
        before = (tmp_path / "nats" / "nats.conf").read_text()
        with structlog.testing.capture_logs() as lines:
            server.drop_user("sync")
            async with asyncio.timeout(15):
                while "BUS_REFUSED" not in {line.get("reason") for line in lines}:
                    await asyncio.sleep(0.02)
        assert not bus.is_connected
        (tmp_path / "nats" / "nats.conf").write_text(before)
        os.kill(server.pid, signal.SIGHUP)
        async with asyncio.timeout(15):
            while not bus.is_connected:
                await asyncio.sleep(0.02)
        await bus.close()


async def test_an_error_that_the_server_holds_against_us_is_an_end_and_no_wait_without_end() -> None:
    async def pretend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.12.0","max_payload":1048576}\r\n')
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
            if line.startswith(b"SUB"):
                writer.write(b"-ERR 'Maximum Subscriptions Exceeded'\r\n")
        writer.close()

    server = await asyncio.start_server(pretend, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with structlog.testing.capture_logs() as lines:
        bus = await Bus.connect(f"nats://127.0.0.1:{port}", name="sync", connect_timeout_s=2)
        async with asyncio.timeout(5):
            await bus.lost()
    assert "bus.lost" in {line["event"] for line in lines}
    with pytest.raises(Unavailable):
        await bus.ready()
    await bus.close()
    server.close()


async def test_closing_it_oneself_is_no_loss(world: World) -> None:
    bus = await world.connect()
    lost = asyncio.create_task(bus.lost())
    with structlog.testing.capture_logs() as lines:
        await bus.close()
    await asyncio.sleep(0.1)
    assert not lost.done()
    assert "bus.lost" not in {line["event"] for line in lines}
    lost.cancel()
