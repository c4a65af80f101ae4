"""Pages of a list of runs, newest first: a token says after which run the next one begins."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Final

from syftmesh_core.errors import InvalidInput

from syftmesh_superlink.domain.run import Run

DEFAULT_SIZE: Final = 50
MAX_SIZE: Final = 200
MAX_BYTES: Final = 2 * 1024 * 1024
"""Size of a page, so that its answer fits into one message."""


def page_of(
    runs: Sequence[Run], size: int, token: str, size_bytes: Callable[[Run], int]
) -> tuple[list[Run], str]:
    """Return a page of `runs` and the token of the next one, empty at the end.

    Raises:
        InvalidInput: PAGE_TOKEN_INVALID, or the size is negative (PAGE_INVALID).
    """
    if size < 0:
        raise InvalidInput("A page has at least one entry.", reason="PAGE_INVALID")
    after = _decoded(token) if token else None
    left = [run for run in runs if after is None or _key(run) < after]
    page: list[Run] = []
    total = 0
    for run in left[: min(size or DEFAULT_SIZE, MAX_SIZE)]:
        total += size_bytes(run)
        if page and total > MAX_BYTES:
            break
        page.append(run)
    following = _encoded(page[-1]) if page and len(page) < len(left) else ""
    return page, following


def _key(run: Run) -> tuple[int, str]:
    return (run.created_ms, run.run_id)


def _encoded(run: Run) -> str:
    return base64.urlsafe_b64encode(f"{run.created_ms}:{run.run_id}".encode()).decode()


def _decoded(token: str) -> tuple[int, str]:
    try:
        created, _, run_id = (
            base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii").partition(":")
        )
        if not run_id.isdecimal():
            raise ValueError
        return (int(created), run_id)
    except (binascii.Error, ValueError):
        raise InvalidInput(
            "The page token is none of this list. Begin without one.", reason="PAGE_TOKEN_INVALID"
        ) from None
