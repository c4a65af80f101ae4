"""Services as processes of their own with mutual TLS, as in a cluster's pods: start, peers, admin socket."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mesh.crypto.v1 import crypto_service_pb2 as crypto_rpc
from mesh.crypto.v1 import crypto_service_pb2_grpc as crypto_api
from mesh.identity.v1 import identity_pb2 as pb
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as api
from syftmesh_core.errors import MeshError, NotFound, PermissionDenied, Unauthenticated, Unavailable
from syftmesh_kit.channel import open_channel
from syftmesh_kit.native import NatsServer
from syftmesh_kit.process import free_ports
from syftmesh_kit.testing_authority import TestAuthority
from syftmesh_kit.tls import TlsIdentity

pytestmark = pytest.mark.integration

ALICE = "alice@x.example"
PASSWORD = "hunter2-of-the-bus"
STATUS = health_pb2.HealthCheckResponse


class TlsNatsServer(NatsServer):
    """A nats-server that verifies certificates of clients."""

    def __init__(self, state: Path, identity: TlsIdentity, port: int) -> None:
        super().__init__(state, port=port)
        self._identity = identity

    def _config(self, port: int, monitor_port: int, _password: str) -> str:
        identity = self._identity
        names = {"cert_file": identity.cert_file, "key_file": identity.key_file, "ca_file": identity.ca_file}
        tls: dict[str, Any] = {name: str(path) for name, path in names.items()}
        plain = super()._config(port, monitor_port, PASSWORD)
        return f"{plain}\ntls {json.dumps({**tls, 'verify': True})}\n"


@dataclass
class Hub:
    """Ports, certificates and processes of one test."""

    folder: Path
    authority: TestAuthority = field(default_factory=TestAuthority)

    def __post_init__(self) -> None:
        self.nats_port, *self._ports = free_ports(20)
        self.gateway = self.certificate("gateway")

    def certificate(self, name: str) -> TlsIdentity:
        return self.authority.issue(self.folder / "tls" / name, name)

    def port(self) -> int:
        return self._ports.pop()

    @asynccontextmanager
    async def nats(self) -> AsyncIterator[None]:
        server = TlsNatsServer(self.folder / "nats", self.certificate("nats"), self.nats_port)
        async with asyncio.TaskGroup() as tasks:
            await server.start(tasks)
            try:
                yield
            finally:
                await server.stop()

    def settings(self, service: str, **more: str) -> dict[str, str]:
        identity = self.certificate(service)
        values = {
            "tls_cert_file": str(identity.cert_file),
            "tls_key_file": str(identity.key_file),
            "tls_ca_file": str(identity.ca_file),
            "tls_peers": "gateway",
            "nats_url": f"tls://localhost:{self.nats_port}",
            "nats_user": "syftmesh",
            "nats_password": PASSWORD,
            "log_json": "true",
            **more,
        }
        return {f"SYFTMESH_{service.upper()}_{name.upper()}": value for name, value in values.items()}


@dataclass
class Service:
    """One running process."""

    child: asyncio.subprocess.Process
    grpc: str
    health: str
    log: Path

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in found if line["event"] == name]

    async def until(self, name: str, status: int) -> None:
        """Wait until the health port says `status` of `name`."""
        async with asyncio.timeout(60), grpc.aio.insecure_channel(self.health) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while True:
                try:
                    answer = await stub.Check(
                        health_pb2.HealthCheckRequest(service=name), timeout=2, wait_for_ready=True
                    )
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == status:
                    return
                await asyncio.sleep(0.05)

    async def until_logged(self, name: str) -> None:
        async with asyncio.timeout(60):
            while not self.events(name):
                await asyncio.sleep(0.05)


@asynccontextmanager
async def process(hub: Hub, service: str, **settings: str) -> AsyncIterator[Service]:
    listen, health = f"127.0.0.1:{hub.port()}", f"127.0.0.1:{hub.port()}"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    own = hub.settings(service, listen=listen, health_listen=health, **settings)
    log = hub.folder / f"{service}.log"
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"syftmesh_{service}", env={**kept, **own}, stdout=output, stderr=output
        )
    try:
        yield Service(child, listen, health, log)
    finally:
        if child.returncode is None:
            child.terminate()
        async with asyncio.timeout(15):
            await child.wait()


@asynccontextmanager
async def identity(hub: Hub, **settings: str) -> AsyncIterator[Service]:
    values = {"signing_key_file": str(hub.folder / "signing.pem"), **settings}
    async with process(hub, "identity", **values) as found:
        yield found


@asynccontextmanager
async def stub(address: str, tls: grpc.ChannelCredentials | None = None) -> AsyncIterator[Any]:
    channel = open_channel(address, tls=tls)
    yield api.IdentityServiceStub(channel)
    await channel.close()


async def _reason(call: Any, kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


async def test_a_service_waits_for_its_bus_alive_and_says_why(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with identity(hub) as service:
        await service.until("live", STATUS.SERVING)
        await service.until("", STATUS.NOT_SERVING)
        await service.until_logged("bus.waiting")
        async with hub.nats():
            await service.until("", STATUS.SERVING)
            assert [line["reason"] for line in service.events("bus.waiting")] == ["BUS_UNREACHABLE"]
            assert PASSWORD not in service.log.read_text()
            service.child.terminate()
            assert await service.child.wait() == 0


async def test_a_wrong_password_is_told_and_ends_with_a_clear_last_line(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with hub.nats(), identity(hub, nats_password="wrong", nats_wait_s="4") as service:
        assert await service.child.wait() != 0
        assert service.events("bus.waiting")[-1]["reason"] == "BUS_REFUSED"
        assert "refuses the user or the password" in service.log.read_text().splitlines()[-1]


async def test_a_service_that_waits_ends_at_once_when_it_is_told_to(tmp_path: Path) -> None:
    async with identity(Hub(tmp_path)) as service:
        await service.until_logged("bus.waiting")
        service.child.terminate()
        async with asyncio.timeout(5):
            assert await service.child.wait() == 0


async def test_half_an_identity_ends_the_start_with_the_name_of_the_setting(tmp_path: Path) -> None:
    async with identity(Hub(tmp_path), tls_ca_file="") as service:
        assert await service.child.wait() == 2
        assert "TLS_CA_FILE" in service.log.read_text()


async def test_the_operator_makes_the_first_join_token_on_the_admin_socket(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    socket = tmp_path / "run" / "admin.sock"
    gateway = hub.gateway.channel_credentials()
    async with hub.nats(), identity(hub, admin_socket=str(socket)) as service:
        await service.until("", STATUS.SERVING)
        assert (socket.stat().st_mode & 0o777, socket.parent.stat().st_mode & 0o077) == (0o600, 0)
        async with stub(f"unix:{socket}") as admin, stub(service.grpc, gateway) as public:
            request = rpc.CreateJoinTokenRequest(principal=ALICE, label="profile")
            assert await _reason(public.CreateJoinToken(request), Unauthenticated) == "TOKEN_MISSING"
            made = await admin.CreateJoinToken(request)
            spare = await admin.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE, label="agent"))
            await admin.RevokeJoinToken(rpc.RevokeJoinTokenRequest(token_id=spare.join_token.token_id))
            joined = await public.RedeemJoinToken(
                rpc.RedeemJoinTokenRequest(secret=made.secret, principal=ALICE, device_id="dev-1")
            )
            listed = (await admin.ListJoinTokens(rpc.ListJoinTokensRequest())).join_tokens
            states = [pb.JOIN_TOKEN_STATE_REVOKED, pb.JOIN_TOKEN_STATE_REDEEMED]
            assert [token.state for token in listed] == states
            assert {token.created_by for token in listed} == {"operator"}
            assert not (await admin.ListSites(rpc.ListSitesRequest())).sites
            for call in (
                admin.WhoAmI(rpc.WhoAmIRequest()),
                admin.Refresh(rpc.RefreshRequest()),
                admin.LoginLocal(rpc.LoginLocalRequest()),
            ):
                assert await _reason(call, PermissionDenied) == "ADMIN_SOCKET_LIMITED"
        handled = [line for line in service.events("rpc.handled") if line["principal"] == "operator"]
        assert {line["method"].rpartition("/")[2] for line in handled} >= {"CreateJoinToken", "WhoAmI"}
        text = service.log.read_text()
        assert made.secret not in text
        assert joined.tokens.access_token not in text
    assert not (tmp_path / "local.token").exists()


async def test_without_the_setting_there_is_no_admin_socket(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with hub.nats(), identity(hub) as service:
        await service.until("", STATUS.SERVING)
        assert not service.events("identity.admin_socket_opened")


async def test_replicas_share_a_key_that_is_given_on_a_disk_they_cannot_write(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with hub.nats(), identity(hub) as service:
        await service.until("", STATUS.SERVING)
    folder = tmp_path / "mounted"
    folder.mkdir()
    (tmp_path / "signing.pem").rename(folder / "signing.pem")
    (folder / "signing.pem").chmod(0o400)
    folder.chmod(0o500)
    async with hub.nats(), AsyncExitStack() as stack:
        settings = {"signing_key_file": str(folder / "signing.pem")}
        replicas = [await stack.enter_async_context(identity(hub, **settings)) for _ in range(2)]
        for replica in replicas:
            await replica.until("", STATUS.SERVING)
            async with stub(replica.grpc, hub.gateway.channel_credentials()) as public:
                assert len((await public.GetKeySet(rpc.GetKeySetRequest())).keys) == 1
        assert [path.name for path in folder.iterdir()] == ["signing.pem"]


@asynccontextmanager
async def _hub_of_three(hub: Hub, *, allowed: Sequence[str]) -> AsyncIterator[tuple[Service, Service, str]]:
    """Identity, superlink and gateway, their bus, and the gateway's HTTP address."""
    http, superlink_http = hub.port(), hub.port()
    async with hub.nats(), AsyncExitStack() as stack:
        enter = stack.enter_async_context
        found = await enter(identity(hub))
        superlink = await enter(
            process(
                hub,
                "superlink",
                state_dir=str(hub.folder / "superlink"),
                http_listen=f"127.0.0.1:{superlink_http}",
            )
        )
        backends = {"identity": found.grpc, "federated": superlink.grpc}
        gateway = await enter(
            process(
                hub,
                "gateway",
                http_port=str(http),
                advertised_grpc="self",
                advertised_flower="self",
                advertised_grpc_tls="true",
                allowed_hosts=",".join(allowed),
                backends=json.dumps(backends),
                superlink_http=f"https://localhost:{superlink_http}",
            )
        )
        for service in (found, superlink, gateway):
            await service.until("", STATUS.SERVING)
        yield superlink, gateway, f"http://127.0.0.1:{http}"


