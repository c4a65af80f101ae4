"""Files as streams: sealed into packs, and opened again, in the memory of a few chunks.

Where content is cut is the caller's to decide (an iterator of chunks). Nothing is read or written here: what
is yielded is the caller's to store, and a view that is good until the next step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from blake3 import blake3

from syftmesh_core.clock import Random, system_random
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.object.chunk import (
    MAX_CHUNK_BYTES,
    MAX_SEALED_CHUNK_BYTES,
    Buffer,
    ChunkCipher,
    ChunkSecret,
    chunk_invalid,
)
from syftmesh_core.object.manifest import Manifest
from syftmesh_core.object.pack import ChunkRef, PackBuilder
from syftmesh_core.sealed_container import TAG_BYTES


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to append to a pack.

    Attributes:
        pack: Which; when it `is_closed`, these are its last bytes and it has its id.
        data: Good until the next step.
    """

    pack: PackBuilder
    data: memoryview = field(repr=False)


class PackRun:
    """The packs that one after another take the chunks of many files.

    Args:
        random: Source of the packs' padding.
    """

    def __init__(self, *, random: Random = system_random) -> None:
        self._random = random
        self._pack: PackBuilder | None = None

    def pack_for(self, plain_bytes: int) -> tuple[PackBuilder, Piece | None]:
        """Return the pack that takes a chunk of `plain_bytes`, and the end of the one before if it was full."""
        ended = None
        if self._pack is not None and not self._pack.has_room(plain_bytes):
            ended = self.close()
        if self._pack is None:
            self._pack = PackBuilder(random=self._random)
        return self._pack, ended

    def close(self) -> Piece | None:
        """Return the end of the open pack, None where none is open. Files after it begin another one."""
        pack, self._pack = self._pack, None
        return None if pack is None else Piece(pack, memoryview(pack.close()))


class FileSealer:
    """Seals the chunks of one file after another in one buffer, and keeps what its manifest needs.

    Args:
        cipher: Of the file's datasite.
        packs: Where the chunks go.
    """

    def __init__(self, cipher: ChunkCipher, packs: PackRun) -> None:
        self._cipher = cipher
        self._packs = packs
        self._buffer = bytearray()
        self._hash = blake3()
        self._size = 0
        self._placed: list[tuple[PackBuilder, int, ChunkSecret] | ChunkRef] = []

    def seal(self, plaintext: Buffer) -> tuple[Piece, ...]:
        """Return what sealing the next chunk adds to the packs, in the order to write it.

        Raises:
            InvalidInput: CHUNK_REFUSED for no bytes.
            LimitExceeded: CHUNK_TOO_LARGE above 4 MiB.
        """
        needed = len(plaintext) + TAG_BYTES
        if len(self._buffer) < needed <= MAX_SEALED_CHUNK_BYTES:
            # Small files never pay for the largest chunk, and large ones grow a few times only.
            self._buffer = bytearray(min(2 * needed, MAX_SEALED_CHUNK_BYTES))
        secret, sealed = self._cipher.seal_into(plaintext, self._buffer)
        pack, ended = self._packs.pack_for(len(plaintext))
        self._placed.append((pack, pack.add(sealed), secret))
        self._count(plaintext)
        piece = Piece(pack, sealed)
        return (piece,) if ended is None else (ended, piece)

    def reuse(self, plaintext: Buffer, chunk: ChunkRef) -> None:
        """Take the next chunk from where it is stored already; `plaintext` is what the caller read.

        Raises:
            IntegrityFailure: CHUNK_INVALID when their lengths differ.
        """
        if len(plaintext) != chunk.secret.plain_bytes:
            raise chunk_invalid()
        self._placed.append(chunk)
        self._count(plaintext)

    def manifest(self, *, mode: int, mtime_ms: int) -> Manifest:
        """Return the manifest, once all packs of the file are closed.

        Raises:
            WrongState: PACK_OPEN before that.
            InvalidInput: MANIFEST_REFUSED for mode or time beyond their form.
            LimitExceeded: MANIFEST_TOO_LARGE above 2^18 chunks.
        """
        chunks = tuple(
            placed if isinstance(placed, ChunkRef) else ChunkRef(placed[0].pack_id, placed[1], placed[2])
            for placed in self._placed
        )
        return Manifest(self._size, self._hash.digest(), mode, mtime_ms, chunks)

    def _count(self, plaintext: Buffer) -> None:
        self._hash.update(plaintext)
        self._size += len(plaintext)


def seal_file(chunks: Iterable[Buffer], sealer: FileSealer) -> Iterator[Piece]:
    """Yield what the file of `chunks` adds to the packs; holds one chunk and its ciphertext at a time.

    Raises:
        InvalidInput: CHUNK_REFUSED as `FileSealer.seal`.
        LimitExceeded: CHUNK_TOO_LARGE as `FileSealer.seal`.
    """
    for chunk in chunks:
        yield from sealer.seal(chunk)
        del chunk  # else it would live on while the next one is cut


class FileOpener:
    """Opens the chunks of one file in their order in one buffer, and checks the whole at the end.

    Args:
        manifest: Opened by `open_manifest`.
        cipher: Of the file's datasite.
    """

    def __init__(self, manifest: Manifest, cipher: ChunkCipher) -> None:
        self._manifest = manifest
        self._cipher = cipher
        longest = max((chunk.secret.plain_bytes for chunk in manifest.chunks), default=0)
        self._buffer = bytearray(min(longest, MAX_CHUNK_BYTES))
        self._hash = blake3()
        self._next = 0

    def open(self, sealed: Buffer) -> memoryview:
        """Return the plaintext of the next chunk, good until the next call; `end` says whether all is right.

        Raises:
            IntegrityFailure: CHUNK_INVALID when `sealed` is not the next chunk, or none is left.
        """
        if self._next >= len(self._manifest.chunks):
            raise chunk_invalid()
        plain = self._cipher.open_into(sealed, self._manifest.chunks[self._next].secret, self._buffer)
        self._next += 1
        self._hash.update(plain)
        return plain

    def end(self) -> None:
        """Check that all chunks were there and are the content.

        Raises:
            IntegrityFailure: CONTENT_INVALID when chunks are missing, or the content is not what the manifest's
                digest says.
        """
        missing = len(self._manifest.chunks) - self._next
        if missing:
            raise IntegrityFailure(
                f"The file is not complete: {missing} of its chunks are missing. Fetch them.",
                reason="CONTENT_INVALID",
                metadata={"missing": str(missing)},
            )
        if self._hash.digest() != self._manifest.content_blake3:
            raise IntegrityFailure(
                "The file's content is not what its digest says: its writer's list of chunks is wrong.",
                reason="CONTENT_INVALID",
            )


def open_file(sealed_chunks: Iterable[Buffer], opener: FileOpener) -> Iterator[memoryview]:
    """Yield the content in pieces; it is the file's only once the iterator ends without an error.

    Raises:
        IntegrityFailure: CHUNK_INVALID or CONTENT_INVALID as `FileOpener`.
    """
    for sealed in sealed_chunks:
        yield opener.open(sealed)
    opener.end()
