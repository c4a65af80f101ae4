"""The identity service on a real nats-server, called over gRPC by real clients."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.identity.v1 import identity_pb2 as pb
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_client.login import local_relogin, redeem_join_token
from syftmesh_client.session import HubSession
from syftmesh_client.token_file import StoredTokens, TokenFile
from syftmesh_client.token_source import TokenSource
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import (
    AlreadyExists,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    WrongState,
)
from syftmesh_kit.token import TokenIssuer

sys.path.insert(0, str(Path(__file__).parent))
from identity_hub import (
    ADMIN,
    ALICE,
    BOB,
    CLOCK,
    is_revoked,
    nats_server,
    refusal,
    running,
    serving,
    until,
)

pytestmark = pytest.mark.integration


async def test_login_whoami_refresh_and_reuse(tmp_path):
    async with running(tmp_path) as hub:
        tokens = await hub.login(device_id="dev-1")
        assert stat.S_IMODE((tmp_path / "local.token").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "signing.pem").stat().st_mode) == 0o600
        async with hub.client(tokens.access_token) as stub:
            me = await stub.WhoAmI(rpc.WhoAmIRequest())
            assert (me.principal, me.device_id, me.issuer) == (ALICE, "dev-1", "embedded")
            fresh = (await stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))).tokens
            newest = (await stub.Refresh(rpc.RefreshRequest(refresh_token=fresh.refresh_token))).tokens
            again = stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))
            assert await refusal(again, Unauthenticated) == "REFRESH_REUSED"
            dead = stub.Refresh(rpc.RefreshRequest(refresh_token=newest.refresh_token))
            assert await refusal(dead, Unauthenticated) == "REFRESH_INVALID"
            for token in (tokens.access_token, fresh.access_token, newest.access_token):
                async with hub.client(token) as late:
                    await until(lambda late=late: is_revoked(late))


async def test_calls_without_a_token_that_holds_are_refused(tmp_path):
    async with running(tmp_path) as hub:
        foreign, _ = TokenIssuer(Ed25519PrivateKey.generate(), "other", "embedded", CLOCK).issue(
            ALICE, "dev-1"
        )
        tokens = await hub.login()
        claims = jwt.decode(tokens.access_token, options={"verify_signature": False})
        assert claims["iss"] == "embedded"
        for token, reason in (
            ("", "TOKEN_MISSING"),
            ("rubbish", "TOKEN_INVALID"),
            (foreign, "TOKEN_INVALID"),
            (tokens.access_token[:-4] + "AAAA", "TOKEN_INVALID"),
            (tokens.refresh_token, "TOKEN_INVALID"),
        ):
            async with hub.client(token) as stub:
                for call in (
                    stub.WhoAmI(rpc.WhoAmIRequest()),
                    stub.ListDevices(rpc.ListDevicesRequest()),
                    stub.RevokeDevice(rpc.RevokeDeviceRequest()),
                    stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE, label="agent")),
                    stub.ListJoinTokens(rpc.ListJoinTokensRequest()),
                    stub.RevokeJoinToken(rpc.RevokeJoinTokenRequest()),
                    stub.ListSites(rpc.ListSitesRequest()),
                    stub.Logout(rpc.LogoutRequest()),
                    stub.RevokePrincipal(rpc.RevokePrincipalRequest()),
                ):
                    assert await refusal(call, Unauthenticated) == reason


async def test_an_expired_token_is_refused(tmp_path):
    class Past(SystemClock):
        def now_ms(self) -> int:
            return super().now_ms() - 3600_000

    async with running(tmp_path) as hub:
        from syftmesh_identity.adapters.signing_key import load_or_create

        key = load_or_create(tmp_path / "signing.pem")
        old, _ = TokenIssuer(key.key, key.kid, "embedded", Past()).issue(ALICE, "dev-1")
        async with hub.client(old) as stub:
            assert await refusal(stub.WhoAmI(rpc.WhoAmIRequest()), Unauthenticated) == "TOKEN_EXPIRED"


async def test_bad_logins_are_refused_with_their_reasons(tmp_path):
    async with running(tmp_path) as hub, hub.client() as stub:
        await hub.login(BOB, device_id="dev-bob")

        def login(**changes: str) -> Any:
            values = {
                "local_token": hub.local_token,
                "principal": ALICE,
                "device_id": "dev-1",
                "label": "profile",
            }
            return stub.LoginLocal(rpc.LoginLocalRequest(**{**values, **changes}))

        assert await refusal(login(local_token="x" * 43), Unauthenticated) == "LOCAL_TOKEN_INVALID"
        assert await refusal(login(principal="alice"), InvalidInput) == "PRINCIPAL_INVALID"
        assert await refusal(login(device_id="a b"), InvalidInput) == "DEVICE_INVALID"
        assert await refusal(login(device_id="dev-bob"), AlreadyExists) == "DEVICE_OF_ANOTHER"
        await login()


async def test_without_a_local_token_file_there_is_no_local_login(tmp_path):
    async with running(tmp_path, local_token_file=None) as hub, hub.client() as stub:
        call = stub.LoginLocal(rpc.LoginLocalRequest(local_token="", principal=ALICE, device_id="dev-1"))
        assert await refusal(call, WrongState) == "LOCAL_LOGIN_DISABLED"
        assert not (tmp_path / "local.token").exists()


async def test_a_revoked_device_is_refused_at_once_and_for_ever(tmp_path):
    async with running(tmp_path) as hub:
        mine, other = await hub.login(device_id="dev-1"), await hub.login(device_id="dev-2")
        async with hub.client(mine.access_token) as stub, hub.client(other.access_token) as late:
            unknown = stub.RevokeDevice(rpc.RevokeDeviceRequest(device_id="dev-9"))
            assert await refusal(unknown, NotFound) == "DEVICE_UNKNOWN"
            await stub.RevokeDevice(rpc.RevokeDeviceRequest(device_id="dev-2"))
            await stub.RevokeDevice(rpc.RevokeDeviceRequest(device_id="dev-2"))
            await until(lambda: is_revoked(late))
            devices = (await stub.ListDevices(rpc.ListDevicesRequest())).devices
            assert [(d.device_id, d.revoked) for d in devices] == [("dev-1", False), ("dev-2", True)]
            again = stub.Refresh(rpc.RefreshRequest(refresh_token=other.refresh_token))
            assert await refusal(again, Unauthenticated) == "REFRESH_INVALID"
        with pytest.raises(PermissionDenied) as caught:
            await hub.login(device_id="dev-2")
        assert caught.value.reason == "DEVICE_REVOKED"


async def test_join_tokens_make_sites(tmp_path):
    async with running(tmp_path, administrators=frozenset({ADMIN})) as hub:
        alice, admin = await hub.login(ALICE), await hub.login(ADMIN)
        async with hub.client(alice.access_token) as stub, hub.client(admin.access_token) as boss:
            assert list((await stub.ListSites(rpc.ListSitesRequest())).sites) == []
            denied = stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=BOB, label="agent"))
            assert await refusal(denied, PermissionDenied) == "PERMISSION_DENIED"
            made = await boss.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=BOB, label="agent"))
            assert made.join_token.state == pb.JOIN_TOKEN_STATE_OPEN
            joining = [
                redeem_join_token(hub.address, secret=made.secret, principal=BOB, device_id=f"dev-{n}")
                for n in range(6)
            ]
            results = await asyncio.gather(*joining, return_exceptions=True)
            (joined,) = [result for result in results if isinstance(result, StoredTokens)]
            refused = {error.reason for error in results if isinstance(error, MeshError)}
            assert refused == {"JOIN_TOKEN_INVALID"}
            sites = (await stub.ListSites(rpc.ListSitesRequest())).sites
            assert [site.principal for site in sites] == [BOB]
            listed = (await boss.ListJoinTokens(rpc.ListJoinTokensRequest())).join_tokens
            assert [t.state for t in listed] == [pb.JOIN_TOKEN_STATE_REDEEMED]
            assert made.secret.rpartition(".")[2] not in str(listed)
            assert list((await stub.ListJoinTokens(rpc.ListJoinTokensRequest())).join_tokens) == []
        async with hub.client(joined.access_token) as stub:
            assert (await stub.WhoAmI(rpc.WhoAmIRequest())).principal == BOB


async def test_join_tokens_are_taken_back_and_listed_in_pages(tmp_path):
    async with running(tmp_path) as hub:
        tokens = await hub.login()
        async with hub.client(tokens.access_token) as stub:
            made = [
                await stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE, label="runner"))
                for _ in range(3)
            ]
            await stub.RevokeJoinToken(rpc.RevokeJoinTokenRequest(token_id=made[0].join_token.token_id))
            first = await stub.ListJoinTokens(rpc.ListJoinTokensRequest(page_size=2))
            rest = await stub.ListJoinTokens(
                rpc.ListJoinTokensRequest(page_size=2, page_token=first.next_page_token)
            )
            ids = [t.token_id for t in (*first.join_tokens, *rest.join_tokens)]
            assert ids == [m.join_token.token_id for m in reversed(made)]
            assert rest.join_tokens[0].state == pb.JOIN_TOKEN_STATE_REVOKED
            assert rest.next_page_token == ""
            late = redeem_join_token(hub.address, secret=made[0].secret, principal=ALICE, device_id="dev-9")
            assert await refusal(late, Unauthenticated) == "JOIN_TOKEN_INVALID"
            unknown = stub.RevokeJoinToken(rpc.RevokeJoinTokenRequest(token_id="none"))
            assert await refusal(unknown, NotFound) == "JOIN_TOKEN_UNKNOWN"
            for request in (rpc.ListSitesRequest(page_size=-1), rpc.ListSitesRequest(page_token="x")):
                assert await refusal(stub.ListSites(request), InvalidInput) == "PAGE_INVALID"


async def test_logout_ends_the_login(tmp_path):
    async with running(tmp_path) as hub:
        tokens = await hub.login()
        async with hub.client(tokens.access_token) as stub:
            await stub.Logout(rpc.LogoutRequest(refresh_token=tokens.refresh_token))
            await until(lambda: is_revoked(stub))
        async with hub.client() as stub:
            again = stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))
            assert await refusal(again, Unauthenticated) == "REFRESH_INVALID"


async def test_whoever_ends_its_own_token_is_told_that_it_worked(tmp_path):
    async with running(tmp_path) as hub:
        for number in range(8):
            tokens = await hub.login(device_id=f"dev-{number}")
            async with hub.client(tokens.access_token) as stub:
                if number % 2:
                    await stub.RevokeDevice(rpc.RevokeDeviceRequest(device_id=f"dev-{number}"))
                else:
                    await stub.Logout(rpc.LogoutRequest(refresh_token=tokens.refresh_token))
                await until(lambda stub=stub: is_revoked(stub))


async def test_the_key_set_verifies_the_tokens_without_us(tmp_path):
    async with running(tmp_path) as hub:
        tokens = await hub.login()
        async with hub.client() as stub:
            found = await stub.GetKeySet(rpc.GetKeySetRequest())
        kid = jwt.get_unverified_header(tokens.access_token)["kid"]
        (key,) = [key for key in found.keys if key.key_id == kid]
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        public = Ed25519PublicKey.from_public_bytes(key.public_key)
        claims = jwt.decode(tokens.access_token, public, algorithms=["EdDSA"], audience="router")
        assert (claims["sub"], claims["iss"]) == (ALICE, found.issuer)
        assert not key.HasField("not_after")


async def test_everything_outlives_a_restart_and_a_session_does_not_notice(tmp_path):
    profile = tmp_path / "profile"
    profile.mkdir(mode=0o700)
    async with nats_server(tmp_path) as nats:
        async with serving(nats, tmp_path) as hub:
            source = TokenSource(TokenFile(profile), CLOCK)
            await source.store(await hub.login(label="agent", device_id="dev-1"))
            address = hub.address
            session = HubSession(address, source, CLOCK, retry_window_s=15)
            assert (await session.identity.WhoAmI(rpc.WhoAmIRequest())).device_id == "dev-1"
        waiting = asyncio.create_task(session.identity.ListSites(rpc.ListSitesRequest()))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        async with serving(nats, tmp_path, address=address):
            assert [site.principal for site in (await waiting).sites] == [ALICE]
            source.refuse(source.tokens.access_token)
            before = source.tokens.refresh_token
            assert (await session.identity.WhoAmI(rpc.WhoAmIRequest())).principal == ALICE
            assert source.tokens.refresh_token != before
            await session.close()


async def test_a_device_of_the_embedded_mesh_logs_in_anew_by_itself(tmp_path):
    async with running(tmp_path) as hub:
        relogin = local_relogin(
            hub.address,
            local_token_file=tmp_path / "local.token",
            principal=ALICE,
            device_id="dev-1",
            label="agent",
        )
        source = TokenSource(TokenFile(tmp_path / "site"), CLOCK, relogin=relogin)
        await source.open()
        async with HubSession(hub.address, source, CLOCK) as session:
            await session.identity.Logout(rpc.LogoutRequest(refresh_token=source.tokens.refresh_token))
            await asyncio.sleep(0.2)
            assert (await session.identity.WhoAmI(rpc.WhoAmIRequest())).principal == ALICE


async def test_no_secret_reaches_the_bus(tmp_path):
    async with running(tmp_path) as hub:
        tokens = await hub.login()
        async with hub.client(tokens.access_token) as stub:
            made = await stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE, label="agent"))
        secrets = [tokens.access_token, *tokens.refresh_token.split(".")[2:], made.secret.rpartition(".")[2]]
        stored = b"".join(
            path.read_bytes()
            for path in (tmp_path / "nats").rglob("*")
            if path.is_file() and os.access(path, os.R_OK)
        )
        assert b"identity_refresh" in stored
        for secret in (*secrets, hub.local_token):
            assert secret.encode() not in stored
