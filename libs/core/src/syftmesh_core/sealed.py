"""Sealed for recipients: one blob that only the named devices can open, signed by its author's device.

The content key is fresh for every blob and wrapped once per reading device (HPKE with X-Wing); the body is
AES-256-GCM under that key, padded before sealing. The author's device signs header, wraps and the
ciphertext's digest in one ``ENC('sealed', …)``, which is checked before anything is opened.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from syftmesh_core.clock import Random, system_random
from syftmesh_core.enc import encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.identity import xwing
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.padding import padme
from syftmesh_core.sealed_container import (
    COMMITMENT_BYTES,
    KEY_BYTES,
    MAX_BODY_BYTES,
    MAX_READERS,
    SUITE,
    TAG_BYTES,
    Container,
    SealedInfo,
    SealHeader,
    Wrap,
    body_data,
    key_info,
    parse_container,
    seal_invalid,
    signed_bytes,
    write_container,
)

__all__ = ["Opened", "SealHeader", "SealedInfo", "open_sealed", "peek", "reseal_keys", "seal"]

_NONCE = bytes(12)
"""The key is used for one body only, so the nonce is constant."""

_LENGTH_BYTES = 8


@dataclass(frozen=True, slots=True)
class Opened:
    """What `open_sealed` gives.

    Attributes:
        header: The signed header.
        plaintext: The body in its exact length; never shown by `repr`.
        readers: E-mail address and device id of every device that can open the blob.
    """

    header: SealHeader
    plaintext: bytes = field(repr=False)
    readers: tuple[tuple[str, str], ...]


def seal(
    plaintext: bytes,
    *,
    header: SealHeader,
    readers: Sequence[DevicePublic],
    signer: DeviceSecret,
    pad_to_bytes: int = 0,
    random: Random = system_random,
) -> bytes:
    """Return `plaintext` sealed for `readers` and signed by `signer`, as one blob.

    Args:
        plaintext: The body, at most 16 MiB.
        header: What is signed in the clear; sender and device must be those of `signer`.
        readers: 1 to 1,024 devices, each from a verified device list.
        signer: The author's device.
        pad_to_bytes: Smallest padded size of the body in bytes; above it sizes follow Padmé.
        random: Source of the content key.

    Raises:
        InvalidInput: SEAL_REFUSED for no reader, one twice, or a header that is not the signer's.
        LimitExceeded: SEAL_TOO_LARGE for a longer body or padding, TOO_MANY_READERS above 1,024.
    """
    _check_request(len(plaintext), header, readers, signer, pad_to_bytes)
    key = random(KEY_BYTES)
    padded = bytearray(padme(_LENGTH_BYTES + len(plaintext), at_least_bytes=pad_to_bytes))
    padded[:_LENGTH_BYTES] = len(plaintext).to_bytes(_LENGTH_BYTES, "big")
    padded[_LENGTH_BYTES : _LENGTH_BYTES + len(plaintext)] = plaintext
    ciphertext = bytearray(COMMITMENT_BYTES + len(padded) + TAG_BYTES)
    ciphertext[:COMMITMENT_BYTES] = _commitment(key)
    AESGCM(key).encrypt_into(_NONCE, padded, body_data(header), memoryview(ciphertext)[COMMITMENT_BYTES:])
    wraps = [_wrap(key, header, reader) for reader in readers]
    signed = signed_bytes(header, wraps, hashlib.sha256(ciphertext).digest())
    return write_container(signed, signer.sign(signed), ciphertext)


def peek(blob: bytes) -> SealedInfo:
    """Return what `blob` says of itself, without opening it and without checking its signature.

    Raises:
        IntegrityFailure: SEAL_INVALID when it is no such blob.
    """
    container = parse_container(blob)
    return SealedInfo(
        header=container.header,
        readers=_reader_names(container),
        body_bytes=len(container.ciphertext) - COMMITMENT_BYTES - TAG_BYTES,
        blob_bytes=len(blob),
    )


def open_sealed(
    blob: bytes,
    *,
    device: DeviceSecret,
    sender: DevicePublic,
    sender_root: bytes,
    expect_kind: str,
    expect_receiver: str,
    now_ms: int,
) -> Opened:
    """Return the body of `blob` after every check; nothing is decrypted before the signature holds.

    Args:
        blob: As received.
        device: The device that opens.
        sender: The author's device, from the sender's verified device list.
        sender_root: The sender's pinned account root, 32 bytes.
        expect_kind: The kind this place takes, e.g. ``rds.submission``.
        expect_receiver: The receiver or path this place stands for.
        now_ms: Unix milliseconds, against the expiry.

    Raises:
        IntegrityFailure: SEAL_INVALID, one answer for all that does not hold; SEAL_EXPIRED when it was valid
            once.
        PermissionDenied: NO_KEY_FOR_DEVICE when the blob is genuine and `device` is not among its readers.
    """
    container = parse_container(blob)
    header = container.header
    named = (header.sender, header.sender_device, header.sender_root, header.kind, header.receiver)
    if named != (sender.principal, sender.device_id, sender_root, expect_kind, expect_receiver):
        raise seal_invalid()
    if not sender.has_signed(container.signature, container.signed):
        raise seal_invalid()
    if not hmac.compare_digest(hashlib.sha256(container.ciphertext).digest(), container.digest):
        raise seal_invalid()
    if header.expires_ms is not None and now_ms >= header.expires_ms:
        raise IntegrityFailure(
            "The sealed content has expired: ask its sender for it again.",
            reason="SEAL_EXPIRED",
            metadata={"expires_ms": str(header.expires_ms)},
        )
    key = _unwrap(container, device)
    return Opened(header=header, plaintext=_open_body(container, key), readers=_reader_names(container))


def reseal_keys(
    blob: bytes,
    *,
    device: DeviceSecret,
    sender: DevicePublic,
    sender_root: bytes,
    header: SealHeader,
    readers: Sequence[DevicePublic],
    now_ms: int,
    pad_to_bytes: int = 0,
) -> bytes:
    """Return the body of `blob` sealed again, by `device` as its new author, for `readers` under a fresh key.

    Args:
        blob: As for `open_sealed`.
        device: The device that opens and signs anew.
        sender: The author's device of `blob`.
        sender_root: The pinned account root of `blob`'s sender.
        header: The new header: kind and receiver are those `blob` must have, its sender is `device`.
        readers: The new readers.
        now_ms: Unix milliseconds.
        pad_to_bytes: As for `seal`.

    Raises:
        IntegrityFailure: As `open_sealed`.
        PermissionDenied: As `open_sealed`.
        InvalidInput: As `seal`.
        LimitExceeded: As `seal`.
    """
    opened = open_sealed(
        blob,
        device=device,
        sender=sender,
        sender_root=sender_root,
        expect_kind=header.kind,
        expect_receiver=header.receiver,
        now_ms=now_ms,
    )
    return seal(opened.plaintext, header=header, readers=readers, signer=device, pad_to_bytes=pad_to_bytes)


def _check_request(
    size_bytes: int,
    header: SealHeader,
    readers: Sequence[DevicePublic],
    signer: DeviceSecret,
    pad_to_bytes: int,
) -> None:
    if max(size_bytes, pad_to_bytes) > MAX_BODY_BYTES:
        raise LimitExceeded(
            f"A sealed body has at most {MAX_BODY_BYTES} bytes: send it as a file instead.",
            reason="SEAL_TOO_LARGE",
            metadata={"limit_bytes": str(MAX_BODY_BYTES)},
        )
    if len(readers) > MAX_READERS:
        raise LimitExceeded(
            f"At most {MAX_READERS} devices read one sealed body, not {len(readers)}.",
            reason="TOO_MANY_READERS",
            metadata={"limit": str(MAX_READERS)},
        )
    if not readers or len({(r.principal, r.device_id) for r in readers}) != len(readers):
        raise InvalidInput("A body is sealed for one device or more, each once.", reason="SEAL_REFUSED")
    if (header.sender, header.sender_device) != (signer.principal, signer.device_id):
        raise InvalidInput("The header names another sender than the signing device.", reason="SEAL_REFUSED")


def _wrap(key: bytes, header: SealHeader, reader: DevicePublic) -> Wrap:
    wrapped = xwing.wrap(key, reader.xwing_key, key_info(header, reader.device_id))
    return Wrap(reader.principal, reader.device_id, wrapped)


def _unwrap(container: Container, device: DeviceSecret) -> bytes:
    for wrap in container.wraps:
        if (wrap.principal, wrap.device_id) == (device.principal, device.device_id):
            key = device.unwrap(wrap.wrapped, key_info(container.header, device.device_id))
            if key is None or len(key) != KEY_BYTES:
                raise seal_invalid()
            return key
    raise PermissionDenied(
        "This device is not among the devices the content was sealed for.",
        reason="NO_KEY_FOR_DEVICE",
        metadata={"device_id": device.device_id},
        hint="Open it on a device that was listed when it was sealed, or ask its sender to seal it again.",
    )


def _open_body(container: Container, key: bytes) -> bytes:
    if not hmac.compare_digest(bytes(container.ciphertext[:COMMITMENT_BYTES]), _commitment(key)):
        raise seal_invalid()
    body = container.ciphertext[COMMITMENT_BYTES:]
    padded = bytearray(len(body) - TAG_BYTES)
    try:
        AESGCM(key).decrypt_into(_NONCE, body, body_data(container.header), padded)
    except InvalidTag:
        raise seal_invalid() from None
    size = int.from_bytes(padded[:_LENGTH_BYTES], "big")
    end = _LENGTH_BYTES + size
    if size > MAX_BODY_BYTES or end > len(padded) or padded.count(0, end) != len(padded) - end:
        raise seal_invalid()
    return bytes(memoryview(padded)[_LENGTH_BYTES:end])


def _commitment(key: bytes) -> bytes:
    # GCM alone lets a malicious author make one ciphertext open differently under two keys: all readers must
    # get the same body.
    return hashlib.sha256(encode("sealed-commitment", [SUITE, key])).digest()


def _reader_names(container: Container) -> tuple[tuple[str, str], ...]:
    return tuple((wrap.principal, wrap.device_id) for wrap in container.wraps)
