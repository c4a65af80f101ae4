"""Seal and open chunks, against AES-GCM alone with a fresh key, both into buffers that are there.

Addressing by BLAKE3 is told apart: whoever stores by digest pays for it whatever the cipher.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.measure import Row, Target, alone, compared, pairs
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from syftmesh_core.object.chunk import ChunkCipher, chunk_address

SITE: Final = "alice@hospital.example"
TAG_BYTES: Final = 16
SIZES: Final = {"1 MiB": (1 << 20, 40, 0.8), "4 KiB": (4096, 2000, 0.5)}
NONCE: Final = bytes(12)


async def check(_folder: Path, count: int) -> list[Row]:
    """Measure both ways at both sizes, in MB/s of plain bytes."""
    rows = []
    for name, (size, repeats, limit) in SIZES.items():
        data = os.urandom(size)
        seal, open_, address = _ours(data)
        encrypt, decrypt = _aes(data)
        for what, ours, peer in (("seal", seal, encrypt), ("open", open_, decrypt)):
            found = await pairs(count, _speed(ours, size, repeats), _speed(peer, size, repeats))
            target = Target(limit, at_least=True)
            rows.append(compared(f"{what} a chunk of {name}", "MB/s", "AESGCM into", found, target))
        addressing = [await _speed(address, size, repeats)() for _ in range(count)]
        rows.append(alone(f"addressing a chunk of {name} by BLAKE3", "MB/s", addressing, None))
    return rows


def _ours(data: bytes) -> tuple[Callable[[], Any], Callable[[], Any], Callable[[], Any]]:
    cipher = ChunkCipher(SITE)
    secret, view = cipher.seal_into(data, bytearray(len(data) + TAG_BYTES))
    sealed, into = bytes(view), bytearray(len(data) + TAG_BYTES)
    return (
        partial(cipher.encrypt_into, data, into),
        partial(cipher.decrypt_into, sealed, secret, into),
        partial(chunk_address, sealed),
    )


def _aes(data: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    key, into, plain = os.urandom(32), bytearray(len(data) + TAG_BYTES), bytearray(len(data))
    AESGCM(key).encrypt_into(NONCE, data, None, into)
    sealed = bytes(into)

    def encrypt() -> None:
        AESGCM(os.urandom(32)).encrypt_into(NONCE, data, None, into)

    def decrypt() -> None:
        AESGCM(key).decrypt_into(NONCE, sealed, None, plain)

    return encrypt, decrypt


def _speed(work: Callable[[], Any], size: int, repeats: int) -> Callable[[], Any]:
    async def take() -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return size * repeats / (time.perf_counter() - started) / 1e6

    return take
