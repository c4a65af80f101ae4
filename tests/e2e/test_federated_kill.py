"""Processes of federated runs are killed in mid-round: a run goes on or ends by its policy, and says which."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from flower_apps import (
    ALICE,
    BOB,
    CAROL,
    PURPOSE,
    SITES,
    World,
    environment,
    replies,
    told,
    until,
    world,
)

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(240),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]

SLOW = dict.fromkeys((0, 1), dict.fromkeys(range(1, 10), "sleep"))
LOST_S = 130.0
"""What the hub allows a silent aggregator, and some more."""


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("kills")) as made:
        yield made


@dataclass
class Lost:
    """A run whose aggregator was killed.

    Attributes:
        run: The run.
        killed: When, by `time.monotonic`.
        held: Ends when the run is held.
        watched: Exit code and output of ``fl watch``, which was begun then.
    """

    run: Any
    killed: float
    held: Future[float]
    watched: Future[tuple[int, bytes]]


@pytest.fixture(scope="module")
def lost(embedded: World) -> Lost:
    """The run whose aggregator is killed first: it takes the hub a minute to be sure, while others are tested."""
    process, run = _by_program(embedded, SLOW, rounds=3)
    try:
        _in_round(embedded, None, run, 1)
        mine = _below(process.pid)
    finally:
        process.kill()
        process.communicate()
    killed = time.monotonic()
    # The ServerApp finds its pipe closed.
    until(lambda: not [pid for pid in mine if Path(f"/proc/{pid}").exists()], 15, "the ServerApp is gone")
    held = embedded.threads.submit(until, lambda: run.refresh().reason == "AGGREGATOR_AWAY", 40, "it is held")
    return Lost(run, killed, held, embedded.threads.submit(_program, embedded, "watch", run.id))


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("services"), "--processes") as made:
        yield made


def test_a_killed_superlink_is_not_noticed_and_a_killed_supernode_costs_a_round(
    embedded: World, lost: Lost
) -> None:
    del lost  # it waits meanwhile
    run, ended = embedded.begin(SLOW, rounds=3, minimum_sites=1)
    _in_round(embedded, ended, run, 1)
    (superlink,) = embedded.processes("syftmesh_superlink.adapters.flower_child")
    superlink.kill()
    killed = time.monotonic()
    until(lambda: len(run.refresh().rounds) >= 1, 60, "round 1 is over")
    told("round 1 ended after SuperLink was killed", killed)
    assert (replies(run, ALICE), replies(run, BOB)) == (["ok"], ["ok"])

    _in_round(embedded, ended, run, 2)
    # The one of the two that started last; which site's it is, the run tells.
    supernode = max(embedded.processes("flower-supernode"), key=lambda process: process.pid)
    supernode.kill()
    killed = time.monotonic()
    ended.result(90)
    told(f"the run ended after a SuperNode was killed: {run.state} {run.message}", killed)
    assert time.monotonic() - killed < 60
    given = {site: replies(run, site) for site in SITES}
    assert any(answers == ["ok", "ok", "ok"] for answers in given.values()), given
    dropped = [site for site, answers in given.items() if answers != ["ok", "ok", "ok"]]
    assert (run.state, run.reason) == (("partial", "SITES_DROPPED_OUT") if dropped else ("succeeded", ""))
    for site in dropped:
        assert given[site][0] == "ok"
        assert site in run.message


def test_ctrl_c_of_the_program_cancels_the_run_and_leaves_no_process(embedded: World, lost: Lost) -> None:
    del lost  # as above
    process, run = _by_program(embedded, SLOW, rounds=3)
    try:
        _in_round(embedded, None, run, 1)
        mine = _below(process.pid)
        assert mine
        interrupted = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    told("the program ended after Ctrl-C", interrupted)
    assert process.returncode == 130, err
    assert b"cancelling the run" in err
    assert b"Traceback" not in out + err
    run.refresh()
    assert (run.state, run.reason) == ("cancelled", "CANCELLED")
    assert "stopped it from the keyboard" in run.message
    until(lambda: not [pid for pid in mine if Path(f"/proc/{pid}").exists()], 5, "the ServerApp is gone")
    for site in SITES:
        until(lambda site=site: embedded.proposal(site, run).state == "cancelled", 15, f"{site} knows")
        assert embedded.tasks(site, run) == [("train", False, "CANCELLED")]


def test_a_run_without_its_aggregator_is_held_then_failed_and_the_program_tells_so(
    embedded: World, lost: Lost
) -> None:
    told("the run was held", time.monotonic() - lost.held.result(60))
    code, out = lost.watched.result(LOST_S)
    told("the run is failed after its aggregator was killed", lost.killed)
    assert time.monotonic() - lost.killed < LOST_S
    assert code == 1
    assert json.loads(out)["reason"] == "AGGREGATOR_LOST"
    code, out = _program(embedded, "show", lost.run.id)
    document = json.loads(out)
    assert (code, document["state"], document["reason"]) == (0, "failed", "AGGREGATOR_LOST")
    assert "aggregator" in document["message"]
    for site in SITES:
        until(lambda site=site: embedded.proposal(site, lost.run).state == "finished", 20, f"{site} knows")
    embedded.no_app_is_left(15)


def test_killed_runner_agent_and_superlink_service_come_back_and_the_run_goes_on(services: World) -> None:
    run, ended = services.begin(SLOW, rounds=4, minimum_sites=1)
    for number, name in enumerate((f"runner {BOB}", f"agent {BOB}", "superlink"), start=1):
        _in_round(services, ended, run, number)
        os.kill(services.mesh.info["children"][name], signal.SIGKILL)
        killed = time.monotonic()
        until(
            lambda number=number: ended.done() or len(run.refresh().rounds) >= number, 60, "the round is over"
        )
        told(f"round {number} ended after {name} was killed: {replies(run, BOB)}", killed)
    ended.result(60)
    assert replies(run, ALICE) == ["ok"] * 4
    given = replies(run, BOB)
    assert given[3] == "ok", given
    dropped = any(answer != "ok" for answer in given)
    assert (run.state, run.reason) == (("partial", "SITES_DROPPED_OUT") if dropped else ("succeeded", ""))
    if dropped:
        assert BOB in run.message
    assert ALICE not in run.message
    services.no_app_is_left()


def _in_round(made: World, ended: Future[Any] | None, run: Any, number: int) -> None:
    """Return when the apps of the sites are at a task of a round: of both sites, where both are there in time."""

    def begun() -> bool:
        assert ended is None or not ended.done(), ended.result()
        return made.at_work(run, number) > 0

    until(begun, 60, f"round {number} begins")
    with suppress(AssertionError):
        until(lambda: made.at_work(run, number) == len(SITES), 2, "both sites work")


def _by_program(made: World, plan: Any, *, rounds: int) -> tuple[subprocess.Popen[bytes], Any]:
    """Start ``fl run`` as a program of its own, approve the run and return both."""
    known = {run.id for run in made.carol.fl.ls()}
    command = [sys.executable, "-m", "syftmesh.cli", "fl", "run", str(made.app), "--sites", ",".join(SITES)]
    command += ["--dataset", "doses", "--purpose", PURPOSE, "--rounds", str(rounds)]
    command += ["--config", f"plan='{json.dumps(plan)}'"]
    process = subprocess.Popen(
        command,
        env=environment(made.mesh.state, CAROL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        until(lambda: {run.id for run in made.carol.fl.ls()} - known, 30, "the run is created")
        (run_id,) = {run.id for run in made.carol.fl.ls()} - known
        for site in SITES:
            until(lambda site=site: _is_proposed(made, site, run_id), 20, f"{site} has it")
        run = made.carol.fl.get(run_id)
        made.approve(run)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process, run


def _is_proposed(made: World, site: str, run_id: str) -> bool:
    return any(proposal.run_id == run_id for proposal in made.people[site].site.fl.proposals())


def _below(pid: int) -> list[int]:
    import psutil

    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def _program(made: World, *arguments: str) -> tuple[int, bytes]:
    """Call ``fl`` of the program as the scientist; return exit code and document."""
    done = subprocess.run(
        [sys.executable, "-m", "syftmesh.cli", "fl", *arguments, "--json"],
        env=environment(made.mesh.state, CAROL),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=LOST_S,
        check=False,
    )
    return done.returncode, done.stdout
