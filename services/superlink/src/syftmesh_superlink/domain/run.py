"""What a federated run is: records that are changed by replacement only."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """Where a run is."""

    PENDING = "pending"
    AWAITING_APPROVAL = "awaiting_approval"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SiteState(StrEnum):
    """Where one site of a run is."""

    ASKED = "asked"
    AWAITING_APPROVAL = "awaiting_approval"
    APPROVED = "approved"
    DENIED = "denied"
    WITHDRAWN = "withdrawn"
    FAILED = "failed"


class Phase(StrEnum):
    """What the sites were asked for."""

    TRAIN = "train"
    EVALUATE = "evaluate"
    QUERY = "query"


FINAL: Final = frozenset({RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED})
OUT: Final = frozenset({SiteState.DENIED, SiteState.WITHDRAWN, SiteState.FAILED})
UNDECIDED: Final = frozenset({SiteState.ASKED, SiteState.AWAITING_APPROVAL})
UNDER_WAY: Final = frozenset({RunState.RUNNING, RunState.HELD})


@dataclass(frozen=True, slots=True)
class SiteRun:
    """One site's part.

    Attributes:
        site: The datasite's e-mail.
        state: Where it is.
        reason: Constant when the site is out.
        updated_ms: When the state changed last, Unix milliseconds.
    """

    site: str
    state: SiteState = SiteState.ASKED
    reason: str = ""
    updated_ms: int = 0


@dataclass(frozen=True, slots=True)
class SiteReply:
    """Whether one site answered in a phase; `received_bytes` is the size of its sealed answer."""

    site: str
    ok: bool
    reason: str = ""
    received_bytes: int = 0


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One phase as the aggregator saw it; rounds count from 1, times are Unix milliseconds."""

    round: int
    phase: Phase
    replies: tuple[SiteReply, ...] = ()
    started_ms: int = 0
    ended_ms: int = 0


@dataclass(frozen=True, slots=True)
class Artifact:
    """A sealed file in the aggregator's datasite."""

    name: str
    path: str
    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Run:
    """One training over several sites.

    Attributes:
        run_id: Flower's own run id, a decimal number below 2^64.
        federation: Name of its members' file and, at the SuperLink, of its federation.
        sites: The sites asked, in the order of their partitions.
        task_digest: SHA-256 of the task token given last, hex; empty before the first.
        closed: Whether the SuperLink knows that the run is over.
        ended_ms: When it became final, 0 before.
    """

    run_id: str
    federation: str
    aggregator: str
    app_digest: str
    app_name: str
    dataset: str
    sites: tuple[SiteRun, ...]
    rounds: int
    minimum_sites: int
    created_ms: int
    deadline_ms: int
    run_config_json: str = "{}"
    purpose: str = ""
    stock: bool = False
    state: RunState = RunState.PENDING
    reason: str = ""
    message: str = ""
    updated_ms: int = 0
    ended_ms: int = 0
    reports: tuple[RoundReport, ...] = field(default=())
    artifacts: tuple[Artifact, ...] = field(default=())
    task_digest: str = ""
    closed: bool = False

    @property
    def is_final(self) -> bool:
        """Return whether it is over."""
        return self.state in FINAL

    @property
    def approved(self) -> tuple[str, ...]:
        """Return the sites that take part."""
        return tuple(site.site for site in self.sites if site.state is SiteState.APPROVED)

    @property
    def undecided(self) -> tuple[str, ...]:
        """Return the sites whose owners may still approve."""
        return tuple(site.site for site in self.sites if site.state in UNDECIDED)

    def site(self, principal: str) -> SiteRun | None:
        """Return the part of one site, None when it is none of the run's."""
        return next((site for site in self.sites if site.site == principal), None)

    def has(self, principal: str) -> bool:
        """Return whether a principal has a part in it."""
        return principal == self.aggregator or self.site(principal) is not None

    def with_site(self, changed: SiteRun) -> Run:
        """Return the run with one site's part replaced."""
        sites = tuple(changed if site.site == changed.site else site for site in self.sites)
        return replace(self, sites=sites)

    def ended(self, state: RunState, reason: str = "", message: str = "") -> Run:
        """Return the run in a final state."""
        return replace(self, state=state, reason=reason, message=message)


def listed(names: tuple[str, ...] | list[str]) -> str:
    """Return names for a sentence."""
    return ", ".join(names)
