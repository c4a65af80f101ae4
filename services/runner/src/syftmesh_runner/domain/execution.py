"""Running approved jobs: the queue, the last check before the start, and what comes out.

The check builds the approval's terms again from the bytes on disk and compares every one with what the
reviewer signed; the database is not believed. A run is written down before it starts, so that after a crash
it is known to have begun and is never begun again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog
from syftmesh_core.errors import DeadlineExceeded, MeshError, Unavailable, WrongState
from syftmesh_core.job import JobEnd, JobEvent, JobState, Role
from syftmesh_executor.port import EndReason, Executor, Limits, ProbeReport, RunLeft, RunOutcome, RunSpec

from syftmesh_runner.domain.dataset import Policy
from syftmesh_runner.domain.finding import Finding, Severity
from syftmesh_runner.domain.gate import Gate
from syftmesh_runner.domain.job import LOG_FOLDER, STDERR, STDOUT, Job, Output
from syftmesh_runner.domain.ledger import RUNNER, Ledger
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.signature import ReviewerCheck
from syftmesh_runner.domain.start_check import StartCheck, StartRefused
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.table import read_tables
from syftmesh_runner.domain.wake import Wake

CANCEL_WAIT_S: Final = 10.0
RETRY_S: Final = 15.0
PROBE_EVERY_S: Final = 12 * 3600.0
"""Twice as often as the executor demands, so that a queue never waits for a probe."""

_MESSAGES: Final = {
    JobEnd.TIMEOUT: "It ran longer than it may.",
    JobEnd.OUT_OF_MEMORY: "It needed more memory than it may use.",
    JobEnd.DISK_LIMIT: "It wrote more to its scratch space than it may.",
    JobEnd.PROCESS_LIMIT: "It started more processes than it may.",
    JobEnd.OUTPUT_LIMIT: "It wrote more output than it may.",
    JobEnd.EXIT_NONZERO: "The program ended with an error.",
    JobEnd.ISOLATION_FAILED: "The site could not isolate it, so it did not run.",
    JobEnd.RUNNER_LOST: "The site's runner ended while it ran; it is not run again.",
}


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What the site allows a run; wall time comes from the datasets' policy."""

    memory_bytes: int = Limits().memory_bytes
    processes: int = Limits().processes
    disk_bytes: int = Limits().disk_bytes
    output_bytes: int = Limits().output_bytes
    log_bytes: int = Limits().log_bytes


