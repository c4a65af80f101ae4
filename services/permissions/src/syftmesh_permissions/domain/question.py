"""Many questions, by columns: thousands at once are not worth thousands of objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.permission.ruleset import Level

from syftmesh_permissions.domain.inquiry import Inquiry

LEVELS: Final = (Level.READ, Level.CREATE, Level.WRITE, Level.ADMIN)


def _no_size(_index: int) -> int | None:
    return None


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions as they were asked; the columns are equally long.

    Attributes:
        texts: Paths.
        levels: Places in `LEVELS`.
        requesters: Whom they are about, None for the caller.
        moments_ms: Place of a question to its moment, Unix milliseconds; for those that name one, in order.
        size_bytes: Return the size of the version to be written, None when unknown, of the question at a place;
            few rules make anybody look.
    """

    texts: list[str]
    levels: list[int]
    requesters: list[str | None]
    moments_ms: dict[int, int] = field(default_factory=dict)
    size_bytes: Callable[[int], int | None] = field(default=_no_size, compare=False)

    @classmethod
    def of(cls, inquiries: Sequence[Inquiry]) -> Questions:
        """Return the columns of `inquiries`."""
        return cls(
            [inquiry.path for inquiry in inquiries],
            [LEVELS.index(inquiry.level) for inquiry in inquiries],
            [inquiry.requester for inquiry in inquiries],
            {i: q.at_ms for i, q in enumerate(inquiries) if q.at_ms is not None},
            lambda index: inquiries[index].size_bytes,
        )

    def __len__(self) -> int:
        return len(self.texts)

    def inquiry(self, index: int) -> Inquiry:
        """Return one question."""
        return Inquiry(
            self.texts[index],
            LEVELS[self.levels[index]],
            self.requesters[index],
            self.size_bytes(index),
            self.moments_ms.get(index),
        )

    def part(self, indexes: Sequence[int]) -> Questions:
        """Return the questions at `indexes`, in that order."""
        return self if len(indexes) == len(self) else self.of([self.inquiry(index) for index in indexes])

    def timed_between(self, start: int, end: int) -> Sequence[int]:
        """Return, in order, which questions from `start` to before `end` name a moment."""
        return [index for index in self.moments_ms if start <= index < end] if self.moments_ms else ()
