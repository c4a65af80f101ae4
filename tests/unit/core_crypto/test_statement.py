"""Signed statements."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded
from syftmesh_core.statement import (
    Statement,
    parse_statement,
    sign_statement,
    statement_digest,
    verify_statement,
)

STATEMENT = Statement(
    kind="rds.approval",
    issuer="alice@x.example",
    device_id="alice-1",
    issued_ms=100,
    expires_ms=200,
    body={"code": "ab" * 32, "recipients": ["bob@x.example"], "epsilon": 0.5, "k": 2, "note": None},
)


def refused(call, *args, **kwargs) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        call(*args, **kwargs)
    assert caught.value.reason == "STATEMENT_INVALID"


@pytest.fixture(scope="module")
def signed(alice) -> bytes:
    return sign_statement(STATEMENT, alice.secret)


def test_statement_round_trips(alice, signed):
    assert verify_statement(signed, alice.public, kind="rds.approval", now_ms=199) == STATEMENT
    assert parse_statement(signed) == STATEMENT
    assert len(statement_digest(signed)) == 32


def test_order_of_names_in_the_body_does_not_matter(alice, signed):
    other = replace(STATEMENT, body=dict(reversed(STATEMENT.body.items())))
    assert sign_statement(other, alice.secret) == signed


def test_expiry_counts_unless_the_past_is_looked_at(alice, signed):
    with pytest.raises(IntegrityFailure) as caught:
        verify_statement(signed, alice.public, kind="rds.approval", now_ms=200)
    assert caught.value.reason == "STATEMENT_EXPIRED"
    verify_statement(signed, alice.public, kind="rds.approval", now_ms=None)


def test_another_kind_or_signer_is_refused(alice, bob, signed):
    refused(verify_statement, signed, alice.public, kind="rds.release", now_ms=None)
    refused(verify_statement, signed, bob.public, kind="rds.approval", now_ms=None)
    wrong = replace(alice.public, signing_key=bob.public.signing_key)
    refused(verify_statement, signed, wrong, kind="rds.approval", now_ms=None)
    with pytest.raises(InvalidInput):
        sign_statement(STATEMENT, bob.secret)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": ""},
        {"kind": "\u00e9"},
        {"kind": "k" * 65},
        {"issuer": "x"},
        {"device_id": ""},
        {"expires_ms": 99},
    ],
)
def test_fields_beyond_their_form_are_refused_on_both_sides(alice, changes):
    with pytest.raises(InvalidInput):
        replace(STATEMENT, **changes)
    names = ["kind", "issuer", "device_id", "issued_ms", "expires_ms", "body"]
    fields = {name: getattr(STATEMENT, name) for name in names} | changes
    body = encode("statement", [fields[name] for name in names])
    refused(parse_statement, encode("statement-signed", [body, alice.secret.sign(body)]))


@pytest.mark.parametrize("body", [{"x": float("inf")}, {"x": 1 << 60}, {"x": b"bytes"}, {1: "x"}])
def test_body_outside_rfc_8785_is_refused(alice, body):
    with pytest.raises(InvalidInput) as caught:
        sign_statement(replace(STATEMENT, body=body), alice.secret)
    assert caught.value.reason == "ENCODING_INVALID"


def test_body_beyond_the_limit_is_refused(alice):
    with pytest.raises(LimitExceeded) as caught:
        sign_statement(replace(STATEMENT, body={"x": "y" * (256 * 1024)}), alice.secret)
    assert caught.value.reason == "STATEMENT_TOO_LARGE"


def test_body_is_not_shown(alice):
    assert "recipients" not in repr(STATEMENT)


@given(st.integers(0, 1 << 14))
def test_any_flipped_bit_is_refused(alice, signed, bit):
    bit %= len(signed) * 8
    changed = bytearray(signed)
    changed[bit // 8] ^= 1 << (bit % 8)
    refused(verify_statement, bytes(changed), alice.public, kind="rds.approval", now_ms=None)


@given(st.integers(0, 1 << 14), st.binary(max_size=2))
def test_any_cut_or_surplus_is_refused(alice, signed, cut, tail):
    changed = signed[: cut % (len(signed) + 1)] + tail
    if changed != signed:
        refused(verify_statement, changed, alice.public, kind="rds.approval", now_ms=None)
