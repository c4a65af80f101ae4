"""What becomes of runs when the runner ends and starts again, and when the cluster does not start one."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from syftmesh_core.errors import InvalidInput, Unavailable
from syftmesh_executor import RunLeft, RunSpec, SandboxExecutor
from syftmesh_executor.kubernetes import KubernetesExecutor
from syftmesh_runner.adapters.runtime_identity import ImageRuntime, RunningRuntime
from syftmesh_runner.app import isolation_of
from syftmesh_runner.domain import execution as execution_module
from syftmesh_runner.settings import RunnerSettings


async def test_a_run_that_goes_on_without_the_runner_is_found_and_ends_as_ever(world: Any) -> None:
    world.executor.gate = asyncio.Event()
    async with world.running():
        job_id = await world.submit()
        await world.approve(job_id)
        await world.until(job_id, "running")
    world.executor.gate = None
    world.executor.goes_on = {job_id}
    world.restart()
    async with world.running():
        await world.until(job_id, "succeeded")
        job = (await world.get(job_id)).job
    assert [spec.run_id for spec in world.executor.adopted] == [job_id]
    assert job.outputs[0].name == "counts.csv"


async def test_nothing_is_told_lost_before_the_executor_has_answered(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution_module, "RETRY_S", 0.05)
    world.executor.gate = asyncio.Event()
    async with world.running():
        job_id = await world.submit()
        await world.approve(job_id)
        await world.until(job_id, "running")
    world.executor.gate = None
    world.executor.goes_on, world.executor.away = {job_id}, 2
    world.restart()
    async with world.running():
        assert world.state_of(job_id) == "running"
        await world.until(job_id, "succeeded")
    assert world.executor.away == 0


async def test_a_run_that_is_left_when_the_runner_closes_stays_running(world: Any) -> None:
    def leave(spec: RunSpec) -> None:
        raise RunLeft

    world.executor.hook = leave
    async with world.running():
        job_id = await world.submit()
        await world.approve(job_id)
        await world.until(job_id, "running")
        await asyncio.sleep(0.02)
        assert world.state_of(job_id) == "running"


async def test_a_run_that_the_cluster_does_not_start_fails_with_what_keeps_it(world: Any) -> None:
    def refuse(spec: RunSpec) -> None:
        raise Unavailable("no room in the quota", reason="JOB_NOT_STARTED", metadata={"problem": "quota"})

    world.executor.hook = refuse
    async with world.running():
        job_id = await world.submit()
        await world.approve(job_id)
        await world.until(job_id, "failed")
        job = (await world.get(job_id)).job
    assert job.end_reason == "ISOLATION_FAILED"
    assert "no room in the quota" in job.message


def test_the_settings_choose_the_executor(tmp_path: Any) -> None:
    executor, runtime = isolation_of(RunnerSettings(state_dir=tmp_path), "olga@site.example")
    assert (type(executor), type(runtime)) == (SandboxExecutor, RunningRuntime)
    settings = RunnerSettings(
        state_dir=tmp_path, executor="kubernetes", jobs_namespace="site-jobs", job_image="syftmesh/job:dev"
    )
    executor, runtime = isolation_of(settings, "olga@site.example")
    assert (type(executor), type(runtime)) == (KubernetesExecutor, ImageRuntime)


@pytest.mark.parametrize(
    "fields", [{"jobs_namespace": "", "job_image": "x"}, {"jobs_namespace": "a", "job_image": ""}]
)
def test_a_cluster_without_its_settings_is_refused(tmp_path: Any, fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        isolation_of(RunnerSettings(state_dir=tmp_path, executor="kubernetes", **fields), "olga@site.example")
    assert caught.value.reason == "SETTING_INVALID"


def test_the_runtime_of_an_image_is_its_digest_and_unknown_before() -> None:
    seen = ""
    runtime = ImageRuntime(lambda: seen)
    with pytest.raises(Unavailable) as caught:
        runtime.digest()
    assert caught.value.reason == "RUNTIME_UNKNOWN"
    seen = "ab" * 32
    first = runtime.digest()
    seen = "cd" * 32
    assert len(first) == 64
    assert runtime.digest() != first
