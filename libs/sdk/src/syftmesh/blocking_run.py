"""Blocking federated runs; each method is that of the asynchronous class of its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from syftmesh.portal import Portal
from syftmesh.run import AsyncRun, Tell
from syftmesh.run_desk import AsyncFederated, ConfigValue
from syftmesh.run_status import RoundReport, RunSnapshot, RunState, SiteRun
from syftmesh.site_run import AsyncSiteRuns, Proposal


class Run:
    """A federated run over several sites; see `AsyncRun`."""

    def __init__(self, portal: Portal, run: AsyncRun) -> None:
        self._portal = portal
        self._run = run

    @property
    def id(self) -> str:
        """Flower's own run id, a decimal number."""
        return self._run.id

    @property
    def snapshot(self) -> RunSnapshot:
        """All of it, when it was looked at last."""
        return self._run.snapshot

    @property
    def state(self) -> RunState:
        """Where it was when it was looked at last."""
        return self._run.state

    @property
    def sites(self) -> tuple[SiteRun, ...]:
        """Each site's part, in the order in which they were asked."""
        return self._run.sites

    @property
    def rounds(self) -> tuple[RoundReport, ...]:
        """The phases that have ended, in order."""
        return self._run.rounds

    @property
    def reason(self) -> str:
        """See `AsyncRun.reason`."""
        return self._run.reason

    @property
    def message(self) -> str:
        """The reason in words."""
        return self._run.message

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self._run.final

    def refresh(self) -> Run:
        """See `AsyncRun.refresh`."""
        self._portal.run(self._run.refresh())
        return self

    def aggregate(self, tell: Tell | None = None) -> Run:
        """See `AsyncRun.aggregate`; `tell` is called in another thread."""
        self._portal.run(self._run.aggregate(tell))
        return self

    def wait(self, timeout_s: float | None = None) -> Run:
        """See `AsyncRun.wait`."""
        self._portal.run(self._run.wait(timeout_s))
        return self

    def watch(self) -> Iterator[RunSnapshot]:
        """See `AsyncRun.watch`."""
        return self._portal.iterate(self._run.watch())

    def cancel(self, reason: str = "") -> Run:
        """See `AsyncRun.cancel`."""
        self._portal.run(self._run.cancel(reason))
        return self

    def results(self, folder: Path | str) -> list[Path]:
        """See `AsyncRun.results`."""
        return self._portal.run(self._run.results(folder))

    def __repr__(self) -> str:
        return repr(self._run)

    def _repr_html_(self) -> str:
        return self._run._repr_html_()


class Federated:
    """The desk of who starts federated runs."""

    def __init__(self, portal: Portal, federated: AsyncFederated) -> None:
        self._portal = portal
        self._federated = federated

    def run(
        self,
        app: Path | str,
        sites: Sequence[str],
        dataset: str,
        rounds: int | None = None,
        minimum_sites: int | None = None,
        config: Mapping[str, ConfigValue] | None = None,
        purpose: str = "",
        deadline_s: float | None = None,
    ) -> Run:
        """See `AsyncFederated.run`."""
        creating = self._federated.run(
            app, sites, dataset, rounds, minimum_sites, config, purpose, deadline_s
        )
        return Run(self._portal, self._portal.run(creating))

    def ls(self) -> list[Run]:
        """See `AsyncFederated.ls`."""
        return [Run(self._portal, run) for run in self._portal.run(self._federated.ls())]

    def get(self, run_id: str) -> Run:
        """See `AsyncFederated.get`."""
        return Run(self._portal, self._portal.run(self._federated.get(run_id)))

    def serve(self, tell: Tell | None = None) -> None:
        """See `AsyncFederated.serve`; goes on until Ctrl-C, and `tell` is called in another thread."""
        self._portal.run(self._federated.serve(None, tell))


class SiteRuns:
    """The owner's decisions on federated runs."""

    def __init__(self, portal: Portal, runs: AsyncSiteRuns) -> None:
        self._portal = portal
        self._runs = runs

    def proposals(self) -> list[Proposal]:
        """See `AsyncSiteRuns.proposals`."""
        return self._portal.run(self._runs.proposals())

    def get(self, run_id: str) -> Proposal:
        """See `AsyncSiteRuns.get`."""
        return self._portal.run(self._runs.get(run_id))

    def code(self, run_id: str) -> dict[str, bytes]:
        """See `AsyncSiteRuns.code`."""
        return self._portal.run(self._runs.code(run_id))

    def approve(self, run: Proposal | str) -> Proposal:
        """See `AsyncSiteRuns.approve`."""
        return self._portal.run(self._runs.approve(run))

    def deny(self, run_id: str, reason: str = "") -> Proposal:
        """See `AsyncSiteRuns.deny`."""
        return self._portal.run(self._runs.deny(run_id, reason))

    def leave(self, run_id: str, reason: str = "") -> Proposal:
        """See `AsyncSiteRuns.leave`."""
        return self._portal.run(self._runs.leave(run_id, reason))
