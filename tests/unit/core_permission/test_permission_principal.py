from __future__ import annotations

import hashlib

import pytest
from syftmesh_core.errors import InvalidInput
from syftmesh_core.principal import (
    ANONYMOUS,
    GUEST,
    is_authenticated,
    normalise_principal,
    parse_requester,
    user_hash,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("bob@x.example", "bob@x.example"),
        ("Bob.O%_+-9@X.Example", "bob.o%_+-9@x.example"),
        ("a" * 64 + "@x.org", "a" * 64 + "@x.org"),
        ("bob@xn--mnchen-3ya.de", "bob@xn--mnchen-3ya.de"),
        ("bob@" + "a" * 63 + ".org", "bob@" + "a" * 63 + ".org"),
        ("b@" + ".".join(["a" * 49] * 5) + ".ab", "b@" + ".".join(["a" * 49] * 5) + ".ab"),
        ("bob@9.9", "bob@9.9"),
    ],
)
def test_an_address_is_lower_cased_as_a_whole(text: str, normal: str) -> None:
    assert normalise_principal(text) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bob",
        "guest",
        "@x.org",
        "bob@",
        "bob@localhost",
        "bob@x..org",
        "bob@.x.org",
        "bob@x.org.",
        "bob@-x.org",
        "bob@x-.org",
        "bob@x_y.org",
        "bob@@x.org",
        "a@b@x.org",
        " bob@x.org",
        "bob@x.org ",
        "bob@x.org\n",
        "b*b@x.org",
        "b?b@x.org",
        "b{b@x.org",
        "b/b@x.org",
        "bøb@x.org",
        "bob@münchen.de",
        "bob@İ.org",
        "a" * 65 + "@x.org",
        "bob@" + "a" * 64 + ".org",
        "b@" + ".".join(["a" * 49] * 5) + ".abcd",
        "bob@x.org\u0301",
    ],
)
def test_what_cannot_register_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise_principal(text)
    assert caught.value.reason == "PRINCIPAL_INVALID"


def test_the_longest_address_has_254_bytes() -> None:
    domain = ".".join(["a" * 61] * 4)
    longest = "b" * (254 - 1 - len(domain)) + "@" + domain
    assert normalise_principal(longest) == longest
    with pytest.raises(InvalidInput):
        normalise_principal("b" + longest)


def test_requesters_are_principals_guest_and_anonymous() -> None:
    assert parse_requester("Bob@x.org") == "bob@x.org"
    assert parse_requester("guest") == GUEST
    assert parse_requester("") == ANONYMOUS
    for text in ("Guest", "*", "USER", " "):
        with pytest.raises(InvalidInput):
            parse_requester(text)
    assert [is_authenticated(r) for r in ("bob@x.org", GUEST, ANONYMOUS)] == [True, False, False]


def test_user_hash_is_16_hex_digits_of_sha256() -> None:
    assert user_hash("bob@x.org") == hashlib.sha256(b"bob@x.org").hexdigest()[:16]


def test_refusal_quotes_hostile_text_harmlessly() -> None:
    with pytest.raises(InvalidInput) as caught:
        normalise_principal("\x1b[31m\u202e" + "x" * 10_000)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 400
