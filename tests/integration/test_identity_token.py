"""Tokens that do not hold, keys that rotate, and secrets that are nowhere; on a real nats-server."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_client.login import redeem_join_token
from syftmesh_core.errors import Conflict, Unauthenticated
from syftmesh_identity.adapters.kv_store import BUCKETS
from syftmesh_identity.adapters.signing_key import SigningKey, load_or_create
from syftmesh_identity.domain.ring import LAG_S, LONGEST_TOKEN_S
from syftmesh_identity.domain.rotation import LEAD_S
from syftmesh_kit import subject
from syftmesh_kit.keyset import KeySetPublisher
from syftmesh_kit.token import AUDIENCES, TokenIssuer

sys.path.insert(0, str(Path(__file__).parent))
from identity_hub import (
    ADMIN,
    ALICE,
    CLOCK,
    Hub,
    ShiftedClock,
    nats_server,
    refusal,
    running,
    serving,
)

pytestmark = pytest.mark.integration


def _claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def _signed(key: SigningKey, good: str, **changes: Any) -> str:
    return jwt.encode({**_claims(good), **changes}, key.key, algorithm="EdDSA", headers={"kid": key.kid})


def _hmac(key: SigningKey, good: str) -> str:
    """Sign with the public key as if it were a shared secret, by hand: PyJWT does not lend itself to that."""
    header = json.dumps({"alg": "HS256", "typ": "JWT", "kid": key.kid}).encode()
    signed = b".".join([_base64(header), good.split(".")[1].encode()])
    public = key.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return b".".join([signed, _base64(hmac.digest(public, signed, "sha256"))]).decode()


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


STRANGER = Ed25519PrivateKey.generate()
NOW_S: Callable[[], int] = lambda: CLOCK.now_ms() // 1000  # noqa: E731

BAD: dict[str, tuple[Callable[[SigningKey, str], str], str]] = {
    "without algorithm": (
        lambda key, good: jwt.encode(_claims(good), None, algorithm="none", headers={"kid": key.kid}),
        "TOKEN_INVALID",
    ),
    "public key as secret": (_hmac, "TOKEN_INVALID"),
    "wrong issuer": (lambda key, good: _signed(key, good, iss="https://evil.example"), "TOKEN_INVALID"),
    "for other services": (
        lambda key, good: _signed(key, good, aud=[a for a in AUDIENCES if a != "identity"]),
        "TOKEN_INVALID",
    ),
    "for the hub as a whole": (lambda key, good: _signed(key, good, aud="syftmesh"), "TOKEN_INVALID"),
    "unknown key": (lambda key, good: _signed(SigningKey(key.key, "0" * 16), good), "TOKEN_INVALID"),
    "foreign key": (lambda key, good: _signed(SigningKey(STRANGER, key.kid), good), "TOKEN_INVALID"),
    "retired key": (lambda _key, good: _signed(SigningKey(STRANGER, "retired"), good), "TOKEN_INVALID"),
    "clock ahead": (lambda key, good: _signed(key, good, iat=NOW_S() + 20), "TOKEN_INVALID"),
    "clock behind": (lambda key, good: _signed(key, good, exp=NOW_S() - 20), "TOKEN_EXPIRED"),
    "oversized": (lambda key, good: _signed(key, good, more="x" * 4096), "TOKEN_INVALID"),
    "unknown kind": (lambda key, good: _signed(key, good, kind="administrator"), "TOKEN_INVALID"),
    "refresh token": (lambda _key, _good: "smr1.a.b.c", "TOKEN_INVALID"),
}


async def _stored(hub: Hub) -> dict[str, int]:
    return {name: (await hub.bus.stream_state(f"KV_{name}")).last_sequence for name in BUCKETS}


async def test_no_token_that_does_not_hold_is_answered_and_nothing_is_stored(tmp_path):
    async with running(tmp_path, administrators=frozenset({ADMIN})) as hub:
        good = (await hub.login(ADMIN)).access_token
        publisher = KeySetPublisher(hub.bus.kv(subject.KV_IDENTITY_KEYS))
        await publisher.publish("retired", STRANGER.public_key())
        await publisher.retire("retired")
        key = load_or_create(tmp_path / "signing.pem")
        before = await _stored(hub)
        found = {}
        for name, (forge, _) in BAD.items():
            async with hub.client(forge(key, good)) as stub:
                calls = (
                    stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE, label="agent")),
                    stub.RevokePrincipal(rpc.RevokePrincipalRequest(principal=ALICE)),
                    stub.RotateSigningKey(rpc.RotateSigningKeyRequest()),
                )
                found[name] = {await refusal(call, Unauthenticated) for call in calls}
        assert found == {name: {reason} for name, (_, reason) in BAD.items()}
        assert await _stored(hub) == before
        async with hub.client(_signed(key, good, iat=NOW_S() + 3)) as stub:  # clocks differ that much
            await stub.WhoAmI(rpc.WhoAmIRequest())


async def test_a_replayed_refresh_puts_both_holders_out(tmp_path):
    async with running(tmp_path) as hub, hub.client() as stub:

        async def refresh(token: str) -> Any:
            return (await stub.Refresh(rpc.RefreshRequest(refresh_token=token))).tokens

        stolen = (await hub.login()).refresh_token
        thief, owner = await refresh(stolen), await refresh(stolen)
        owner = await refresh(owner.refresh_token)
        assert await refusal(refresh(thief.refresh_token), Unauthenticated) == "REFRESH_REUSED"
        assert await refusal(refresh(owner.refresh_token), Unauthenticated) == "REFRESH_INVALID"
        assert await refusal(refresh("smr1." + "a" * 5000 + ".b.c"), Unauthenticated) == "REFRESH_INVALID"


def _kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def test_keys_rotate_for_all_replicas_while_old_tokens_hold(tmp_path):
    clock = ShiftedClock()
    options = {"clock": clock, "administrators": frozenset({ADMIN})}
    async with (
        nats_server(tmp_path) as nats,
        serving(nats, tmp_path, **options) as one,
        serving(nats, tmp_path, **options) as other,
    ):
        first = (await one.login(ADMIN)).access_token
        async with one.client(first) as at_one, other.client(first) as at_other:
            request = rpc.RotateSigningKeyRequest()
            results = await asyncio.gather(
                at_one.RotateSigningKey(request), at_other.RotateSigningKey(request), return_exceptions=True
            )
            (kid,) = [r.key_id for r in results if not isinstance(r, BaseException)]
            (conflict,) = [r for r in results if isinstance(r, BaseException)]
            assert isinstance(conflict, Conflict)
            early = (await other.login(ALICE)).access_token
            assert _kid(early) == _kid(first)
            clock.shift_s = LEAD_S + 1
            late = [(await hub.login(ALICE)).access_token for hub in (one, other)]
            assert {_kid(token) for token in late} == {kid}
            for hub in (one, other):
                for token in (first, early, *late):
                    async with hub.client(token) as stub:
                        await stub.WhoAmI(rpc.WhoAmIRequest())
            keys = (await at_other.GetKeySet(rpc.GetKeySetRequest())).keys
            assert [key.key_id for key in keys] == [kid, _kid(first)]
            ends_s = keys[1].not_after.seconds - CLOCK.now_ms() / 1000
            assert 0 <= LEAD_S + LAG_S + LONGEST_TOKEN_S - ends_s < 60
            assert not keys[0].HasField("not_after")
    async with nats_server(tmp_path) as nats, serving(nats, tmp_path, **options) as again:
        assert _kid((await again.login(ALICE)).access_token) == kid


async def test_no_secret_that_was_given_out_is_in_any_bucket(tmp_path):
    async with running(tmp_path, administrators=frozenset({ADMIN}), guests_enabled=True) as hub:
        secrets = [hub.local_token]
        tokens = await hub.login(ADMIN)
        async with hub.client(tokens.access_token) as stub:
            renewed = (await stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))).tokens
            again = (await stub.Refresh(rpc.RefreshRequest(refresh_token=tokens.refresh_token))).tokens
            made = await stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE, label="agent"))
            wide = await stub.CreateJoinToken(rpc.CreateJoinTokenRequest(domain="x.example"))
        async with hub.client(again.access_token) as stub:
            await stub.RotateSigningKey(rpc.RotateSigningKeyRequest())
            guest = await stub.LoginAsGuest(rpc.LoginAsGuestRequest())
            joined = await redeem_join_token(
                hub.address, secret=made.secret, principal=ALICE, device_id="dev-1"
            )
            await stub.RevokePrincipal(rpc.RevokePrincipalRequest(principal=ALICE))
        for pair in (tokens, renewed, again, joined):
            secrets += [pair.access_token, *pair.refresh_token.split(".")[2:]]
        secrets += [guest.access_token, *(one.secret.rpartition(".")[2] for one in (made, wide))]
        root = load_or_create(tmp_path / "signing.pem").key.private_bytes_raw()
        wanted = [secret.encode() for secret in secrets] + [root, root.hex().encode()]
        records = [
            entry.value or b"" for name in BUCKETS for entry in [e async for e in hub.bus.kv(name).entries()]
        ]
        files = [
            path.read_bytes()
            for path in (tmp_path / "nats").rglob("*")
            if path.is_file() and os.access(path, os.R_OK)
        ]
        stored = b"\n".join([*records, *files])
        for name in ("identity_signing", "identity_join", "identity_refresh", "identity_revoked"):
            assert name.encode() in stored
        assert len(records) > 8
        assert [secret for secret in wanted if secret in stored] == []


async def test_tokens_of_a_key_file_that_was_taken_away_are_refused(tmp_path):
    async with nats_server(tmp_path) as nats:
        async with serving(nats, tmp_path) as hub:
            old = await hub.login(device_id="dev-1")
        (tmp_path / "signing.pem").unlink()
        async with serving(nats, tmp_path) as hub:
            async with hub.client(old.access_token) as stub:
                assert await refusal(stub.WhoAmI(rpc.WhoAmIRequest()), Unauthenticated) == "TOKEN_INVALID"
            async with hub.client() as stub:
                fresh = (await stub.Refresh(rpc.RefreshRequest(refresh_token=old.refresh_token))).tokens
            async with hub.client(fresh.access_token) as stub:
                assert (await stub.WhoAmI(rpc.WhoAmIRequest())).principal == ALICE
                (key,) = (await stub.GetKeySet(rpc.GetKeySetRequest())).keys
            assert key.key_id == _kid(fresh.access_token) != _kid(old.access_token)
        forged, _ = TokenIssuer(STRANGER, _kid(fresh.access_token), "embedded", CLOCK).issue(ALICE, "dev-1")
        async with serving(nats, tmp_path) as hub, hub.client(forged) as stub:
            assert await refusal(stub.WhoAmI(rpc.WhoAmIRequest()), Unauthenticated) == "TOKEN_INVALID"
