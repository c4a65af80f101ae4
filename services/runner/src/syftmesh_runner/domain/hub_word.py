"""The hub is told what became of its runs here, and asked whether they are over."""

from __future__ import annotations

from typing import Any, Final

import structlog
from syftmesh_core.errors import (
    Conflict,
    DeadlineExceeded,
    Internal,
    LimitExceeded,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
)
from syftmesh_core.federated import ACTIVE, ProposalEvent
from syftmesh_core.job import Role

from syftmesh_runner.domain.federated_port import HubReport, HubRun, HubRuns
from syftmesh_runner.domain.ledger import RUNNER
from syftmesh_runner.domain.proposal_ledger import HUB, ProposalLedger
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.wake import Wake

FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
FOLLOW_S: Final = 2.0

_PASSING: Final = (Unavailable, DeadlineExceeded, Unauthenticated, LimitExceeded, Conflict, Internal)
"""What another try may not meet again; everything else is the hub's last word on a report."""

_log: Any = structlog.get_logger("syftmesh.runner")


class HubReporter:
    """Sends what the hub is owed, in order of each run, until it is told or does not want to know.

    Args:
        state: What the site keeps.
        hub: Is told.
    """

    def __init__(self, state: SiteState, hub: HubRuns) -> None:
        self._state = state
        self._hub = hub
        self._wake = Wake()

    def wake(self) -> None:
        """Look at what is owed now."""
        self._wake.set()

    async def serve(self) -> None:
        """Report until cancelled; the pause doubles while the hub is away."""
        pause_s = FIRST_PAUSE_S
        while True:
            self._wake.clear()
            if await self.send_owed():
                pause_s = FIRST_PAUSE_S
                await self._wake.wait()
            else:
                await self._wake.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def send_owed(self) -> bool:
        """Send everything that is owed once; return whether nothing is owed any more."""
        stuck: set[str] = set()
        for report in self._state.proposals.owed():
            if report.run_id in stuck:
                continue  # behind an earlier one of the same run
            try:
                await self._hub.report(report.run_id, report.part, report.end_reason)
            except _PASSING as error:
                _log.warning("federated.report_delayed", run_id=report.run_id, reason=error.reason)
                stuck.add(report.run_id)
            except MeshError as error:
                self._settle(report, "federated.report_refused", {"reason": error.reason})
            else:
                self._settle(report, "federated.reported", {})
        return not stuck

    def _settle(self, report: HubReport, kind: str, facts: dict[str, object]) -> None:
        with self._state.unit.transaction():
            self._state.proposals.settle(report.sequence)
            fields = {"run_id": report.run_id, "state": report.part.value, **facts}
            self._state.audit.append(kind, RUNNER, fields)


class HubFollower:
    """Ends what is over at the hub.

    Args:
        state: What the site keeps.
        ledger: Moves proposals.
        hub: Is asked.
    """

    def __init__(self, state: SiteState, ledger: ProposalLedger, hub: HubRuns) -> None:
        self._state = state
        self._ledger = ledger
        self._hub = hub
        self._wake = Wake()

    def wake(self) -> None:
        """Look at the active proposals now."""
        self._wake.set()

    async def serve(self) -> None:
        """Ask every two seconds while a proposal is active, until cancelled."""
        while True:
            self._wake.clear()
            active = await self.look()
            await self._wake.wait(FOLLOW_S if active else None)

    async def look(self) -> bool:
        """Ask the hub for every active proposal once; return whether one is active still."""
        for proposal in self._state.proposals.in_state(*ACTIVE):
            try:
                run = await self._hub.get(proposal.run_id)
            except NotFound as error:
                run = HubRun(proposal.aggregator, "unknown", ProposalEvent.CANCEL, error.reason)
            except MeshError as error:
                _log.warning("federated.hub_silent", run_id=proposal.run_id, reason=error.reason)
                continue
            # The owner may have decided while the hub was asked.
            if run.end is not None and self._ledger.get(proposal.run_id).state in ACTIVE:
                self._ledger.step(
                    proposal.run_id,
                    run.end,
                    Role.RUNNER,
                    HUB,
                    end=run.end_reason,
                    message=f"At the hub the run is {run.state}.",
                    fields={"hub_state": run.state},
                )
        return bool(self._state.proposals.in_state(*ACTIVE))
