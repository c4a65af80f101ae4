"""Steps: results, named failures, deadlines, and retries of what is away for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, MeshError, NotFound, Unavailable
from syftmesh_standalone.demo.step import PATIENCE, Checks, Step, eventually, run_steps, steadily

Run = Callable[[list[str], Checks], Awaitable[None]]


async def _holds(story: list[str], checks: Checks) -> None:
    story.append("held")
    checks.that(True, "this holds")


async def _fails(story: list[str], checks: Checks) -> None:
    checks.that(len(story) == 0, "nothing was there")


async def _away(story: list[str], checks: Checks) -> None:
    raise Unavailable("gone", reason="MESH_AWAY", hint="wait")


async def _hangs(story: list[str], checks: Checks) -> None:
    await asyncio.Event().wait()


def _steps(*runs: Run) -> list[Step[list[str]]]:
    return [Step(number, f"title {number}", run, 0.05) for number, run in enumerate(runs, start=1)]


async def _run(*runs: Run) -> tuple[list[str], list[str]]:
    lines: list[str] = []
    results = await run_steps(_steps(*runs), [], tell=lines.append, clock=SystemClock())
    return lines, [check for result in results for check in result.checks]


async def test_steps_run_in_order_and_tell_their_checks() -> None:
    lines, checks = await _run(_holds, _holds)
    assert lines == ["[ 1/2] title 1", "    ok  this holds", "[ 2/2] title 2", "    ok  this holds"]
    assert checks == ["this holds"] * 2


@pytest.mark.parametrize(
    ("run", "kind", "reason"),
    [
        (_fails, IntegrityFailure, "CHECK_FAILED"),
        (_away, Unavailable, "MESH_AWAY"),
        (_hangs, DeadlineExceeded, "STEP_TIMEOUT"),
    ],
)
async def test_a_failure_keeps_its_class_and_reason_and_names_the_step(
    run: Run, kind: type[MeshError], reason: str
) -> None:
    with pytest.raises(kind) as failed:
        await _run(_holds, run, _holds)
    assert failed.value.reason == reason
    assert failed.value.message.startswith("step 2 (title 2): ")
    assert failed.value.metadata["step"] == "2"


class _Flaky:
    def __init__(self, *failures: MeshError) -> None:
        self.left = list(failures)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.left:
            raise self.left.pop(0)
        return "there"


async def test_what_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syftmesh_standalone.demo.step._PAUSE_S", 0.001)
    flaky = _Flaky(
        Unavailable("x"),
        DeadlineExceeded("x"),
        NotFound("x", reason="SITE_NOT_RUNNING"),
        NotFound("x", reason="A"),
    )
    assert await steadily(flaky, also=("A",)) == "there"
    assert flaky.calls == 5


async def test_a_refusal_is_not_asked_again() -> None:
    flaky = _Flaky(IntegrityFailure("no", reason="RELEASE_REFUSED"))
    with pytest.raises(IntegrityFailure):
        await steadily(flaky)
    assert flaky.calls == 1


async def test_the_last_failure_is_raised_when_time_is_over() -> None:
    with pytest.raises(Unavailable) as failed:
        await steadily(_Flaky(*[Unavailable("x", reason="MESH_AWAY")] * 9), within_s=0.01)
    assert failed.value.reason == "MESH_AWAY"


async def test_a_try_that_hangs_is_given_up() -> None:
    with pytest.raises(DeadlineExceeded) as failed:
        await steadily(lambda: asyncio.Event().wait(), within_s=0.02, try_s=0.01)
    assert failed.value.reason == "STEP_TIMEOUT"


async def test_waiting_names_what_did_not_come() -> None:
    async def nothing() -> None:
        return None

    with pytest.raises(DeadlineExceeded, match="the job did not come"):
        await eventually(nothing, within_s=0.01, what="the job")


async def test_a_place_that_is_slower_gets_more_time_for_a_step_and_for_each_request() -> None:
    async def slow(story: list[str], checks: Checks) -> None:
        await asyncio.sleep(0.2)
        await _holds(story, checks)

    async def answer() -> str:
        await asyncio.sleep(0.05)
        return "there"

    before = PATIENCE.set(20.0)
    try:
        assert (await _run(slow))[1] == ["this holds"]
        assert await steadily(answer, within_s=0.01, try_s=0.01) == "there"
    finally:
        PATIENCE.reset(before)
    with pytest.raises(DeadlineExceeded):
        await steadily(answer, within_s=0.01, try_s=0.01)
