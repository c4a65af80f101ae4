"""The use cases of federated runs."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import replace
from typing import Final

from syftmesh_core.bundle import read_bundle
from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError, WrongState

from syftmesh_superlink.domain import progress
from syftmesh_superlink.domain.draft import Draft, check_draft
from syftmesh_superlink.domain.ports import Bundles, Flower, Members
from syftmesh_superlink.domain.progress import AggregatorReport
from syftmesh_superlink.domain.register import Register, unknown_run
from syftmesh_superlink.domain.run import Run, SiteState

MAX_OPEN_RUNS: Final = 50
"""Runs that one principal may have under way: each is a state of its own at Flower."""

GRACE_MS: Final = 60_000
"""How long the SuperNodes of a run may still speak after its end, to say goodbye."""


class Federation:
    """Creates runs and takes the words of aggregators and sites.

    Args:
        register: The runs.
        flower: Flower's SuperLink.
        members: The files of federations.
        bundles: Where app bundles are kept.
        clock: Time.
        random: Source of federation names.
    """

    def __init__(
        self,
        register: Register,
        flower: Flower,
        members: Members,
        bundles: Bundles,
        clock: Clock,
        random: Random,
    ) -> None:
        self._register = register
        self._flower = flower
        self._members = members
        self._bundles = bundles
        self._clock = clock
        self._random = random

    async def create(self, aggregator: str, draft: Draft, data: bytes) -> Run:
        """Create a run.

        Raises:
            InvalidInput: RUN_INVALID, BUNDLE_INVALID.
            LimitExceeded: BUNDLE_TOO_LARGE, or too many runs are under way (TOO_MANY_RUNS).
            Unavailable: SUPERLINK_AWAY.
        """
        self._register.require_loaded()
        bundle = await asyncio.to_thread(read_bundle, data)
        checked = check_draft(draft, bundle, self._clock.now_ms())
        mine = sum(run.aggregator == aggregator and not run.is_final for run in self._register.all())
        if mine >= MAX_OPEN_RUNS:
            raise LimitExceeded(
                f"You have {mine} runs under way. Wait for one to end, or cancel one.",
                reason="TOO_MANY_RUNS",
                metadata={"limit": str(MAX_OPEN_RUNS)},
            )
        await self._bundles.put(bundle.digest, data)
        federation = self._random(16).hex()
        await self._members.write(federation, aggregator, ())
        run_id = await self._flower.start_run(aggregator, federation, data, checked.config)
        try:
            return await self._register.add(
                checked.run(run_id, federation, aggregator, bundle, self._clock.now_ms())
            )
        except BaseException:
            with suppress(MeshError):
                await self._flower.stop_run(run_id)
            raise

    def get(self, principal: str, run_id: str) -> Run:
        """Return one run; raises NotFound (RUN_UNKNOWN)."""
        return self._register.visible(principal, run_id)

    def runs_of(self, principal: str) -> list[Run]:
        """Return the runs that a principal has a part in, newest first."""
        found = [run for run in self._register.all() if run.has(principal)]
        return sorted(found, key=lambda run: (run.created_ms, run.run_id), reverse=True)

    def active_at(self, site: str) -> list[Run]:
        """Return the runs in which a site takes part now, or did until a moment ago."""
        now_ms = self._clock.now_ms()
        return [
            run
            for run in self._register.all()
            if site in run.approved and (not run.is_final or now_ms - run.ended_ms < GRACE_MS)
        ]

    def of_task(self, principal: str, token: str) -> Run | None:
        """Return the run of a task token, if the principal is its aggregator."""
        found = self._register.of_task(digest_of(token))
        return found if found is not None and found.aggregator == principal else None

    async def bundle(self, principal: str, run_id: str) -> bytes:
        """Return the app bundle of a run; raises NotFound (RUN_UNKNOWN)."""
        return await self._bundles.get(self._register.visible(principal, run_id).app_digest)

    async def report_site(self, site: str, run_id: str, state: SiteState, reason: str) -> Run:
        """Take a site's word on its own part.

        Raises:
            NotFound: RUN_UNKNOWN.
            WrongState: WRONG_STATE.
            InvalidInput: REPORT_INVALID.
        """
        if self._register.visible(site, run_id).site(site) is None:
            raise unknown_run()
        now_ms = self._clock.now_ms()
        run = await self._register.change(
            run_id, lambda found: progress.site_reported(found, site, state, reason, now_ms)
        )
        await self._close_if_over(run)
        return run

    async def report(self, principal: str, run_id: str, report: AggregatorReport) -> Run:
        """Take the aggregator's report.

        Raises:
            NotFound: RUN_UNKNOWN.
            PermissionDenied: NOT_THE_AGGREGATOR.
            WrongState: WRONG_STATE.
            InvalidInput: REPORT_INVALID.
        """
        progress.require_aggregator(self._register.visible(principal, run_id), principal)
        now_ms = self._clock.now_ms()
        run = await self._register.change(
            run_id, lambda found: progress.aggregator_reported(found, report, now_ms)
        )
        if report.outcome is None:  # else its task may still say goodbye to Flower itself
            await self._close_if_over(run)
        return run

    async def acquire(self, principal: str, run_id: str) -> tuple[Run, str]:
        """Give the aggregator its task and return the run and the task's token.

        Raises:
            NotFound: RUN_UNKNOWN.
            PermissionDenied: NOT_THE_AGGREGATOR.
            WrongState: APPROVAL_MISSING, TASK_TAKEN or WRONG_STATE.
            Unavailable: SUPERLINK_AWAY.
        """
        run = self._register.visible(principal, run_id)
        progress.require_aggregator(run, principal)
        progress.may_start(run, self._clock.now_ms())
        token = await self._flower.claim(run_id)
        if token is None:
            raise WrongState(
                "Another process of the aggregator has the task. Stop it, or wait a minute after it ended.",
                reason="TASK_TAKEN",
            )
        run = await self._register.change(run_id, lambda found: _started(found, token))
        return run, token

    async def cancel_run(self, principal: str, run_id: str, reason: str) -> Run:
        """Cancel a run.

        Raises:
            NotFound: RUN_UNKNOWN.
            PermissionDenied: NOT_THE_AGGREGATOR.
            WrongState: WRONG_STATE.
        """
        progress.require_aggregator(self._register.visible(principal, run_id), principal)
        if len(reason) > 500:
            raise InvalidInput("The reason has at most 500 characters.", reason="RUN_INVALID")
        run = await self._register.change(run_id, lambda found: progress.cancelled(found, reason))
        await self._close_if_over(run)
        return run

    async def close(self, run: Run) -> None:
        """End a run that is over at Flower too.

        Raises:
            Unavailable: SUPERLINK_AWAY; try again later.
        """
        await self._flower.stop_run(run.run_id)
        await self._register.change(run.run_id, lambda found: replace(found, closed=True))

    async def watch(self, principal: str, run_id: str) -> AsyncGenerator[Run, None]:
        """Iterate over a run, at once and at each change until it is final.

        Without an id it is over all runs that the principal aggregates, without end.

        Raises:
            NotFound: RUN_UNKNOWN.
        """
        first = [self.get(principal, run_id)] if run_id else self.runs_of(principal)
        changed = {run.run_id: run for run in first if run_id or run.aggregator == principal}
        event = asyncio.Event()

        def on_change(run: Run) -> None:
            if run.run_id == run_id or (not run_id and run.aggregator == principal):
                changed[run.run_id] = run  # a slow reader gets the newest only
                event.set()

        stop = self._register.listen(on_change)
        try:
            while True:
                event.clear()
                pending = list(changed.values())
                changed.clear()
                for run in pending:
                    yield run
                    if run_id and run.is_final:
                        return
                if not changed:
                    await event.wait()
        finally:
            stop()

    async def _close_if_over(self, run: Run) -> None:
        if run.is_final and not run.closed:
            with suppress(MeshError):  # the keeper tries again
                await self.close(run)


def digest_of(token: str) -> str:
    """Return what is kept of a task token."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _started(run: Run, token: str) -> Run:
    progress.require_open(run)
    return progress.started(run, digest_of(token))
