"""The text a pattern is matched against, as sets of positions.

A set of positions of one text is an integer: bit `i` stands for the place before character `i`. Every
operation takes the places where something may begin and returns those where it may end, for all of them at
once, so a pattern is matched in one pass over its own parts, whatever the text (the dual of simulating an
automaton; nothing backtracks).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from syftmesh_core.principal import MAX_LABEL_BYTES, MAX_LOCAL_BYTES, MAX_PRINCIPAL_BYTES

_LOWER: Final = frozenset("abcdefghijklmnopqrstuvwxyz")
_DIGITS: Final = frozenset("0123456789")
_LOCAL_MARKS: Final = frozenset("._%+-")
_HEX_LETTERS: Final = frozenset("abcdef")


def _cased(letters: frozenset[str], *, upper: bool) -> frozenset[str]:
    return frozenset(c.upper() for c in letters) if upper else letters


_LOCAL = {upper: _cased(_LOWER, upper=upper) | _DIGITS | _LOCAL_MARKS for upper in (False, True)}
_LABEL = {upper: _cased(_LOWER, upper=upper) | _DIGITS for upper in (False, True)}
_HEX = {upper: _cased(_HEX_LETTERS, upper=upper) | _DIGITS for upper in (False, True)}


class Subject:
    """A relative path of which every segment, the last too, is ended by ``/``.

    Attributes:
        text: The path with its final ``/``.
        length: Characters of `text`.
        steps: Elementary operations done so far: what the tests of linear time count.
    """

    __slots__ = ("_found_emails", "_found_masks", "_found_starts", "length", "steps", "text")

    def __init__(self, relative: str) -> None:
        self.text = relative + "/"
        self.length = len(self.text)
        self.steps = 0
        # Made at first use, for most paths are decided by comparing text.
        self._found_emails: dict[bool, list[tuple[int, int]]] | None = None
        self._found_masks: dict[str, int] | None = None
        self._found_starts = 0

    @property
    def _masks(self) -> dict[str, int]:
        """Places before each character."""
        if self._found_masks is not None:
            return self._found_masks
        masks: dict[str, int] = {}
        bit = 1
        for character in self.text:
            masks[character] = masks.get(character, 0) | bit
            bit <<= 1
        self.steps += self.length
        self._found_masks = masks
        return masks

    @property
    def _inside(self) -> int:
        """Places before a character that is not ``/``."""
        return ((1 << self.length) - 1) & ~(self._segment_starts >> 1)

    @property
    def _segment_starts(self) -> int:
        if self._found_starts:
            return self._found_starts
        starts = 1
        at = self.text.find("/")
        while at >= 0:
            self.steps += 1
            starts |= 2 << at
            at = self.text.find("/", at + 1)
        self._found_starts = starts
        return starts

    def after_literal(self, places: int, literal: str) -> int:
        """Return where `literal` ends when it begins at `places`."""
        if not places & (places - 1):
            self.steps += 1
            start = places.bit_length() - 1
            return places << len(literal) if places and self.text.startswith(literal, start) else 0
        for character in literal:
            self.steps += 1
            places = (places & self._masks.get(character, 0)) << 1
            if not places:
                break
        return places

    def after_run(self, places: int) -> int:
        """Return where any run of characters but ``/``, the empty one included, ends.

        Adding a place to the run of ones it lies in carries to the end of that run and flips all it passes.
        """
        self.steps += 1
        inside = self._inside
        return places | (((places & inside) + inside) ^ inside)

    def after_segments(self, places: int) -> int:
        """Return where any number of whole segments ends, for `places` at beginnings of segments."""
        self.steps += 1
        return self._segment_starts & -(places & -places) if places else 0

    def after_any(self, places: int) -> int:
        """Return where one character but ``/`` ends."""
        self.steps += 1
        return (places & self._inside) << 1

    def after_one_of(self, places: int, accepts: Callable[[str], bool]) -> int:
        """Return where one character but ``/`` that `accepts` takes ends."""
        allowed = 0
        for character, mask in self._masks.items():
            self.steps += 1
            if character != "/" and accepts(character):
                allowed |= mask
        return (places & allowed) << 1

    def after_hex(self, places: int, digits: int, *, upper: bool) -> int:
        """Return where exactly so many hexadecimal digits end."""
        allowed = sum(self._masks.get(c, 0) for c in _HEX[upper])
        for _ in range(digits):
            self.steps += 1
            places = (places & allowed) << 1
        return places

    def after_email(self, places: int, *, upper: bool) -> int:
        """Return where anything that can be a principal (in upper case under `upper`) ends."""
        if self._found_emails is None:
            self._found_emails = {}
        if upper not in self._found_emails:
            self._found_emails[upper] = self._find_emails(_LOCAL[upper], _LABEL[upper])
        ends = 0
        for starts, domain_ends in self._found_emails[upper]:
            self.steps += 1
            if begun := places & starts:
                # The latest beginning leaves most of the 254 bytes; what the others reach, it reaches.
                reach = begun.bit_length() - 1 + MAX_PRINCIPAL_BYTES
                ends |= domain_ends & ((2 << reach) - 1)
        return ends

    def _find_emails(self, local: frozenset[str], label: frozenset[str]) -> list[tuple[int, int]]:
        """Return for every ``@`` the places where its local part may begin and its domain may end.

        Neither can hold an ``@``, so all of them together pass over the text twice.
        """
        found = []
        at = self.text.find("@")
        while at >= 0:
            start = at
            while start > 0 and at - start < MAX_LOCAL_BYTES and self.text[start - 1] in local:
                start -= 1
            self.steps += at - start + 1
            starts = (1 << at) - (1 << start)
            if starts and (ends := self._domain_ends(at + 1, label)):
                found.append((starts, ends))
            at = self.text.find("@", at + 1)
        return found

    def _domain_ends(self, start: int, label: frozenset[str]) -> int:
        ends, dots, length, previous = 0, 0, 0, ""
        for index in range(start, self.length):
            character = self.text[index]
            self.steps += 1
            if character == ".":
                if not length or previous == "-":
                    break
                dots, length = dots + 1, 0
            elif (character in label or (character == "-" and length)) and length < MAX_LABEL_BYTES:
                length += 1
                if dots and character != "-":
                    ends |= 2 << index
            else:
                break
            previous = character
        return ends
