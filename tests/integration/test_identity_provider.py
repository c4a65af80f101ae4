"""Login by a provider: real processes of identity on a real bus, and a real provider that also misbehaves."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as api
from syftmesh_client.login_code import by_provider
from syftmesh_client.login_provider import ProviderPrompt, login_by_provider
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.errors import LimitExceeded, MeshError, NotFound, Unauthenticated, Unavailable, WrongState
from syftmesh_identity.adapters.oidc import OidcProvider
from syftmesh_identity.adapters.provider_http import ProviderHttp
from syftmesh_identity.domain.provider import PollState, Provider
from syftmesh_kit.channel import open_channel
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.process import free_ports
from syftmesh_kit.testing import FakeClock, background_server
from syftmesh_kit.testing_authority import TestAuthority

pytestmark = pytest.mark.integration

PROGRAM = Path(__file__).with_name("oidc_provider.py")
CLIENT_ID, CLIENT_SECRET = "mesh-hub", "hub-s3cr3t"
ALICE = "alice@x.example"
CLOCK = SystemClock()
KEPT = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
TIMEOUT_S = 0.5


@dataclass
class Sso:
    """The provider's process, and the person in front of it."""

    issuer: str
    trust: ssl.SSLContext = field(default_factory=lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    def control(self, **order: Any) -> None:
        httpx.post(
            f"{self.issuer}/control", json=order, verify=self.trust, trust_env=False
        ).raise_for_status()

    def confirm(self, user_code: str, email: str = ALICE) -> None:
        self.control(confirm=user_code, email=email)

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(f"{self.issuer}/state", verify=self.trust, trust_env=False).json()
        return found

    def client(self, clock: Any = CLOCK) -> OidcProvider:
        known = Provider("sso", self.issuer, CLIENT_ID, CLIENT_SECRET)
        return OidcProvider(known, ProviderHttp(known, self.trust, timeout_s=TIMEOUT_S), clock)


@contextmanager
def provider(*arguments: str) -> Iterator[str]:
    environment = {"PATH": os.environ["PATH"], "AUTHLIB_INSECURE_TRANSPORT": "1"}
    command = [sys.executable, str(PROGRAM), *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        try:
            yield child.stdout.readline().strip()
        finally:
            child.kill()


@pytest.fixture(scope="module")
def sso_process() -> Iterator[Sso]:
    with provider() as issuer:
        yield Sso(issuer)


@pytest.fixture
def sso(sso_process: Sso) -> Iterator[Sso]:
    """The provider, which behaves well until it is told otherwise."""
    yield sso_process
    sso_process.control(mode="")


@dataclass
class Replica:
    """A process of a service; `kill` and `start` again keep its port and settings."""

    address: str
    environment: dict[str, str]
    log: Path
    service: str = "identity"
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", f"syftmesh_{self.service}"]
            self.child = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        request = health_pb2.HealthCheckRequest()
        with grpc.insecure_channel(self.address) as channel:
            stub, ends_s = health_pb2_grpc.HealthStub(channel), time.monotonic() + 30
            while time.monotonic() < ends_s:
                try:
                    answer = stub.Check(request, timeout=5, wait_for_ready=True)
                except grpc.RpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                time.sleep(0.05)
        pytest.fail(f"{self.service} does not serve: {self.log.read_text()}")

    def kill(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()


@dataclass
class Hub:
    first: Replica
    second: Replica
    bus: NatsAddress

    @asynccontextmanager
    async def stub(self, replica: Replica | None = None, token: str = "") -> AsyncIterator[Any]:
        async def provide() -> str:
            return token

        channel = open_channel((replica or self.first).address, token_provider=provide)
        try:
            yield api.IdentityServiceStub(channel)
        finally:
            await channel.close()

    async def begin(self, stub: Any) -> rpc.StartDeviceLoginResponse:
        request = rpc.StartDeviceLoginRequest(provider="sso", device_id=uuid7(CLOCK), label="profile")
        started: rpc.StartDeviceLoginResponse = await stub.StartDeviceLogin(request)
        return started

    def logs(self) -> str:
        return self.first.log.read_text() + self.second.log.read_text()


@pytest.fixture(scope="module")
def hub(sso_process: Sso, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """Two replicas of identity on one bus."""
    state = tmp_path_factory.mktemp("identity")
    nats = NatsServer(state / "nats")
    with background_server(nats.start, nats.stop) as bus:
        replicas = [_replica(state, name, bus, sso_process) for name in ("first", "second")]
        try:
            for replica in replicas:
                replica.start()
            yield Hub(*replicas, bus)
        finally:
            for replica in replicas:
                replica.kill()


def _replica(state: Path, name: str, bus: NatsAddress, sso: Sso) -> Replica:
    providers = state / "providers.json"
    entry = {
        "name": "sso",
        "issuer": sso.issuer,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "email_domains": ["x.example"],
    }
    providers.touch(mode=0o600)
    providers.write_text(json.dumps({"providers": [entry]}))
    values = {
        "signing_key_file": str(state / "signing.pem"),
        "providers_file": str(providers),
        "provider_logins_per_address_hour": "40",
    }
    return _process("identity", bus, state / f"{name}.log", **values)


def _process(service: str, bus: NatsAddress, log: Path, **own: str) -> Replica:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    given = {"nats_url": bus.url, "nats_user": bus.user, "nats_password": bus.password}
    values = {"listen": address, **given, **own}
    named = {f"SYFTMESH_{service.upper()}_{name.upper()}": value for name, value in values.items()}
    return Replica(address, {**KEPT, "HOME": str(log.parent), **named}, log, service)


async def _reason(call: Any, kind: type[MeshError] = Unauthenticated) -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason, caught.value.metadata.get("check", "")


async def test_a_person_logs_a_device_in_and_the_token_proves_it(hub: Hub, sso: Sso) -> None:
    def confirm(prompt: ProviderPrompt) -> None:
        assert prompt.verification_uri == f"{sso.issuer}/device"
        assert prompt.user_code in prompt.verification_uri_complete
        assert 0 < prompt.expires_ms - CLOCK.now_ms() <= 120_000
        sso.confirm(prompt.user_code, "Alice@X.Example")

    device_id = uuid7(CLOCK)
    async with hub.stub() as stub:
        methods = await stub.ListLoginMethods(rpc.ListLoginMethodsRequest())
        assert list(methods.providers) == ["sso"]
        principal, tokens = await login_by_provider(
            stub, "sso", device_id, "agent", confirm, asyncio.sleep, principal=ALICE
        )
    assert principal == ALICE
    async with hub.stub(token=tokens.access_token) as stub:
        me = await stub.WhoAmI(rpc.WhoAmIRequest())
        assert (me.principal, me.device_id) == (ALICE, device_id)
        fresh = (await stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))).tokens
        assert fresh.access_token != tokens.access_token


async def test_a_login_is_finished_at_another_replica_and_works_once(hub: Hub, sso: Sso) -> None:
    async with hub.stub() as first, hub.stub(hub.second) as second:
        started = await hub.begin(first)
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        waiting = await second.FinishDeviceLogin(finish)
        assert (waiting.pending, waiting.principal) == (True, "")
        sso.confirm(started.user_code)
        await asyncio.sleep(waiting.interval_seconds)
        done = await second.FinishDeviceLogin(finish)
        assert (done.pending, done.principal) == (False, ALICE)
        for stub in (first, second):
            assert await _reason(stub.FinishDeviceLogin(finish)) == ("LOGIN_INVALID", "")


async def test_of_two_replicas_that_finish_one_login_at_once_one_gives_tokens(hub: Hub, sso: Sso) -> None:
    async with hub.stub() as first, hub.stub(hub.second) as second:
        started = await hub.begin(first)
        sso.confirm(started.user_code)
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        found = await asyncio.gather(
            *(stub.FinishDeviceLogin(finish) for stub in (first, second) * 4), return_exceptions=True
        )
    done = [item for item in found if not isinstance(item, BaseException) and not item.pending]
    assert len(done) == 1
    others = [item for item in found if isinstance(item, BaseException)]
    assert all(isinstance(item, Unauthenticated) and item.reason == "LOGIN_INVALID" for item in others)


async def test_a_login_outlives_the_process_that_started_it(hub: Hub, sso: Sso) -> None:
    slept: list[float] = []

    def show(prompt: ProviderPrompt) -> None:
        hub.first.kill()
        sso.confirm(prompt.user_code)

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(seconds)
        if len(slept) == 2:  # once the client has found nobody there
            await asyncio.to_thread(hub.first.start)

    async with hub.stub() as stub:
        principal, tokens = await login_by_provider(
            stub, "sso", uuid7(CLOCK), "profile", show, sleep, principal=ALICE
        )
    assert principal == ALICE
    assert tokens.refresh_token
    assert len(slept) >= 2


async def test_a_person_who_is_somebody_else_at_the_provider_is_told_so(hub: Hub, sso: Sso) -> None:
    def confirm(prompt: ProviderPrompt) -> None:
        sso.confirm(prompt.user_code)

    log_in = by_provider("sso", confirm)
    device: dict[str, Any] = {"device_id": uuid7(CLOCK), "label": "profile", "tls": None}
    tokens = await log_in(hub.first.address, principal=ALICE, **device)
    assert (tokens.principal, tokens.device_id) == (ALICE, device["device_id"])
    unused = {**device, "device_id": uuid7(CLOCK)}
    with pytest.raises(WrongState) as caught:
        await log_in(hub.first.address, principal="bob@x.example", **unused)
    assert caught.value.reason == "PRINCIPAL_DIFFERS"
    assert f"--email {ALICE}" in caught.value.hint
    async with hub.stub(token=tokens.access_token) as stub:
        listed = await stub.ListDevices(rpc.ListDevicesRequest())
    assert unused["device_id"] not in {found.device_id for found in listed.devices}


@contextmanager
def _front(hub: Hub, folder: Path) -> Iterator[str]:
    """The rest of a hub that a login needs: key directory and gateway. Gives its URL."""
    crypto = _process("crypto", hub.bus, folder / "crypto.log", journal="false")
    http, grpc_port = free_ports(2)
    gateway = _process(
        "gateway",
        hub.bus,
        folder / "gateway.log",
        http_port=str(http),
        advertised_grpc=f"127.0.0.1:{grpc_port}",
        forward_listen=f"127.0.0.1:{grpc_port}",
        backends=json.dumps({"identity": hub.first.address, "crypto": crypto.address}),
    )
    try:
        for process in (crypto, gateway):
            process.start()
        yield f"http://127.0.0.1:{http}"
    finally:
        for process in (gateway, crypto):
            process.kill()


async def _program(folder: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {**KEPT, "HOME": str(folder), "SYFTMESH_STATE": str(folder / "state")}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "syftmesh.cli", *arguments),
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _user_code(child: asyncio.subprocess.Process, sso: Sso) -> str:
    """Return the code that the program shows for the provider's page."""
    assert child.stderr is not None
    async with asyncio.timeout(60):
        async for line in child.stderr:
            found = re.search(rf"{re.escape(sso.issuer)}/device in a browser.* type (\S+)\.", line.decode())
            if found is not None:
                return found.group(1)
    pytest.fail("the program has shown no code")


async def test_a_person_logs_in_at_the_command_line_or_gives_up(hub: Hub, sso: Sso, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with _front(hub, tmp_path) as server:
        login = ("login", "--email", ALICE, "--provider", "sso", "--server", server, "--json")
        child = await _program(tmp_path, *login)
        await _user_code(child, sso)
        child.send_signal(signal.SIGINT)
        _, shown = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 130, shown
        assert b"Traceback" not in shown
        assert [place.name for place in (tmp_path / "state").rglob("*") if place.is_file()] == []
        child = await _program(tmp_path, *login)
        sso.confirm(await _user_code(child, sso))
        out, shown = await asyncio.wait_for(child.communicate(), 60)
        assert child.returncode == 0, shown
        assert json.loads(out)["email"] == ALICE
        child = await _program(tmp_path, "whoami", "--json")
        out, shown = await asyncio.wait_for(child.communicate(), 60)
        assert (child.returncode, json.loads(out)["email"]) == (0, ALICE), shown


@pytest.mark.parametrize(
    ("mode", "check"),
    [
        ("wrong_issuer", "iss"),
        ("wrong_audience", "aud"),
        ("none", "algorithm"),
        ("hs256", "algorithm"),
        ("other_key", "signature"),
        ("other_kid", "key"),
        ("expired", "exp"),
        ("not_yet_valid", "nbf"),
    ],
)
async def test_a_token_that_does_not_hold_logs_nobody_in(hub: Hub, sso: Sso, mode: str, check: str) -> None:
    async with hub.stub() as stub:
        started = await hub.begin(stub)
        sso.control(mode=mode)
        sso.confirm(started.user_code)
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        assert await _reason(stub.FinishDeviceLogin(finish)) == ("PROVIDER_TOKEN_INVALID", check)
        assert await _reason(stub.FinishDeviceLogin(finish)) == ("LOGIN_INVALID", "")


@pytest.mark.parametrize(("mode", "email"), [("unverified", ALICE), ("", "alice@elsewhere.example")])
async def test_an_address_that_the_provider_does_not_or_may_not_vouch_for_logs_nobody_in(
    hub: Hub, sso: Sso, mode: str, email: str
) -> None:
    async with hub.stub() as stub:
        started = await hub.begin(stub)
        sso.control(mode=mode)
        sso.confirm(started.user_code, email)
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        assert await _reason(stub.FinishDeviceLogin(finish)) == ("EMAIL_NOT_VERIFIED", "")


@pytest.mark.parametrize("mode", ["", "expired_token"])
async def test_who_says_no_or_nothing_in_time_is_not_logged_in(hub: Hub, sso: Sso, mode: str) -> None:
    async with hub.stub() as stub:
        started = await hub.begin(stub)
        sso.control(mode=mode, **({} if mode else {"deny": started.user_code}))
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        assert await _reason(stub.FinishDeviceLogin(finish)) == ("LOGIN_INVALID", "")


async def test_a_provider_that_says_slow_down_is_asked_more_seldom(hub: Hub, sso: Sso) -> None:
    async with hub.stub() as stub:
        started = await hub.begin(stub)
        sso.control(mode="slow_down")
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        assert (await stub.FinishDeviceLogin(finish)).interval_seconds == 6
        asked = sso.state()["asked"]
        assert (await stub.FinishDeviceLogin(finish)).pending
        assert sso.state()["asked"] == asked


async def test_a_provider_that_falls_over_leaves_the_login_open(hub: Hub, sso: Sso) -> None:
    async with hub.stub() as stub:
        started = await hub.begin(stub)
        sso.confirm(started.user_code)
        sso.control(mode="500")
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        assert await _reason(stub.FinishDeviceLogin(finish), Unavailable) == ("PROVIDER_AWAY", "")
        assert await _reason(hub.begin(stub), Unavailable) == ("PROVIDER_AWAY", "")
        sso.control(mode="")
        await asyncio.sleep(2)
        assert (await stub.FinishDeviceLogin(finish)).principal == ALICE


async def test_what_a_login_is_made_of_stands_in_no_log(hub: Hub, sso: Sso) -> None:
    async with hub.stub() as stub:
        started = await hub.begin(stub)
        sso.confirm(started.user_code)
        (device_code,) = [code for code, user in sso.state()["codes"].items() if user == started.user_code]
        finish = rpc.FinishDeviceLoginRequest(login_secret=started.login_secret)
        done = await stub.FinishDeviceLogin(finish)
    logs = hub.logs()
    assert "FinishDeviceLogin" in logs
    secret = started.login_secret.split(".")[1]
    for hidden in (secret, device_code, started.user_code, CLIENT_SECRET, done.tokens.refresh_token):
        assert hidden not in logs


async def test_an_unknown_provider_and_too_many_logins_are_refused(hub: Hub, sso: Sso) -> None:
    async with hub.stub() as stub:
        unknown = rpc.StartDeviceLoginRequest(provider="other", device_id="dev-1", label="profile")
        assert await _reason(stub.StartDeviceLogin(unknown), NotFound) == ("PROVIDER_UNKNOWN", "")

        async def exhaust() -> None:
            for _ in range(41):
                await hub.begin(stub)

        assert await _reason(exhaust(), LimitExceeded) == ("TOO_MANY_LOGINS", "")
    async with hub.stub(hub.second) as other:
        assert await _reason(hub.begin(other), LimitExceeded) == ("TOO_MANY_LOGINS", "")


@pytest.mark.parametrize("kind", ["document", "token"])
@pytest.mark.parametrize("mode", ["slow", "huge", "redirect", "500"])
async def test_a_provider_that_answers_badly_is_away(sso: Sso, mode: str, kind: str) -> None:
    sso.control(mode=f"{mode}_{kind}")
    asked = sso.state()["asked"]
    with pytest.raises(Unavailable) as caught:
        await sso.client().poll("device-code")
    assert caught.value.reason == "PROVIDER_AWAY"
    # Nothing was asked twice, and no redirect followed.
    assert sso.state()["asked"] - asked == (1 if kind == "document" else 3)


@pytest.mark.parametrize("mode", ["rubbish_document", "other_issuer_document", "leads_elsewhere"])
async def test_a_provider_whose_document_is_not_its_own_is_away(sso: Sso, mode: str) -> None:
    sso.control(mode=mode)
    for ask in (sso.client().authorize, lambda: sso.client().poll("device-code")):
        with pytest.raises(Unavailable) as caught:
            await ask()
        assert caught.value.reason == "PROVIDER_AWAY"


async def test_a_confirmation_that_is_rubbish_is_none(sso: Sso) -> None:
    sso.control(mode="rubbish_token")
    assert await _reason(sso.client().poll("device-code")) == ("PROVIDER_TOKEN_INVALID", "form")


async def test_keys_may_change_between_two_logins(sso: Sso) -> None:
    clock = FakeClock(CLOCK.now_ms())
    client = sso.client(clock)
    for _ in range(2):
        found = await client.authorize()
        sso.confirm(found.user_code)
        assert (await client.poll(found.device_code)).state is PollState.CONFIRMED
        sso.control(rotate=True)


async def test_a_provider_is_reached_by_tls_by_its_own_authority_alone(tmp_path: Path) -> None:
    authority = TestAuthority()
    identity = authority.issue(tmp_path, "sso.example")
    with provider("--tls", str(tmp_path)) as issuer:
        trusted = Sso(issuer, ssl.create_default_context(cafile=identity.ca_file))
        found = await trusted.client().authorize()
        trusted.confirm(found.user_code)
        assert (await trusted.client().poll(found.device_code)).claims["email"] == ALICE
        strange = Sso(issuer, ssl.create_default_context(cadata=TestAuthority("other").pem.decode()))
        with pytest.raises(Unavailable) as caught:
            await strange.client().authorize()
        assert caught.value.reason == "PROVIDER_AWAY"
