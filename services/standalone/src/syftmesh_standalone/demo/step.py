"""Steps of a story: data, run one after the other, each with a deadline and with checks that can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from syftmesh_core.clock import Clock
from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, MeshError, Unavailable

T = TypeVar("T")
S = TypeVar("S")

CHECK_FAILED: Final = "CHECK_FAILED"
STEP_TIMEOUT: Final = "STEP_TIMEOUT"
STEP_S: Final = 90.0
_PAUSE_S: Final = 0.25
_PASSING: Final = frozenset({"SITE_NOT_RUNNING", "SITE_HAS_NO_DEVICE"})
"""Reasons beside Unavailable that end by themselves while a site is started again."""

PATIENCE: Final[ContextVar[float]] = ContextVar("patience", default=1.0)
"""By how much longer than on this machine alone everything may take here: what all times below are multiplied by."""

Tell = Callable[[str], None]


@dataclass(slots=True)
class Checks:
    """What one step has checked.

    Attributes:
        tell: Takes a line for people.
        held: The checks that held, in order.
    """

    tell: Tell
    held: list[str] = field(default_factory=list)

    def that(  # the condition is the point, so it comes first and bare
        self,
        holds: bool,  # noqa: FBT001
        what: str,
        *,
        otherwise: str = "",
        reason: str = CHECK_FAILED,
    ) -> None:
        """Note that a check held, or end the step.

        Args:
            holds: The outcome.
            what: What was checked, for people.
            otherwise: What is wrong when it does not hold; the check's own words when empty.
            reason: Constant of the error.

        Raises:
            IntegrityFailure: `reason`.
        """
        if not holds:
            raise IntegrityFailure(otherwise or f"this does not hold: {what}", reason=reason)
        self.held.append(what)
        self.tell(f"    ok  {what}")

    def note(self, text: str) -> None:
        """Tell people something that is no check."""
        self.tell(f"        {text}")


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One step.

    Attributes:
        number: From 1.
        title: For people.
        run: What is done; gets the story and takes its checks.
        deadline_s: Longest time in seconds.
    """

    number: int
    title: str
    run: Callable[[S, Checks], Awaitable[None]]
    deadline_s: float = STEP_S


@dataclass(frozen=True, slots=True)
class StepResult:
    """A step that is done: its number, title, seconds and the checks that held."""

    number: int
    title: str
    seconds: float
    checks: tuple[str, ...]


async def run_steps(steps: Sequence[Step[S]], story: S, *, tell: Tell, clock: Clock) -> list[StepResult]:
    """Run the steps in their order.

    Args:
        steps: What to do.
        story: What the steps share.
        tell: Takes lines for people.
        clock: Time.

    Returns:
        A result for each.

    Raises:
        MeshError: That of the first step to fail, of the same class and reason; the message names the step.
            DeadlineExceeded (STEP_TIMEOUT) when it was too slow.
    """
    results = []
    for step in steps:
        tell(f"[{step.number:>2}/{max(each.number for each in steps)}] {step.title}")
        checks, begun_s = Checks(tell), clock.monotonic_s()
        try:
            async with asyncio.timeout(step.deadline_s * PATIENCE.get()) as limit:
                await step.run(story, checks)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise _named(step, _too_slow(step)) from error
        except MeshError as error:
            raise _named(step, error) from error
        seconds = clock.monotonic_s() - begun_s
        results.append(StepResult(step.number, step.title, round(seconds, 3), tuple(checks.held)))
    return results


def _too_slow(step: Step[S]) -> MeshError:
    allowed_s = step.deadline_s * PATIENCE.get()
    return DeadlineExceeded(f"it was not done within {allowed_s:.0f} s", reason=STEP_TIMEOUT)


def _named(step: Step[S], error: MeshError) -> MeshError:
    named = type(error)(
        f"step {step.number} ({step.title}): {error.message}",
        reason=error.reason,
        metadata={**error.metadata, "step": str(step.number)},
        hint=error.hint,
    )
    named.__cause__ = error
    return named


async def steadily(
    operation: Callable[[], Awaitable[T]],
    *,
    within_s: float = 30.0,
    try_s: float = 15.0,
    also: Sequence[str] = (),
) -> T:
    """Return what `operation` gives, tried again while the mesh is away; it must be idempotent.

    Args:
        operation: Begun anew for each try.
        within_s: Seconds for all tries.
        try_s: Seconds for one.
        also: Reasons that pass by themselves here, beside Unavailable and a try that takes too long.

    Raises:
        MeshError: What the last try raised; DeadlineExceeded (STEP_TIMEOUT) when it gave no answer.
    """
    loop, patience = asyncio.get_running_loop(), PATIENCE.get()
    within_s, try_s = within_s * patience, try_s * patience
    deadline = loop.time() + within_s
    while True:
        try:
            async with asyncio.timeout(min(try_s, max(deadline - loop.time(), 0.1))):
                return await operation()
        except TimeoutError as error:
            failure: MeshError = DeadlineExceeded(
                f"the mesh gave no answer within {within_s:.0f} s", reason=STEP_TIMEOUT
            )
            failure.__cause__ = error
        except MeshError as error:
            passes = isinstance(error, Unavailable | DeadlineExceeded) or error.reason in {*_PASSING, *also}
            if not passes:
                raise
            failure = error
        if loop.time() >= deadline:
            raise failure
        await asyncio.sleep(_PAUSE_S)


async def eventually(
    ask: Callable[[], Awaitable[T | None]], *, within_s: float = 30.0, what: str, also: Sequence[str] = ()
) -> T:
    """Return what `ask` gives once it gives something.

    Args:
        ask: Asked again until it gives a true value.
        within_s: Seconds in all.
        what: What is waited for, for people.
        also: As in `steadily`.

    Raises:
        MeshError: As `steadily`; DeadlineExceeded (STEP_TIMEOUT) when it never came.
    """
    loop, patience = asyncio.get_running_loop(), PATIENCE.get()
    deadline = loop.time() + within_s * patience
    while loop.time() < deadline:
        left_s = max(deadline - loop.time(), 0.1) / patience
        found = await steadily(ask, within_s=left_s, also=also)
        if found:
            return found
        await asyncio.sleep(_PAUSE_S)
    raise DeadlineExceeded(f"{what} did not come within {within_s * patience:.0f} s", reason=STEP_TIMEOUT)
