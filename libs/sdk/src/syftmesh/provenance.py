"""Files that only a site's owner may have written: cards, mocks, the status of jobs, results."""

from __future__ import annotations

from typing import Final

from syftmesh_client.files import FileClient
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.path import parse_path
from syftmesh_core.quote import quoted

MAX_DOCUMENT_BYTES: Final = 4 << 20
"""Longest card or status, in bytes."""


async def read_of_owner(files: FileClient, path: str) -> bytes:
    """Return the file at `path`, verified, when the owner of its site is its author.

    The file client accepts whoever the signed rules let write there; what a site states in its owner's name may
    come from the owner alone, whatever the rules say.

    Raises:
        IntegrityFailure: AUTHOR_NOT_ALLOWED, or as `FileClient.read`.
        NotFound: FILE_MISSING.
        MeshError: As `FileClient.read`.
    """
    found = await files.read(path)
    site = parse_path(path).site
    if found.author != site:
        raise IntegrityFailure(
            f"{quoted(path)} was written by {quoted(found.author)}, and only {site} may state it.",
            reason="AUTHOR_NOT_ALLOWED",
            metadata={"path": quoted(path), "author": quoted(found.author)},
        )
    return found.data