class Execution:
    """Takes queued jobs, oldest first, and runs them.

    Args:
        state: What the site keeps.
        ledger: Moves jobs.
        runtime: The runtime that jobs run in.
        reviewers: Verifies approvals once more.
        executor: Runs code in isolation.
        limits: What a run may use.
        parallel: Runs at once.
    """

    def __init__(
        self,
        state: SiteState,
        ledger: Ledger,
        runtime: RuntimeIdentity,
        reviewers: ReviewerCheck,
        executor: Executor,
        *,
        limits: RunLimits,
        parallel: int = 1,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._check = StartCheck(state, runtime, reviewers)
        self._executor = executor
        self._limits = limits
        self._parallel = parallel
        self._wake = Wake()
        self._ended: dict[str, asyncio.Event] = {}
        self._probed_s: float | None = None
        self._report: ProbeReport | None = None
        self._probing = asyncio.Lock()
        self._closing = False
        self._log: Any = structlog.get_logger("syftmesh.runner")

    def wake(self) -> None:
        """Look at the queue now."""
        self._wake.set()

    def recover(self) -> None:
        """After a start: what was approved is queued; `serve` looks for what was running."""
        for job in self._state.jobs.in_state(JobState.APPROVED):
            self._ledger.step(job.job_id, JobEvent.ENQUEUE, Role.RUNNER, RUNNER)
        self.wake()

    async def serve(self) -> None:
        """Find the runs of before again, then run queued jobs, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for job, goes_on in await self._before():
                if goes_on:
                    self._ended[job.job_id] = asyncio.Event()
                    tasks.create_task(self._adopted(job), name=f"job-{job.job_id}")
                else:
                    self._fail(job.job_id, JobEnd.RUNNER_LOST)
                    self._state.folder.end_run(job.job_id)
            while True:
                self._wake.clear()
                for job_id in self._unwanted():
                    tasks.create_task(self._executor.cancel(job_id), name=f"cancel-{job_id}")
                for job in self._state.jobs.in_state(JobState.QUEUED):
                    if self._closing or len(self._ended) >= self._parallel:
                        break
                    if job.job_id not in self._ended:
                        self._ended[job.job_id] = asyncio.Event()
                        tasks.create_task(self._guarded(job.job_id), name=f"job-{job.job_id}")
                await self._wake.wait()

    async def _before(self) -> list[tuple[Job, bool]]:
        """Return what was running when the runner ended, and whether it goes on; asks until it is known."""
        while True:
            ids = [job.job_id for job in self._state.jobs.in_state(JobState.RUNNING)]
            try:
                found = await self._executor.find(ids)
            except (Unavailable, DeadlineExceeded) as error:
                self._log.warning("job.search_delayed", reason=error.reason)
                await asyncio.sleep(RETRY_S)
                continue
            # Read again: one of them may have been cancelled meanwhile.
            return [(job, job.job_id in found) for job in self._state.jobs.in_state(JobState.RUNNING)]

    async def _adopted(self, job: Job) -> None:
        """Follow a run that goes on since before this process to its end."""
        try:
            code, output = await asyncio.to_thread(self._state.folder.resume_run, job.job_id)
            outcome = await self._executor.adopt(self._spec(job, code, output))
            await self._finish(job, outcome)
        except RunLeft:
            self._log.info("job.left_running", job_id=job.job_id)
        except Exception as error:  # noqa: BLE001 - as in `_guarded`
            self._log.exception("job.adoption_failed", job_id=job.job_id)
            self._lose(job.job_id, error)
        finally:
            self._ended.pop(job.job_id).set()
            self.wake()

    def _unwanted(self) -> list[str]:
        """Return the runs whose job was stopped: the state is written first, and the run follows."""
        wanted = (JobState.QUEUED, JobState.RUNNING)
        return [job_id for job_id in self._ended if self._ledger.get(job_id).state not in wanted]

    async def cancel(self, job_id: str) -> None:
        """End a run and return when it is over, at the latest after ten seconds."""
        ended = self._ended.get(job_id)
        await self._executor.cancel(job_id)
        if ended is not None:
            try:
                async with asyncio.timeout(CANCEL_WAIT_S):
                    await ended.wait()
            except TimeoutError:
                self._log.warning("job.cancel_slow", job_id=job_id)

    async def close(self) -> None:
        """Take no new run, and end those that the executor could not find again."""
        self._closing = True
        await self._executor.close()

    async def probe(self) -> ProbeReport:
        """Probe the isolation now.

        Raises:
            Unavailable: SANDBOX_MISSING or SANDBOX_LIMITS_UNAVAILABLE.
        """
        async with self._probing:
            self._probed_s = None
            self._report = await self._executor.probe()
            if self._report.passed:
                self._probed_s = self._state.clock.monotonic_s()
            return self._report

    async def _guarded(self, job_id: str) -> None:
        """Run one job; whatever goes wrong ends this job and no other."""
        delay_s = 0.0
        try:
            await self._run(self._ledger.get(job_id))
        except RunLeft:
            self._log.info("job.left_running", job_id=job_id)
        except (Unavailable, DeadlineExceeded) as error:
            # The directory of keys or the sandbox is not there now: the job stays queued.
            self._log.warning("job.start_delayed", job_id=job_id, reason=error.reason)
            delay_s = RETRY_S
        except Exception as error:  # noqa: BLE001 - the consumer loop: one job's defect must not stop the queue
            self._log.exception("job.run_failed", job_id=job_id)
            self._lose(job_id, error)
        finally:
            self._ended.pop(job_id).set()
            asyncio.get_running_loop().call_later(delay_s, self.wake)

    def _lose(self, job_id: str, error: Exception) -> None:
        job = self._ledger.get(job_id)
        ends = {JobState.RUNNING: JobEnd.RUNNER_LOST, JobState.QUEUED: JobEnd.ISOLATION_FAILED}
        if job.state in ends:
            facts = {"error": error.reason if isinstance(error, MeshError) else type(error).__name__}
            self._fail(job_id, ends[job.state], fields=facts)

    async def _run(self, job: Job) -> None:
        try:
            spec = await self._prepare(job)
        except StartRefused as refused:
            job = self._ledger.get(job.job_id)
            if job.state is JobState.QUEUED:
                self._refuse(job, refused)
            return
        if self._ledger.get(job.job_id).state is not JobState.QUEUED or self._closing:
            return
        changes = {"run_started_ms": self._state.clock.now_ms()}
        self._ledger.step(job.job_id, JobEvent.START, Role.RUNNER, RUNNER, changes=changes)
        try:
            outcome = await self._executor.run(spec)
        except WrongState as error:
            self._fail(job.job_id, JobEnd.ISOLATION_FAILED, fields={"error": error.reason})
            return
        except Unavailable as error:
            # What the executor stands on did not start it, so nothing of it ran.
            fields = {"error": error.reason, **error.metadata}
            message = f"It did not run: {error.message}."
            self._fail(job.job_id, JobEnd.ISOLATION_FAILED, fields=fields, message=message)
            return
        await self._finish(job, outcome)

    def _refuse(self, job: Job, refused: StartRefused) -> None:
        event = JobEvent.EXPIRE if refused.end is JobEnd.APPROVAL_EXPIRED else JobEvent.FAIL
        self._ledger.step(
            job.job_id,
            event,
            Role.RUNNER,
            RUNNER,
            end=refused.end,
            message=f"It did not start: {refused.detail}.",
        )

    def _fail(
        self, job_id: str, end: JobEnd, *, fields: Mapping[str, object] | None = None, message: str = ""
    ) -> None:
        changes = {"run_ended_ms": self._state.clock.now_ms()}
        self._ledger.step(
            job_id,
            JobEvent.FAIL,
            Role.RUNNER,
            RUNNER,
            end=end,
            message=message or _MESSAGES[end],
            changes=changes,
            fields=fields,
        )

    async def _prepare(self, job: Job) -> RunSpec:
        """Check everything again, from the disk, and lay out the run.

        Raises:
            StartRefused: The job must not start.
            Unavailable: Whether it may is not known now.
        """
        archive = await asyncio.to_thread(self._state.folder.code_archive, job.job_id)
        held = await asyncio.to_thread(self._check.held, job, archive)
        await self._check.approvals(job, held)
        code, output = await asyncio.to_thread(self._state.folder.prepare_run, job.job_id, archive)
        # Last, and nothing waits behind it: while a probe runs the executor takes no job.
        await self._check_isolation()
        return self._spec(job, code, output)

    def _spec(self, job: Job, code: Path, output: Path) -> RunSpec:
        policy = self._state.policy_of(job)
        return RunSpec(
            run_id=job.job_id,
            project=job.project,
            code_dir=code,
            entrypoint=job.entrypoint,
            datasets={d.name: self._state.folder.private_part(d.name, d.digest) for d in job.datasets},
            output_dir=output,
            parameters=json.loads(job.parameters_json),
            limits=replace(
                Limits(),
                wall_s=float(policy.wall_s),
                memory_bytes=self._limits.memory_bytes,
                processes=self._limits.processes,
                disk_bytes=self._limits.disk_bytes,
                output_bytes=self._limits.output_bytes,
                log_bytes=self._limits.log_bytes,
            ),
        )

    async def probe_if_due(self) -> ProbeReport | None:
        """Probe the isolation when the last passed probe is half a day old; return the report of a new one.

        Raises:
            Unavailable: As `probe`.
        """
        now_s = self._state.clock.monotonic_s()
        if self._probed_s is not None and now_s - self._probed_s < PROBE_EVERY_S:
            return None
        return await self.probe()

    async def _check_isolation(self) -> None:
        report = await self.probe_if_due()
        if report is not None and not report.passed:
            names = ", ".join(check.name for check in report.failures)
            raise StartRefused(JobEnd.ISOLATION_FAILED, f"the site's isolation probe failed ({names})")

    async def _finish(self, job: Job, outcome: RunOutcome) -> None:
        if self._ledger.get(job.job_id).state is not JobState.RUNNING:
            await asyncio.to_thread(self._state.folder.end_run, job.job_id)
            return  # cancelled meanwhile: nothing of it is kept
        policy = self._state.policy_of(job)
        outputs = await asyncio.to_thread(self._collect, job, outcome, policy)
        if self._ledger.get(job.job_id).state is not JobState.RUNNING:
            return
        left = tuple(
            Finding(Severity.WARNING, found.reason, found.path, text="was in the output and stays behind")
            for found in outcome.findings
        )
        changes: dict[str, Any] = {
            "outputs": outputs,
            "findings": (*job.findings, *left),
            "exit_code": outcome.exit_code,
            "run_ended_ms": outcome.ended_ms,
        }
        facts: dict[str, object] = {"outputs": {output.name: output.sha256 for output in outputs}}
        if outcome.detail:
            facts["detail"] = outcome.detail
        if outcome.reason is EndReason.OK:
            self._ledger.step(
                job.job_id, JobEvent.SUCCEED, Role.RUNNER, RUNNER, changes=changes, fields=facts,
                message="It ran; the owner looks at its results.",
            )  # fmt: skip
            return
        lost = outcome.reason is EndReason.CANCELLED  # nobody asked: the runner is shutting down
        end = JobEnd.RUNNER_LOST if lost else JobEnd(outcome.reason.value)
        self._ledger.step(
            job.job_id, JobEvent.FAIL, Role.RUNNER, RUNNER, end=end, changes=changes, fields=facts,
            message=_MESSAGES[end],
        )  # fmt: skip

    def _collect(self, job: Job, outcome: RunOutcome, policy: Policy) -> tuple[Output, ...]:
        """Pass outputs and logs through the gate. Runs in a thread: it asks no store."""
        self._state.folder.keep_log(job.job_id, STDOUT, outcome.stdout)
        self._state.folder.keep_log(job.job_id, STDERR, outcome.stderr)
        gate = self._gate(job, policy)
        names = [file.path for file in outcome.output_files if not file.path.lower().startswith(LOG_FOLDER)]
        hidden = len(outcome.output_files) - len(names)
        outputs = []
        for name in (*names, STDOUT, STDERR):
            data = self._state.folder.output(job.job_id, name)
            findings = gate.check(name, data)
            if name == STDERR and hidden:
                text = f"{hidden} output files in a folder named like that of the logs stay behind"
                findings = (*findings, Finding(Severity.WARNING, "NAME_RESERVED", name, text=text))
            outputs.append(Output(name, len(data), hashlib.sha256(data).hexdigest(), findings))
        return tuple(outputs)

    def _gate(self, job: Job, policy: Policy) -> Gate:
        frames = []
        for version in job.datasets:
            part: Path = self._state.folder.private_part(version.name, version.digest)
            frames += list(read_tables(part, sorted(self._state.folder.digests(part))).values())
        return Gate.of_frames(frames, policy)
