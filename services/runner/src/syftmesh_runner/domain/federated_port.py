"""What the federated part of the domain needs of storage and the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from syftmesh_core.federated import ProposalEvent, ProposalState

from syftmesh_runner.domain.proposal import Proposal


class SitePart(StrEnum):
    """What a site tells the hub of its own part in a run (`mesh.federated.v1.SiteState`)."""

    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class HubReport:
    """What the hub is still to be told.

    Attributes:
        sequence: Order of reports.
        run_id: The run.
        part: What became of it here.
        end_reason: Constant why the site is out; empty while it is not.
    """

    sequence: int
    run_id: str
    part: SitePart
    end_reason: str


@dataclass(frozen=True, slots=True)
class HubRun:
    """A run as the hub tells of it.

    Attributes:
        aggregator: Who started it.
        state: The hub's word for its state, lower case.
        end: What that means here when it is over; None while it is not.
        end_reason: Constant, or empty.
    """

    aggregator: str
    state: str
    end: ProposalEvent | None = None
    end_reason: str = ""


class ProposalStore(Protocol):
    """Proposals with their secrets, and what the hub is to be told; part of the site's transactions."""

    def get(self, run_id: str) -> Proposal | None:
        """Return a proposal, None when there is none."""
        ...

    def add(self, proposal: Proposal, run_key: bytes) -> None:
        """Store a new proposal and its secret, 32 bytes."""
        ...

    def save(self, proposal: Proposal) -> None:
        """Store a changed proposal."""
        ...

    def run_key(self, run_id: str) -> bytes:
        """Return the secret of a run; empty once it is forgotten."""
        ...

    def forget_key(self, run_id: str) -> None:
        """Remove the secret of a run that is over."""
        ...

    def newest(self, limit: int) -> Sequence[Proposal]:
        """Return at most `limit` proposals, newest first."""
        ...

    def in_state(self, *states: ProposalState) -> Sequence[Proposal]:
        """Return the proposals in these states, oldest first."""
        ...

    def owe(self, run_id: str, part: SitePart, end_reason: str) -> None:
        """Remember that the hub is to be told."""
        ...

    def owed(self) -> Sequence[HubReport]:
        """Return what the hub is to be told, in order."""
        ...

    def settle(self, sequence: int) -> None:
        """Forget a report: the hub was told, or does not want to know."""
        ...

    def settle_run(self, run_id: str) -> None:
        """Forget all reports on a run."""
        ...


class HubRuns(Protocol):
    """Federated runs at the hub."""

    async def get(self, run_id: str) -> HubRun:
        """Return a run that this site has a part in.

        Raises:
            NotFound: RUN_UNKNOWN.
            Unavailable: The hub cannot be reached.
        """
        ...

    async def bundle(self, run_id: str) -> bytes:
        """Return the app bundle as the hub has it; raises as `get`."""
        ...

    async def report(self, run_id: str, part: SitePart, end_reason: str) -> None:
        """Tell the hub.

        Raises:
            NotFound: RUN_UNKNOWN.
            WrongState: WRONG_STATE: the run is over, or the site is out of it.
            Unavailable: The hub cannot be reached.
        """
        ...
