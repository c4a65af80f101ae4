"""Flower app bundles (FAB) on the machine at work: built by Flower's own builder, and unpacked.

`syftmesh_core.bundle` reads them; what others use of it is given on here.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

from syftmesh_core.bundle import (
    MANIFEST,
    MAX_BUNDLE_BYTES,
    MAX_FILES,
    MAX_UNPACKED_BYTES,
    Bundle,
    ConfigValue,
    bundle_invalid,
    bundle_too_large,
    fused_config,
    parse_manifest,
    read_bundle,
)

__all__ = [
    "MAX_BUNDLE_BYTES",
    "MAX_FILES",
    "MAX_UNPACKED_BYTES",
    "Bundle",
    "ConfigValue",
    "build_bundle",
    "extract_bundle",
    "fused_config",
    "read_bundle",
]


def build_bundle(app: Path) -> bytes:
    """Return the bundle of the app in the folder `app`; the same files give the same bytes.

    Flower's builder chooses the files: Python, TOML, Markdown, YAML and JSON, without tests, environments and what
    `.gitignore` names; `fab-include` and `fab-exclude` narrow that.

    Raises:
        InvalidInput: BUNDLE_INVALID: no folder, or none of a Flower app with a ServerApp and a ClientApp.
        LimitExceeded: BUNDLE_TOO_LARGE: over 4 MiB, or what `read_bundle` does not take.
    """
    folder = app.expanduser()
    if not folder.is_dir():
        raise bundle_invalid("the path is no folder; give the folder that holds the app's pyproject.toml")
    try:
        # Flower's own checks break on tables that are none; ours say what is wrong.
        parse_manifest((folder / MANIFEST).read_bytes())
        data = _flower_build(folder)
    except FileNotFoundError:
        raise bundle_invalid(f"it has no {MANIFEST}; give the folder that holds the app's") from None
    except OSError as error:
        raise bundle_invalid(f"a file cannot be read: {error.strerror}") from None
    read_bundle(data)
    return data


def extract_bundle(bundle: Bundle, folder: Path) -> None:
    """Write the files of `bundle` into `folder`, which is made and must be empty; files are 0444, folders 0755.

    Raises:
        InvalidInput: BUNDLE_INVALID when the folder is not empty.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise bundle_invalid("the folder to unpack it into is not empty")
    made: set[PurePosixPath] = set()
    for name, content in bundle.files.items():
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            if parent not in made:
                (folder / parent).mkdir()
                (folder / parent).chmod(0o755)
                made.add(parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(folder / name, flags, 0o600), "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o444)


def _flower_build(folder: Path) -> bytes:
    # The command line of Flower comes with it, which takes a second: only who builds pays.
    from flwr.cli.build import build_fab_from_disk

    try:
        data: bytes = build_fab_from_disk(folder)
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        if "exceeds maximum allowed size" in str(error):
            raise bundle_too_large("it is larger than Flower's own limit") from None
        raise bundle_invalid(f"Flower does not build it: {str(error)[:1000]}") from None
    return data
