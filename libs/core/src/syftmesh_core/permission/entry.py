"""Lists of who: e-mails, `*`, `USER`, globs and groups."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.principal import MAX_PRINCIPAL_BYTES, is_authenticated, is_principal
from syftmesh_core.quote import quoted

Groups = Mapping[str, frozenset[str]]
"""The owner's groups, nested ones resolved; name (without ``group:``) to principals, absent is nobody."""

EVERYONE: Final = "*"
AUTHENTICATED: Final = "USER"

_SHARED_ENTRIES: Final = 4
_SHARED_CHARACTERS: Final = 256
_SHARED_LISTS: Final = 16_384
"""So many short lists are kept: rule files name the same few people again and again, and share one list."""

_GLOB = re.compile(r"[a-z0-9._%+*-]+@[a-z0-9.*-]+")
_GROUP = re.compile(r"group:([a-z0-9][a-z0-9_-]{0,62})")


@dataclass(frozen=True, slots=True)
class EmailGlob:
    """A glob of principals: ``*`` is any run of characters but ``@``.

    Attributes:
        text: As written, normalised.
    """

    text: str

    def matches(self, principal: str) -> bool:
        """Return whether `principal` is meant; linear, for the leftmost place of each piece always does."""
        local, _, domain = self.text.partition("@")
        own_local, _, own_domain = principal.partition("@")
        return _run_matches(local, own_local) and _run_matches(domain, own_domain)


def _run_matches(glob: str, text: str) -> bool:
    first, *middle = glob.split("*")
    if not middle:
        return glob == text
    last = middle.pop()
    if not (text.startswith(first) and text.endswith(last)) or len(text) < len(first) + len(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


@dataclass(frozen=True, slots=True)
class EntryList:
    """Who one or more lists of a rule name.

    Attributes:
        everyone: Has ``*``.
        authenticated: Has ``USER``.
        emails: E-mails, normalised, each once; in order where they are so few that a tuple is the smaller.
        globs: Globs of e-mails.
        groups: Names of groups of the datasite's owner.
    """

    everyone: bool = False
    authenticated: bool = False
    emails: tuple[str, ...] | frozenset[str] = ()
    globs: tuple[EmailGlob, ...] = ()
    groups: tuple[str, ...] = ()

    @property
    def principals(self) -> frozenset[str]:
        """The e-mails as a set."""
        return frozenset(self.emails)

    def names(self, requester: str, groups: Groups) -> bool:
        """Return whether any entry means `requester`."""
        if self.everyone:
            return True
        if not is_authenticated(requester):
            return False
        if self.authenticated or requester in self.emails:
            return True
        if self.groups and any(requester in groups.get(name, ()) for name in self.groups):
            return True
        return bool(self.globs) and any(glob.matches(requester) for glob in self.globs)


NOBODY: Final = EntryList()


def join(lists: Iterable[EntryList]) -> EntryList:
    """Return one list with the entries of all."""
    every = tuple(entries for entries in lists if entries is not NOBODY)
    if len(every) < 2:
        return every[0] if every else NOBODY
    return EntryList(
        any(entries.everyone for entries in every),
        any(entries.authenticated for entries in every),
        _compact(frozenset().union(*(entries.emails for entries in every))),
        tuple(dict.fromkeys(glob for entries in every for glob in entries.globs)),
        tuple(dict.fromkeys(name for entries in every for name in entries.groups)),
    )


def parse_entries(texts: Iterable[str]) -> EntryList:
    """Return the list that `texts` write; e-mails and globs are normalised like principals.

    Raises:
        InvalidInput: (ENTRY_INVALID) one of them is no entry; with metadata `entry`, its `index` from 0, `why`.
    """
    every = tuple(texts)
    if not every:
        return NOBODY
    is_short = len(every) <= _SHARED_ENTRIES and sum(map(len, every)) <= _SHARED_CHARACTERS
    return _shared(every) if is_short else _parsed(every)


def _parsed(texts: tuple[str, ...]) -> EntryList:
    everyone = authenticated = False
    principals: set[str] = set()
    globs: dict[EmailGlob, None] = {}
    groups: dict[str, None] = {}
    for index, text in enumerate(texts):
        normal = unicodedata.normalize("NFC", text).lower() if len(text) <= MAX_PRINCIPAL_BYTES else ""
        if text == EVERYONE:
            everyone = True
        elif text == AUTHENTICATED:
            authenticated = True
        elif group := _GROUP.fullmatch(text):
            groups[group[1]] = None
        elif is_principal(normal):
            principals.add(_one_of_equals(normal))
        elif "*" in normal and _GLOB.fullmatch(normal):
            globs[EmailGlob(normal)] = None
        else:
            raise _refused(text, index)
    return EntryList(everyone, authenticated, _compact(principals), tuple(globs), tuple(groups))


_shared = lru_cache(maxsize=_SHARED_LISTS)(_parsed)


def _compact(principals: Collection[str]) -> tuple[str, ...] | frozenset[str]:
    """Return the set as it takes the least memory: a rule file names a few, a datasite has many rule files."""
    return tuple(sorted(principals)) if len(principals) <= _SHARED_ENTRIES else frozenset(principals)


@lru_cache(maxsize=_SHARED_LISTS)
def _one_of_equals(principal: str) -> str:
    """Return the same object for equal e-mails, as long as it is among those seen lately."""
    return principal


def _refused(text: str, index: int) -> InvalidInput:
    why = "it is no e-mail, no '*', no USER, no glob like *@example.org and no group:<name>"
    return InvalidInput(
        f"{quoted(text)} cannot stand in a list: {why}.",
        reason="ENTRY_INVALID",
        metadata={"entry": quoted(text), "index": str(index), "why": why},
    )
