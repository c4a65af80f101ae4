"""Many questions, by columns: thousands at once are not worth thousands of objects."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.permission.ruleset import Level

from syftmesh_permissions.domain.inquiry import Inquiry

LEVELS: Final = (Level.READ, Level.CREATE, Level.WRITE, Level.ADMIN)


@dataclass(frozen=True, slots=True)
class Questions:
    """Questions as they were asked; the columns are equally long.

    Attributes:
        texts: Paths.
        levels: Places in `LEVELS`.
        requesters: Whom they are about, None for the caller.
        sizes_bytes: Place of a question to its size of the version to be written; for those that name one.
        moments_ms: Place of a question to its moment, Unix milliseconds; for those that name one.
    """

    texts: list[str]
    levels: list[int]
    requesters: list[str | None]
    sizes_bytes: dict[int, int] = field(default_factory=dict)
    moments_ms: dict[int, int] = field(default_factory=dict)
    _special: list[int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_special", sorted({*self.sizes_bytes, *self.moments_ms}))

    @classmethod
    def of(cls, inquiries: Sequence[Inquiry]) -> Questions:
        """Return the columns of `inquiries`."""
        return cls(
            [inquiry.path for inquiry in inquiries],
            [LEVELS.index(inquiry.level) for inquiry in inquiries],
            [inquiry.requester for inquiry in inquiries],
            {i: q.size_bytes for i, q in enumerate(inquiries) if q.size_bytes is not None},
            {i: q.at_ms for i, q in enumerate(inquiries) if q.at_ms is not None},
        )

    def __len__(self) -> int:
        return len(self.texts)

    def inquiry(self, index: int) -> Inquiry:
        """Return one question."""
        return Inquiry(
            self.texts[index],
            LEVELS[self.levels[index]],
            self.requesters[index],
            self.sizes_bytes.get(index),
            self.moments_ms.get(index),
        )

    def part(self, indexes: Sequence[int]) -> Questions:
        """Return the questions at `indexes`, in that order."""
        return self if len(indexes) == len(self) else self.of([self.inquiry(index) for index in indexes])

    def special_between(self, start: int, end: int) -> Sequence[int]:
        """Return, in order, which questions from `start` to before `end` name a size or a moment."""
        special = self._special
        return special[bisect_left(special, start) : bisect_left(special, end)] if special else ()
