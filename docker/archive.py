"""Write an OCI layout of several images as one archive that containerd imports by the images' full names.

``python3 archive.py LAYOUT ARCHIVE``: what a reference without a registry means is docker.io, as everywhere.
"""

from __future__ import annotations

import json
import sys
import tarfile
from pathlib import Path

REFERENCE = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"


def full_name(reference: str) -> str:
    """Return `reference` with its registry: ``syftmesh/sync:dev`` is ``docker.io/syftmesh/sync:dev``."""
    first, slash, _ = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return reference
    return f"docker.io/{reference}" if slash else f"docker.io/library/{reference}"


def main() -> None:
    """Name the images in the layout's index in full, then pack it."""
    layout, archive = Path(sys.argv[1]), Path(sys.argv[2])
    index = json.loads((layout / "index.json").read_text())
    for manifest in index["manifests"]:
        notes = manifest["annotations"]
        notes[FULL_NAME] = full_name(notes[REFERENCE])
    (layout / "index.json").write_text(json.dumps(index))
    with tarfile.open(archive, "w") as tar:
        for path in sorted(layout.rglob("*")):
            tar.add(path, path.relative_to(layout), recursive=False)


if __name__ == "__main__":
    main()
