"""Executes the tasks of approved runs, for as long as there are any."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_executor.port import Executor, Limits, RunOutcome

from syftmesh_runner.domain.approved_run import ApprovedRuns
from syftmesh_runner.domain.super_node import RuntimeApi, SuperNodeNeed

if TYPE_CHECKING:
    from syftmesh_flower.grant import Grant
    from syftmesh_flower.site import SiteExecutor

RUN_S: Final = 30 * 86_400.0
"""Longest life of an app's process: proposals do not live longer either."""

_AGAIN_S: Final = 1.0

_log: Any = structlog.get_logger("syftmesh.runner.flower")


class FlowerTasks:
    """Runs `syftmesh_flower.site.SiteExecutor` while a run is approved.

    Args:
        site: The owner.
        approved: Checks and counts tasks.
        need: Whether there is an approved run.
        runtime_api: Where the SuperNode is.
        executor: Isolates apps.
        folder: Scratch of its own, emptied here.
        limits: Of one app's process.
        clock: Time.
        random: Randomness.
    """

    def __init__(  # noqa: PLR0913 - each named, and composed once
        self,
        site: str,
        approved: ApprovedRuns,
        need: SuperNodeNeed,
        runtime_api: RuntimeApi,
        executor: Executor,
        folder: Path,
        limits: Limits,
        clock: Clock,
        random: Random,
    ) -> None:
        self._site = site
        self._approved = approved
        self._need = need
        self._runtime_api = runtime_api
        self._executor = executor
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._random = random
        self._tasks: SiteExecutor | None = None
        self._ending: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        """Attend until the need is closed."""
        shutil.rmtree(self._folder, ignore_errors=True)
        loop = asyncio.get_running_loop()

        def left(run_id: str) -> None:
            loop.call_soon_threadsafe(self._left, run_id)

        self._approved.on_change(left)
        serving: asyncio.Task[None] | None = None
        try:
            async for needed in self._need.watch():
                if needed and serving is None:
                    serving = asyncio.create_task(self._execute(), name="runner-flower-tasks")
                elif not needed and serving is not None:
                    await _end(serving)
                    serving = None
        finally:
            if serving is not None:
                await _end(serving)

    async def _execute(self) -> None:
        # Flower is imported with the first run: a second and 70 MB that most sites never need.
        site = await asyncio.to_thread(_load)
        secret = await asyncio.to_thread(self._runtime_api.secret_file.read_bytes)
        self._tasks = tasks = site.SiteExecutor(
            self._site,
            _Approvals(self._approved, self._clock),
            self._executor,
            self._folder,
            limits=self._limits,
            identify=lambda: uuid7(self._clock, self._random),
        )
        try:
            while True:
                try:
                    await tasks.serve(self._runtime_api.port, secret)
                except Exception:  # noqa: BLE001 - one task's defect must not end all runs of the site
                    _log.exception("flower.tasks_failed")
                await asyncio.sleep(_AGAIN_S)
        finally:
            self._tasks = None
            await tasks.close()

    def _left(self, run_id: str) -> None:
        if self._tasks is None:
            return
        ending = asyncio.create_task(self._tasks.end_run(run_id))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


class _Approvals:
    """`syftmesh_flower.site.Approvals` over the site's own records."""

    def __init__(self, approved: ApprovedRuns, clock: Clock) -> None:
        self._approved = approved
        self._clock = clock

    async def authorise(self, run_id: str, app_digest: str, kind: str) -> Grant:
        from syftmesh_flower.gate import GateLimits
        from syftmesh_flower.grant import Grant
        from syftmesh_flower.seal import RunKey

        held = await self._approved.authorise(run_id, app_digest, self._clock.now_ms(), kind=kind)
        limits = held.limits
        return Grant(
            run_id=held.run_id,
            app_digest=held.app_digest,
            bundle=held.bundle,
            data=held.data,
            dataset=held.dataset.name,
            rows=held.rows,
            aggregator=held.aggregator,
            run_config=held.run_config,
            run_key=RunKey(held.run_key),
            limits=GateLimits(
                max_update_bytes=limits.max_update_bytes,
                max_norm=limits.max_norm,
                min_rows=limits.min_rows,
                max_metrics=limits.max_metrics,
            ),
            partition=held.partition,
            partitions=held.partitions,
            task_s=float(held.wall_s),
        )

    def record_task(self, run_id: str, kind: str, reason: str, sent_bytes: int) -> None:
        self._approved.record_task(run_id, kind, reason, sent_bytes)

    def keep_log(self, run_id: str, outcome: RunOutcome) -> None:
        self._approved.keep_log(run_id, outcome.stdout, outcome.stderr)


def _load() -> Any:
    from syftmesh_flower.environment import quieten_flower

    quieten_flower()
    from syftmesh_flower import site

    return site


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
