"""A federated run as its starter sees it: aggregated here, followed, cancelled, opened."""

from __future__ import annotations

import asyncio
import html
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Final, Protocol

from mesh.federated.v1 import federated_pb2
from mesh.federated.v1 import federated_service_pb2 as pb
from syftmesh_client.node import Node
from syftmesh_core.errors import DeadlineExceeded, PermissionDenied, Unavailable

from syftmesh.run_status import RoundReport, RunSnapshot, RunState, SiteRun, run_snapshot

Tell = Callable[[RunSnapshot], None]
"""Takes what is new of a run; called on the client's loop, so it must not wait."""

_PAUSE_S: Final = 1.0


class RunAggregator(Protocol):
    """What the SDK needs of `syftmesh_flower.aggregate.Aggregator`."""

    async def adopt(self, run_id: str) -> federated_pb2.Run:
        """Ask the sites of a run that a stock Flower client started."""

    async def aggregate(
        self, run_id: str, on_change: Callable[[federated_pb2.Run], None] | None = None
    ) -> federated_pb2.Run:
        """Wait for approvals, run the ServerApp, and return the final run."""

    async def results(self, run_id: str, target: Path) -> list[Path]:
        """Write what the run left below `target` and return the files."""


class AsyncRun:
    """A federated run over several sites; its starter's device aggregates.

    Attributes:
        id: Flower's own run id, a decimal number.
    """

    def __init__(self, node: Node, aggregator: Callable[[], RunAggregator], snapshot: RunSnapshot) -> None:
        self._node = node
        self._aggregator = aggregator
        self._snapshot = snapshot
        self.id = snapshot.id

    @property
    def snapshot(self) -> RunSnapshot:
        """All of it, when it was looked at last."""
        return self._snapshot

    @property
    def state(self) -> RunState:
        """Where it was when it was looked at last."""
        return self._snapshot.state

    @property
    def sites(self) -> tuple[SiteRun, ...]:
        """Each site's part, in the order in which they were asked."""
        return self._snapshot.sites

    @property
    def rounds(self) -> tuple[RoundReport, ...]:
        """The phases that have ended, in order."""
        return self._snapshot.rounds

    @property
    def reason(self) -> str:
        """Why it failed, was cancelled, is held or partial: a constant; empty otherwise."""
        return self._snapshot.reason

    @property
    def message(self) -> str:
        """The reason in words."""
        return self._snapshot.message

    @property
    def final(self) -> bool:
        """Whether nothing follows."""
        return self._snapshot.final

    async def refresh(self) -> AsyncRun:
        """Look again.

        Raises:
            NotFound: RUN_UNKNOWN.
            Unavailable: The hub does not answer.
        """
        answer = await self._node.session.federated.GetRun(pb.GetRunRequest(run_id=self.id))
        self._snapshot = run_snapshot(answer.run)
        return self

    async def aggregate(self, tell: Tell | None = None) -> AsyncRun:
        """Wait for the owners, run the ServerApp here and return the run when it is over.

        Cancelling this ends the ServerApp; the run is held then, until `aggregate` goes on or `cancel` ends it.

        Args:
            tell: Gets the run now and whenever it changes.

        Raises:
            WrongState: Another process aggregates it (TASK_TAKEN), or it is over (WRONG_STATE).
            PermissionDenied: NOT_THE_AGGREGATOR.
            MeshError: As `syftmesh_flower.aggregate.Aggregator.aggregate`.
        """
        if self._snapshot.aggregator != self._node.principal:
            raise PermissionDenied(
                f"The run {self.id} is aggregated by who started it, {self._snapshot.aggregator}.",
                reason="NOT_THE_AGGREGATOR",
                metadata={"run_id": self.id},
            )
        told: RunSnapshot | None = None

        def take(message: federated_pb2.Run) -> None:
            nonlocal told
            self._snapshot = run_snapshot(message)
            if tell is not None and self._snapshot != told:
                told = self._snapshot
                tell(told)

        take(await self._aggregator().aggregate(self.id, take))
        return self

    async def wait(self, timeout_s: float | None = None) -> AsyncRun:
        """Return when the run is over, woken by the hub; it is aggregated elsewhere, not by this.

        Args:
            timeout_s: Longest wait in seconds; None: without end.

        Raises:
            DeadlineExceeded: RUN_NOT_FINAL.
            MeshError: As `watch`.
        """
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit, aclosing(self.watch()) as snapshots:
                async for _ in snapshots:
                    pass
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineExceeded(
                f"The run {self.id} is {self.state} after {timeout_s:g} s.",
                reason="RUN_NOT_FINAL",
                metadata={"run_id": self.id, "state": str(self.state)},
                hint=f"syftmesh fl show {self.id}",
            ) from error
        return self

    async def watch(self) -> AsyncGenerator[RunSnapshot, None]:
        """Give the run now and whenever it changes, until it is over; a hub that is away is waited for.

        Raises:
            NotFound: RUN_UNKNOWN.
        """
        last: RunSnapshot | None = None
        while last is None or not last.final:
            try:
                stream = self._node.session.federated.WatchRun(pb.WatchRunRequest(run_id=self.id))
                async for answer in stream:
                    snapshot = run_snapshot(answer.run)
                    if snapshot != last:
                        self._snapshot = last = snapshot
                        yield snapshot
                    if snapshot.final:
                        return
            except Unavailable:
                pass
            await asyncio.sleep(_PAUSE_S)

    async def cancel(self, reason: str = "") -> AsyncRun:
        """End the run: every task of it ends within 10 s.

        Args:
            reason: For the people at the sites.

        Raises:
            WrongState: It is over (WRONG_STATE).
            PermissionDenied: NOT_THE_AGGREGATOR.
        """
        request = pb.CancelRunRequest(run_id=self.id, reason=reason)
        self._snapshot = run_snapshot((await self._node.session.federated.CancelRun(request)).run)
        return self

    async def results(self, folder: Path | str) -> list[Path]:
        """Write what the ServerApp left (model, checkpoints, metrics) below `folder` and return the files.

        Raises:
            MeshError: As `syftmesh_flower.aggregate.Aggregator.results`.
        """
        return await self._aggregator().results(self.id, Path(folder))

    def __repr__(self) -> str:
        return f"<Run {self.id} over {len(self.sites)} sites: {self.state}>"

    def _repr_html_(self) -> str:
        # Reasons and messages are a stranger's text.
        found = self._snapshot
        rows = {"run": self.id, "state": str(self.state), "reason": found.reason, "message": found.message}
        rows |= {site.site: " ".join(filter(None, (site.state, site.reason))) for site in found.sites}
        rows["rounds"] = f"{max((r.round for r in found.rounds), default=0)} of {found.rounds_asked}"
        cells = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in rows.items()
            if value
        )
        return f"<table>{''.join(cells)}</table>"
