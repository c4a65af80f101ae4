"""Steps 13 to 15: an ordinary Flower app trains over both owners' tables, under the approval of each."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from syftmesh.run import AsyncRun
from syftmesh.run_status import RoundReport, RunSnapshot, RunState
from syftmesh_core.errors import MeshError, WrongState
from syftmesh_core.parallel import in_parallel
from syftmesh_flower.bundle import build_bundle, read_bundle

from syftmesh_standalone.demo.data import DATASET
from syftmesh_standalone.demo.pooled import pooled_accuracy
from syftmesh_standalone.demo.proof import everything
from syftmesh_standalone.demo.step import PATIENCE, Checks, eventually
from syftmesh_standalone.demo.story import OWNERS, SCIENTIST, Story

APP: Final = Path(__file__).with_name("federated_app")
PURPOSE: Final = "a classifier of the diagnosis from 30 measurements of nuclei"
RUN_FAILED: Final = "RUN_FAILED"
LEAST_ACCURACY: Final = 0.95
LARGEST_GAP: Final = 0.02
MODEL: Final = "model.safetensors"
_RUN_S: Final = 90.0
_TRIES: Final = 3
_LOST: Final = frozenset(
    {"TOO_FEW_SITES", "NO_RESULTS", "AGGREGATOR_LOST", "SUPERLINK_AWAY", "TASK_LOST", "APP_ENDED", "RUN_LOST"}
)
"""Ends of a run that lost a process; the app is right, so running it once more is sensible."""


async def proposal(story: Story, checks: Checks) -> None:
    """Step 13: the scientist submits the app; each owner reads it, byte for byte, and signs."""
    run = story.training.run = await _propose(story, APP)
    checks.that(run.state is RunState.AWAITING_APPROVAL, f"run {run.id} waits for {len(OWNERS)} owners")
    for owner in OWNERS:
        await _look(story, owner, run.id, checks)
    await _approve(story, run.id)
    checks.that(
        True, "both owners signed: digest, configuration, dataset, recipients, limits and number of tasks"
    )


async def rounds(story: Story, checks: Checks) -> None:
    """Step 14: the rounds as they happen."""
    for attempt in range(1, _TRIES + 1):
        run = story.training.run
        if run is None:
            run = story.training.run = await _propose(story, APP)
            await _approve(story, run.id)
        snapshot = story.training.snapshot = await _train(run, checks)
        if snapshot.state is RunState.SUCCEEDED:
            break
        if attempt == _TRIES or snapshot.reason not in _LOST:
            raise WrongState(
                f"the run {run.id} ended as {snapshot.state}: {snapshot.message or snapshot.reason}",
                reason=RUN_FAILED,
                metadata={"run_id": run.id, "reason": snapshot.reason},
            )
        checks.note(f"the run was lost ({snapshot.reason}: {snapshot.message}) and is begun again")
        story.training.run = None
    phases = story.training.snapshot.rounds if story.training.snapshot is not None else ()
    story.training.rounds = max((phase.round for phase in phases), default=0)
    trained = [phase for phase in phases if phase.phase == "train"]
    everyone = all(reply.ok for phase in phases for reply in phase.replies)
    checks.that(
        len(trained) >= 3, f"{len(trained)} training phases and {len(phases) - len(trained)} of evaluation"
    )
    checks.that(everyone, "every site answered in every phase")


async def model(story: Story, checks: Checks) -> None:
    """Step 15: what was learned, beside training on all rows in one place; a changed app refused; the proof."""
    training = story.training
    if training.run is None or training.snapshot is None:
        raise WrongState("there is no run", reason=RUN_FAILED)
    folder = story.state / "results" / training.run.id
    run = training.run
    await story.ask(SCIENTIST, lambda _: run.results(folder), within_s=60, try_s=30)
    metrics = json.loads((folder / "metrics.json").read_bytes())
    last = max(metrics["evaluate_metrics_clientapp"], key=int)
    training.accuracy = float(metrics["evaluate_metrics_clientapp"][last]["accuracy"])
    training.pooled = await asyncio.to_thread(pooled_accuracy, APP, list(story.tables.values()))
    gap = abs(training.accuracy - training.pooled)
    checks.that(
        training.accuracy >= LEAST_ACCURACY,
        f"accuracy {training.accuracy:.4f} on the rows held out at the sites (at least {LEAST_ACCURACY})",
    )
    checks.that(
        gap <= LARGEST_GAP,
        f"trained on all rows in one place it is {training.pooled:.4f}: {gap:.4f} apart (at most {LARGEST_GAP})",
    )
    data = (folder / MODEL).read_bytes()
    training.model = hashlib.sha256(data).hexdigest()
    checks.that(bool(data), f"the model is in {folder / MODEL}, {len(data)} bytes, {training.model[:16]}...")
    for owner in OWNERS:
        seen = await story.ask(owner, lambda client: client.site.fl.get(run.id))
        training.sent[owner] = seen.sent_bytes
        tasks = seen.train_tasks_done + seen.evaluate_tasks_done
        checks.that(
            seen.sent_bytes > 0 and seen.train_tasks_done <= seen.train_tasks,
            f"{seen.sent_bytes:,} sealed bytes of updates left {owner}, in {tasks} answers",
        )
    await _changed_app(story, checks)
    await everything(story, checks)


async def _propose(story: Story, app: Path) -> AsyncRun:
    return await story.ask(
        SCIENTIST,
        lambda client: client.fl.run(app, OWNERS, DATASET, purpose=PURPOSE, deadline_s=3600),
        within_s=90,
        try_s=45,
        also=("SUPERLINK_AWAY",),
    )


async def _look(story: Story, owner: str, run_id: str, checks: Checks) -> None:
    seen = await _proposed(story, owner, run_id)
    files = await story.ask(owner, lambda client: client.site.fl.code(run_id))
    ours = await asyncio.to_thread(lambda: read_bundle(build_bundle(APP)))
    code = {name: (APP / name).read_bytes() for name in files if name.endswith(".py")}
    same = all(files[name] == content for name, content in code.items())
    checks.that(
        len(code) > 1 and same, f"{owner} reads the app, {len(files)} files, byte for byte as submitted"
    )
    checks.that(seen.app_digest == ours.digest, f"its digest, computed anew, is {ours.digest[:16]}...")
    limits = seen.limits
    checks.that(
        seen.aggregator == SCIENTIST and [r.email for r in seen.recipients] == [SCIENTIST],
        f"updates are for {SCIENTIST} alone, {seen.train_tasks} training tasks, "
        f"at most {limits.max_update_bytes:,} bytes an answer",
    )


async def _proposed(story: Story, owner: str, run_id: str) -> Any:
    return await eventually(
        lambda: story.ask(owner, lambda client: client.site.fl.get(run_id)),
        what=f"the proposal at {owner}",
        also=("RUN_UNKNOWN",),
    )


async def _approve(story: Story, run_id: str) -> None:
    async def sign(owner: str) -> None:
        async def once(client: Any) -> None:
            try:
                await client.site.fl.approve(run_id)
            except WrongState:
                if str((await client.site.fl.get(run_id)).state) != "approved":
                    raise

        await _proposed(story, owner, run_id)
        await story.ask(owner, once)

    await in_parallel([sign(owner) for owner in OWNERS], at_once=2)


async def _train(run: AsyncRun, checks: Checks) -> RunSnapshot:
    told = 0

    def tell(snapshot: RunSnapshot) -> None:
        nonlocal told
        for phase in snapshot.rounds[told:]:
            checks.note(_line(phase))
        told = len(snapshot.rounds)

    try:
        async with asyncio.timeout(_RUN_S * PATIENCE.get()):
            return (await run.aggregate(tell)).snapshot
    except TimeoutError:
        return replace(run.snapshot, state=RunState.FAILED, reason="RUN_LOST", message="it took too long")
    except MeshError as error:
        return replace(run.snapshot, state=RunState.FAILED, reason="RUN_LOST", message=error.message)


def _line(phase: RoundReport) -> str:
    replies = (f"{r.site} {f'{r.received_bytes:,} bytes' if r.ok else r.reason}" for r in phase.replies)
    seconds = (phase.ended_ms - phase.started_ms) / 1000
    return f"round {phase.round} {phase.phase:<8} {seconds:5.1f} s  {', '.join(replies)}"


async def _changed_app(story: Story, checks: Checks) -> None:
    """Run a changed app under the same name: an approval of the known one does not fit, and an owner refuses."""
    with tempfile.TemporaryDirectory(prefix="syftmesh-app-") as folder:
        app = Path(folder) / "app"
        await asyncio.to_thread(shutil.copytree, APP, app)
        code = app / "breast_cancer_fl" / "task.py"
        code.write_text(code.read_text() + "\n# A line that no owner has read.\n")
        run = await _propose(story, app)
    careless, careful = OWNERS
    known = story.training.run
    seen = await _proposed(story, careful, run.id)
    before = await story.ask(careful, lambda client: client.site.fl.get(known.id if known else ""))
    checks.that(
        seen.app_name == before.app_name and seen.app_digest != before.app_digest,
        f"a changed app of the same name, {seen.app_name}, has another digest: {seen.app_digest[:16]}...",
    )
    refused = await story.ask(
        careful, lambda client: _refusal(client, replace(seen, app_digest=before.app_digest))
    )
    checks.that(
        refused == "APPROVAL_MISMATCH", f"{careful}'s approval of the app known is refused for it: {refused}"
    )
    await _proposed(story, careless, run.id)
    await story.ask(careful, lambda client: client.site.fl.deny(run.id, "the code has changed"))
    ended = await eventually(lambda: _final(story, run), within_s=30, what="the end of the denied run")
    checks.that(
        ended.state is RunState.FAILED and not ended.rounds,
        f"{careful} denies it, and the run ends before anything starts: {ended.message}",
    )
    idle = await story.ask(careless, lambda client: client.site.fl.get(run.id))
    checks.that(
        idle.train_tasks_done + idle.evaluate_tasks_done == 0, f"nothing of it ran at {careless} either"
    )


async def _refusal(client: Any, seen: Any) -> str:
    try:
        await client.site.fl.approve(seen)
    except WrongState as error:
        return error.reason
    return "it was taken"


async def _final(story: Story, run: AsyncRun) -> RunSnapshot | None:
    await story.ask(SCIENTIST, lambda _: run.refresh())
    return run.snapshot if run.final else None
