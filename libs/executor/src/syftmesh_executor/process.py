"""The executor of a scientist's own machine: mock runs as plain child processes, nothing isolated.

It keeps the contract of `RunSpec` (environment, limits of time, logs and output), so that code which runs
here runs at a site unchanged. It is never composed at a site: its probe does not pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from syftmesh_core.clock import Clock, SystemClock

from syftmesh_executor.capture import CappedLog
from syftmesh_executor.mount import check_spec, job_environment
from syftmesh_executor.output import OutputTooLargeError, collect_output
from syftmesh_executor.port import Check, EndReason, ProbeReport, RunOutcome, RunSpec
from syftmesh_executor.roster import Roster, unknown_run
from syftmesh_executor.runtime import Runtime, running_runtime

CANCEL_GRACE_S = 3.0
TIMEOUT_GRACE_S = 0.5


class ProcessExecutor:
    """Runs code of one's own as a child process.

    Args:
        runtime: Python environment of the runs; the one that runs us when not given.
        clock: Source of times.
        host_environment: Where PATH and the numeric libraries' variables come from; ours when not given.
    """

    def __init__(
        self,
        *,
        runtime: Runtime | None = None,
        clock: Clock | None = None,
        host_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._runtime = runtime or running_runtime()
        self._clock = clock or SystemClock()
        self._host_environment = os.environ if host_environment is None else host_environment
        self._roster = Roster()

    async def probe(self) -> ProbeReport:
        """Report that nothing is isolated; see `Executor.probe`."""
        check = Check(
            "isolation", passed=False, detail="a plain process isolates nothing; for mock runs only"
        )
        return ProbeReport(passed=False, checks=(check,))

    async def run(self, spec: RunSpec) -> RunOutcome:
        """Run code; as `Executor.run`, without asking for a probe."""
        self._roster.check(spec.run_id)
        check_spec(spec)
        with self._roster.entry(spec.run_id) as ending:
            try:
                return await self._run(spec, ending)
            finally:
                spec.close_channel()

    async def find(self, run_ids: Collection[str]) -> frozenset[str]:
        """Return that none goes on: runs end with this process; see `Executor.find`."""
        del run_ids
        return frozenset()

    async def adopt(self, spec: RunSpec) -> RunOutcome:
        """Refuse: there is none to adopt; see `Executor.adopt`."""
        raise unknown_run(spec.run_id)

    async def cancel(self, run_id: str) -> None:
        """End a run; see `Executor.cancel`."""
        self._roster.cancel(run_id)

    async def close(self) -> None:
        """End every run and wait for them."""
        await self._roster.close()

    async def _run(self, spec: RunSpec, ending: asyncio.Future[EndReason]) -> RunOutcome:
        started_ms = self._clock.now_ms()
        with tempfile.TemporaryDirectory(prefix="syftmesh-run-") as text:
            scratch = Path(text)
            output, home = scratch / "output", scratch / "home"
            output.mkdir()
            home.mkdir()
            environment = job_environment(
                spec,
                data_dir=str(_data_folder(spec, scratch)),
                output_dir=str(output),
                home=str(home),
                path=self._host_environment.get("PATH", os.defpath),
                host=self._host_environment,
            )
            outcome = await self._supervise(spec, environment, ending)
            if outcome.reason is EndReason.OK:
                outcome = await asyncio.to_thread(_collect, spec, outcome, output)
        return replace(outcome, started_ms=started_ms, ended_ms=self._clock.now_ms())

    async def _supervise(
        self, spec: RunSpec, environment: Mapping[str, str], ending: asyncio.Future[EndReason]
    ) -> RunOutcome:
        loop = asyncio.get_running_loop()
        out, err = CappedLog(spec.limits.log_bytes), CappedLog(spec.limits.log_bytes)
        transport, job = await loop.subprocess_exec(
            lambda: _JobProtocol(out, err, ending),
            str(self._runtime.python),
            spec.entrypoint,
            stdin=subprocess.DEVNULL,
            cwd=spec.code_dir,
            env=dict(environment),
            start_new_session=True,
            pass_fds=spec.channel_fds,
        )
        spec.close_channel()
        group = transport.get_pid()
        deadline = loop.call_later(spec.limits.wall_s, _end, ending, EndReason.TIMEOUT)
        try:
            reason = await ending
            if reason is not EndReason.OK:
                await _terminate(
                    group, job, CANCEL_GRACE_S if reason is EndReason.CANCELLED else TIMEOUT_GRACE_S
                )
        finally:
            deadline.cancel()
            _signal_group(group, signal.SIGKILL)
            await job.exited
            transport.close()
        code = transport.get_returncode() or 0
        if reason is EndReason.OK and code != 0:
            reason = EndReason.EXIT_NONZERO
        return RunOutcome(
            reason=reason,
            exit_code=code if code >= 0 else 128 - code,
            started_ms=0,
            ended_ms=0,
            stdout=out.value(),
            stderr=err.value(),
        )


class _JobProtocol(asyncio.SubprocessProtocol):
    """Feeds both streams into their logs and says when the process has ended."""

    def __init__(self, out: CappedLog, err: CappedLog, ending: asyncio.Future[EndReason]) -> None:
        self._logs = {1: out, 2: err}
        self._ending = ending
        self.exited: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self._logs[fd].feed(data)

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)
        # Streams may still bring what was printed last; connection_lost comes after them, unless a process
        # left behind holds them open.
        asyncio.get_running_loop().call_later(0.05, _end, self._ending, EndReason.OK)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        _end(self._ending, EndReason.OK)


def _end(ending: asyncio.Future[EndReason], reason: EndReason) -> None:
    if not ending.done():
        ending.set_result(reason)


async def _terminate(group: int, job: _JobProtocol, grace_s: float) -> None:
    _signal_group(group, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await asyncio.shield(job.exited)


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _data_folder(spec: RunSpec, scratch: Path) -> Path:
    """Return what DATA_DIR names: the one data set's folder, or links as the sandbox lays it out."""
    if len(spec.datasets) == 1:
        (only,) = spec.datasets.values()
        if only.is_dir():
            return only.absolute()
    folder = scratch / "data"
    folder.mkdir()
    for name, path in spec.datasets.items():
        place = folder / name if len(spec.datasets) > 1 else folder
        if path.is_file():
            place.mkdir(exist_ok=True)
            place /= path.name
        place.symlink_to(path.absolute())
    return folder


def _collect(spec: RunSpec, outcome: RunOutcome, output: Path) -> RunOutcome:
    source = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        files, findings = collect_output(source, spec.output_dir, spec.limits.output_bytes)
    except OutputTooLargeError as error:
        shutil.rmtree(spec.output_dir, ignore_errors=True)
        return replace(outcome, reason=EndReason.OUTPUT_LIMIT, detail=str(error))
    finally:
        os.close(source)
    return replace(outcome, output_files=files, findings=findings)
