"""Seal and open content for one reader, against AES-GCM alone with a fresh key.

Ours holds all that a reader needs: key wrap (X-Wing), padding, key commitment, digest and signature.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from bench.measure import Row, Target, alone, compared, pairs
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.sealed import SealHeader, open_sealed, seal

CLOCK: Final = SystemClock()
AUTHOR, READER = "alice@hospital.example", "carol@lab.example"
ROOT: Final = bytes(32)
TAG_BYTES: Final = 16
SIZES: Final = {"1 MiB": (1 << 20, 40, 0.8), "4 KiB": (4096, 200, 0.5)}
NONCE: Final = bytes(12)


async def seal_and_open(_folder: Path, count: int) -> list[Row]:
    """Measure both ways at both sizes, in MB/s of plain bytes."""
    author = DeviceSecret.generate(AUTHOR, uuid7(CLOCK))
    reader = DeviceSecret.generate(READER, uuid7(CLOCK))
    header = SealHeader("file", ROOT, AUTHOR, author.device_id, "bench", ids=("a", "1"))
    to, by = reader.public(), author.public()
    rows = []
    for name, (size, repeats, limit) in SIZES.items():
        data = os.urandom(size)

        def sealed(data: bytes = data) -> bytes:
            return seal(data, header=header, readers=[to], signer=author)

        blob = sealed()

        def opened(blob: bytes = blob) -> Any:
            return open_sealed(
                blob,
                device=reader,
                sender=by,
                sender_root=ROOT,
                expect_kind="file",
                expect_receiver="bench",
                now_ms=0,
            )

        encrypt, decrypt = _aes(data)
        for what, ours, peer in (("seal", sealed, encrypt), ("open", opened, decrypt)):
            found = await pairs(count, _speed(ours, size, repeats), _speed(peer, size, repeats))
            target = Target(limit, at_least=True)
            rows.append(compared(f"{what} {name}, one reader, signed", "MB/s", "AESGCM into", found, target))
        addressing = [await _speed(partial(_address, data), size, repeats)() for _ in range(count)]
        rows.append(alone(f"addressing by BLAKE3, {name}", "MB/s", addressing, None))
    return rows


def _address(data: bytes) -> bytes:
    return blake3(data).digest()


def _aes(data: bytes) -> tuple[Callable[[], Any], Callable[[], Any]]:
    key = os.urandom(32)
    sealed = bytearray(len(data) + TAG_BYTES)
    AESGCM(key).encrypt_into(NONCE, data, None, sealed)

    def encrypt() -> None:
        AESGCM(os.urandom(32)).encrypt_into(NONCE, data, None, bytearray(len(data) + TAG_BYTES))

    def decrypt() -> None:
        AESGCM(key).decrypt_into(NONCE, sealed, None, bytearray(len(data)))

    return encrypt, decrypt


def _speed(work: Callable[[], Any], size: int, repeats: int) -> Callable[[], Any]:
    async def take() -> float:
        started = time.perf_counter()
        for _ in range(repeats):
            work()
        return size * repeats / (time.perf_counter() - started) / 1e6

    return take
