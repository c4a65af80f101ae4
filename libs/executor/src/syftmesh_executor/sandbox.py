"""The executor of a site without Kubernetes: each run in its own bubblewrap sandbox."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from syftmesh_core.clock import Clock, SystemClock
from syftmesh_core.errors import Unavailable

from syftmesh_executor.cgroup import ControlGroup, GroupTree
from syftmesh_executor.launch import Launcher, LaunchError, Sandbox
from syftmesh_executor.limit import LimitPlan, plan_limits
from syftmesh_executor.mount import check_spec, job_environment, sandbox_arguments
from syftmesh_executor.orphan import end_orphans
from syftmesh_executor.output import OutputTooLargeError, collect_output
from syftmesh_executor.port import EndReason, Finding, OutputFile, ProbeReport, RunOutcome, RunSpec
from syftmesh_executor.probe import probe_isolation
from syftmesh_executor.proof import Proof
from syftmesh_executor.roster import Roster, unknown_run
from syftmesh_executor.runtime import Runtime, running_runtime
from syftmesh_executor.seccomp import job_filter
from syftmesh_executor.verdict import Evidence, judge
from syftmesh_executor.watch import excess

CANCEL_GRACE_S = 3.0
TIMEOUT_GRACE_S = 0.5
WATCH_INTERVAL_S = 0.25
INSTALL_HINT = "apt-get install bubblewrap"


class SandboxExecutor:
    """Runs code in bubblewrap sandboxes: see `syftmesh_executor.mount` for what a job sees.

    Args:
        runtime: Python environment of the jobs; the one that runs us when not given.
        bwrap: bubblewrap's executable; looked up when not given.
        group_tree: Where control groups are made; looked for when not given.
        clock: Source of times.
        host_environment: Where the variables of the numeric libraries are taken from; ours when not given.
    """

    def __init__(
        self,
        *,
        runtime: Runtime | None = None,
        bwrap: Path | None = None,
        group_tree: GroupTree | None = None,
        clock: Clock | None = None,
        host_environment: Mapping[str, str] | None = None,
    ) -> None:
        self._runtime = runtime or running_runtime()
        self._bwrap = bwrap
        self._group_tree = group_tree
        self._clock = clock or SystemClock()
        self._host_environment = os.environ if host_environment is None else host_environment
        self._proof = Proof(self._clock)
        self._tools: tuple[Launcher, LimitPlan] | None = None
        self._roster = Roster()

    async def probe(self) -> ProbeReport:
        """Try to break out of a sandbox; see `Executor.probe`."""
        self._proof.forget()
        self._tools = self._find_tools()
        report = await probe_isolation(self._run)
        self._proof.take(report)
        return report

    async def run(self, spec: RunSpec) -> RunOutcome:
        """Run code; see `Executor.run`."""
        self._proof.check()
        return await self._run(spec)

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

    def _find_tools(self) -> tuple[Launcher, LimitPlan]:
        found = self._bwrap or shutil.which("bwrap")
        if not found or not Path(found).exists():
            raise Unavailable(
                f"the sandbox needs bubblewrap, which is not installed; install it: {INSTALL_HINT}",
                reason="SANDBOX_MISSING",
                hint=INSTALL_HINT,
            )
        end_orphans()
        limits = plan_limits(self._group_tree)
        if limits.tree:
            limits.tree.sweep()
        return Launcher(Path(found), job_filter(platform.machine())), limits

    async def _run(self, spec: RunSpec) -> RunOutcome:
        self._roster.check(spec.run_id)
        check_spec(spec)
        with self._roster.entry(spec.run_id) as ending:
            return await self._run_limited(spec, ending)

    async def _run_limited(self, spec: RunSpec, ending: asyncio.Future[EndReason]) -> RunOutcome:
        launcher, plan = self._tools = self._tools or self._find_tools()
        started_ms = self._clock.now_ms()
        environment = job_environment(
            spec,
            data_dir="/data",
            output_dir="/output",
            home="/tmp",  # noqa: S108 - inside the sandbox
            path=f"{self._runtime.python.parent}:/usr/local/bin:/usr/bin:/bin",
            host=self._host_environment,
        )
        group = plan.group(spec.run_id)
        try:
            async with launcher.start(
                sandbox_arguments(spec, self._runtime, environment),
                [str(self._runtime.python), spec.entrypoint],
                log_bytes=spec.limits.log_bytes,
                confine=lambda pid: plan.apply(spec.limits, pid, group),
                channel=spec.channel_fds,
            ) as sandbox:
                spec.close_channel()
                outcome = await _finish(spec, sandbox, group, ending, started_ms)
        except LaunchError as error:
            outcome = RunOutcome(
                EndReason.ISOLATION_FAILED, None, started_ms, started_ms, b"", b"", detail=str(error)
            )
        finally:
            spec.close_channel()
            if group is not None:
                await asyncio.shield(asyncio.to_thread(group.remove))
        return replace(outcome, ended_ms=self._clock.now_ms())


async def _finish(
    spec: RunSpec,
    sandbox: Sandbox,
    group: ControlGroup | None,
    ending: asyncio.Future[EndReason],
    started_ms: int,
) -> RunOutcome:
    """Run the job of a sandbox at its gate to its end."""
    reason = await _until_end(spec, sandbox, ending, grouped=group is not None)
    if reason is EndReason.OK:
        exit_code = await sandbox.kill()
        reason = judge(_evidence(sandbox, group, exit_code))
    else:
        exit_code = await sandbox.terminate(_GRACE_S.get(reason, 0.0))
    files: tuple[OutputFile, ...] = ()
    findings: tuple[Finding, ...] = ()
    detail = ""
    if reason is EndReason.OK:
        try:
            files, findings = await _collect(spec, sandbox)
        except OutputTooLargeError as error:
            reason, detail = EndReason.OUTPUT_LIMIT, str(error)
    return RunOutcome(
        reason=reason,
        exit_code=exit_code if exit_code >= 0 else None,
        started_ms=started_ms,
        ended_ms=started_ms,
        stdout=sandbox.stdout.value(),
        stderr=sandbox.stderr.value(),
        output_files=files,
        findings=findings,
        detail=detail,
    )


_GRACE_S = {EndReason.CANCELLED: CANCEL_GRACE_S, EndReason.TIMEOUT: TIMEOUT_GRACE_S}


async def _until_end(
    spec: RunSpec, sandbox: Sandbox, ending: asyncio.Future[EndReason], *, grouped: bool
) -> EndReason:
    """Open the gate and wait for the job's exit (OK), a limit, or whoever sets `ending`."""
    loop = asyncio.get_running_loop()

    def end(reason: EndReason) -> None:
        if not ending.done():
            ending.set_result(reason)

    folders = (sandbox.output_fd, sandbox.scratch_fd)

    def look() -> None:
        past = excess(spec.limits, sandbox.init_pid, folders, grouped=grouped)
        if past is not None:
            end(past)
        timers["watch"] = loop.call_later(WATCH_INTERVAL_S, look)

    timers = {
        "watch": loop.call_later(WATCH_INTERVAL_S, look),
        "deadline": loop.call_later(spec.limits.wall_s, end, EndReason.TIMEOUT),
    }
    try:
        if not ending.done():
            sandbox.start_job(lambda: end(EndReason.OK))
        return await ending
    finally:
        for timer in timers.values():
            timer.cancel()


def _evidence(sandbox: Sandbox, group: ControlGroup | None, exit_code: int) -> Evidence:
    scratch, output = os.fstatvfs(sandbox.scratch_fd), os.fstatvfs(sandbox.output_fd)
    return Evidence(
        exit_code=exit_code,
        usage=group.usage() if group else None,
        scratch_free_bytes=scratch.f_bavail * scratch.f_frsize,
        output_free_bytes=output.f_bavail * output.f_frsize,
        stderr=sandbox.stderr.value(),
    )


async def _collect(spec: RunSpec, sandbox: Sandbox) -> tuple[tuple[OutputFile, ...], tuple[Finding, ...]]:
    # The thread owns its own descriptor: it may outlive a cancelled task, and the sandbox's would be closed.
    source = os.dup(sandbox.output_fd)

    def work() -> tuple[tuple[OutputFile, ...], tuple[Finding, ...]]:
        try:
            return collect_output(source, spec.output_dir, spec.limits.output_bytes)
        except OutputTooLargeError:
            shutil.rmtree(spec.output_dir, ignore_errors=True)
            raise
        finally:
            os.close(source)

    return await asyncio.to_thread(work)
