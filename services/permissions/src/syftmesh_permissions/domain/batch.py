"""Use case: answer many questions at one point of the log and one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied

from syftmesh_permissions.domain.consistency import Model, Token
from syftmesh_permissions.domain.pace import Pace
from syftmesh_permissions.domain.question import Questions
from syftmesh_permissions.domain.ruling import Rulings, Session

MAX_BATCH: Final = 10_000
_STEP: Final = 128
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
    """Answers questions by what is remembered; other work gets its turn while many are answered.

    Args:
        rulings: What decides.
        model: How fresh answers are.
        clock: Time.
    """

    def __init__(self, rulings: Rulings[T], model: Model, clock: Clock) -> None:
        self._rulings = rulings
        self._model = model
        self._clock = clock

    def one(self, caller: str, question: Questions) -> tuple[T, Token]:
        """Return the answer to one question, asked by `caller`, and the point of the log that it was made at.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID.
            PermissionDenied: (PERMISSION_DENIED) it is about somebody else, and `caller` is no admin there.
            Unavailable: The rules are not known now.
        """
        answers: list[T] = []
        self._rulings.session(caller).take(question, 0, 1, answers)
        return answers[0], self._model.token()

    async def run(
        self, caller: str, questions: Questions, numbers: Sequence[int] | None = None
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
        # What is decided without a pause is of one point anyway; before the first pause all rules are held.
        pace, held = Pace(self._clock), False
        token, session = self._model.token(), self._rulings.session(caller)
        answers: list[T] = []
        for start in range(0, len(questions), _STEP):
            end = min(start + _STEP, len(questions))
            with blaming(lambda: numbers[len(answers)] if numbers else len(answers)):
                session.take(questions, start, end, answers)
            if pace.is_due and end < len(questions):
                if not held:
                    session.pin(questions.texts[end:])
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


@contextmanager
def blaming(index: Callable[[], int]) -> Iterator[None]:
    """Name the question that is to blame for a refusal.

    Args:
        index: Gives its place when there is one.

    Raises:
        InvalidInput: What was raised inside, with metadata `index`.
        PermissionDenied: Likewise.
    """
    try:
        yield
    except (InvalidInput, PermissionDenied) as error:
        place = str(index())
        raise type(error)(
            f"Question {place}: {error.message}",
            reason=error.reason,
            metadata={**error.metadata, "index": place},
        ) from error
