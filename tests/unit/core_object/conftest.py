"""Repeatable randomness, three principals with fixed keys, and a file under seal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pytest
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.object.chunk import ChunkCipher
from syftmesh_core.object.manifest import Manifest
from syftmesh_core.object.reader_secret import ReaderSecret, ReaderSetId, reader_list_digest
from syftmesh_core.object.stream import FileSealer, PackRun, seal_file

SITE = "alice@x.example"


class Drbg:
    """Repeatable bytes in place of randomness."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._name}/{self._count}".encode()).digest(size)


@dataclass(frozen=True)
class Party:
    principal: str
    secret: DeviceSecret
    public: DevicePublic


@dataclass(frozen=True)
class Stored:
    """Sealed content: the packs by their ids, and what opens it."""

    packs: dict[bytes, bytes]
    manifest: Manifest

    def sealed(self) -> list[bytes]:
        return [self.packs[ref.pack_id][ref.offset : ref.end] for ref in self.manifest.chunks]


def party(name: str, *, device: int = 1) -> Party:
    random = Drbg(f"{name}/{device}")
    secret = DeviceSecret.generate(f"{name}@x.example", f"{name}-{device}", random=random)
    return Party(secret.principal, secret, secret.public())


def store(chunks, *, site: str = SITE, name: str = "file") -> Stored:
    """Seal `chunks` and keep their packs in memory."""
    run = PackRun(random=Drbg(f"{name}/padding"))
    sealer = FileSealer(ChunkCipher(site, random=Drbg(f"{name}/keys")), run)
    written: dict[int, tuple] = {}
    pieces = list(_copied(seal_file(chunks, sealer)))
    if (last := run.close()) is not None:
        pieces.append((last.pack, bytes(last.data)))
    for pack, data in pieces:
        written[id(pack)] = (pack, written.get(id(pack), (pack, b""))[1] + data)
    packs = {pack.pack_id: data for pack, data in written.values()}
    return Stored(packs, sealer.manifest(mode=0o644, mtime_ms=1_700_000_000_000))


def _copied(pieces):
    for piece in pieces:
        yield piece.pack, bytes(piece.data)


@pytest.fixture(scope="session")
def storing():
    return store


@pytest.fixture(scope="session")
def drbg():
    return Drbg


@pytest.fixture(scope="session")
def site() -> str:
    return SITE


@pytest.fixture(scope="session")
def alice() -> Party:
    return party("alice")


@pytest.fixture(scope="session")
def bob() -> Party:
    return party("bob")


@pytest.fixture(scope="session")
def carol() -> Party:
    return party("carol")


@pytest.fixture(scope="session")
def granters(alice):
    """Only alice's device may grant."""

    def find(principal: str, device_id: str) -> DevicePublic | None:
        named = (principal, device_id) == (alice.principal, alice.public.device_id)
        return alice.public if named else None

    return find


@pytest.fixture(scope="session")
def secret(alice, bob) -> ReaderSecret:
    set_id = ReaderSetId(SITE, 3, reader_list_digest([alice.principal, bob.principal]))
    return ReaderSecret.generate(set_id, random=Drbg("secret"))
