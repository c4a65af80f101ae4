"""Identity, key directory, superlink and gateway as processes of their own, reached through one address."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mesh.crypto.v1 import crypto_service_pb2 as crypto_rpc
from mesh.federated.v1 import federated_service_pb2 as federated_rpc
from mesh.identity.v1 import identity_service_pb2 as identity_rpc
from syftmesh_client.login import login_local
from syftmesh_client.session import HubSession
from syftmesh_client.token_file import TokenFile
from syftmesh_client.token_source import TokenSource
from syftmesh_client.wellknown import discover
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import InvalidInput, NotFound, Unimplemented
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.process import free_ports

pytestmark = pytest.mark.integration

CLOCK = SystemClock()
ALICE = "alice@x.example"


@asynccontextmanager
async def nats_server(state: Path) -> AsyncIterator[NatsAddress]:
    nats = NatsServer(state / "nats")
    async with asyncio.TaskGroup() as tasks:
        try:
            yield await nats.start(tasks)
        finally:
            await nats.stop()


@asynccontextmanager
async def process(
    service: str, port: int, state: Path, **settings: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """One service; its log goes to a file, so that no pipe fills up."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    own = {f"SYFTMESH_{service.upper()}_{name.upper()}": value for name, value in settings.items()}
    address = f"127.0.0.1:{port}"
    own[f"SYFTMESH_{service.upper()}_LISTEN"] = address
    with (state / f"{service}.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"syftmesh_{service}", env={**kept, **own}, stdout=log, stderr=log
        )
    try:
        await _serving(address)
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        async with asyncio.timeout(10):
            await child.wait()


async def _serving(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(20):
            while True:
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.05)


async def test_a_hub_of_processes_is_reached_through_one_address_and_drains_on_sigterm(tmp_path):
    ports = dict(
        zip(("identity", "crypto", "superlink", "gateway", "http", "grpc"), free_ports(6), strict=True)
    )
    local_token = tmp_path / "local.token"
    extra: dict[str, dict[str, str]] = {
        "identity": {
            "signing_key_file": str(tmp_path / "signing.pem"),
            "local_token_file": str(local_token),
        },
        "crypto": {"journal": "false"},
        "superlink": {"state_dir": str(tmp_path / "superlink")},
    }
    backends = ",".join(
        f'"{domain}":"127.0.0.1:{ports[service]}"'
        for domain, service in (("identity", "identity"), ("crypto", "crypto"), ("federated", "superlink"))
    )
    async with nats_server(tmp_path) as nats, AsyncExitStack() as stack:
        bus = {"nats_url": nats.url, "nats_user": nats.user, "nats_password": nats.password}
        children = [
            await stack.enter_async_context(process(name, ports[name], tmp_path, **bus, **more))
            for name, more in extra.items()
        ]
        children.append(
            await stack.enter_async_context(
                process(
                    "gateway",
                    ports["gateway"],
                    tmp_path,
                    http_port=str(ports["http"]),
                    advertised_grpc=f"127.0.0.1:{ports['grpc']}",
                    forward_listen=f"127.0.0.1:{ports['grpc']}",
                    backends=f"{{{backends}}}",
                )
            )
        )
        base = f"http://127.0.0.1:{ports['http']}"
        address = (await discover(base)).grpc_address
        async with httpx.AsyncClient(trust_env=False) as client:
            parts = (await client.get(f"{base}/healthz")).json()["parts"]
        assert {parts[name] for name in ("identity", "crypto", "federated")} == {"serving"}
        source = TokenSource(TokenFile(tmp_path / "profile"), CLOCK)
        token = local_token.read_text().strip()
        await source.store(
            await login_local(address, local_token=token, principal=ALICE, device_id="dev-1", label="profile")
        )
        async with HubSession(address, source, CLOCK) as session:
            await _use(session)
        for child in children:
            child.terminate()
        codes = [await child.wait() for child in children]
        assert codes == [0, 0, 0, 0]
    _check_logs(tmp_path, token, source)


async def _use(session: HubSession) -> None:
    assert (await session.identity.WhoAmI(identity_rpc.WhoAmIRequest())).principal == ALICE
    with pytest.raises(NotFound) as missing:
        await session.crypto.ListDevices(crypto_rpc.ListDevicesRequest(principal=ALICE))
    assert missing.value.reason == "PRINCIPAL_UNKNOWN"
    assert list((await session.federated.ListRuns(federated_rpc.ListRunsRequest())).runs) == []
    with pytest.raises(InvalidInput) as empty:
        await session.federated.CreateRun(federated_rpc.CreateRunRequest())
    assert empty.value.reason == "BUNDLE_INVALID"
    for call in (
        session.federated.GetRun(federated_rpc.GetRunRequest(run_id="7")),
        session.federated.AcquireServerTask(federated_rpc.AcquireServerTaskRequest(run_id="7")),
        session.federated.ReportRound(federated_rpc.ReportRoundRequest(run_id="7")),
        session.federated.CancelRun(federated_rpc.CancelRunRequest(run_id="7")),
        session.federated.GetArtifacts(federated_rpc.GetArtifactsRequest(run_id="7")),
    ):
        with pytest.raises(NotFound) as unknown:
            await call
        assert unknown.value.reason == "RUN_UNKNOWN"
    with pytest.raises(Unimplemented):
        await session.federated.ResumeRun(federated_rpc.ResumeRunRequest(run_id="7"))


def _check_logs(state: Path, local_token: str, source: TokenSource) -> None:
    logs = b"".join(
        (state / f"{name}.log").read_bytes() for name in ("identity", "crypto", "superlink", "gateway")
    )
    assert b"rpc.handled" in logs
    assert b"http.handled" in logs
    for secret in (local_token, source.tokens.access_token, source.tokens.refresh_token):
        assert secret.encode() not in logs


@pytest.mark.parametrize(
    ("service", "variable"),
    [("identity", "SYFTMESH_IDENTITY_SIGNING_KEY_FILE"), ("gateway", "SYFTMESH_GATEWAY_HTTP_PORT")],
)
async def test_a_wrong_setting_is_named_and_ends_the_process_with_2(service, variable):
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"syftmesh_{service}",
        env={**kept, "SYFTMESH_GATEWAY_HTTP_PORT": "many"},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await child.communicate()
    assert child.returncode == 2
    assert variable in errors.decode()
