"""What the hub sees of a call, and the checks on it that need nobody else."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.enc import encode
from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.path import MeshPath
from syftmesh_core.url import SyftUrl, parse_url

VERSION: Final = 1
SUITE: Final = 1
MAX_BODY_BYTES: Final = 256 * 1024
MAX_LIFE_MS: Final = 30 * 86_400_000
"""Longest time from now to a call's expiry, in milliseconds."""

_CLOCK_LEEWAY_MS: Final = 300_000
_CALL_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Envelope:
    """The envelope of a call as its sender wrote it.

    Attributes:
        call_id: UUIDv7 in lower case, chosen by the caller: the idempotency key.
        site: E-mail of the datasite called.
        app: The app's name.
        endpoint: The endpoint's path without a leading slash.
        sender: The calling principal.
        sender_device: The calling device.
        created_ms: The caller's time, Unix milliseconds.
        expires_ms: When the call ends unanswered, Unix milliseconds.
        version: Version of the envelope.
        suite: Sealing suite of the body.
    """

    call_id: str
    site: str
    app: str
    endpoint: str
    sender: str
    sender_device: str
    created_ms: int
    expires_ms: int
    version: int = VERSION
    suite: int = SUITE

    @property
    def url(self) -> SyftUrl:
        """The endpoint addressed; as written: `check_envelope` says whether it is canonical."""
        return SyftUrl(self.site, self.app, self.endpoint)

    @property
    def directory(self) -> MeshPath:
        """The endpoint's directory."""
        return self.url.path


@dataclass(frozen=True, slots=True)
class CallMessage:
    """An envelope with its sealed body."""

    envelope: Envelope
    body: bytes = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 in hex of what an id stands for: site, app, endpoint, sender, expiry and body."""
        e = self.envelope
        return hashlib.sha256(
            encode("call", [e.site, e.app, e.endpoint, e.sender, e.sender_device, e.expires_ms, self.body])
        ).hexdigest()


def check_envelope(envelope: Envelope, now_ms: int) -> None:
    """Check id, address, version and times of a new call.

    Raises:
        InvalidInput: INVALID_URL for site, app or endpoint; ENVELOPE_INVALID for the rest.
    """
    if not is_call_id(envelope.call_id):
        raise _invalid("call_id", "is not a UUID version 7 in lower case")
    try:
        canonical = parse_url(str(envelope.url))
    except UnicodeEncodeError:
        canonical = None
    if canonical is None or canonical != envelope.url:
        raise InvalidInput(
            "Site, app and endpoint of the envelope are not in canonical form: give them as parse_url does.",
            reason="INVALID_URL",
        )
    if envelope.version != VERSION or envelope.suite != SUITE:
        raise _invalid("version", f"or suite is not {VERSION}")
    if not 0 < envelope.created_ms <= now_ms + _CLOCK_LEEWAY_MS:
        raise _invalid("created_unix_ms", "is not a time until now; check the clock")
    if not now_ms < envelope.expires_ms <= now_ms + MAX_LIFE_MS:
        raise _invalid("expires_unix_ms", "is not within the next 30 days")


def check_sender(envelope: Envelope, principal: str, device_id: str) -> None:
    """Check that the envelope names the authenticated caller.

    Raises:
        PermissionDenied: SENDER_MISMATCH.
    """
    if (envelope.sender, envelope.sender_device) != (principal, device_id):
        raise PermissionDenied(
            "The envelope names another sender or device than the access token. Send it as yourself.",
            reason="SENDER_MISMATCH",
        )


def check_size(body: bytes) -> None:
    """Check the sealed body's size.

    Raises:
        LimitExceeded: BODY_TOO_LARGE.
    """
    if len(body) > MAX_BODY_BYTES:
        raise LimitExceeded(
            f"The sealed body has {len(body)} bytes, allowed are {MAX_BODY_BYTES}. Send a file instead.",
            reason="BODY_TOO_LARGE",
            metadata={"size_bytes": str(len(body)), "limit_bytes": str(MAX_BODY_BYTES)},
        )


def is_call_id(text: str) -> bool:
    """Return whether `text` is a UUID version 7 (RFC 9562) in lower case."""
    return _CALL_ID.fullmatch(text) is not None


def _invalid(name: str, what: str) -> InvalidInput:
    return InvalidInput(f"The envelope's {name} {what}.", reason="ENVELOPE_INVALID", metadata={"field": name})
