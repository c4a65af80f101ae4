"""The proof that an executor isolates: a passed probe, which holds for a day."""

from __future__ import annotations

from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import WrongState

from syftmesh_executor.port import ProbeReport

PROBE_VALID_S: Final = 24 * 3600.0


class Proof:
    """What the last probe of an executor showed.

    Args:
        clock: Source of times.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._passed_s: float | None = None

    @property
    def is_there(self) -> bool:
        """Whether the last probe passed, however long ago."""
        return self._passed_s is not None

    def forget(self) -> None:
        """Hold nothing as proved, as while a probe is under way."""
        self._passed_s = None

    def take(self, report: ProbeReport) -> None:
        """Take the report of a probe that has just ended."""
        self._passed_s = self._clock.monotonic_s() if report.passed else None

    def check(self) -> None:
        """Return when a run may start.

        Raises:
            WrongState: ISOLATION_FAILED: no passed probe of the last 24 h.
        """
        if self._passed_s is None or self._clock.monotonic_s() - self._passed_s > PROBE_VALID_S:
            raise WrongState(
                "this executor has no passed isolation probe of the last 24 hours; probe it, and look at the "
                "checks that fail",
                reason="ISOLATION_FAILED",
            )
