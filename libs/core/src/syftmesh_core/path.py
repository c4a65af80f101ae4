"""Paths of the mesh: `<e-mail>/<segments>`, refused when malformed and never cleaned."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

from syftmesh_core.errors import InvalidInput
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

RULES_FILE: Final = "syft.pub.yaml"
IGNORE_FILE: Final = ".syftignore"
SETTINGS_FILE: Final = "settings.yaml"
GROUPS_FILE: Final = "syft.groups.yaml"
"""At the root of a datasite: the owner's groups, for `group:<name>` in rule files."""

MAX_PATH_BYTES: Final = 1024
MAX_SEGMENT_BYTES: Final = 255
MAX_SEGMENTS: Final = 255
"""Segments of a path, the e-mail counted."""

_MAX_RAW_CHARACTERS = 4 * MAX_PATH_BYTES
"""NFC never shrinks text to less than a quarter of its bytes, so longer text cannot become a path."""

# Categories Cc and Cs, line and paragraph separators, and invisible or direction-changing characters.
_FORBIDDEN = re.compile(
    "[\\x00-\\x1f\\x7f-\\x9f\\\\\\ud800-\\udfff\\u2028\\u2029\\u200b\\u200e\\u200f"
    "\\u202a-\\u202e\\u2060\\u2066-\\u2069\\ufeff]"
)


@dataclass(frozen=True, slots=True)
class MeshPath:
    """A path in canonical form; make one with `parse_path` or from another one.

    Attributes:
        site: Principal who owns the datasite, normalised.
        segments: Names below the datasite's root, NFC; empty for the root itself.
    """

    site: str
    segments: tuple[str, ...]

    def __str__(self) -> str:
        return "/".join((self.site, *self.segments))

    @property
    def name(self) -> str:
        """The last segment; of the root the e-mail."""
        return self.segments[-1] if self.segments else self.site

    @property
    def parent(self) -> MeshPath:
        """The directory that holds this path; of the root the root."""
        return MeshPath(self.site, self.segments[:-1])

    @property
    def is_root(self) -> bool:
        """Whether this is the datasite's root directory."""
        return not self.segments

    @property
    def is_rules_file(self) -> bool:
        """Whether this path, if it is a file, is a rule file."""
        return bool(self.segments) and self.segments[-1] == RULES_FILE

    @property
    def is_groups_file(self) -> bool:
        """Whether this path, if it is a file, holds the groups of the datasite's owner."""
        return self.segments == (GROUPS_FILE,)

    @property
    def is_policy_file(self) -> bool:
        """Whether this path, if it is a file, decides about others: a rule file, or the groups file."""
        return self.is_rules_file or self.is_groups_file

    def child(self, relative: str) -> MeshPath:
        """Return the path `relative` below this one.

        Raises:
            InvalidInput: (PATH_INVALID) the result is no path.
        """
        return parse_path(f"{self}/{relative}")


def parse_path(text: str, *, drop_trailing_slash: bool = False) -> MeshPath:
    """Return the canonical path (NFC, e-mail normalised) that `text` writes.

    At most 1,024 bytes, 255 segments and 255 bytes in a segment, all of the canonical form.

    Args:
        text: The path; ``%`` is an ordinary character.
        drop_trailing_slash: Accept one trailing ``/`` and drop it: for questions about a path, never for
            file operations.

    Raises:
        InvalidInput: (PATH_INVALID) with metadata `path` and `why`.
    """
    if not isinstance(text, str) or len(text) > _MAX_RAW_CHARACTERS:
        raise _refused(text, f"it is longer than {MAX_PATH_BYTES} bytes")
    if found := _FORBIDDEN.search(text):
        raise _refused(text, f"it holds the character U+{ord(found[0]):04X}, which no path may hold")
    canonical = text if text.isascii() else unicodedata.normalize("NFC", text)
    if drop_trailing_slash and canonical.endswith("/"):
        canonical = canonical[:-1]
    first, *segments = canonical.split("/")
    for segment in segments:
        _check_segment(text, segment)
    if len(segments) >= MAX_SEGMENTS:
        raise _refused(text, f"it has more than {MAX_SEGMENTS} segments")
    if len(canonical) > MAX_PATH_BYTES or len(canonical.encode()) > MAX_PATH_BYTES:
        raise _refused(text, f"it is longer than {MAX_PATH_BYTES} bytes")
    try:
        site = normalise_principal(first)
    except InvalidInput:
        raise _refused(text, "its first segment is not the e-mail address of a datasite's owner") from None
    return MeshPath(site, tuple(segments))


def check_creatable(path: MeshPath) -> None:
    """Refuse a path that other systems would take for one that decides about others: nobody creates it.

    That is a last segment which is not `syft.pub.yaml` but becomes it by NFKC and case folding (UAX #15),
    by taking trailing dots and spaces off, or by both; directly at a datasite's root the same of
    `syft.groups.yaml`. The owner is refused as everyone is.

    Raises:
        InvalidInput: (PATH_INVALID) with metadata `path` and `why`.
    """
    name = path.name
    meant = (RULES_FILE, GROUPS_FILE) if len(path.segments) == 1 else (RULES_FILE,)
    if name in meant or len(name) > MAX_SEGMENT_BYTES:
        return
    folded = name if name.isascii() else unicodedata.normalize("NFKC", name)
    folded = folded.casefold()
    for exact in meant:
        if folded.startswith(exact) and not folded[len(exact) :].strip(". "):
            raise _refused(str(path), f"its last segment looks like {exact} and is not; use that exact name")


def _check_segment(text: str, segment: str) -> None:
    if segment in ("", ".", ".."):
        raise _refused(text, "it has an empty, '.' or '..' segment, or a '/' at an end")
    if len(segment) > MAX_SEGMENT_BYTES or len(segment.encode()) > MAX_SEGMENT_BYTES:
        raise _refused(text, f"a segment is longer than {MAX_SEGMENT_BYTES} bytes")


def _refused(text: object, why: str) -> InvalidInput:
    return InvalidInput(
        f"{quoted(text)} is not a path: {why}.",
        reason="PATH_INVALID",
        metadata={"path": quoted(text), "why": why},
    )
