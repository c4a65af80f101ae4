from __future__ import annotations

import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import Unauthenticated
from syftmesh_kit.keyset import parse_jwk, to_jwk
from syftmesh_kit.testing import FakeClock, FakeRandom
from syftmesh_kit.token import (
    AUDIENCES,
    GUEST_AUDIENCES,
    LONGEST_TTL_S,
    Revocation,
    StaticKeySet,
    TokenIssuer,
    TokenVerifier,
    audience_of,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


class CountingKeys:
    def __init__(self) -> None:
        self.asked = 0
        self.keys = {"k": KEY.public_key()}

    def public_key(self, kid: str) -> object:
        self.asked += 1
        return self.keys.get(kid)


def parts(max_cached: int = 10) -> tuple[FakeClock, CountingKeys, TokenIssuer, TokenVerifier]:
    clock, keys = FakeClock(), CountingKeys()
    issuer = TokenIssuer(KEY, "k", "embedded", clock, random=FakeRandom())
    return clock, keys, issuer, TokenVerifier(keys, "embedded", clock, max_cached=max_cached)  # type: ignore[arg-type]


def reason(verifier: TokenVerifier, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        verifier.verify(token, "sync")
    return caught.value.reason


def test_token_says_who_where_and_until_when() -> None:
    clock, _, issuer, verifier = parts()
    token, issued = issuer.issue("alice@x.org", "d1", kind="service")
    assert verifier.verify(token, "sync") == issued
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims == {
        "iss": "embedded",
        "sub": "alice@x.org",
        "did": "d1",
        "aud": ["identity", "sync", "permissions", "crypto", "router", "superlink", "gateway"],
        "iat": clock.now_ms() // 1000,
        "exp": clock.now_ms() // 1000 + 900,
        "jti": issued.token_id,
        "kind": "service",
    }


def test_a_token_is_taken_by_the_services_that_it_names_and_by_no_other() -> None:
    _, _, issuer, verifier = parts()
    token, issued = issuer.issue("alice@x.org", "d1", audiences=("superlink",))
    assert issued.audiences == ("superlink",)
    assert verifier.verify(token, "superlink") == issued
    for other in (*(set(AUDIENCES) - {"superlink"}), "", "syftmesh"):
        with pytest.raises(Unauthenticated) as caught:
            verifier.verify(token, other)
        assert caught.value.reason == "TOKEN_INVALID"
    everywhere, _ = issuer.issue("alice@x.org", "d1")
    for service in AUDIENCES:
        verifier.verify(everywhere, service)


@pytest.mark.parametrize("aud", ["sync", [], [""], ["sync", 1], {"sync": 1}, None])
def test_the_audience_is_a_list_of_names(aud: object) -> None:
    _, _, issuer, verifier = parts()
    claims = jwt.decode(
        issuer.issue("a@x.org", "d")[0], options={"verify_signature": False, "verify_aud": False}
    )
    claims["aud"] = aud
    forged = jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": "k"})
    assert reason(verifier, forged) == "TOKEN_INVALID"


@pytest.mark.parametrize(
    ("method", "audience"),
    [
        ("/mesh.identity.v1.IdentityService/WhoAmI", "identity"),
        ("/mesh.sync.v1.SyncService/ListFiles", "sync"),
        ("/mesh.rpc.v1.RpcService/Call", "router"),
        ("/mesh.federated.v1.FederationService/GetRun", "superlink"),
        ("/grpc.health.v1.Health/Check", ""),
        ("/meshy.sync.v1.X/Y", ""),
        ("", ""),
    ],
)
def test_a_method_belongs_to_the_service_of_its_domain(method: str, audience: str) -> None:
    assert audience_of(method) == audience


def test_guests_are_a_kind_of_their_own_and_ask_as_the_guest() -> None:
    _, _, issuer, verifier = parts()
    token, _ = issuer.issue("guest", "guest", kind="guest", audiences=GUEST_AUDIENCES)
    caller = verifier.verify(token, "sync")
    assert (caller.kind, caller.requester) == ("guest", "guest")
    assert verifier.verify(issuer.issue("a@x.org", "d")[0], "sync").requester == "a@x.org"
    service, _ = issuer.issue("router", "d", kind="service")
    assert verifier.verify(service, "sync").requester == ""
    assert reason(verifier, issuer.issue("a@x.org", "d", kind="root")[0]) == "TOKEN_INVALID"  # type: ignore[arg-type]
    with pytest.raises(Unauthenticated):
        verifier.verify(token, "router")


def test_verified_token_is_remembered_and_the_least_used_forgotten() -> None:
    _, keys, issuer, verifier = parts(max_cached=2)
    tokens = [issuer.issue(f"p{n}@x.org", "d")[0] for n in range(3)]
    for token in (tokens[0], tokens[1], tokens[0], tokens[2]):
        verifier.verify(token, "sync")
    assert keys.asked == 3
    verifier.verify(tokens[0], "sync")
    assert keys.asked == 3
    verifier.verify(tokens[1], "sync")
    assert keys.asked == 4


def test_remembered_token_still_expires_and_stays_expired() -> None:
    clock, _, issuer, verifier = parts()
    token, _ = issuer.issue("a@x.org", "d")
    verifier.verify(token, "sync")
    clock.advance(905)
    assert reason(verifier, token) == "TOKEN_EXPIRED"
    assert reason(verifier, token) == "TOKEN_EXPIRED"


def test_clock_that_steps_back_within_the_leeway_is_tolerated() -> None:
    clock, _, issuer, verifier = parts()
    token, _ = issuer.issue("a@x.org", "d")
    clock.step(-5)
    verifier.verify(token, "sync")
    clock.step(-1)
    verifier2 = TokenVerifier(StaticKeySet({"k": KEY.public_key()}), "embedded", clock)
    assert reason(verifier2, token) == "TOKEN_INVALID"


def test_retired_key_no_longer_verifies_what_was_remembered() -> None:
    _, keys, issuer, verifier = parts()
    token, _ = issuer.issue("a@x.org", "d")
    verifier.verify(token, "sync")
    keys.keys.clear()
    verifier.forget_key("k")
    assert reason(verifier, token) == "TOKEN_INVALID"


def test_revocation_of_a_device_holds_until_it_logs_in_again() -> None:
    clock, _, issuer, verifier = parts()
    old, _ = issuer.issue("a@x.org", "d")
    other, _ = issuer.issue("a@x.org", "other")
    verifier.verify(old, "sync")
    heard: list[Revocation] = []
    verifier.on_revoked(heard.append)
    verifier.revoke(Revocation(device_id="d", before_s=clock.now_ms() // 1000))
    assert reason(verifier, old) == "TOKEN_REVOKED"
    assert len(heard) == 1
    verifier.verify(other, "sync")
    clock.advance(1)
    verifier.verify(issuer.issue("a@x.org", "d")[0], "sync")


def test_revocations_are_forgotten_when_nothing_they_cover_is_alive() -> None:
    clock, _, _, verifier = parts()
    for number in range(80):
        verifier.revoke(Revocation(token_id=str(number), before_s=clock.now_ms() // 1000))
        clock.advance(100)
    assert 36 <= len(verifier._revocations) <= 37


def test_a_revocation_holds_as_long_as_the_longest_token_whatever_else_is_revoked() -> None:
    clock, _, _, verifier = parts()
    long = TokenIssuer(KEY, "k", "embedded", clock, ttl_s=LONGEST_TTL_S, random=FakeRandom())
    token, _ = long.issue("a@x.org", "d")
    verifier.revoke(Revocation(device_id="d", before_s=clock.now_ms() // 1000))
    clock.advance(LONGEST_TTL_S - 1)
    verifier.revoke(Revocation(device_id="other", before_s=clock.now_ms() // 1000))
    assert reason(verifier, token) == "TOKEN_REVOKED"


@pytest.mark.parametrize("claim", ["iss", "sub", "did", "aud", "iat", "exp", "jti", "kind"])
@pytest.mark.parametrize("value", [None, "", ["a"], 1.5, "missing"])
def test_every_claim_is_required_and_typed(claim: str, value: object) -> None:
    _, _, issuer, verifier = parts()
    claims = jwt.decode(issuer.issue("a@x.org", "d")[0], options={"verify_signature": False})
    if value == "missing":
        del claims[claim]
    else:
        claims[claim] = value
    try:
        token = jwt.encode(claims, KEY, algorithm="EdDSA", headers={"kid": "k"})
    except TypeError:  # PyJWT refuses to write such a claim itself
        return
    assert reason(verifier, token) == "TOKEN_INVALID"


@given(st.text(max_size=200))
def test_no_text_is_a_token(text: str) -> None:
    _, _, _, verifier = parts()
    with pytest.raises(Unauthenticated):
        verifier.verify(text, "sync")


@given(st.integers(0, 400), st.integers(1, 255))
def test_no_changed_byte_is_accepted_as_another_token(position: int, change: int) -> None:
    _, _, issuer, verifier = parts()
    token, caller = issuer.issue("a@x.org", "d")
    raw = bytearray(token.encode())
    raw[position % len(raw)] ^= change
    try:
        assert (
            verifier.verify(raw.decode("latin-1"), "sync") == caller
        )  # unused bits of base64url: the same bytes
    except Unauthenticated:
        return


def test_json_web_key_round_trip_and_refusals() -> None:
    raw = to_jwk("k", KEY.public_key())
    found = parse_jwk(raw)
    assert found is not None
    assert found.public_bytes_raw() == KEY.public_key().public_bytes_raw()
    for bad in (b"", b"{}", b"[]", b"null", raw.replace(b"OKP", b"RSA"), json.dumps({"kty": "OKP"}).encode()):
        assert parse_jwk(bad) is None
    short = {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}
    assert parse_jwk(json.dumps(short).encode()) is None


def test_real_time_plays_no_part() -> None:
    clock = FakeClock(now_ms=int(time.time() * 1000) - 10 * 365 * 86_400_000)
    token, caller = TokenIssuer(KEY, "k", "embedded", clock).issue("a@x.org", "d")
    assert (
        TokenVerifier(StaticKeySet({"k": KEY.public_key()}), "embedded", clock).verify(token, "sync")
        == caller
    )
