"""A bounded memory that forgets what was not asked for lately."""

from __future__ import annotations

from typing import Generic, TypeVar

V = TypeVar("V")


class Kept(Generic[V]):
    """Values by text in two generations: what is asked for in the old one comes back into the young one.

    Args:
        limit: Values kept at most.
        longest: Characters of a text above which nothing is kept.

    Attributes:
        young: What was kept or found since the last change of generations; for a look that counts every
            nanosecond.
    """

    __slots__ = ("_limit", "_longest", "_old", "young")

    def __init__(self, limit: int, longest: int) -> None:
        self.young: dict[str, V] = {}
        self._old: dict[str, V] = {}
        self._limit = limit
        self._longest = longest

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def find(self, text: str) -> V | None:
        """Return what is kept under `text`."""
        value = self.young.get(text)
        if value is None and (value := self._old.pop(text, None)) is not None:
            self.keep(text, value)
        return value

    def keep(self, text: str, value: V) -> None:
        """Keep `value`, which is not None; half of the rest is forgotten where there is no room."""
        if len(text) > self._longest:
            return
        if len(self.young) >= self._limit // 2:
            self._old, self.young = self.young, {}
        self.young[text] = value
