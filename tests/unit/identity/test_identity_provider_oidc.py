"""An OIDC provider as the hub sees it: what is taken of its answers, and what is not."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from syftmesh_core.errors import MeshError, Unauthenticated, Unavailable
from syftmesh_identity.adapters.id_token import LEEWAY_S, TokenHeader, header_of
from syftmesh_identity.adapters.oidc import PAUSE_S, OidcProvider
from syftmesh_identity.adapters.provider_http import MAX_BYTES, ProviderHttp
from syftmesh_identity.adapters.provider_key import REFETCH_S, public_keys
from syftmesh_identity.domain.provider import PollState, Provider
from syftmesh_kit.testing import FakeClock

ISSUER, CLIENT = "https://sso.example/realms/mesh", "hub"
ALICE = "alice@x.example"
WELL_KNOWN = "/realms/mesh/.well-known/openid-configuration"
NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
KEYS: dict[str, Any] = {
    "ES256": ECKey.generate_key("P-256", {"kid": "one"}),
    "ES384": ECKey.generate_key("P-384", {"kid": "three"}),
    "RS256": RSAKey.generate_key(2048, {"kid": "two"}),
    "EdDSA": OKPKey.generate_key("Ed25519", {"kid": "four"}),
}
KEY = KEYS["ES256"]
OTHER = ECKey.generate_key("P-256", {"kid": "one"})


def sign(claims: dict[str, Any], key: Any = KEY, alg: str = "ES256", **header: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)
        named = {"alg": alg, **({"kid": key.kid} if key is not None else {}), **header}
        return jwt.encode(named, claims, key, algorithms=[alg])


def encoded(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@dataclass
class Sso:
    """A provider whose answers a test changes: by path a JSON document, a response, or an error to raise."""

    clock: FakeClock = field(default_factory=FakeClock)
    asked: list[httpx.Request] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    provider: Provider = field(default_factory=lambda: Provider("sso", ISSUER, CLIENT))

    def __post_init__(self) -> None:
        base = "https://sso.example"
        self.answers = {
            WELL_KNOWN: {
                "issuer": ISSUER,
                "device_authorization_endpoint": f"{base}/device_authorization",
                "token_endpoint": f"{base}/token",
                "jwks_uri": f"{base}/keys",
                "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
            },
            "/device_authorization": {
                "device_code": "device-code",
                "user_code": "WDJB-MJHT",
                "verification_uri": f"{base}/device",
                "verification_uri_complete": f"{base}/device?user_code=WDJB-MJHT",
                "expires_in": 600,
                "interval": 7,
            },
            "/keys": {"keys": [key.as_dict(private=False) for key in KEYS.values()]},
            "/token": httpx.Response(400, json={"error": "authorization_pending"}),
        }
        self.client = self.opened()

    def opened(self) -> OidcProvider:
        http = ProviderHttp(self.provider, NOBODY, transport=httpx.MockTransport(self._answer))
        return OidcProvider(self.provider, http, self.clock)

    def claims(self, **changed: Any) -> dict[str, Any]:
        now_s = self.clock.now_ms() // 1000
        values = {"iss": ISSUER, "aud": CLIENT, "sub": "1", "iat": now_s, "exp": now_s + 300}
        claims = {**values, "email": ALICE, "email_verified": True, **changed}
        return {name: value for name, value in claims.items() if value is not ...}

    def give(self, token: object) -> None:
        self.answers["/token"] = {"access_token": "a", "token_type": "Bearer", "id_token": token}

    def count(self, path: str) -> int:
        return sum(request.url.path == path for request in self.asked)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[request.url.path]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    async def refused(self, check: str) -> None:
        with pytest.raises(Unauthenticated) as caught:
            await self.client.poll("device-code")
        assert (caught.value.reason, caught.value.metadata["check"]) == ("PROVIDER_TOKEN_INVALID", check)

    async def away(self, ask: Callable[[], Any]) -> None:
        with pytest.raises(Unavailable) as caught:
            await ask()
        assert caught.value.reason == "PROVIDER_AWAY"
        assert "sso" in caught.value.message


@pytest.fixture
def sso() -> Sso:
    return Sso()


async def test_the_hub_gets_a_code_and_says_who_it_is(sso: Sso) -> None:
    found = await sso.client.authorize()
    assert (found.device_code, found.user_code) == ("device-code", "WDJB-MJHT")
    assert (found.expires_s, found.interval_s) == (600, 7)
    assert found.verification_uri_complete.endswith("WDJB-MJHT")
    sent = dict(httpx.QueryParams(sso.asked[-1].content.decode()))
    assert sent == {"client_id": CLIENT, "scope": "openid email"}
    assert "authorization" not in sso.asked[-1].headers
    assert "device-code" not in repr(found)


@pytest.mark.parametrize("methods", [["client_secret_basic"], ["client_secret_post"], ...])
async def test_a_client_secret_is_shown_as_the_provider_takes_it(methods: Any) -> None:
    sso = Sso(provider=Provider("sso", ISSUER, CLIENT, client_secret="s/e+c r"))
    document = sso.answers[WELL_KNOWN]
    if methods is ...:
        del document["token_endpoint_auth_methods_supported"]
    else:
        document["token_endpoint_auth_methods_supported"] = methods
    await sso.client.authorize()
    sent = dict(httpx.QueryParams(sso.asked[-1].content.decode()))
    if methods == ["client_secret_post"]:
        assert sent["client_secret"] == "s/e+c r"
        assert "authorization" not in sso.asked[-1].headers
    else:
        assert "client_secret" not in sent
        shown = base64.b64decode(sso.asked[-1].headers["authorization"].removeprefix("Basic "))
        assert shown == b"hub:s%2Fe%2Bc%20r"


@pytest.mark.parametrize("alg", sorted(KEYS))
async def test_a_token_of_each_kind_of_key_is_taken(sso: Sso, alg: str) -> None:
    sso.give(sign(sso.claims(), KEYS[alg], alg))
    found = await sso.client.poll("device-code")
    assert found.state is PollState.CONFIRMED
    assert found.claims["email"] == ALICE
    sent = dict(httpx.QueryParams(sso.asked[-1].content.decode()))
    assert sent["device_code"] == "device-code"
    assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:device_code"


@pytest.mark.parametrize(
    ("error", "state"),
    [
        ("authorization_pending", PollState.PENDING),
        ("slow_down", PollState.SLOW_DOWN),
        ("access_denied", PollState.ENDED),
        ("expired_token", PollState.ENDED),
        ("invalid_grant", PollState.ENDED),
    ],
)
async def test_how_far_the_login_is_comes_from_the_error(sso: Sso, error: str, state: PollState) -> None:
    sso.answers["/token"] = httpx.Response(400, json={"error": error})
    assert (await sso.client.poll("device-code")).state is state


async def test_documents_and_keys_are_asked_once_an_hour(sso: Sso) -> None:
    for _ in range(5):
        await sso.client.poll("device-code")
    assert (sso.count(WELL_KNOWN), sso.count("/keys")) == (1, 1)
    sso.clock.advance(3600)
    await sso.client.poll("device-code")
    assert (sso.count(WELL_KNOWN), sso.count("/keys")) == (2, 2)


async def test_many_that_wait_for_a_provider_that_is_away_fail_with_the_first(sso: Sso) -> None:
    document = sso.answers[WELL_KNOWN]
    sso.answers[WELL_KNOWN] = httpx.ReadTimeout("slow")
    found = await asyncio.gather(*(sso.client.authorize() for _ in range(20)), return_exceptions=True)
    assert all(isinstance(item, Unavailable) and item.reason == "PROVIDER_AWAY" for item in found)
    assert sso.count(WELL_KNOWN) == 1
    sso.answers[WELL_KNOWN] = document
    sso.clock.advance(PAUSE_S)
    await sso.client.authorize()


async def test_a_new_key_is_found_by_one_more_look(sso: Sso) -> None:
    await sso.client.poll("device-code")
    fresh = ECKey.generate_key("P-256", {"kid": "new"})
    sso.answers["/keys"] = {"keys": [fresh.as_dict(private=False)]}
    sso.give(sign(sso.claims(), fresh))
    assert (await sso.client.poll("device-code")).state is PollState.CONFIRMED
    sso.give(sign(sso.claims()))
    await sso.refused("key")


async def test_made_up_key_names_do_not_make_the_hub_ask_again_and_again(sso: Sso) -> None:
    for number in range(10):
        sso.give(sign(sso.claims(), OTHER, kid=f"made-up-{number}"))
        await sso.refused("key")
    assert sso.count("/keys") == 2
    sso.clock.advance(REFETCH_S)
    await sso.refused("key")
    await sso.refused("key")
    assert sso.count("/keys") == 3


async def test_a_token_that_another_key_signed_is_refused(sso: Sso) -> None:
    sso.give(sign(sso.claims(), OTHER))
    await sso.refused("signature")
    head, _, rest = sign(sso.claims()).partition(".")
    body, _, signature = rest.partition(".")
    sso.give(f"{head}.{encoded(sso.claims(email='eve@x.example'))}.{signature}")
    await sso.refused("signature")
    sso.give(f"{head}.{body}.")
    await sso.refused("signature")


async def test_a_token_without_a_signature_is_refused(sso: Sso) -> None:
    for alg in ("none", "None", "NONE", ""):
        sso.give(f"{encoded({'alg': alg})}.{encoded(sso.claims())}.")
        await sso.refused("algorithm")


async def test_a_public_key_is_no_shared_secret(sso: Sso) -> None:
    for public in (KEYS["RS256"], KEY):
        for secret in (public.as_pem(private=False), json.dumps(public.as_dict(private=False)).encode()):
            head = f"{encoded({'alg': 'HS256', 'kid': public.kid})}.{encoded(sso.claims())}"
            mac = base64.urlsafe_b64encode(hmac.digest(secret, head.encode(), "sha256")).rstrip(b"=")
            sso.give(f"{head}.{mac.decode()}")
            await sso.refused("algorithm")


async def test_an_algorithm_counts_with_its_own_keys_alone(sso: Sso) -> None:
    token = sign(sso.claims(), KEYS["RS256"], "RS256", kid="one")
    sso.give(token)
    await sso.refused("key")
    sso.answers["/keys"] = {"keys": [{**KEY.as_dict(private=False), "alg": "ES512"}]}
    sso.client = sso.opened()
    sso.give(sign(sso.claims()))
    await sso.refused("key")


async def test_a_token_without_a_key_name_counts_when_one_key_fits(sso: Sso) -> None:
    token = jwt.encode({"alg": "ES256"}, sso.claims(), KEY)
    sso.give(token)
    assert (await sso.client.poll("device-code")).state is PollState.CONFIRMED
    sso.answers["/keys"]["keys"].append({**OTHER.as_dict(private=False), "kid": "five"})
    sso.client = sso.opened()
    await sso.refused("key")


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"iss": "https://evil.example"}, "iss"),
        ({"iss": f"{ISSUER}/"}, "iss"),
        ({"iss": ...}, "iss"),
        ({"iss": [ISSUER]}, "iss"),
        ({"aud": "somebody"}, "aud"),
        ({"aud": ["somebody"]}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": ...}, "aud"),
        ({"aud": [CLIENT, "somebody"]}, "azp"),
        ({"aud": [CLIENT, "somebody"], "azp": "somebody"}, "azp"),
        ({"azp": "somebody"}, "azp"),
        ({"azp": 7}, "azp"),
        ({"sub": ...}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"exp": ...}, "exp"),
        ({"exp": "2100-01-01"}, "exp"),
        ({"exp": True}, "exp"),
        ({"exp": float("nan")}, "exp"),
        ({"exp": 1}, "exp"),
        ({"iat": ...}, "iat"),
        ({"iat": 4_000_000_000}, "iat"),
        ({"nbf": 4_000_000_000}, "nbf"),
        ({"nbf": "soon"}, "nbf"),
    ],
)
async def test_a_token_for_others_or_for_another_time_is_refused(
    sso: Sso, changed: dict[str, Any], check: str
) -> None:
    sso.give(sign(sso.claims(**changed)))
    await sso.refused(check)


async def test_clocks_may_differ_by_a_minute_and_no_more(sso: Sso) -> None:
    now_s = sso.clock.now_ms() // 1000
    for changed in (
        {"exp": now_s - LEEWAY_S + 1},
        {"iat": now_s + LEEWAY_S},
        {"nbf": now_s + LEEWAY_S},
    ):
        sso.give(sign(sso.claims(**changed)))
        assert (await sso.client.poll("device-code")).state is PollState.CONFIRMED
    for check, changed in (
        ("exp", {"exp": now_s - LEEWAY_S}),
        ("iat", {"iat": now_s + LEEWAY_S + 1}),
        ("nbf", {"nbf": now_s + LEEWAY_S + 1}),
    ):
        sso.give(sign(sso.claims(**changed)))
        await sso.refused(check)


async def test_a_token_ends_by_time(sso: Sso) -> None:
    sso.give(sign(sso.claims()))
    sso.clock.advance(300 + LEEWAY_S - 1)
    assert (await sso.client.poll("device-code")).state is PollState.CONFIRMED
    sso.clock.advance(1)
    await sso.refused("exp")


async def test_a_token_for_several_clients_counts_when_it_was_made_for_this_one(sso: Sso) -> None:
    sso.give(sign(sso.claims(aud=[CLIENT, "other"], azp=CLIENT)))
    assert (await sso.client.poll("device-code")).state is PollState.CONFIRMED


@pytest.mark.parametrize("token", [None, 7, "", "a.b", "a.b.c", "....", "A" * 100_000, {"a": 1}, "é.é.é"])
async def test_what_is_no_token_is_refused(sso: Sso, token: object) -> None:
    sso.give(token)
    await sso.refused("form")


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"], "exp": 1},
        {"crit": 7},
        {"b64": False},
        {"jwk": OTHER.as_dict(private=False)},
        {"jku": "https://evil.example/keys"},
        {"x5u": "https://evil.example/cert"},
        {"kid": 7},
        {"kid": ""},
        {"kid": "k" * 300},
    ],
)
def test_a_header_that_brings_its_own_key_or_rules_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        header_of(f"{encoded({'alg': 'ES256', **header})}.e30.AAAA")
    assert caught.value.metadata["check"] == "form"


def test_a_header_is_read_as_it_stands() -> None:
    assert header_of(sign({"a": 1})) == TokenHeader("ES256", "one")


async def test_a_token_nested_without_end_is_refused(sso: Sso) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 10_000).rstrip(b"=").decode()
    sso.give(f"{deep}.{deep}.AAAA")
    await sso.refused("form")


@pytest.mark.parametrize(
    "member",
    [
        7,
        None,
        {},
        {"kty": "oct", "k": "AAAA", "kid": "one"},
        {"kty": ["EC"]},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": 1, "y": 2},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"kty": "RSA", "n": "!!!", "e": "AQAB"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43, "use": "enc"},
        KEY.as_dict(private=True),
        {"kty": "RSA", "n": base64.urlsafe_b64encode(b"\xc1" * 128).decode().rstrip("="), "e": "AQAB"},
    ],
)
def test_what_is_no_public_signing_key_is_left_out(member: object) -> None:
    document = {"keys": [member, KEY.as_dict(private=False)]}
    assert [key.get("kid") for key in public_keys(document)] == ["one"]


def test_a_set_without_keys_has_none() -> None:
    documents: list[dict[str, Any]] = [{}, {"keys": None}, {"keys": {}}, {"keys": "abc"}, {"keys": []}]
    for document in documents:
        assert public_keys(document) == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "https://evil.example"},
        {"issuer": f"{ISSUER}/"},
        {"issuer": None},
        {"token_endpoint": "https://evil.example/token"},
        {"token_endpoint": "http://sso.example/token"},
        {"token_endpoint": None},
        {"token_endpoint": 7},
        {"jwks_uri": "https://169.254.169.254/latest/meta-data"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": "http://127.0.0.1:8222/jsz"},
        {"device_authorization_endpoint": None},
        {"device_authorization_endpoint": "https://sso.example:8443/"},
    ],
)
async def test_a_document_that_leads_elsewhere_is_not_followed(sso: Sso, changed: dict[str, Any]) -> None:
    sso.answers[WELL_KNOWN].update(changed)
    await sso.away(sso.client.authorize)
    await sso.away(lambda: sso.client.poll("device-code"))
    assert {request.url.path for request in sso.asked} == {WELL_KNOWN}


async def test_a_host_that_the_operator_named_is_asked() -> None:
    sso = Sso(provider=Provider("sso", ISSUER, CLIENT, hosts=frozenset({"api.example"})))
    sso.answers[WELL_KNOWN]["token_endpoint"] = "https://api.example/token"
    assert (await sso.client.poll("device-code")).state is PollState.PENDING
    assert sso.asked[-1].url.host == "api.example"


@pytest.mark.parametrize(
    "changed",
    [
        {"device_code": None},
        {"device_code": ""},
        {"device_code": "A" * 10_000},
        {"user_code": 7},
        {"user_code": ""},
        {"user_code": "\x1b[2J"},
        {"user_code": "A" * 65},
        {"verification_uri": None},
        {"verification_uri": "javascript:alert(1)"},
        {"verification_uri": "http://sso.example/device"},
        {"verification_uri": "https://sso.example/\x1b"},
        {"expires_in": None},
        {"expires_in": 0},
        {"expires_in": "600"},
        {"expires_in": True},
        {"interval": -1},
        {"interval": "5"},
    ],
)
async def test_a_code_that_cannot_be_shown_or_used_is_none(sso: Sso, changed: dict[str, Any]) -> None:
    sso.answers["/device_authorization"].update(changed)
    await sso.away(sso.client.authorize)


async def test_times_of_a_code_are_bounded(sso: Sso) -> None:
    document = sso.answers["/device_authorization"]
    del document["interval"]
    document["expires_in"] = 10**9
    found = await sso.client.authorize()
    assert (found.expires_s, found.interval_s) == (1800, 5)
    document.update(interval=0, verification_uri_complete="javascript:alert(1)")
    assert (await sso.client.authorize()).interval_s == 1
    document.update(interval=10**9)
    found = await sso.client.authorize()
    assert (found.interval_s, found.verification_uri_complete) == (60, "")


async def test_the_old_name_of_the_page_is_known(sso: Sso) -> None:
    document = sso.answers["/device_authorization"]
    document["verification_url"] = document.pop("verification_uri")
    assert (await sso.client.authorize()).verification_uri == "https://sso.example/device"


ANSWERS = [
    httpx.ConnectError("refused"),
    httpx.ReadTimeout("slow"),
    httpx.RemoteProtocolError("rubbish"),
    TimeoutError(),
    httpx.Response(500, json={"error": "server_error"}),
    httpx.Response(503),
    httpx.Response(429, json={"error": "slow_down"}),
    httpx.Response(302, headers={"location": "https://evil.example/"}),
    httpx.Response(307, headers={"location": "https://sso.example/token2"}),
    httpx.Response(400, json={"error": "invalid_client"}),
    httpx.Response(401, json={"error": "\x1b[2J"}),
    httpx.Response(400, json={"error": ["authorization_pending"]}),
    httpx.Response(400, json=["authorization_pending"]),
    httpx.Response(400, text='{"error": "authorization_pending"}'),
    httpx.Response(404),
    httpx.Response(200, content=b"{" + b" " * MAX_BYTES + b"}", headers={"content-type": "application/json"}),
    httpx.Response(200, content=b"x", headers={"content-encoding": "br", "content-type": "application/json"}),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: str(answer)[:40])
@pytest.mark.parametrize("path", ["/token", "/keys", WELL_KNOWN])
async def test_a_provider_that_does_not_answer_as_agreed_is_away(sso: Sso, path: str, answer: Any) -> None:
    sso.answers[path] = answer
    await sso.away(lambda: sso.client.poll("device-code"))
    assert all(request.url.host == "sso.example" for request in sso.asked)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, text="{}"),
        httpx.Response(200, content=b"{", headers={"content-type": "application/json"}),
        httpx.Response(200, content=b"[" * 100_000, headers={"content-type": "application/json"}),
        httpx.Response(200, json=["a"]),
        httpx.Response(200, json={}),
    ],
)
async def test_a_confirmation_without_a_token_is_none(sso: Sso, answer: httpx.Response) -> None:
    sso.answers["/token"] = answer
    await sso.refused("form")


@pytest.mark.parametrize(
    "keys", [httpx.Response(500), {}, {"keys": []}, {"keys": [{"kty": "oct", "k": "AA"}]}]
)
async def test_keys_are_there_before_the_code_is_used_up(sso: Sso, keys: Any) -> None:
    sso.answers["/keys"] = keys
    sso.give(sign(sso.claims()))
    await sso.away(lambda: sso.client.poll("device-code"))
    assert sso.count("/token") == 0


async def test_what_a_provider_says_stands_in_no_error(sso: Sso) -> None:
    marked = "m4rk3d-s3cr3t"
    sso.answers["/token"] = httpx.Response(400, json={"error": marked, "error_description": marked})
    with pytest.raises(Unavailable) as caught:
        await sso.client.poll(marked)
    assert marked not in f"{caught.value.message}{caught.value.metadata}{caught.value.hint}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=60, deadline=None)
@given(document=JSON, name=st.sampled_from(["/token", "/keys", WELL_KNOWN, "/device_authorization"]))
async def test_no_answer_whatever_makes_another_error_than_ours(document: Any, name: str) -> None:
    sso = Sso()
    content = json.dumps(document).encode()
    sso.answers[name] = httpx.Response(200, content=content, headers={"content-type": "application/json"})
    for ask in (sso.client.authorize, lambda: sso.client.poll("device-code")):
        reason = ""
        try:
            await ask()
        except MeshError as error:
            reason = error.reason
        assert reason in {"", "PROVIDER_AWAY", "PROVIDER_TOKEN_INVALID"}


@settings(max_examples=100, deadline=None)
@given(header=JSON, claims=JSON)
def test_no_token_whatever_makes_another_error_than_ours(header: Any, claims: Any) -> None:
    with pytest.raises(Unauthenticated):
        header_of(f"{encoded(header)}.{encoded(claims)}.AAAA")
