"""What a key store holds, and its encoding before encryption.

``ENC('keystore-content', [version, device secret, own root, phrase confirmed, pins, list versions])``; a pin
is the list (e-mail, root), a list version the list (e-mail, version).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from syftmesh_core.enc import Reader, as_text, encode, item_fields
from syftmesh_core.errors import MeshError
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.ed25519 import KEY_BYTES

from syftmesh_client.keystore_cipher import refuse_damaged

MAX_PRINCIPALS = 50_000
"""Most principals whose keys one store remembers."""

_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoreContent:
    """What a key store holds.

    Attributes:
        device: The profile's device with its secret keys.
        own_root: Public key of the own account root, 32 bytes.
        phrase_confirmed: Whether the recovery phrase was typed back once.
        pins: Account root by e-mail address, as pinned at first contact.
        list_versions: Highest device-list version seen, by e-mail address.
    """

    device: DeviceSecret
    own_root: bytes = field(repr=False)
    phrase_confirmed: bool
    pins: Mapping[str, bytes] = field(repr=False)
    list_versions: Mapping[str, int] = field(repr=False)


def encode_content(content: StoreContent) -> bytes:
    """Return `content` as bytes, secret keys in the clear."""
    return encode(
        "keystore-content",
        [
            _VERSION,
            content.device.to_bytes(),
            content.own_root,
            content.phrase_confirmed,
            [[email, root] for email, root in sorted(content.pins.items())],
            [[email, version] for email, version in sorted(content.list_versions.items())],
        ],
    )


def decode_content(data: bytes) -> StoreContent:
    """Return the content that `encode_content` wrote.

    Raises:
        IntegrityFailure: KEYSTORE_DAMAGED.
    """
    try:
        reader = Reader("keystore-content", data)
        version = reader.integer()
        content = StoreContent(
            device=DeviceSecret.from_bytes(reader.raw()),
            own_root=reader.raw(KEY_BYTES),
            phrase_confirmed=reader.boolean(),
            pins=dict(_pair(item, KEY_BYTES) for item in reader.items(MAX_PRINCIPALS)),
            list_versions={
                email: int.from_bytes(number, "big")
                for email, number in (_pair(item, 8) for item in reader.items(MAX_PRINCIPALS))
            },
        )
        reader.end()
    except MeshError:
        refuse_damaged()
    if version != _VERSION:
        refuse_damaged()
    return content


def _pair(item: bytes, size_bytes: int) -> tuple[str, bytes]:
    fields = item_fields(item, 2)
    if len(fields) != 2 or len(fields[1]) != size_bytes:
        refuse_damaged()
    return as_text(fields[0]), fields[1]
