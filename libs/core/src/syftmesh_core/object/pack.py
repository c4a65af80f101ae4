"""Packs: sealed chunks one after another in one stored object, and the reads that fetch them again.

A pack has no header and no bounds within: whoever has no manifest sees random bytes. Its size is padded
(Padmé, at least 16 KiB) with random bytes, for zeros would show where the chunks end. Its id is the SHA-256
of all of it, the object's id in the store. Reads are aligned to 256 KiB, so that they show little of where a
chunk lies.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from syftmesh_core.clock import Random, system_random
from syftmesh_core.errors import IntegrityFailure, InvalidInput, LimitExceeded, WrongState
from syftmesh_core.object.chunk import MAX_CHUNK_BYTES, Buffer, ChunkSecret
from syftmesh_core.padding import padme
from syftmesh_core.sealed_container import TAG_BYTES

MAX_PACK_BYTES = 16 * 1024 * 1024
"""Longest pack, in bytes; Padmé leaves this size as it is, so the limit holds before and after padding."""

MIN_PACK_BYTES = 16 * 1024
PACK_ID_BYTES = 32
READ_BYTES = 256 * 1024
"""Alignment of reads, in bytes."""

MAX_READ_BYTES = MAX_CHUNK_BYTES + 2 * READ_BYTES
"""Longest read, in bytes: the largest chunk wherever it lies."""


@dataclass(frozen=True, slots=True)
class ChunkRef:
    """One chunk of a file: where it lies, and what opens it.

    Attributes:
        pack_id: SHA-256 of the pack, 32 bytes.
        offset: Bytes of the pack before the chunk.
        secret: Address, plaintext's length and key.

    Raises:
        InvalidInput: CHUNK_REFUSED when it does not lie within a pack.
    """

    pack_id: bytes = field(repr=False)
    offset: int
    secret: ChunkSecret

    def __post_init__(self) -> None:
        if len(self.pack_id) != PACK_ID_BYTES or not 0 <= self.offset <= MAX_PACK_BYTES - self.sealed_bytes:
            raise InvalidInput(
                f"A chunk lies within the {MAX_PACK_BYTES} bytes of a pack, whose id has 32 bytes.",
                reason="CHUNK_REFUSED",
            )

    @property
    def sealed_bytes(self) -> int:
        """Length in the pack, in bytes."""
        return self.secret.sealed_bytes

    @property
    def end(self) -> int:
        """Offset of the first byte after the chunk."""
        return self.offset + self.sealed_bytes


class PackBuilder:
    """Counts and hashes what the caller writes into one pack; holds none of its bytes.

    Args:
        random: Source of the padding.
    """

    __slots__ = ("_hash", "_id", "_random", "size_bytes")

    def __init__(self, *, random: Random = system_random) -> None:
        self._random = random
        self._hash = hashlib.sha256()
        self._id: bytes | None = None
        self.size_bytes = 0

    @property
    def is_closed(self) -> bool:
        """Whether the pack is complete and has an id."""
        return self._id is not None

    @property
    def pack_id(self) -> bytes:
        """SHA-256 of the padded pack, 32 bytes.

        Raises:
            WrongState: PACK_OPEN before `close`.
        """
        if self._id is None:
            raise WrongState("The pack is still open: close it first.", reason="PACK_OPEN")
        return self._id

    def has_room(self, plain_bytes: int) -> bool:
        """Return whether a chunk of `plain_bytes` still fits once sealed."""
        return not self.is_closed and self.size_bytes + plain_bytes + TAG_BYTES <= MAX_PACK_BYTES

    def add(self, sealed: Buffer) -> int:
        """Return the offset of `sealed`, which the caller writes next.

        Raises:
            LimitExceeded: PACK_FULL when it does not fit: close this pack and begin another.
            WrongState: PACK_CLOSED after `close`.
        """
        self._check_open()
        if self.size_bytes + len(sealed) > MAX_PACK_BYTES:
            raise LimitExceeded(
                f"A pack has at most {MAX_PACK_BYTES} bytes: close it and begin another.",
                reason="PACK_FULL",
                metadata={"limit_bytes": str(MAX_PACK_BYTES)},
            )
        offset = self.size_bytes
        self._hash.update(sealed)
        self.size_bytes += len(sealed)
        return offset

    def close(self) -> bytes:
        """Return the padding, which the caller writes last; the pack has its id from then on.

        Raises:
            WrongState: PACK_CLOSED when it was closed before.
        """
        self._check_open()
        padding = self._random(padme(self.size_bytes, at_least_bytes=MIN_PACK_BYTES) - self.size_bytes)
        self._hash.update(padding)
        self.size_bytes += len(padding)
        self._id = self._hash.digest()
        return padding

    def _check_open(self) -> None:
        if self.is_closed:
            raise WrongState("The pack is closed: begin another.", reason="PACK_CLOSED")


@dataclass(frozen=True, slots=True)
class PackRead:
    """One read of a pack, for chunks that lie one behind the other in it.

    Attributes:
        pack_id: The pack.
        start: First byte, a multiple of 256 KiB.
        stop: Byte after the last, a multiple of 256 KiB; may lie beyond the pack's end, where a store stops.
        chunks: What it is for, in the order asked for.
    """

    pack_id: bytes = field(repr=False)
    start: int
    stop: int
    chunks: tuple[ChunkRef, ...]

    def cut(self, data: Buffer) -> Iterator[memoryview]:
        """Yield the sealed chunks out of `data`, what the store gave; views, nothing is copied.

        Raises:
            IntegrityFailure: PACK_DAMAGED when the store gave too little, or more than was asked for.
        """
        view = memoryview(data)
        if not self.chunks[-1].end - self.start <= len(view) <= self.stop - self.start:
            raise IntegrityFailure(
                "The store gave another part of a pack than it was asked for: fetch it again.",
                reason="PACK_DAMAGED",
                metadata={"pack": self.pack_id.hex(), "start": str(self.start), "stop": str(self.stop)},
            )
        for chunk in self.chunks:
            yield view[chunk.offset - self.start : chunk.end - self.start]


def reads_of(chunks: Sequence[ChunkRef], *, max_read_bytes: int = MAX_READ_BYTES) -> Iterator[PackRead]:
    """Yield the reads that give `chunks` in their order, neighbours in one pack together.

    Args:
        chunks: In the order they are needed, e.g. that of a manifest.
        max_read_bytes: Longest read for more than one chunk, in bytes; memory follows it.
    """
    group: list[ChunkRef] = []
    for chunk in chunks:
        if group and not _follows(group, chunk, max_read_bytes):
            yield _read(group)
            group = []
        group.append(chunk)
    if group:
        yield _read(group)


def _follows(group: Sequence[ChunkRef], chunk: ChunkRef, max_read_bytes: int) -> bool:
    last = group[-1]
    if chunk.pack_id != last.pack_id or chunk.offset < last.end:
        return False
    # A gap of a whole block or more is not worth its bytes.
    near = _down(chunk.offset) <= _up(last.end)
    return near and _up(chunk.end) - _down(group[0].offset) <= max_read_bytes


def _read(group: Sequence[ChunkRef]) -> PackRead:
    return PackRead(group[0].pack_id, _down(group[0].offset), _up(group[-1].end), tuple(group))


def _down(offset: int) -> int:
    return offset - offset % READ_BYTES


def _up(offset: int) -> int:
    return _down(offset + READ_BYTES - 1)
