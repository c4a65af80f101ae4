"""Providers: what the operator may say of one, where it may be asked, and whom its tokens name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput, Unauthenticated
from syftmesh_core.principal import is_principal
from syftmesh_identity.domain.provider import Provider, origin_of, principal_of

ISSUER = "https://sso.example/realms/mesh"
CLAIMS = {"sub": "1", "email": "alice@x.example", "email_verified": True}


def provider(**changed: Any) -> Provider:
    return Provider(**{"name": "sso", "issuer": ISSUER, "client_id": "hub", **changed})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ""),
        ("name", "SSO"),
        ("name", "a" * 33),
        ("name", "sso\n"),
        ("issuer", "http://sso.example"),
        ("issuer", "sso.example"),
        ("issuer", "https://sso.example/?a=b"),
        ("issuer", "https://sso.example/#a"),
        ("issuer", "https://user@sso.example/"),
        ("issuer", "https://sso.example:0/"),
        ("client_id", ""),
        ("client_id", "hub\n"),
        ("client_secret", "gehëim"),
        ("scopes", ("email",)),
        ("scopes", ("openid", "a b")),
        ("email_domains", frozenset({"*.x.example"})),
        ("email_domains", frozenset({"X.example"})),
        ("email_domains", frozenset({"localhost"})),
        ("hosts", frozenset({"https://sso.example"})),
        ("hosts", frozenset({"a/b"})),
        ("hosts", frozenset({"a:99999"})),
        ("email_claim", ""),
        ("verified_claim", "a b"),
    ],
)
def test_what_cannot_work_or_is_unsafe_is_no_provider(field: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        provider(**{field: value})
    assert (caught.value.reason, caught.value.metadata["field"]) == ("SETTING_INVALID", field)


def test_a_provider_shows_its_secret_to_nobody() -> None:
    assert "s3cret" not in repr(provider(client_secret="s3cret"))


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://sso.example/token", True),
        ("https://sso.example:443/token?a=b", True),
        ("https://SSO.example/token", True),
        ("https://sso.example:8443/token", False),
        ("https://api.sso.example/token", True),
        ("https://keys.sso.example:8443/", True),
        ("https://keys.sso.example/", False),
        ("http://sso.example/token", False),
        ("https://evil.example/token", False),
        ("https://sso.example.evil.example/", False),
        ("https://sso.example@evil.example/", False),
        ("https://evil.example\\@sso.example/", False),
        ("https://sso.example/token#x", False),
        ("https://169.254.169.254/latest/", False),
        ("http://127.0.0.1/token", False),
        ("http://localhost:8200/token", False),
        ("file:///etc/passwd", False),
        ("//sso.example/token", False),
        ("https://sso.example/\n", False),
        ("https://sso.example/\u202e", False),
        ("https://[::1", False),
        ("https://sso.example:99999/", False),
        ("https://sso.example/" + "a" * 3000, False),
        ("", False),
    ],
)
def test_a_document_sends_the_hub_only_where_the_operator_lets_it(url: str, allowed: object) -> None:
    known = provider(hosts=frozenset({"api.sso.example", "keys.sso.example:8443"}))
    assert known.may_ask(url) is allowed


def test_plaintext_is_for_a_provider_on_this_machine_alone() -> None:
    local = provider(issuer="http://127.0.0.1:9000", hosts=frozenset({"127.0.0.1:9001", "sso.example"}))
    assert local.may_ask("http://127.0.0.1:9000/token")
    assert local.may_ask("http://127.0.0.1:9001/token")
    assert not local.may_ask("http://127.0.0.1:9002/token")
    assert not local.may_ask("http://sso.example/token")


@given(st.text(max_size=64))
def test_an_origin_is_of_https_or_of_this_machine_whatever_the_text(text: str) -> None:
    for url in (text, f"https://{text}", f"http://{text}"):
        origin = origin_of(url)
        if origin is not None:
            scheme, host, port = origin
            assert scheme == "https" or host in {"localhost", "127.0.0.1", "::1"}
            assert 0 < port < 65536


def test_a_verified_address_is_the_principal_in_its_one_form() -> None:
    assert principal_of(provider(), CLAIMS) == "alice@x.example"
    assert principal_of(provider(), {**CLAIMS, "email": "Alice@X.Example"}) == "alice@x.example"


@pytest.mark.parametrize("verified", [False, None, "true", "True", 1, [True], {"a": 1}])
def test_only_true_is_verified(verified: object) -> None:
    assert _refused({**CLAIMS, "email_verified": verified})


def test_a_token_that_says_nothing_of_it_is_not_verified() -> None:
    assert _refused({"sub": "1", "email": "alice@x.example"})


@pytest.mark.parametrize(
    "email",
    [
        None,
        "",
        7,
        ["alice@x.example"],
        "alice",
        "alice@localhost",
        "alice@x.example\n",
        " alice@x.example",
        "alice@x.example,bob@x.example",
        "\u212aate@x.example",
        "alice@\uff58.example",
        "al\u0131ce@x.example",
        "guest",
        "a" * 250 + "@x.example",
    ],
)
def test_what_cannot_be_a_principal_is_none_even_when_it_looks_like_one(email: object) -> None:
    message = _refused({**CLAIMS, "email": email})
    assert message.isprintable()
    assert message.isascii()


def test_a_provider_vouches_for_its_own_domains_alone() -> None:
    known = provider(email_domains=frozenset({"x.example"}))
    assert principal_of(known, CLAIMS) == "alice@x.example"
    for email in ("alice@y.example", "alice@sub.x.example", "alice@x.example.evil.example"):
        assert _refused({**CLAIMS, "email": email}, known)


def test_the_operator_names_the_claims() -> None:
    known = provider(email_claim="mail", verified_claim="https://sso.example/checked")
    claims = {"mail": "bob@x.example", "https://sso.example/checked": True, **CLAIMS}
    assert principal_of(known, claims) == "bob@x.example"
    assert _refused(CLAIMS, known)


@given(st.text(max_size=80))
def test_whatever_a_provider_calls_a_person_a_principal_comes_out_or_nothing(email: str) -> None:
    try:
        principal = principal_of(provider(), {**CLAIMS, "email": email})
    except Unauthenticated:
        return
    assert is_principal(principal)
    assert principal == email.lower()


def _refused(claims: dict[str, object], known: Provider | None = None) -> str:
    with pytest.raises(Unauthenticated) as caught:
        principal_of(known or provider(), claims)
    assert caught.value.reason == "EMAIL_NOT_VERIFIED"
    return caught.value.message
