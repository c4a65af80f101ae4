"""How large the images are that `make images` built, unpacked: the bytes of all their files, each once."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path
from typing import Final

from bench.measure import Row, alone
from images.image_builder import IMAGES, Buildah, Docker, builder, reference

_OURS_MB: Final = 260.0
_LIMITS_MB: Final = {
    "superlink": 400.0, "agent": 400.0, "runner": 400.0, "tools": 400.0, "job": 700.0, "proxy": 30.0,
}  # fmt: skip
"""Those that carry Flower, the runtime of jobs with its libraries, and nginx."""


async def sizes(folder: Path, _count: int) -> list[Row]:
    """Unpack each image and add up its files."""
    shown = builder()
    if shown is None:
        raise RuntimeError("neither a docker daemon nor buildah (as root) is here")
    rows = []
    for name in IMAGES:
        size_mb = await asyncio.to_thread(_size_mb, shown, name, folder / name)
        rows.append(alone(f"image {name}, unpacked", "MB", [size_mb], _LIMITS_MB.get(name, _OURS_MB)))
    return rows


def _size_mb(shown: Docker | Buildah, name: str, folder: Path) -> float:
    if shown.inspect(reference(name)) is None:
        raise RuntimeError(f"there is no image {reference(name)}; run: make images")
    folder.mkdir()
    container, root = shown.unpack(reference(name), folder)
    try:
        return files_bytes(root) / 1e6
    finally:
        shown.remove(container)


def files_bytes(root: Path) -> int:
    """Return the bytes of all files below `root`; one of several names counts once."""
    sizes: dict[int, int] = {}
    for place, _, names in os.walk(root):
        for name in names:
            state = (Path(place) / name).lstat()
            if stat.S_ISREG(state.st_mode):
                sizes[state.st_ino] = state.st_size
    return sum(sizes.values())
