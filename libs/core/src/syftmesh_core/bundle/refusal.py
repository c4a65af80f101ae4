"""The words in which a bundle is refused."""

from __future__ import annotations

from typing import Final

from syftmesh_core.errors import InvalidInput, LimitExceeded

MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
MAX_UNPACKED_BYTES: Final = 64 * 1024 * 1024
MAX_FILES: Final = 2_000


def shown(name: str) -> str:
    """Return a stranger's text in a form that is safe in a message."""
    return ascii(name[:200])


def bundle_invalid(problem: str) -> InvalidInput:
    """Return the error for a bundle that is no app that can run."""
    return InvalidInput(
        f"The app bundle is refused: {problem}. Build it with Flower from the app's folder.",
        reason="BUNDLE_INVALID",
    )


def bundle_too_large(problem: str) -> LimitExceeded:
    """Return the error for a bundle beyond the limits."""
    return LimitExceeded(
        f"The app bundle is refused: {problem}. At most {MAX_BUNDLE_BYTES} bytes are accepted, and unpacked "
        f"{MAX_UNPACKED_BYTES} bytes in {MAX_FILES} files: leave files out with fab-exclude, put data into a dataset.",
        reason="BUNDLE_TOO_LARGE",
        metadata={"limit_bytes": str(MAX_BUNDLE_BYTES)},
    )


def config_invalid(key: str, problem: str) -> InvalidInput:
    """Return the error for a value of the run configuration."""
    return InvalidInput(
        f"The run configuration is refused: {shown(key)} {problem}.",
        reason="CONFIG_INVALID",
        metadata={"key": shown(key)},
    )
