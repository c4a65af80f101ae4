"""Writes object_vectors.json from fixed keys; run by hand, and only when the protocol's version changes.

Everything but the grant and the key sealed by a creator is repeatable: HPKE draws its own randomness, so
those two are for the receiving side.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.object.chunk import ChunkCipher
from syftmesh_core.object.grant import grant_all
from syftmesh_core.object.manifest import Manifest, seal_manifest
from syftmesh_core.object.reader_secret import ReaderSecret, ReaderSetId, reader_list_digest
from syftmesh_core.object.reader_set import ReaderSet, sign_reader_set
from syftmesh_core.object.stream import FileSealer, PackRun, seal_file

ALICE, BOB = "alice@x.example", "bob@x.example"
CHUNKS = (b"first chunk", b"second chunk, longer")
SECRET = bytes(range(32))
CONTENT_KEY = bytes(range(32, 64))


def counted(start: int) -> object:
    """Return a source of bytes that are all `start`, then all `start` + 1, and so on."""
    count = iter(range(start, 256))
    return lambda size: bytes([next(count)]) * size


def device(principal: str, device_id: str, first: int, *, admin: bool) -> DeviceSecret:
    """Return a device whose three seeds are 32 equal bytes each: `first`, and the next two numbers."""
    seeds = (bytes([first]) * 32, bytes([first + 1]) * 32, bytes([first + 2]) * 32)
    return DeviceSecret(principal, device_id, seeds, epoch=1, serves=False, admin=admin)


def file() -> tuple[bytes, Manifest]:
    """Return a pack with two chunks, keys of bytes 1 and 2, padding of bytes 0x50, and its manifest."""
    packs = PackRun(random=counted(0x50))
    sealer = FileSealer(ChunkCipher(ALICE, random=counted(1)), packs)
    pack = b"".join(bytes(piece.data) for piece in seal_file(CHUNKS, sealer))
    pack += bytes(packs.close().data)
    return pack, sealer.manifest(mode=0o640, mtime_ms=1_700_000_000_000)


def repeatable() -> dict[str, object]:
    """Return all vectors that are the same at each run."""
    pack, manifest = file()
    sealed = seal_manifest(manifest, site=ALICE, random=counted(0x60))
    secret = reader_secret()
    alice = device(ALICE, "device-a", 0x10, admin=True)
    return {
        "file": {
            "site": ALICE,
            "chunks": [chunk.hex() for chunk in CHUNKS],
            "keys": [chunk.secret.key.hex() for chunk in manifest.chunks],
            "addresses": [chunk.secret.address.hex() for chunk in manifest.chunks],
            "padding_byte": "50",
            "pack_bytes": len(pack),
            "pack_start": pack[: manifest.chunks[-1].end].hex(),
            "pack_id": hashlib.sha256(pack).hexdigest(),
            "manifest": sealed.blob.hex(),
            "content_key": sealed.content_key.hex(),
        },
        "readers": {
            "principals": [ALICE, BOB],
            "digest": secret.set_id.readers_digest.hex(),
            "secret": SECRET.hex(),
            "commitment": secret.commitment.hex(),
            "content_key": CONTENT_KEY.hex(),
            "wrapped": secret.wrap(CONTENT_KEY).hex(),
            "granter": alice.public().encoded.hex(),
            "set": sign_reader_set(secret, alice).hex(),
        },
    }


def reader_secret() -> ReaderSecret:
    """Return the secret of epoch 3 for both."""
    return ReaderSecret(ReaderSetId(ALICE, 3, reader_list_digest([BOB, ALICE])), SECRET)


def received() -> dict[str, object]:
    """Return what differs at each run: the grant for bob's device, and a content key sealed by a creator."""
    secret = reader_secret()
    bob = device(BOB, "device-b", 0x20, admin=False)
    alice = device(ALICE, "device-a", 0x10, admin=True)
    made = grant_all(secret, readers=[ALICE, BOB], devices=[bob.public()], signer=alice)
    public = ReaderSet(secret.set_id, secret.commitment, secret.xwing_key, ALICE, "device-a")
    return {
        "device_seeds": ["20" * 32, "21" * 32, "22" * 32],
        "grant": next(iter(made))[1].hex(),
        "created_key": public.seal_key(CONTENT_KEY).hex(),
    }


if __name__ == "__main__":
    target = Path(__file__).with_name("object_vectors.json")
    target.write_text(json.dumps({**repeatable(), "received": received()}, indent=1) + "\n")
