"""A scientist's code as one archive, ready to be sent or run."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from syftmesh_core.errors import InvalidInput, LimitExceeded, NotFound
from syftmesh_core.quote import quoted
from syftmesh_executor.archive import pack_code

DEFAULT_ENTRYPOINT: Final = "main.py"
MAX_CODE_BYTES: Final = 250_000
"""Of packed code: a call carries 256 KiB, and parameters and seal need some of it."""


def packed(code: Path, entrypoint: str | None) -> tuple[bytes, str]:
    """Return the archive of `code` and the name of the script in it that runs.

    Args:
        code: File or folder.
        entrypoint: Script; of a file that file, of a folder ``main.py``, when None.

    Raises:
        NotFound: LOCAL_FILE_MISSING.
        InvalidInput: ENTRYPOINT_MISSING, ARCHIVE_INVALID; JOB_INVALID when the script is no Python file.
        LimitExceeded: ARCHIVE_TOO_LARGE.
    """
    if not code.exists():
        raise NotFound(
            f"There is no file or folder {quoted(code.name)} on this machine.",
            reason="LOCAL_FILE_MISSING",
            metadata={"file": quoted(code.name)},
        )
    script = entrypoint or (DEFAULT_ENTRYPOINT if code.is_dir() else code.name)
    if not script.endswith(".py"):
        raise InvalidInput(
            f"The entrypoint of a job is a Python file, and {quoted(script)} is none.", reason="JOB_INVALID"
        )
    missing = not (code / script).is_file() if code.is_dir() else script != code.name
    if missing:
        raise InvalidInput(
            f"The code has no file {quoted(script)}.",
            reason="ENTRYPOINT_MISSING",
            metadata={"entrypoint": quoted(script)},
            hint="Name the script with entrypoint.",
        )
    return pack_code(code), script


def code_too_large(size_bytes: int) -> LimitExceeded:
    """Return the error for a submission that no call can carry."""
    return LimitExceeded(
        f"The submission has {size_bytes} bytes packed; about {MAX_CODE_BYTES} can be sent.",
        reason="CODE_TOO_LARGE",
        metadata={"size_bytes": str(size_bytes), "limit_bytes": str(MAX_CODE_BYTES)},
        hint="Leave out data, environments and caches: a job gets its data from the site.",
    )
