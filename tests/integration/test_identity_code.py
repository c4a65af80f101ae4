"""Login by e-mailed code: identity on a real nats-server, with a real SMTP server behind it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_client.login import identity_stub
from syftmesh_client.login_code import by_code, login_methods, request_code
from syftmesh_client.token_file import StoredTokens
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import (
    InvalidInput,
    LimitExceeded,
    MeshError,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_identity.app import build
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import RpcMetrics, ServerInterceptor
from syftmesh_kit.native import NatsAddress, NatsServer
from syftmesh_kit.process import free_ports
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.testing_authority import TestAuthority
from syftmesh_kit.tls import TlsIdentity

sys.path.insert(0, str(Path(__file__).parent))
from mail_host import PASSWORD, USER, MailHost, scripted_server, silent_server

pytestmark = pytest.mark.integration

ALICE, BOB = "alice@x.example", "bob@y.example"
SENDER = "login@mesh.example"
CLOCK = SystemClock()


@dataclass
class Hub:
    """One replica of identity."""

    address: str
    bus: Bus

    async def request(self, principal: str = ALICE) -> None:
        await request_code(self.address, principal=principal)

    async def login(self, code: str, principal: str = ALICE, device_id: str = "dev-1") -> StoredTokens:
        log_in = by_code(code)
        return await log_in(self.address, principal=principal, device_id=device_id, label="profile", tls=None)

    async def stored_codes(self) -> list[str]:
        return await self.bus.kv(subject.KV_IDENTITY_CODE).keys()


@asynccontextmanager
async def nats_server(state: Path) -> AsyncIterator[NatsAddress]:
    server = NatsServer(state / "nats")
    async with asyncio.TaskGroup() as tasks:
        try:
            yield await server.start(tasks)
        finally:
            await server.stop()


@asynccontextmanager
async def replica(
    nats: NatsAddress, state: Path, tls: TlsIdentity | None = None, **settings: Any
) -> AsyncIterator[Hub]:
    """Serve identity, with `tls` to callers with a certificate; replicas of one `state` share the signing key."""
    bus = await Bus.connect(nats.url, name="identity", user=nats.user, password=nats.password)
    values = {
        "signing_key_file": state / "signing.pem",
        "mail_from": SENDER,
        "issuer": "https://mesh.example",
    }
    module = await build(IdentitySettings(**{**values, **settings}), bus=bus, clock=CLOCK)
    interceptor = ServerInterceptor(
        verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
    )
    credentials = tls.server_credentials() if tls is not None else None
    host = ServiceHost([module], interceptor=interceptor, credentials=credentials, check_interval_s=0.2)
    try:
        async with host.running() as address:
            await host.wait_ready()
            yield Hub(address, bus)
    finally:
        await bus.close()


@asynccontextmanager
async def running(state: Path, mail: MailHost | None = None, **settings: Any) -> AsyncIterator[Hub]:
    """One replica and its bus; `mail` is served already, without TLS."""
    if mail is not None:
        settings = {"smtp_host": "127.0.0.1", "smtp_port": mail.port, "smtp_security": "none", **settings}
    async with nats_server(state) as nats, replica(nats, state, **settings) as hub:
        yield hub


async def _reason(call: Awaitable[Any], kind: type[MeshError]) -> str:
    with pytest.raises(kind) as caught:
        await call
    return caught.value.reason


def _password_file(folder: Path, password: str = PASSWORD) -> Path:
    place = folder / "smtp-password"
    place.touch(mode=0o600)
    place.write_text(f"{password}\n")
    return place


@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_code_that_came_by_mail_over_tls_logs_a_device_in(tmp_path, security):
    authority = TestAuthority()
    identity = authority.issue(tmp_path / "mail", "mail.example")
    own = {"tls": identity} if security == "tls" else {"starttls": identity}
    async with MailHost().serving(**own, auth=True) as mail:
        settings = {
            "smtp_host": "localhost",
            "smtp_port": mail.port,
            "smtp_security": security,
            "smtp_user": USER,
            "smtp_password_file": _password_file(tmp_path),
            "smtp_ca_file": identity.ca_file,
        }
        async with running(tmp_path, **settings) as hub:
            assert (await login_methods(hub.address)).code
            await hub.request("Alice@X.Example")
            code = await mail.code(1, ALICE)
            tokens = await hub.login(code.lower().replace("-", " "))
            assert (tokens.principal, tokens.device_id) == (ALICE, "dev-1")
            assert await _reason(hub.login(code), Unauthenticated) == "CODE_INVALID"
            async with identity_stub(hub.address, None) as stub:
                renewed = await stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))
            assert renewed.tokens.access_token
    assert mail.envelopes == [(SENDER, [ALICE])]
    assert mail.logins == 1
    assert "mesh.example" in mail.mails[0].get_content()
    assert mail.mails[0]["Message-ID"].endswith("@mesh.example>")


@pytest.mark.parametrize(
    "fault", ["stranger", "name", "no STARTTLS", "password", "refused", "silent", "plain"]
)
async def test_a_mail_server_that_is_not_right_is_told_nothing_and_nothing_is_kept(tmp_path, fault):
    authority, other = TestAuthority(), TestAuthority("other")
    good = authority.issue(tmp_path / "good", "mail.example")
    strange = other.issue(tmp_path / "strange", "mail.example")
    settings: dict[str, Any] = {
        "smtp_host": "127.0.0.1" if fault == "name" else "localhost",
        "smtp_security": "tls" if fault == "plain" else "starttls",
        "smtp_user": USER,
        "smtp_password_file": _password_file(tmp_path, "wrong" if fault == "password" else PASSWORD),
        "smtp_ca_file": good.ca_file,
        "smtp_timeout_s": 1.0,
    }
    served = {"stranger": strange, "name": authority.issue(tmp_path / "name", "mail.example", addresses=())}
    starttls = None if fault in {"no STARTTLS", "plain"} else served.get(fault, good)
    async with (
        MailHost().serving(starttls=starttls, auth=starttls is not None) as mail,
        silent_server() as silent,
    ):
        settings["smtp_port"] = {"refused": free_ports(1)[0], "silent": silent}.get(fault, mail.port)
        async with running(tmp_path, **settings) as hub:
            for _ in range(7):  # more than are allowed within an hour: none of them counts
                assert await _reason(hub.request(), Unavailable) == "MAIL_AWAY"
                if fault == "silent":
                    break
            assert await hub.stored_codes() == []
    assert (mail.recipients, mail.mails) == ([], [])


async def test_a_recipient_that_the_server_refuses_gets_the_same_answer_and_the_code_ends(tmp_path, capfd):
    async with (
        MailHost(refusal=f"550 no such user {ALICE}").serving() as mail,
        running(tmp_path, mail) as hub,
    ):
        for number in range(1, 8):
            await hub.request()
            await _until(lambda number=number: len(mail.recipients) == number)
            await _until_withdrawn(hub)
        mail.refusal = ""
        await hub.request()
        await hub.login(await mail.code(1))
    said = capfd.readouterr()
    assert ALICE not in said.err + said.out


async def _until(check: Any) -> None:
    async with asyncio.timeout(10):
        while not check():
            await asyncio.sleep(0.01)


async def _until_withdrawn(hub: Hub) -> None:
    """Return when no code of alice can be used, and no place of hers or of this address is taken."""
    async with asyncio.timeout(10):
        while True:
            codes = [entry.value async for entry in hub.bus.kv(subject.KV_IDENTITY_CODE).entries()]
            usages = [entry.value async for entry in hub.bus.kv(subject.KV_IDENTITY_LIMIT).entries()]
            if all(b'"tries_left":0' in (value or b"") for value in codes) and all(
                b'"times_ms":[]' in (value or b"") for value in usages
            ):
                return
            await asyncio.sleep(0.01)


async def test_the_answer_does_not_wait_for_the_mail(tmp_path):
    async with MailHost(data_s=0.5).serving() as mail, running(tmp_path, mail) as hub:
        await hub.request()
        assert mail.mails == []
        await hub.login(await mail.code(1))


async def test_what_was_promised_is_sent_before_the_service_ends(tmp_path):
    async with MailHost(data_s=0.5).serving() as mail:
        async with running(tmp_path, mail) as hub:
            await hub.request()
            assert mail.mails == []
        assert len(mail.mails) == 1


async def test_a_server_that_thinks_for_too_long_about_a_mail_has_not_taken_it(tmp_path):
    async with MailHost(data_s=30).serving() as mail, running(tmp_path, mail, smtp_timeout_s=0.5) as hub:
        await hub.request()
        await _until(lambda: mail.recipients == [ALICE])
        await _until_withdrawn(hub)


_GREETED, _KNOWN = b"220 mail\r\n", b"250 mail\r\n"
_RUBBISH = (
    b"",
    b"\r\n",
    b"\x00\xff\xfe\r\n",
    b"250\r\n",
    b"250-\r\n",
    b"250-more\r\n" * 5000,
    b"250 " + b"x" * 100_000 + b"\r\n",
    b"999 what\r\n",
    b"-1 what\r\n",
    b"421 go away\r\n",
    b"550 5.1.1 \xc3\x28\r\n",
    b"354 go on\r\n354 go on\r\n",
)


@pytest.mark.parametrize("stage", range(6))
async def test_a_mail_server_that_talks_rubbish_ends_nothing_but_the_mail(tmp_path, stage):
    right = [_GREETED, _KNOWN, _KNOWN, _KNOWN, b"354 go on\r\n", _KNOWN]
    scripts = [[*right[:stage], rubbish] for rubbish in _RUBBISH]
    async with scripted_server([*scripts, [*right, b"221 bye\r\n"]]) as port, nats_server(tmp_path) as nats:
        settings = {
            "smtp_host": "127.0.0.1",
            "smtp_port": port,
            "smtp_security": "none",
            "smtp_timeout_s": 0.3,
        }
        async with replica(nats, tmp_path, codes_per_address_hour=100, **settings) as hub:
            for number in range(len(scripts)):
                try:
                    await hub.request(f"p{number}@x.example")
                except Unavailable as error:
                    away = error.reason
                else:
                    away = ""
                assert away in {"", "MAIL_AWAY"}
            await hub.request()
            assert (await login_methods(hub.address)).code


async def test_a_closed_mesh_answers_everybody_alike_and_writes_to_whom_it_admits(tmp_path):
    async with (
        MailHost().serving() as mail,
        running(tmp_path, mail, admitted_domains=frozenset({"x.example"}), codes_per_address_hour=100) as hub,
    ):
        answers = [await _answer(hub, principal) for principal in (BOB, ALICE, BOB)]
        assert answers[0] == answers[1] == answers[2]
        await mail.code(1, ALICE)
        assert mail.connections == 3
        assert mail.recipients == [ALICE]
        assert len(await hub.stored_codes()) == 2


async def _answer(hub: Hub, principal: str) -> bytes:
    async with identity_stub(hub.address, None) as stub:
        call = stub.RequestCode(rpc.RequestCodeRequest(principal=principal))
        return (await call).SerializeToString()


async def test_replicas_share_codes_and_limits_and_a_restart_forgets_nothing(tmp_path):
    async with MailHost().serving() as mail, nats_server(tmp_path) as nats:
        settings = {"smtp_host": "127.0.0.1", "smtp_port": mail.port, "smtp_security": "none"}
        async with replica(nats, tmp_path, **settings) as one, replica(nats, tmp_path, **settings) as two:
            await one.request()
            code = await mail.code(1)
            tries = [
                hub.login(code, device_id=f"dev-{number}")
                for number, hub in enumerate((one, two, one, two, one, two))
            ]
            found = await asyncio.gather(*tries, return_exceptions=True)
            assert sum(isinstance(item, StoredTokens) for item in found) == 1
            others = {item.reason for item in found if isinstance(item, MeshError)}
            assert others <= {"CODE_INVALID", "CONFLICT"}
            for hub in (two, one, two):
                await hub.request()
            await mail.code(4)
            for _ in range(3):
                assert await _reason(one.login("00000000"), Unauthenticated) == "CODE_INVALID"
        async with replica(nats, tmp_path, **settings) as third:
            for _ in range(2):
                assert await _reason(third.login("00000000"), Unauthenticated) == "CODE_INVALID"
            late = third.login(await mail.code(4))
            assert await _reason(late, Unauthenticated) == "CODE_INVALID"
            await third.request()
            with pytest.raises(LimitExceeded) as caught:
                await third.request()
            assert caught.value.reason == "TOO_MANY_CODES"
            assert 3_500_000 < int(caught.value.metadata["retry_after_ms"]) <= 3_600_000
            assert await _reason(third.request(BOB), LimitExceeded) == "TOO_MANY_CODES"


async def test_many_at_once_get_no_more_codes_than_allowed(tmp_path):
    async with MailHost().serving() as mail, running(tmp_path, mail) as hub:
        asked = await asyncio.gather(*(hub.request() for _ in range(12)), return_exceptions=True)
        given = sum(item is None for item in asked)
        assert 1 <= given <= 5
        await mail.code(given)
        await asyncio.sleep(0.1)
        assert len(mail.mails) == given
        assert {item.reason for item in asked if isinstance(item, MeshError)} <= {
            "TOO_MANY_CODES",
            "CONFLICT",
        }


async def test_wrong_codes_from_one_address_are_too_many_in_the_end(tmp_path):
    async with MailHost().serving() as mail, running(tmp_path, mail, wrong_codes_per_address_hour=6) as hub:
        for number in range(6):
            call = hub.login("00000000", principal=f"p{number}@x.example")
            assert await _reason(call, Unauthenticated) == "CODE_INVALID"
        assert await _reason(hub.login("00000000"), LimitExceeded) == "TOO_MANY_TRIES"


async def test_codes_and_counts_vanish_by_themselves(tmp_path):
    async with MailHost().serving() as mail, running(tmp_path, mail) as hub:
        await hub.request()
        for bucket in (subject.KV_IDENTITY_CODE, subject.KV_IDENTITY_LIMIT):
            keys = await hub.bus.kv(bucket).keys()
            assert keys
            for key in keys:
                message = await hub.bus.last_message(f"$KV.{bucket}.{key}", stream=f"KV_{bucket}")
                assert message is not None
                assert 600 <= int((message.headers or {})["Nats-TTL"]) <= 3_700


async def test_a_mesh_without_mail_says_so(tmp_path):
    async with running(tmp_path) as hub:
        assert not (await login_methods(hub.address)).code
        assert await _reason(hub.request(), WrongState) == "CODE_LOGIN_DISABLED"
        assert await _reason(hub.login("ABCD-EFGH"), WrongState) == "CODE_LOGIN_DISABLED"


async def test_what_is_no_email_or_device_is_refused(tmp_path):
    async with MailHost().serving() as mail, running(tmp_path, mail) as hub:
        for principal in ("", "alice", f"{ALICE}\r\nBcc: {BOB}"):
            assert await _reason(hub.request(principal), InvalidInput) == "PRINCIPAL_INVALID"
        assert await _reason(hub.login("x", device_id="a b"), InvalidInput) == "DEVICE_INVALID"
    assert mail.connections == 0


async def test_behind_the_trusted_proxy_addresses_count_apart_and_nobody_else_can_claim_one(tmp_path):
    authority = TestAuthority()
    own = authority.issue(tmp_path / "identity", "identity", addresses=("127.0.0.1",))
    gateway = authority.issue(tmp_path / "gateway", "gateway")
    other = authority.issue(tmp_path / "sync", "sync")
    async with MailHost().serving() as mail, nats_server(tmp_path) as nats:
        settings = {
            "smtp_host": "127.0.0.1",
            "smtp_port": mail.port,
            "smtp_security": "none",
            "trusted_proxies": frozenset({"gateway"}),
            "codes_per_address_hour": 1,
        }
        async with replica(nats, tmp_path, own, **settings) as hub:
            for number in range(3):
                await _through(hub, gateway, f"192.0.2.{number}", f"p{number}@x.example")
            late = _through(hub, gateway, "192.0.2.1", "late@x.example")
            assert await _reason(late, LimitExceeded) == "TOO_MANY_CODES"
            # Whoever is no proxy counts as what it is, this machine, whatever it writes there.
            await _through(hub, other, "192.0.2.77", "p7@x.example")
            late = _through(hub, other, "192.0.2.78", "p8@x.example")
            assert await _reason(late, LimitExceeded) == "TOO_MANY_CODES"


async def _through(hub: Hub, caller: TlsIdentity, address: str, principal: str) -> None:
    channel = open_channel(hub.address, tls=caller.channel_credentials())
    try:
        stub: Any = api.IdentityServiceStub(channel)
        request = rpc.RequestCodeRequest(principal=principal)
        await stub.RequestCode(request, metadata=(("x-real-ip", address),))
    finally:
        await channel.close()
