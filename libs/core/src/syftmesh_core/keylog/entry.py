"""Entries of the key log: who published what as which version, as a chain per principal.

A *leaf* is the SHA-256 of ``ENC('log-entry', SHA-256(principal), version, previous leaf of this principal,
payload digest)``, and what the next entry of the principal names; the principal is text as `ENC` writes it.
The tree's hash of it is that of RFC 6962, ``SHA-256(0x00 | leaf)``: the leaf is the tree's data, so that
neither takes the other's place.

The payload digest is the SHA-256 of ``ENC('log-payload', kind, payload)`` over the signed object as received,
signature included: neither a payload of another kind nor a second signature over the same fits it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NoReturn

from syftmesh_core.enc import MAX_INTEGER, Reader, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, MeshError
from syftmesh_core.identity.device import is_principal
from syftmesh_core.keylog.merkle import HASH_BYTES

MAX_ENTRY_BYTES = 256
"""Longest encoding of an entry, in bytes; a real one has 144."""


class PayloadKind(StrEnum):
    """What an entry publishes."""

    DEVICE_LIST = "device-list"
    BUNDLE = "bundle"
    """Signed keys for sessions, without one-time prekeys."""
    GROUP_LIST = "group-list"
    RULES_CHECKPOINT = "rules-checkpoint"
    RESET = "reset"
    """A new account root after all devices and the phrase were lost."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One entry: what the log serves of it, without the payload.

    Attributes:
        principal_digest: SHA-256 of the principal, 32 bytes.
        version: From 1, without gaps for each principal, over all kinds of payload.
        previous_leaf: Leaf of this principal's entry before, 32 bytes; None for version 1.
        payload_digest: `payload_digest` of what was published, 32 bytes.

    Raises:
        InvalidInput: LOG_ENTRY_INVALID for a field beyond its form.
    """

    principal_digest: bytes
    version: int
    previous_leaf: bytes | None = field(repr=False)
    payload_digest: bytes

    def __post_init__(self) -> None:
        digests = [self.principal_digest, self.payload_digest]
        if self.previous_leaf is not None:
            digests.append(self.previous_leaf)
        if any(len(digest) != HASH_BYTES for digest in digests) or not 1 <= self.version <= MAX_INTEGER:
            _refuse_input("a digest has not 32 bytes, or the version is not from 1")
        if (self.version == 1) != (self.previous_leaf is None):
            _refuse_input("version 1 follows nothing, and every later one names the leaf before it")

    def to_bytes(self) -> bytes:
        """Return its one encoding."""
        return encode(
            "log-entry", [self.principal_digest, self.version, self.previous_leaf, self.payload_digest]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> LogEntry:
        """Return the entry in `data`, as received.

        Raises:
            IntegrityFailure: LOG_ENTRY_INVALID.
        """
        try:
            reader = Reader("log-entry", data, max_bytes=MAX_ENTRY_BYTES)
            entry = cls(
                principal_digest=reader.raw(HASH_BYTES),
                version=reader.integer(),
                previous_leaf=reader.optional_raw(HASH_BYTES),
                payload_digest=reader.raw(HASH_BYTES),
            )
            reader.end()
        except MeshError as error:
            raise IntegrityFailure(
                f"The entry of the key log is refused: its encoding or its fields do not hold ({error.reason}).",
                reason="LOG_ENTRY_INVALID",
            ) from error
        return entry

    def leaf(self) -> bytes:
        """Return its leaf, 32 bytes: the tree's data at its place."""
        return hashlib.sha256(self.to_bytes()).digest()


@dataclass(frozen=True, slots=True)
class ChainTip:
    """The newest entry of one principal.

    Attributes:
        principal_digest: SHA-256 of the principal, 32 bytes.
        version: Version of that entry.
        leaf: Its leaf, 32 bytes.
    """

    principal_digest: bytes
    version: int
    leaf: bytes = field(repr=False)


def principal_digest(principal: str) -> bytes:
    """Return what stands for `principal` in the log, 32 bytes.

    Raises:
        InvalidInput: LOG_ENTRY_INVALID when it is no normalised e-mail address.
    """
    if not is_principal(principal):
        _refuse_input("its principal is no e-mail address")
    return hashlib.sha256(unicodedata.normalize("NFC", principal).encode()).digest()


def payload_digest(kind: PayloadKind, payload: bytes) -> bytes:
    """Return the digest of a payload of that kind, 32 bytes."""
    return hashlib.sha256(encode("log-payload", [str(kind), payload])).digest()


def next_entry(tip: ChainTip | None, principal: str, kind: PayloadKind, payload: bytes) -> LogEntry:
    """Return the entry that publishes `payload` after `tip`, None where the principal has no entry yet.

    Raises:
        InvalidInput: LOG_ENTRY_INVALID when `tip` is another principal's, or the principal is unusable.
    """
    digest = principal_digest(principal)
    if tip is not None and tip.principal_digest != digest:
        _refuse_input("the entry before it is another principal's")
    return LogEntry(
        principal_digest=digest,
        version=1 if tip is None else tip.version + 1,
        previous_leaf=None if tip is None else tip.leaf,
        payload_digest=payload_digest(kind, payload),
    )


def tip_of(entry: LogEntry) -> ChainTip:
    """Return `entry` as the end of its principal's chain, unchecked."""
    return ChainTip(entry.principal_digest, entry.version, entry.leaf())


def follow(tip: ChainTip | None, entry: LogEntry) -> ChainTip:
    """Return the chain's new end, once `entry` follows `tip`, None where the chain starts.

    Raises:
        IntegrityFailure: LOG_CHAIN_BROKEN when it is another principal's, leaves a version out, repeats one,
            or names another leaf before it.
    """
    version, leaf = (0, None) if tip is None else (tip.version, tip.leaf)
    other = tip is not None and tip.principal_digest != entry.principal_digest
    if other or entry.version != version + 1 or entry.previous_leaf != leaf:
        raise IntegrityFailure(
            f"The key log is refused: an entry of version {entry.version} does not follow version {version} of "
            f"its principal.",
            reason="LOG_CHAIN_BROKEN",
            metadata={"version": str(entry.version), "version_before": str(version)},
        )
    return tip_of(entry)


def verify_chain(principal: str, entries: Iterable[LogEntry]) -> ChainTip | None:
    """Return the end of the whole chain of `principal`, None where it has no entry.

    Args:
        principal: Normalised e-mail address.
        entries: All its entries from version 1 on, in order.

    Raises:
        InvalidInput: LOG_ENTRY_INVALID when `principal` is unusable.
        IntegrityFailure: LOG_CHAIN_BROKEN at the first entry that is not the principal's or does not follow.
    """
    digest, tip = principal_digest(principal), None
    for entry in entries:
        if entry.principal_digest != digest:
            raise IntegrityFailure(
                "The key log is refused: the chain holds an entry of another principal.",
                reason="LOG_CHAIN_BROKEN",
                metadata={"version": str(entry.version)},
            )
        tip = follow(tip, entry)
    return tip


def _refuse_input(what: str) -> NoReturn:
    raise InvalidInput(f"The entry of the key log is refused: {what}.", reason="LOG_ENTRY_INVALID")
