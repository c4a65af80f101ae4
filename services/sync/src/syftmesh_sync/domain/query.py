"""Use cases that only read: stat, list, download. What the caller may not read looks absent."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError
from syftmesh_core.path import parse_path
from syftmesh_core.permission.right import may_read

from syftmesh_sync.domain.ports import Entry, Grant, Log, Objects

MAX_STAT: Final = 500
MAX_DOWNLOADS: Final = 64
DEFAULT_PAGE: Final = 500
MAX_PAGE: Final = 5000
_MAX_PAGE_BYTES: Final = 3 * 1024 * 1024
_SLICE: Final = 256
"""Files looked at between two chances for other work of the same thread."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing: entries in path order, and the token of the next page, empty on the last."""

    entries: list[Entry]
    next_token: str


@dataclass(frozen=True, slots=True)
class Download:
    """Where to get one file; without an entry there is nothing that the caller may read."""

    path: str
    entry: Entry | None = None
    grant: Grant | None = field(default=None, repr=False)


class Query:
    """Answers from the read model.

    Every method raises Unavailable (LOG_LOADING, LOG_BEHIND) while the model may not be answered from.
    """

    def __init__(self, log: Log, objects: Objects, clock: Clock) -> None:
        self._log = log
        self._objects = objects
        self._clock = clock

    def stat(self, requester: str, paths: Sequence[str]) -> list[Entry]:
        """Return the live files at `paths` that `requester` may read, in their order.

        Raises:
            InvalidInput: (PATH_INVALID) one is no path.
            LimitExceeded: (TOO_MANY_FILES) more than 500.
        """
        _check_count(paths, MAX_STAT)
        self._log.check()
        found = [self._readable(requester, path) for path in paths]
        return [entry for entry in found if entry is not None]

    async def page(self, requester: str, prefix: str, size: int, token: str) -> Page:
        """Return a page of the live files below `prefix` that `requester` may read.

        A token names the last file that was given, never one that was only looked at: a listing tells nobody the
        names of files that they may not read, nor whether there are any.

        Args:
            requester: Who asks.
            prefix: A datasite or a directory; one trailing slash is dropped.
            size: Most entries wanted; 0 means 500, more than 5,000 means 5,000.
            token: `Page.next_token` of the page before, empty for the first.

        Raises:
            InvalidInput: PATH_INVALID, PAGE_INVALID.
        """
        directory = str(parse_path(prefix, drop_trailing_slash=True))
        if size < 0:
            raise InvalidInput("A page size is not negative.", reason="PAGE_INVALID")
        last = _after(token, directory)
        limit, now_ms = min(size or DEFAULT_PAGE, MAX_PAGE), self._clock.now_ms()
        entries: list[Entry] = []
        size_bytes, more = 0, True
        while more:
            self._log.check()
            site = self._log.site(directory.partition("/")[0])
            found = list(islice(site.below(directory, after=last), _SLICE))
            for entry in found:
                if not may_read(site.tree, requester, entry.path, now_ms):
                    continue
                if len(entries) == limit or size_bytes > _MAX_PAGE_BYTES:
                    return Page(entries, base64.urlsafe_b64encode(entries[-1].text.encode()).decode())
                entries.append(entry)
                size_bytes += _size(entry)
            more = len(found) == _SLICE
            if more:
                last = found[-1].text
                await asyncio.sleep(0)
        return Page(entries, "")

    def downloads(self, requester: str, paths: Sequence[str]) -> list[Download]:
        """Return where to get each of `paths`, in their order.

        Raises:
            InvalidInput: (PATH_INVALID) one is no path.
            LimitExceeded: (TOO_MANY_FILES) more than 64.
        """
        _check_count(paths, MAX_DOWNLOADS)
        self._log.check()
        found = []
        for path in paths:
            entry = self._readable(requester, path)
            if entry is None or entry.content is None:
                found.append(Download(path))
            else:
                grant = self._objects.grant_get(entry.path.site, entry.content.object_id)
                found.append(Download(path, entry, grant))
        return found

    def _readable(self, requester: str, text: str) -> Entry | None:
        path = parse_path(text)
        site = self._log.site(path.site)
        entry = site.live(str(path))
        if entry is None or not may_read(site.tree, requester, path, self._clock.now_ms()):
            return None
        return entry


def _check_count(paths: Sequence[str], limit: int) -> None:
    if len(paths) > limit:
        raise LimitExceeded(
            f"At most {limit} paths at once, not {len(paths)}.",
            reason="TOO_MANY_FILES",
            metadata={"limit": str(limit)},
        )


def _size(entry: Entry) -> int:
    signed = entry.signed
    return len(entry.text) + len(signed.record) + len(signed.content) + len(signed.signature)


def _after(token: str, directory: str) -> str:
    if not token:
        return ""
    try:
        after = base64.b64decode(token.encode(), altchars=b"-_", validate=True).decode()
        if after.startswith(f"{directory}/") and str(parse_path(after)) == after:
            return after
    except (ValueError, binascii.Error, MeshError):
        pass
    raise InvalidInput("The page token is not one of this listing.", reason="PAGE_INVALID")
