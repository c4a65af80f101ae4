"""The executor of a site on Kubernetes: each run a Job, found again after a restart of the runner.

A pod has two containers of the job image. The carrier takes code and data in through ``pods/exec`` and hands the
output out; the job's launcher starts the code once all is there and the network is seen to be closed. So nothing
of a run is in an object of the API or in a log, and the job's own container never sees who talks to the carrier.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog
from syftmesh_core.clock import Clock, SystemClock
from syftmesh_core.errors import AlreadyExists, MeshError, WrongState

from syftmesh_executor.kubernetes.api import Api, ClusterApi
from syftmesh_executor.kubernetes.evidence import Judgement
from syftmesh_executor.kubernetes.manifest import CHANNEL, IMAGE_ID, RUN_ID, site_selector
from syftmesh_executor.kubernetes.probe import probe_cluster
from syftmesh_executor.kubernetes.run import ClusterRun
from syftmesh_executor.kubernetes.session import Ended
from syftmesh_executor.kubernetes.setting import ClusterSettings
from syftmesh_executor.kubernetes.staging import PROBE_NETWORK_S, RUN_NETWORK_S, order_of
from syftmesh_executor.mount import check_spec
from syftmesh_executor.port import EndReason, ProbeReport, RunLeft, RunOutcome, RunSpec
from syftmesh_executor.proof import Proof
from syftmesh_executor.roster import Roster, unknown_run

CANCEL_S: Final = 6.0
"""How long a launcher may take to end the code and tell; then its pod is deleted."""
GONE_S: Final = 3.0
_THREADS: Final = 64

_log: Any = structlog.get_logger("syftmesh.executor.kubernetes")


class KubernetesExecutor:
    """Runs code as Jobs of a cluster.

    Args:
        settings: Where and how.
        connect: Gives the cluster's API; by the pod's service account, or KUBECONFIG, when not given.
        clock: Source of times.
        host_environment: Where the variables of the numeric libraries are taken from; ours when not given.
    """

    def __init__(
        self,
        settings: ClusterSettings,
        *,
        connect: Callable[[], Api] | None = None,
        clock: Clock | None = None,
        host_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = settings
        self._connect = connect or (lambda: ClusterApi(settings.namespace, os.environ.get("KUBECONFIG")))
        self._clock = clock or SystemClock()
        self._host_environment = os.environ if host_environment is None else host_environment
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="kubernetes")
        self._connecting = asyncio.Lock()
        self._api: Api | None = None
        self._roster = Roster()
        self._found: dict[str, dict[str, Any]] = {}
        self._proof = Proof(self._clock)
        self._image_id = ""
        self._leaving = False

    @property
    def image_digest(self) -> str:
        """Digest of the image that jobs run, hex; empty until a probe has seen it."""
        return self._image_id

    async def probe(self) -> ProbeReport:
        """Try to break out of a pod; see `Executor.probe`."""
        self._proof.forget()
        report, image_id = await probe_cluster(self._settings, self._run_for_probe)
        named = self._settings.image_digest
        self._image_id = named or image_id
        self._proof.take(report)
        return report

    async def run(self, spec: RunSpec) -> RunOutcome:
        """Run code; see `Executor.run`."""
        self._proof.check()
        return (await self._run(spec, None, self._image_id))[0]

    async def find(self, run_ids: Collection[str]) -> frozenset[str]:
        """Return the runs whose Jobs are there, and delete other Jobs of this site; see `Executor.find`."""
        api = await self._cluster()
        selector = site_selector(self._settings.site)
        for job in await self._call(lambda: api.list_jobs(selector)):
            noted = job["metadata"].get("annotations", {})
            run_id = noted.get(RUN_ID, "")
            if job["metadata"].get("deletionTimestamp") or self._roster.has(run_id):
                continue
            # The pipes of a federated run ended with the process that held them.
            if run_id in run_ids and noted.get(CHANNEL) != "true":
                self._found[run_id] = job
                continue
            _log.info("job.left_over_deleted", run_id=run_id)
            await self._call(partial(api.delete_job, job["metadata"]["name"]))
        return frozenset(self._found)

    async def adopt(self, spec: RunSpec) -> RunOutcome:
        """Follow a run that `find` returned; see `Executor.adopt`."""
        job = self._found.pop(spec.run_id, None)
        if job is None:
            raise unknown_run(spec.run_id)
        image_id = job["metadata"].get("annotations", {}).get(IMAGE_ID, "")
        return (await self._run(spec, job, image_id))[0]

    async def cancel(self, run_id: str) -> None:
        """End a run; see `Executor.cancel`."""
        self._roster.cancel(run_id)

    async def close(self) -> None:
        """Take no more runs, leave those that `find` finds again, end the others, and wait for them."""
        self._leaving = True
        await self._roster.close()
        self._threads.shutdown(wait=False)

    async def _run_for_probe(self, spec: RunSpec) -> tuple[RunOutcome, str]:
        outcome, run = await self._run(spec, None, "", network_s=PROBE_NETWORK_S)
        return outcome, run.seen_image_id

    async def _run(
        self,
        spec: RunSpec,
        job: dict[str, Any] | None,
        image_id: str,
        *,
        network_s: float = RUN_NETWORK_S,
    ) -> tuple[RunOutcome, ClusterRun]:
        self._roster.check(spec.run_id)
        if job is None:
            check_spec(spec)
        order = order_of(spec, self._host_environment, network_s=network_s)
        with self._roster.entry(spec.run_id) as ending:
            try:
                run = ClusterRun(
                    await self._cluster(), self._settings, self._threads, spec, order, image_id, job
                )
                run.learns_image = not self._proof.is_there
                run.is_adopted = job is not None
                return await self._supervise(run, ending), run
            finally:
                spec.close_channel()

    async def _supervise(self, run: ClusterRun, ending: asyncio.Future[EndReason]) -> RunOutcome:
        started_ms = self._clock.now_ms()
        work = asyncio.ensure_future(run.to_end())
        telling = asyncio.ensure_future(_tell_start(run))
        try:
            either: set[asyncio.Future[Any]] = {work, ending}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                judgement, ended = work.result()
                if judgement.reason is EndReason.CANCELLED:
                    # Nobody here asked for it: the cluster told the launcher to end.
                    judgement = replace(
                        judgement, reason=EndReason.RUNNER_LOST, detail="the cluster ended the pod"
                    )
            elif self._leaving and run.spec.channel is None and run.job is not None:
                run.let_go()
                raise RunLeft
            else:
                judgement, ended = await self._stop(run, work)
            await run.tell(*_last_word(judgement), warning=judgement.reason is not EndReason.OK)
        except AlreadyExists as error:
            raise WrongState(
                f"run {run.spec.run_id} is on the cluster already", reason="RUN_EXISTS"
            ) from error
        except RunLeft:
            raise
        except BaseException:
            await asyncio.shield(self._discard(run, work))
            raise
        finally:
            telling.cancel()
            work.cancel()
            await asyncio.wait([work, telling])
        await asyncio.shield(self._discard(run, work))
        return self._outcome(run.spec, judgement, ended, started_ms)

    async def _stop(
        self, run: ClusterRun, work: asyncio.Future[tuple[Judgement, Ended]]
    ) -> tuple[Judgement, Ended]:
        """End a run: politely where its launcher is there to do it, by deleting its pod otherwise."""
        if run.staged.is_set():
            await run.ask_to_end()
            await asyncio.wait({work}, timeout=CANCEL_S)
            if work.done() and not work.cancelled() and work.exception() is None:
                return work.result()
        run.let_go()
        return Judgement(EndReason.CANCELLED), Ended()

    async def _discard(self, run: ClusterRun, work: asyncio.Future[Any]) -> None:
        """Delete what is left of a run; a pod that may still run code is waited for."""
        over = work.done() and not work.cancelled() and work.exception() is None
        run.let_go()
        work.cancel()
        await asyncio.wait({work})
        try:
            await run.delete(wait_s=0.0 if over else GONE_S)
        except MeshError as error:
            # The Job's deadline and its time to live end it too, and the next start deletes what is left over.
            _log.warning("job.not_deleted", run_id=run.spec.run_id, reason=error.reason)

    def _outcome(self, spec: RunSpec, judgement: Judgement, ended: Ended, started_ms: int) -> RunOutcome:
        good = judgement.reason is EndReason.OK
        if not good and ended.files:
            ended.drop(spec.output_dir)
        begun_ms = judgement.started_ms or started_ms
        return RunOutcome(
            reason=judgement.reason,
            exit_code=judgement.exit_code,
            started_ms=begun_ms,
            ended_ms=max(judgement.ended_ms or self._clock.now_ms(), begun_ms),
            stdout=ended.stdout,
            stderr=ended.stderr,
            output_files=ended.files if good else (),
            findings=ended.findings if good else (),
            detail=judgement.detail,
        )

    async def _cluster(self) -> Api:
        async with self._connecting:
            if self._api is None:
                self._api = await self._call(self._connect)
            return self._api

    async def _call(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


async def _tell_start(run: ClusterRun) -> None:
    await run.staged.wait()
    await run.tell("Started", "The code is in the pod and runs.")


def _last_word(judgement: Judgement) -> tuple[str, str]:
    if judgement.reason is EndReason.OK:
        return "Finished", "The code ended well; the site's owner looks at its results."
    return "Ended", f"The run ended: {judgement.reason.value}."
