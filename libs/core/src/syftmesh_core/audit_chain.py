"""A site's audit as a hash chain with signed checkpoints.

An entry's digest is the SHA-256 of ``ENC('audit-entry', sequence, time, kind, actor, fields, previous
digest)``; sequences start at 1 and have no gap. A checkpoint is a device's signature of
``ENC('audit-checkpoint', site, sequence, digest, time)``: what was there then can no longer be changed, cut
off or replaced unseen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from syftmesh_core.enc import canonical_json, encode
from syftmesh_core.errors import InvalidInput
from syftmesh_core.identity.device import DevicePublic, DeviceSecret

DIGEST_BYTES = 32


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the audit.

    Attributes:
        sequence: From 1, without gaps.
        at_ms: Unix milliseconds.
        kind: What happened, e.g. ``job.approved``.
        actor: E-mail address of who did it, or the name of a service.
        fields: A JSON object within RFC 8785; not shown by `repr`.
        previous_digest: `entry_digest` of the entry before, 32 bytes; None for entry 1.
    """

    sequence: int
    at_ms: int
    kind: str
    actor: str
    fields: Mapping[str, object] = field(repr=False)
    previous_digest: bytes | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A device's signature of the chain up to one entry.

    Attributes:
        site: E-mail address of the datasite's owner.
        sequence: The entry.
        digest: Its digest, 32 bytes.
        at_ms: Unix milliseconds of signing.
        device_id: The signing device, of the site's owner.
        signature: Ed25519, 64 bytes.
    """

    site: str
    sequence: int
    digest: bytes = field(repr=False)
    at_ms: int
    device_id: str
    signature: bytes = field(repr=False)


class FaultReason(StrEnum):
    """Why a chain does not hold at an entry."""

    ENCODING = "AUDIT_ENTRY_INVALID"
    """The entry has no encoding: a field of it is not what the chain allows."""
    SEQUENCE = "AUDIT_SEQUENCE_BROKEN"
    """An entry is missing, surplus or out of order here."""
    LINK = "AUDIT_LINK_BROKEN"
    """It does not carry the digest of the entry before: that one or this one was changed."""
    CHECKPOINT = "AUDIT_CHECKPOINT_MISMATCH"
    """A signed checkpoint has another digest for it."""
    SIGNATURE = "AUDIT_CHECKPOINT_INVALID"
    """A checkpoint at it is not signed by a device of the site."""
    TRUNCATED = "AUDIT_TRUNCATED"
    """A signed checkpoint covers this entry, and the chain ends before it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """The first entry at which a chain does not hold, and why."""

    sequence: int
    reason: FaultReason


def entry_digest(entry: Entry) -> bytes:
    """Return the digest of `entry`, 32 bytes.

    Raises:
        InvalidInput: ENCODING_INVALID when a field of it cannot be encoded.
    """
    encoded = encode(
        "audit-entry",
        [
            entry.sequence,
            entry.at_ms,
            entry.kind,
            entry.actor,
            canonical_json(entry.fields),
            entry.previous_digest,
        ],
    )
    return hashlib.sha256(encoded).digest()


def append(
    previous: Entry | None, *, at_ms: int, kind: str, actor: str, fields: Mapping[str, object]
) -> Entry:
    """Return the entry that follows `previous` (None for the first).

    Raises:
        InvalidInput: ENCODING_INVALID when a field of it cannot be encoded.
    """
    entry = Entry(
        sequence=1 if previous is None else previous.sequence + 1,
        at_ms=at_ms,
        kind=kind,
        actor=actor,
        fields=fields,
        previous_digest=None if previous is None else entry_digest(previous),
    )
    entry_digest(entry)  # refuse now what could not be verified later
    return entry


def sign_checkpoint(site: str, entry: Entry, at_ms: int, secret: DeviceSecret) -> Checkpoint:
    """Return a checkpoint of the chain up to `entry`, signed by a device of `site`'s owner.

    Raises:
        InvalidInput: AUDIT_CHECKPOINT_INVALID when the device is not the site owner's.
    """
    if secret.principal != site:
        raise InvalidInput(
            "A checkpoint is signed by a device of the site's owner.", reason="AUDIT_CHECKPOINT_INVALID"
        )
    digest = entry_digest(entry)
    signature = secret.sign(_checkpoint_bytes(site, entry.sequence, digest, at_ms))
    return Checkpoint(site, entry.sequence, digest, at_ms, secret.device_id, signature)


def is_checkpoint_signed(checkpoint: Checkpoint, device: DevicePublic) -> bool:
    """Return whether `checkpoint` is signed by `device`, and `device` is one of the site's owner."""
    message = _checkpoint_bytes(checkpoint.site, checkpoint.sequence, checkpoint.digest, checkpoint.at_ms)
    named = (checkpoint.site, checkpoint.device_id) == (device.principal, device.device_id)
    return named and device.has_signed(checkpoint.signature, message)


def verify_chain(
    entries: Iterable[Entry],
    checkpoints: Iterable[Checkpoint] = (),
    *,
    site: str,
    devices: Mapping[str, DevicePublic],
) -> Fault | None:
    """Return the first entry of a whole chain that does not hold, or None.

    What lies after the last checkpoint is bound only by the chain itself: whoever can write the store could
    recompute it. Entries are read once, in order, so a long chain may be streamed.

    Args:
        entries: All entries from sequence 1 on.
        checkpoints: Signed checkpoints, in any order.
        site: The site whose chain this is.
        devices: Devices of the site's owner by device id, from its verified device lists.
    """
    signed: dict[int, set[bytes]] = {}
    forged: set[int] = set()
    for checkpoint in checkpoints:
        device = devices.get(checkpoint.device_id)
        if device is None or checkpoint.site != site or not is_checkpoint_signed(checkpoint, device):
            forged.add(checkpoint.sequence)
        else:
            signed.setdefault(checkpoint.sequence, set()).add(checkpoint.digest)
    count, previous = 0, None
    for count, entry in enumerate(entries, start=1):
        digest, reason = _check(entry, count, previous, signed.get(count, set()))
        if reason is None and count in forged:
            reason = FaultReason.SIGNATURE
        if reason is not None:
            return Fault(count, reason)
        previous = digest
    if any(sequence > count for sequence in signed):
        return Fault(count + 1, FaultReason.TRUNCATED)
    beyond = [sequence for sequence in forged if sequence > count or sequence < 1]
    return Fault(min(beyond), FaultReason.SIGNATURE) if beyond else None


def _check(
    entry: Entry, sequence: int, previous: bytes | None, signed: set[bytes]
) -> tuple[bytes | None, FaultReason | None]:
    if entry.sequence != sequence:
        return None, FaultReason.SEQUENCE
    if entry.previous_digest != previous:
        return None, FaultReason.LINK
    try:
        digest = entry_digest(entry)
    except InvalidInput:
        return None, FaultReason.ENCODING
    if signed - {digest}:
        return None, FaultReason.CHECKPOINT
    return digest, None


def _checkpoint_bytes(site: str, sequence: int, digest: bytes, at_ms: int) -> bytes:
    return encode("audit-checkpoint", [site, sequence, digest, at_ms])
