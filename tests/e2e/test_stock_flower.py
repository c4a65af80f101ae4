"""Flower's own command line, unmodified: log in, run, follow, list, stop, over the hub that `syftmesh up` runs."""

from __future__ import annotations

import json
import re
import signal
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hospitals import APP, CAROL, DATASET, SITES, A, B, Background, Hospitals, Person, hospitals, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    with hospitals(tmp_path_factory.mktemp("stock")) as made:
        yield made


@pytest.fixture(scope="module")
def carol(mesh: Hospitals) -> Person:
    """Carol, whose Flower is logged in with a home folder of its own."""
    made = _with_home(mesh.carol)
    made.run("login", "--email", CAROL, "--flwr", "--sites", SITES, "--dataset", DATASET)
    return made


@pytest.fixture(scope="module")
def serving(carol: Person) -> Iterator[Background]:
    """Carol's aggregator, in the background."""
    begun = carol.start("serving", "fl", "serve")
    yield begun
    begun.stop()


def _with_home(person: Person, name: str = "flower") -> Person:
    home = person.folder / f"{name}-{person.email}"
    home.mkdir(mode=0o700)
    return replace(person, more={"FLWR_HOME": str(home)})


def _home(person: Person) -> Path:
    return Path(person.more["FLWR_HOME"])


def _started(begun: Background) -> str:
    return begun.until(r"Successfully started run (\d+)")[1]


def test_the_login_writes_a_connection_and_a_token_that_nobody_else_reads(
    mesh: Hospitals, carol: Person
) -> None:
    found = tomllib.loads((_home(carol) / "config.toml").read_text())["superlink"]["syftmesh"]
    assert (found["address"], found["insecure"]) == (mesh.server.removeprefix("http://"), True)
    assert found["federation"].startswith("@breast-cancer/")
    assert (_home(carol) / "credentials.yaml").stat().st_mode & 0o777 == 0o600


def test_a_stock_client_runs_follows_and_lists_a_run(
    mesh: Hospitals, carol: Person, serving: Background, tmp_path: Path
) -> None:
    running = carol.start("flwr-run", "run", str(APP), "syftmesh", "--stream", program="flwr")
    try:
        run_id = _started(running)
        serving.until(rf"run {run_id}: awaiting_approval")
        seen = mesh.proposed(mesh.b, run_id)
        assert (seen["stock"], seen["aggregator"]) == (True, CAROL)
        mesh.approve(run_id)
        done = running.end()
    finally:
        running.stop()
    assert done.code == 0, done
    told = [line.partition(":      ")[2] for line in done.out.splitlines() if line.startswith("INFO :")]
    assert told[0] == "2 sites take part; the ServerApp starts"
    assert [re.sub(r", [\d.]+ s$", "", line) for line in told[1:-1]] == [
        "round 1 train: 2 of 2 sites",
        "round 2 train: 2 of 2 sites",
        "round 3 train: 2 of 2 sites",
        "round 3 evaluate: 2 of 2 sites",
    ]
    assert told[-1] == f"the ServerApp has ended; next: syftmesh fl results {run_id} -o DIR"
    # What the ServerApp itself prints stays with the aggregator: not one line of its log is at the hub.
    carol.run("fl", "results", run_id, "-o", str(tmp_path))
    printed = (tmp_path / "logs/server.txt").read_text()
    assert "Starting" in printed
    assert "Starting FedAvg" not in done.out
    listed = json.loads(carol.run("ls", "syftmesh", "--format", "json", program="flwr").out)["runs"]
    assert [item["status"] for item in listed if item["run-id"] == run_id] == ["finished:completed"]
    log = carol.run("log", run_id, "syftmesh", "--show", program="flwr").out
    assert all(line in log for line in told)
    until(lambda: f"run {run_id}: succeeded" in serving.err)
    assert mesh.carol.json("fl", "show", run_id)["state"] == "succeeded"


def test_flwr_stop_cancels_the_run_and_the_owners_are_told(
    mesh: Hospitals, carol: Person, serving: Background
) -> None:
    out = carol.run("run", str(APP), "syftmesh", "--format", "json", program="flwr").out
    run_id = str(json.loads(out)["run-id"])
    serving.until(rf"run {run_id}: awaiting_approval")
    mesh.proposed(mesh.a, run_id)
    carol.run("stop", run_id, "syftmesh", program="flwr")
    assert mesh.carol.json("fl", "show", run_id)["state"] == "cancelled"
    until(lambda: mesh.a.json("fl", "show", run_id)["proposal"]["state"] == "cancelled")
    listed = json.loads(carol.run("ls", "syftmesh", "--format", "json", program="flwr").out)["runs"]
    assert [item["status"] for item in listed if item["run-id"] == run_id] == ["finished:stopped"]
    again = carol.run("stop", run_id, "syftmesh", program="flwr", code=1)
    assert "is over" in again.out + again.err


def test_who_is_not_logged_in_gets_nothing(mesh: Hospitals, carol: Person) -> None:
    stranger = _with_home(mesh.carol, "stranger")
    (_home(stranger) / "config.toml").write_text((_home(carol) / "config.toml").read_text())
    for arguments in (("run", str(APP), "syftmesh"), ("ls", "syftmesh"), ("stop", "17", "syftmesh")):
        refused = stranger.run(*arguments, program="flwr", code=1)
        assert "Successfully" not in refused.out
    (_home(stranger) / "credentials.yaml").write_text((_home(carol) / "credentials.yaml").read_text()[:40])
    stranger.run("ls", "syftmesh", program="flwr", code=1)


def test_another_persons_token_opens_no_run_of_carols(mesh: Hospitals, carol: Person) -> None:
    made = mesh.carol.json("fl", "run", str(APP), "--sites", SITES, "--dataset", DATASET, "--detach")
    dave = _with_home(mesh.dave)
    dave.run("login", "--email", dave.email, "--flwr", "--sites", SITES, "--dataset", DATASET)
    for verb in ("stop", "log"):
        refused = dave.run(verb, made["id"], "syftmesh", program="flwr", code=1)
        assert "no such run" in refused.out + refused.err
    assert json.loads(dave.run("ls", "syftmesh", "--format", "json", program="flwr").out)["runs"] == []
    owner = _with_home(mesh.a)
    owner.run("login", "--email", A, "--flwr", "--sites", B, "--dataset", DATASET)
    refused = owner.run("stop", made["id"], "syftmesh", program="flwr", code=1)
    assert "Only the aggregator" in refused.out + refused.err
    assert mesh.carol.json("fl", "show", made["id"])["state"] == "awaiting_approval"


def test_an_app_or_a_site_that_is_none_is_told_to_flower(mesh: Hospitals, carol: Person) -> None:
    before = len(mesh.carol.json("fl", "ls")["items"])
    for more, word in (
        (("--federation", "@breast-cancer/nobody"), "e-mail"),
        (("-c", "depth=3"), "depth"),
    ):
        refused = carol.run("run", str(APP), "syftmesh", *more, program="flwr", code=1)
        assert word in refused.out + refused.err
    assert len(mesh.carol.json("fl", "ls")["items"]) == before


def test_ctrl_c_ends_serving(serving: Background) -> None:
    serving.process.send_signal(signal.SIGINT)
    assert serving.end(20).code == 130
