"""Use case: answer many questions at one point of the log and one moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Generic, TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError, PermissionDenied

from syftmesh_permissions.domain.consistency import Model, Token
from syftmesh_permissions.domain.pace import Pace
from syftmesh_permissions.domain.ruling import Asked, Rulings, Session

MAX_BATCH: Final = 10_000
_STEP: Final = 64
"""Questions between two looks at the clock."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Decided(Generic[T]):
    """Answers in the order of the questions.

    Attributes:
        answers: As the rulings render them.
        token: The point of the log that all of them were made at.
        session: What decided, for the rules that it decided by.
    """

    answers: list[T]
    token: Token
    session: Session[T]


class AskMany(Generic[T]):
    """Answers batches; other work gets its turn while a long one is answered.

    Args:
        rulings: What decides.
        model: How fresh answers are.
        clock: Time.
    """

    def __init__(self, rulings: Rulings[T], model: Model, clock: Clock) -> None:
        self._rulings = rulings
        self._model = model
        self._clock = clock

    async def run(
        self, caller: str, questions: Iterable[Asked], numbers: Sequence[int] | None = None
    ) -> Decided[T]:
        """Return the answers to `questions`, asked by `caller` (a principal, or anonymous).

        Args:
            caller: Who asks.
            questions: What is asked.
            numbers: What the questions are called in errors, None for their places from 0.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID; metadata `index` names the question.
            PermissionDenied: (PERMISSION_DENIED) one is about somebody else, and `caller` is no admin there;
                `index` likewise.
            Unavailable: The rules are not known now.
        """
        pace = Pace(self._clock)
        source, asked = iter(questions), list[Asked]()
        while part := list(islice(source, _STEP)):
            asked += part
            if pace.is_due:
                await pace.rest()
        # What is decided without a pause is of one point anyway; before the first pause all rules are held.
        token, session, held = self._model.token(), self._rulings.session(caller), False
        answers: list[T] = []
        for start in range(0, len(asked), _STEP):
            try:
                session.take(asked[start : start + _STEP], answers)
            except (InvalidInput, PermissionDenied) as error:
                raise blamed(error, numbers[len(answers)] if numbers else len(answers)) from error
            if pace.is_due and len(answers) < len(asked):
                if not held:
                    session.pin(asked[len(answers) :])
                    held = True
                await pace.rest()
        return Decided(answers, token, session)


def check_count(count: int, limit: int) -> None:
    """Check that there are not too many questions.

    Raises:
        LimitExceeded: (BATCH_SIZE) more than `limit`.
    """
    if count > limit:
        raise LimitExceeded(
            f"At most {limit} questions at once, not {count}: split them.",
            reason="BATCH_SIZE",
            metadata={"count": str(count), "limit": str(limit)},
        )


def blamed(error: MeshError, index: int) -> MeshError:
    """Return `error` with the question that is to blame for it."""
    metadata = {**error.metadata, "index": str(index)}
    return type(error)(f"Question {index}: {error.message}", reason=error.reason, metadata=metadata)
