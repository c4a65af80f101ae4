"""Apps of federated runs that fail, lie, hang or die: the run ends honestly, owners are told, nothing stays."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from syftmesh_core.errors import InvalidInput

sys.path.insert(0, str(Path(__file__).parent))
from flower_apps import (
    ALICE,
    BOB,
    CAROL,
    PURPOSE,
    QUICK,
    QUICK_S,
    SITES,
    World,
    environment,
    make_app,
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

MIB = 1 << 20


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("faults")) as made:
        yield made


@pytest.mark.parametrize("component", ["client_app:HUGE", "client_app:absent"])
def test_a_client_app_that_does_not_load_is_named_at_both_sites(
    faults: World, tmp_path: Path, component: str
) -> None:
    run = faults.run(app=make_app(tmp_path / "app", client=component))
    assert (run.state, run.reason) == ("failed", "NO_RESULTS")
    for site in SITES:
        assert f"{site}: APP_NOT_LOADED" in run.message
        assert replies(run, site) == ["APP_NOT_LOADED"]
        assert faults.tasks(site, run) == [("train", False, "APP_NOT_LOADED")]
        seen = faults.proposal(site, run)
        assert (seen.train_tasks_done, seen.refused_tasks, seen.sent_bytes) == (0, 1, 0)
        assert "Error" in faults.log(site, run)
    faults.no_app_is_left()


@pytest.mark.parametrize(
    ("server", "mode", "reason", "said"),
    [
        ("server_app:main", "", "APP_NOT_LOADED", "and no ServerApp"),
        ("server_app:absent", "", "APP_NOT_LOADED", "has no attribute 'absent'"),
        ("server_app:app", "raise", "APP_RAISED", "RuntimeError: the server gave up on purpose"),
    ],
)
def test_a_server_app_that_fails_ends_the_run_and_its_log_is_a_result(
    faults: World, tmp_path: Path, server: str, mode: str, reason: str, said: str
) -> None:
    run = faults.run(app=make_app(tmp_path / "app", server=server), config={"server": mode})
    assert (run.state, run.reason) == ("failed", reason)
    assert "its log says" in run.message
    assert run.rounds == ()
    run.refresh()
    assert [artifact.name for artifact in run.snapshot.artifacts] == ["logs/server.txt"]
    (log,) = run.results(tmp_path / "results")
    assert said in log.read_text()
    for site in SITES:
        assert faults.tasks(site, run) == []
        until(lambda site=site: faults.proposal(site, run).state == "finished", 15, f"{site} knows the end")
    faults.no_app_is_left()


@pytest.mark.parametrize("component", ["client", "server"])
@pytest.mark.parametrize("named", ["", "absent:app"])
def test_a_bundle_that_lacks_a_component_creates_nothing(
    faults: World, tmp_path: Path, component: str, named: str
) -> None:
    before = [run.id for run in faults.carol.fl.ls()]
    with pytest.raises(InvalidInput) as refused:
        faults.ask(app=make_app(tmp_path / "app", **{component: named}))
    assert refused.value.reason == "BUNDLE_INVALID"
    assert (named or f"{component}app") in refused.value.message
    assert [run.id for run in faults.carol.fl.ls()] == before
    assert all(p.run_id in before for p in faults.people[ALICE].site.fl.proposals())


def test_what_an_app_raises_at_a_site_is_for_its_owner_alone(faults: World, tmp_path: Path) -> None:
    started = time.monotonic()
    command = [sys.executable, "-m", "syftmesh.cli", "fl", "run", str(faults.app), "--sites", ",".join(SITES)]
    command += ["--dataset", "doses", "--minimum-sites", "1", "--purpose", PURPOSE, "--json"]
    command += ["--config", f"plan='{json.dumps({1: {1: 'raise'}})}'"]
    known = {run.id for run in faults.carol.fl.ls()}
    process = subprocess.Popen(
        command,
        env=environment(faults.mesh.state, CAROL),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        until(lambda: {run.id for run in faults.carol.fl.ls()} - known, 30, "the run is created")
        (run_id,) = {run.id for run in faults.carol.fl.ls()} - known
        run = faults.carol.fl.get(run_id)
        for site in SITES:
            until(lambda site=site: _proposed(faults, site, run_id), 20, f"{site} has it")
        faults.approve(run)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    told("one of two raises, by the command line", started)
    assert process.returncode == 0, err.decode()
    document = json.loads(out)
    assert (document["state"], document["reason"]) == ("partial", "SITES_DROPPED_OUT")
    assert f"{BOB} gave nothing in round 1 (APP_RAISED)" in document["message"]
    assert b"warning: the run finished without some sites" in err
    assert BOB.encode() in err.partition(b"warning:")[2]

    run.refresh()
    assert (replies(run, ALICE), replies(run, BOB)) == (["ok"], ["APP_RAISED"])
    assert faults.tasks(BOB, run) == [("train", False, "APP_RAISED")]
    until(lambda: not faults.apps(), 15, "the apps ended")
    texts = [f"{word}-{faults.sums[BOB]}" for word in ("private", "printed")]
    assert all(text in faults.log(BOB, run) for text in texts)
    run.results(tmp_path / "results")
    told_to_carol = [out, err, *(path.read_bytes() for path in _files(tmp_path / "results"))]
    # The bus, SuperLink's database and logs, the object store; and all that the scientist's programs keep.
    kept = [
        path.read_bytes()
        for path in [*_files(faults.mesh.state / "hub"), *_files(faults.mesh.state / "profiles")]
    ]
    mesh_log = (faults.mesh.state.parent / f"{faults.mesh.state.name}.log").read_bytes()
    assert len(kept) > 10
    for text in texts:
        assert not any(text.encode() in data for data in [*told_to_carol, *kept, mesh_log]), text


def test_a_failed_site_ends_a_run_that_needs_all(faults: World) -> None:
    run = faults.run({1: {1: "raise"}}, minimum_sites=2)
    assert (run.state, run.reason) == ("failed", "TOO_FEW_SITES")
    assert f"{BOB}: APP_RAISED" in run.message
    assert ALICE not in run.message
    assert (replies(run, ALICE), replies(run, BOB)) == (["ok"], ["APP_RAISED"])
    seen = faults.proposal(ALICE, run)
    assert (seen.train_tasks_done, seen.refused_tasks) == (1, 0)
    assert seen.sent_bytes > 0
    faults.no_app_is_left()


def test_an_update_that_may_not_leave_stays_and_the_mesh_stays_small(faults: World) -> None:
    expected = {
        "nan": "UPDATE_NOT_FINITE",
        "shape": "UPDATE_SCHEMA",
        "text": "UPDATE_SCHEMA",
        "bytes": "UPDATE_SCHEMA",
        "metrics": "METRICS_TOO_MANY",
        "huge": "UPDATE_TOO_LARGE",
        "large": "UPDATE_TOO_LARGE",
        "": "ok",
    }
    plan = {1: dict(enumerate(expected, start=1))}
    mesh = psutil.Process(faults.mesh.process.pid)
    peak = [before := mesh.memory_info().rss]
    started = time.monotonic()
    run, ended = faults.begin(plan, rounds=len(expected), minimum_sites=1)
    while not ended.done():
        peak.append(mesh.memory_info().rss)
        time.sleep(0.02)
    ended.result()
    grown = (max(peak) - before) // MIB
    told(f"{len(expected)} updates that may not leave; the mesh grew by {grown} MiB at most", started)
    assert (run.state, run.reason) == ("partial", "SITES_DROPPED_OUT")
    assert f"{BOB} gave nothing in round 1 (UPDATE_NOT_FINITE)" in run.message
    assert replies(run, BOB) == list(expected.values())
    assert replies(run, ALICE) == ["ok"] * len(expected)
    refused = [("train", reason == "ok", "" if reason == "ok" else reason) for reason in expected.values()]
    assert faults.tasks(BOB, run) == refused
    seen = faults.proposal(BOB, run)
    assert (seen.train_tasks_done, seen.refused_tasks) == (1, len(expected) - 1)
    assert seen.sent_bytes < 10_000
    # A gigabyte is refused before it is there; the other is 64 MiB, copied a few times.
    assert grown < 400
    faults.no_app_is_left()


def test_an_app_that_hangs_dies_or_eats_memory_costs_its_round_alone(faults: World) -> None:
    plan = {1: {1: "exit", 2: "hog", 3: "hang"}}
    run = faults.run(plan, rounds=4, minimum_sites=1, dataset=QUICK)
    assert (run.state, run.reason) == ("partial", "SITES_DROPPED_OUT")
    assert f"{BOB} gave nothing in round 1 (APP_ENDED)" in run.message
    assert replies(run, BOB) == ["APP_ENDED", "OUT_OF_MEMORY", "APP_TIMEOUT", "ok"]
    assert replies(run, ALICE) == ["ok"] * 4
    hung = next(report for report in run.rounds if report.round == 3)
    assert QUICK_S <= (hung.ended_ms - hung.started_ms) / 1000 < QUICK_S + 8
    reasons = [reason for _, _, reason in faults.tasks(BOB, run)]
    assert reasons == ["APP_ENDED", "OUT_OF_MEMORY", "APP_TIMEOUT", ""]
    faults.no_app_is_left()


def test_leaving_and_cancelling_end_apps_that_hang(faults: World) -> None:
    run, ended = faults.begin({1: {1: "hang"}, 0: {2: "hang"}}, rounds=2, minimum_sites=1)
    until(
        lambda: faults.at_work(run, 1) and faults.tasks(ALICE, run), 60, "Bob's app hangs, Alice's answered"
    )
    assert _apps_at(faults, BOB)
    started = time.monotonic()
    assert faults.people[BOB].site.fl.leave(run.id, "patients ask").state == "withdrawn"
    until(lambda: not _apps_at(faults, BOB), 10, "the process of Bob's app is gone")
    told("the owner left; the app was ended", started)
    assert faults.tasks(BOB, run) == [("train", False, "CANCELLED")]
    until(lambda: replies(run.refresh(), BOB)[:1] == ["NODE_UNAVAILABLE"], 15, "round 1 ends without Bob")
    assert (run.sites[1].state, run.sites[1].reason) == ("withdrawn", "LEFT_BY_OWNER")
    assert run.state == "running"

    until(lambda: faults.at_work(run, 2), 30, "round 2 is at Alice's site, and hangs")
    started = time.monotonic()
    faults.carol.fl.get(run.id).cancel("no more")
    faults.no_app_is_left(10)
    told("the run was cancelled; the apps were ended", started)
    ended.result(20)
    assert (run.state, run.reason) == ("cancelled", "CANCELLED")
    assert "no more" in run.message
    assert faults.proposal(ALICE, run).state in ("cancelled", "finished")
    assert faults.tasks(ALICE, run) == [("train", True, ""), ("train", False, "CANCELLED")]
    assert faults.proposal(BOB, run).state == "withdrawn"


def test_at_last_no_process_stays_but_what_waits_for_the_next_run(faults: World) -> None:
    assert not faults.apps()
    assert not faults.servers()
    until(lambda: not faults.processes("flower-supernode"), 30, "the idle SuperNodes are ended")


def _proposed(faults: World, site: str, run_id: str) -> bool:
    return any(p.run_id == run_id for p in faults.people[site].site.fl.proposals())


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _apps_at(faults: World, site: str) -> list[int]:
    """Return the processes of apps that see the data of a site."""
    found = []
    for process in faults.apps():
        with suppress(OSError):
            if f"/{site}/" in Path(f"/proc/{process.pid}/mountinfo").read_text():
                found.append(process.pid)
    return found