async def test_the_gateway_reaches_everything_behind_it_by_mutual_tls(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with (
        _hub_of_three(hub, allowed=["hub.example", "localhost"]) as (superlink, gateway, base),
        httpx.AsyncClient(base_url=base, trust_env=False) as client,
    ):
        parts = (await client.get("/healthz")).json()["parts"]
        assert (parts["identity"], parts["federated"]) == ("serving", "serving")
        for host, seen in (("hub.example", "hub.example:443"), ("localhost:30443", "localhost:30443")):
            told = (await client.get("/.well-known/syftmesh.json", headers={"host": host})).json()
            assert (told["grpc"], told["flower"], told["grpc_tls"]) == (seen, seen, True)
        # Flower's front answers, by its own rules, what came over TLS from the gateway.
        answer = await client.post("/v1/fleet/pull-messages", headers={"host": "hub.example"})
        assert answer.status_code in {400, 401}
        # The gateway's own gRPC port takes calls of no other service: its peers are named as well.
        other = hub.certificate("router").channel_credentials()
        for service in (superlink, gateway):
            channel = open_channel(service.grpc, tls=other)
            check = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=3)
            assert await _reason(check, Unauthenticated) == "PEER_REFUSED"
            await channel.close()


async def test_a_service_is_not_reached_without_a_certificate(tmp_path: Path) -> None:
    hub = Hub(tmp_path)
    async with hub.nats(), identity(hub) as service:
        await service.until("", STATUS.SERVING)
        for tls in (None, grpc.ssl_channel_credentials(hub.authority.pem)):
            async with stub(service.grpc, tls) as public:
                with pytest.raises((Unavailable, NotFound)):
                    await public.GetKeySet(rpc.GetKeySetRequest(), timeout=3)


async def test_no_token_is_judged_before_keys_and_revocations_are_known(tmp_path: Path) -> None:
    hub = Hub(tmp_path)

    async def provide() -> str:
        return "some.token"

    async with hub.nats(), process(hub, "crypto", journal="false") as service:
        async with asyncio.timeout(60):
            while not any(
                line["service"] == "crypto" for line in service.events("service.readiness_changed")
            ):
                await asyncio.sleep(0.05)
        await service.until("", STATUS.NOT_SERVING)
        channel = open_channel(service.grpc, tls=hub.gateway.channel_credentials(), token_provider=provide)
        directory = crypto_api.KeyDirectoryServiceStub(channel)
        request = crypto_rpc.ListDevicesRequest(principal=ALICE)
        assert await _reason(directory.ListDevices(request), Unavailable) == "KEY_SET_PENDING"
        async with identity(hub):
            await service.until("", STATUS.SERVING)
            assert await _reason(directory.ListDevices(request), Unauthenticated) == "TOKEN_INVALID"
        await channel.close()
