"""Signed statements: approvals, releases, and whatever else one device states and others check later.

The device signs ``ENC('statement', kind, issuer, device id, issued, expires, body)``, the body in RFC 8785
form.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from syftmesh_core.enc import MAX_INTEGER, Reader, canonical_json, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, MeshError
from syftmesh_core.identity import ed25519
from syftmesh_core.identity.device import DevicePublic, DeviceSecret, is_device_id, is_principal

MAX_STATEMENT_BYTES = 256 * 1024
"""Longest signed statement, in bytes."""

_MAX_KIND_BYTES = 64


@dataclass(frozen=True, slots=True)
class Statement:
    """What one device states.

    Attributes:
        kind: What it is, e.g. ``rds.approval``; at most 64 printable ASCII characters.
        issuer: E-mail address of who states it.
        device_id: The signing device.
        issued_ms: Unix milliseconds.
        expires_ms: Unix milliseconds from which it no longer counts, or None.
        body: A JSON object within RFC 8785; not shown by `repr`.

    Raises:
        InvalidInput: STATEMENT_INVALID for a field beyond its form.
    """

    kind: str
    issuer: str
    device_id: str
    issued_ms: int
    expires_ms: int | None
    body: Mapping[str, object] = field(repr=False)

    def __post_init__(self) -> None:
        named = 0 < len(self.kind) <= _MAX_KIND_BYTES and self.kind.isascii() and self.kind.isprintable()
        if not named or not is_principal(self.issuer) or not is_device_id(self.device_id):
            _refuse_input("kind, issuer or device id has not its form")
        times = (self.issued_ms, self.issued_ms if self.expires_ms is None else self.expires_ms)
        if not 0 <= times[0] <= times[1] <= MAX_INTEGER:
            _refuse_input("it expires before it is issued")


def sign_statement(statement: Statement, secret: DeviceSecret) -> bytes:
    """Return `statement` signed by its issuer's device.

    Raises:
        InvalidInput: STATEMENT_INVALID when the issuer is not the signing device; ENCODING_INVALID for a body
            outside RFC 8785.
        LimitExceeded: STATEMENT_TOO_LARGE above 256 KiB.
    """
    if (statement.issuer, statement.device_id) != (secret.principal, secret.device_id):
        _refuse_input("its issuer is not the signing device")
    body = encode(
        "statement",
        [
            statement.kind,
            statement.issuer,
            statement.device_id,
            statement.issued_ms,
            statement.expires_ms,
            canonical_json(statement.body),
        ],
    )
    signed = encode("statement-signed", [body, secret.sign(body)])
    if len(signed) > MAX_STATEMENT_BYTES:
        raise LimitExceeded(
            f"A statement has at most {MAX_STATEMENT_BYTES} bytes: name long contents by their digests.",
            reason="STATEMENT_TOO_LARGE",
            metadata={"limit_bytes": str(MAX_STATEMENT_BYTES)},
        )
    return signed


def parse_statement(data: bytes) -> Statement:
    """Return what `data` states, form checked, the signature not: to find the issuer's device.

    Raises:
        IntegrityFailure: STATEMENT_INVALID.
    """
    return _parse(data)[0]


def verify_statement(data: bytes, device: DevicePublic, *, kind: str, now_ms: int | None) -> Statement:
    """Return what `data` states, once it is of `kind`, signed by `device` and not expired.

    Whether the device may state this (its `admin` flag, its principal's role) is the caller's to decide.

    Args:
        data: As received.
        device: The issuer's device, from the issuer's verified device list.
        kind: The kind this place takes.
        now_ms: Unix milliseconds, against the expiry; None where the past is looked at, as in an audit.

    Raises:
        IntegrityFailure: STATEMENT_INVALID when form, kind, issuer or signature do not hold;
            STATEMENT_EXPIRED.
    """
    statement, body, signature = _parse(data)
    if (statement.issuer, statement.device_id) != (device.principal, device.device_id):
        _refuse("it names another issuer or device")
    if not device.has_signed(signature, body):
        _refuse("its signature does not hold")
    if statement.kind != kind:
        _refuse("it is of another kind")
    if now_ms is not None and statement.expires_ms is not None and now_ms >= statement.expires_ms:
        raise IntegrityFailure(
            "The statement has expired: ask its issuer for a new one.",
            reason="STATEMENT_EXPIRED",
            metadata={"expires_ms": str(statement.expires_ms)},
        )
    return statement


def statement_digest(data: bytes) -> bytes:
    """Return the statement's digest, 32 bytes: SHA-256 of the bytes under its signature.

    Raises:
        IntegrityFailure: STATEMENT_INVALID when `data` is no statement.
    """
    return hashlib.sha256(_parse(data)[1]).digest()


def _parse(data: bytes) -> tuple[Statement, bytes, bytes]:
    try:
        outer = Reader("statement-signed", data, max_bytes=MAX_STATEMENT_BYTES)
        body, signature = outer.raw(), outer.raw(ed25519.SIGNATURE_BYTES)
        outer.end()
        reader = Reader("statement", body)
        statement = Statement(
            kind=reader.text(),
            issuer=reader.text(),
            device_id=reader.text(),
            issued_ms=reader.integer(),
            expires_ms=reader.optional_integer(),
            body=reader.json(),
        )
        reader.end()
    except MeshError as error:
        _refuse(f"its encoding or its fields do not hold ({error.reason})")
    return statement, body, signature


def _refuse_input(what: str) -> NoReturn:
    raise InvalidInput(f"The statement is refused: {what}.", reason="STATEMENT_INVALID")


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The statement is refused: {what}.", reason="STATEMENT_INVALID")
