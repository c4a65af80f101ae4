"""The demo as a whole: a state, a mesh, the steps, and nothing left behind."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from syftmesh_core.clock import Clock, Random, SystemClock, system_random
from syftmesh_core.errors import WrongState, mesh_error

from syftmesh_standalone.demo.cluster.installation import ClusterOptions
from syftmesh_standalone.demo.cluster.venue import ClusterVenue
from syftmesh_standalone.demo.embedded import EmbeddedVenue
from syftmesh_standalone.demo.plan import STEPS
from syftmesh_standalone.demo.report import document, table
from syftmesh_standalone.demo.step import PATIENCE, Step, StepResult, Tell, run_steps
from syftmesh_standalone.demo.story import OWNERS, Story
from syftmesh_standalone.demo.venue import Venue

STATE_NOT_EMPTY: Final = "STATE_NOT_EMPTY"


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """How to run the demo.

    Attributes:
        state: Folder for its state; None makes a temporary one.
        processes: Whether each service gets a process of its own.
        keep: Leave a temporary state folder, and what is on a cluster, in place.
        cluster: Where on a cluster; None: on the embedded mesh.
    """

    state: Path | None = None
    processes: bool = False
    keep: bool = False
    cluster: ClusterOptions | None = None


async def run_demo(
    options: DemoOptions,
    tell: Tell,
    *,
    steps: Sequence[Step[Story]] = STEPS,
    clock: Clock | None = None,
    random: Random = system_random,
) -> dict[str, Any]:
    """Tell the whole story and return its document (`report.document`).

    The state folder is removed when it was a temporary one and nothing failed; no process outlives
    this function, and none outlives this process.

    Args:
        options: How.
        tell: Takes lines for people.
        steps: What is told.
        clock: Time; None is the machine's.
        random: Source of identifiers and markers.

    Raises:
        WrongState: STATE_NOT_EMPTY: the state folder has something in it.
        MeshError: That of the step that failed, named in the message; CHECK_FAILED, STEP_TIMEOUT,
            CANARY_FOUND, CANARY_BLIND, CANARY_INCOMPLETE among others.
    """
    clock = clock or SystemClock()
    begun_s, state = clock.monotonic_s(), _state(options)
    kept = options.keep or options.state is not None
    failed = True
    try:
        story, results = await _told(options, state, tell, steps, clock, random)
        failed = False
    except asyncio.CancelledError:
        failed = False  # whoever ends the demo does not want to look for a fault
        raise
    finally:
        if not failed and not kept:
            shutil.rmtree(state, ignore_errors=True)
        elif failed:
            tell(f"the state is kept in {state}")
    tell("")
    for line in table(story):
        tell(line)
    seconds = clock.monotonic_s() - begun_s
    tell("")
    tell(f"all {len(results)} steps held, in {seconds:.1f} s; state {'in' if kept else 'was in'} {state}")
    return document(story, results, seconds, kept=kept)


async def _told(
    options: DemoOptions,
    state: Path,
    tell: Tell,
    steps: Sequence[Step[Story]],
    clock: Clock,
    random: Random,
) -> tuple[Story, list[StepResult]]:
    venue = _venue(options, state, tell)
    PATIENCE.set(venue.patience)
    tell(f"starting {venue.words}")
    try:
        async with venue.lifetime(), AsyncExitStack() as stack:
            story = Story(state, venue, clock, random, stack)
            return story, await run_steps(steps, story, tell=tell, clock=clock)
    except BaseExceptionGroup as group:
        found = mesh_error(group)
        if found is None:
            raise
        raise found from group


def _venue(options: DemoOptions, state: Path, tell: Tell) -> Venue:
    if options.cluster is not None:
        return ClusterVenue(state, OWNERS, options.cluster, tell=tell, keep=options.keep)
    return EmbeddedVenue(state, OWNERS, processes=options.processes, tell=tell)


def _state(options: DemoOptions) -> Path:
    if options.state is None:
        return Path(tempfile.mkdtemp(prefix="syftmesh-demo-"))
    state = options.state.expanduser().absolute()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    if any(state.iterdir()):
        raise WrongState(
            "The state folder of the demo is not empty.",
            reason=STATE_NOT_EMPTY,
            hint="Name a folder that does not exist yet, or leave --state away.",
        )
    state.chmod(0o700)
    return state
