"""Templates in patterns: what they may say, what they stand for now, and what they could stand for."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from syftmesh_core.clock import to_datetime
from syftmesh_core.permission.subject import Subject
from syftmesh_core.principal import USER_HASH_DIGITS, user_hash

_TEMPLATE: Final = re.compile(
    r" *(?:(?:(upper|lower) +)?\.(UserEmail|UserHash|Year|Month|Date)"
    r"|sha2 +\.(UserEmail|UserHash|Year|Month|Date)(?: +([1-9][0-9]?))?) *"
)
_SHA256_DIGITS: Final = 64
_MS_PER_DAY: Final = 86_400_000


@lru_cache(maxsize=64)
def _date(day: int) -> tuple[str, str, str]:
    moment = to_datetime(day * _MS_PER_DAY)
    return f"{moment.year:04d}", f"{moment.month:02d}", f"{moment.day:02d}"


class Moment(NamedTuple):
    """What templates are filled with.

    Attributes:
        now_ms: Moment of the decision in Unix milliseconds; dates are UTC.
        principal: Whose value personal templates stand for; None for what some principal's could be.
    """

    now_ms: int
    principal: str | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """One ``{{...}}`` of a pattern.

    Attributes:
        variable: `UserEmail`, `UserHash`, `Year`, `Month` or `Date`.
        function: `upper`, `lower`, `sha2` or empty.
        digits: Hex digits that `sha2` keeps, 1 to 64; 0 without it.
    """

    variable: str
    function: str = ""
    digits: int = 0

    @property
    def is_personal(self) -> bool:
        """Whether the value depends on who asks."""
        return self.variable in ("UserEmail", "UserHash")

    @property
    def holds_email(self) -> bool:
        """Whether the value is an e-mail, in whatever case, so that it can be read back."""
        return self.variable == "UserEmail" and self.function != "sha2"

    def value(self, principal: str, now_ms: int) -> str:
        """Return what this stands for, for `principal` at `now_ms`."""
        if self.variable == "UserEmail":
            plain = principal
        elif self.variable == "UserHash":
            plain = user_hash(principal)
        else:
            plain = _date(now_ms // _MS_PER_DAY)[("Year", "Month", "Date").index(self.variable)]
        if self.function == "sha2":
            return hashlib.sha256(plain.encode()).hexdigest()[: self.digits]
        return plain.upper() if self.function == "upper" else plain

    def after(self, places: int, subject: Subject, moment: Moment) -> int:
        """Return where the value ends in `subject` when it begins at `places`."""
        if not self.is_personal or moment.principal is not None:
            return subject.after_literal(places, self.value(moment.principal or "", moment.now_ms))
        upper = self.function == "upper"
        if self.function == "sha2":
            return subject.after_hex(places, self.digits, upper=False)
        if self.variable == "UserHash":
            return subject.after_hex(places, USER_HASH_DIGITS, upper=upper)
        return subject.after_email(places, upper=upper)


def parse_template(inner: str) -> Template | None:
    """Return the template whose text between the braces is `inner`, None when it is none."""
    found = _TEMPLATE.fullmatch(inner)
    if not found:
        return None
    function, variable, hashed, digits = found.groups()
    if variable:
        return Template(variable, function or "")
    count = int(digits or _SHA256_DIGITS)
    return Template(hashed, "sha2", count) if count <= _SHA256_DIGITS else None
