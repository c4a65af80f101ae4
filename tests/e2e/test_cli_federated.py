"""Federated runs by the command line alone: who starts them in one process, who owns the data in others."""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from hospitals import APP, CAROL, DATASET, SITES, A, B, Background, Hospitals, hospitals, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

RUN = ("fl", "run", str(APP), "--sites", SITES, "--dataset", DATASET)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    with hospitals(tmp_path_factory.mktemp("hospitals")) as made:
        yield made


@pytest.fixture
def starts(mesh: Hospitals, request: pytest.FixtureRequest) -> Iterator[list[Background]]:
    """What a test starts ends with it."""
    begun: list[Background] = []
    yield begun
    for process in begun:
        process.stop()


def _id(begun: Background) -> str:
    return begun.until(r"run (\d+) was created")[1]


def test_a_run_from_the_proposal_to_the_model(
    mesh: Hospitals, starts: list[Background], tmp_path: Path
) -> None:
    running = mesh.carol.start("attached", *RUN, "--purpose", "a classifier", "--json")
    starts.append(running)
    run_id = _id(running)
    for owner in mesh.owners:
        seen = mesh.proposed(owner, run_id)
        assert (seen["role"], seen["state"], seen["purpose"]) == ("site", "awaiting_approval", "a classifier")
        asked = owner.json("fl", "show", run_id)["proposal"]
        assert (asked["aggregator"], asked["train_tasks"]) == (CAROL, 3)
        assert [recipient["email"] for recipient in asked["recipients"]] == [CAROL]
        assert "breast_cancer_fl/client_app.py" in asked["files"]
        code = {item["name"]: item["content"] for item in owner.json("fl", "code", run_id)["items"]}
        for name in ("client_app", "server_app", "task"):
            file = f"breast_cancer_fl/{name}.py"
            assert code[file] == (APP / file).read_text()
    refused = mesh.a.run("fl", "approve", run_id, code=2)
    assert refused.err.startswith("error: CONFIRMATION_NEEDED: ")
    assert mesh.carol.run("fl", "approve", run_id, "--yes", code=4).err.startswith("error: ")
    mesh.approve(run_id)
    done = running.end()
    assert done.code == 0, done
    for number in (1, 2, 3):
        assert f"  round {number} train, " in done.err
    assert "  round 3 evaluate, " in done.err
    assert f"next: syftmesh fl results {run_id} -o DIR" in done.err
    told = json.loads(done.out)
    assert (told["id"], told["state"], told["reason"]) == (run_id, "succeeded", "")
    shown = mesh.carol.json("fl", "show", run_id)
    assert [(r["round"], r["phase"]) for r in shown["rounds"]] == [
        (1, "train"),
        (2, "train"),
        (3, "train"),
        (3, "evaluate"),
    ]
    replies = [reply for phase in shown["rounds"] for reply in phase["replies"]]
    assert all(reply["ok"] and reply["received_bytes"] > 0 for reply in replies)
    assert {reply["site"] for reply in replies} == {A, B}
    mine = {item["id"]: item for item in mesh.carol.json("fl", "ls")["items"]}
    assert (mine[run_id]["role"], mine[run_id]["state"]) == ("aggregator", "succeeded")
    _check_results(mesh, run_id, tmp_path / "out")
    done_at = mesh.a.json("fl", "show", run_id)["proposal"]
    assert (done_at["train_tasks_done"], done_at["evaluate_tasks_done"]) == (3, 1)
    assert done_at["sent_bytes"] > 0
    assert mesh.carol.run("fl", "cancel", run_id, "--yes", code=5).err.startswith("error: WRONG_STATE: ")
    assert mesh.dave.run("fl", "show", run_id, code=4).err.startswith("error: RUN_UNKNOWN: ")


def _check_results(mesh: Hospitals, run_id: str, folder: Path) -> None:
    listed = {item["name"] for item in mesh.carol.json("fl", "results", run_id)["items"]}
    written = mesh.carol.json("fl", "results", run_id, "-o", str(folder))["files"]
    assert {str(Path(file).relative_to(folder)) for file in written} == listed
    assert {"model.safetensors", "metrics.json", "logs/server.txt", "output/model.npz"} <= listed
    metrics = json.loads((folder / "metrics.json").read_bytes())
    assert metrics["evaluate_metrics_clientapp"]["3"]["accuracy"] > 0.95
    with np.load(io.BytesIO((folder / "output/model.npz").read_bytes())) as model:
        assert model["weights"].shape == (30,)
    # What the owners' data look like is none of the results.
    assert mesh.a.run("fl", "results", run_id, "-o", str(folder / "a"), code=4).err.count("error: ") == 1


def test_one_owners_no_ends_a_run_that_needs_both(mesh: Hospitals, starts: list[Background]) -> None:
    running = mesh.carol.start("denied", *RUN)
    starts.append(running)
    run_id = _id(running)
    watching = mesh.carol.start("watching", "fl", "watch", run_id)
    starts.append(watching)
    mesh.proposed(mesh.b, run_id)
    denied = mesh.b.json("fl", "deny", run_id, "--reason", "a word for our own records")
    assert denied["state"] == "denied"
    for process in (running, watching):
        done = process.end()
        assert done.code == 1, done
        assert "DENIED_BY_OWNER" in done.err
        assert "our own records" not in done.err + done.out
    failed = mesh.carol.json("fl", "show", run_id)
    assert (failed["state"], failed["reason"], failed["rounds"]) == ("failed", "TOO_FEW_SITES", [])
    assert mesh.b.run("fl", "approve", run_id, "--yes", code=5).err.startswith("error: WRONG_STATE: ")


def test_a_run_goes_on_without_a_site_and_says_so(
    mesh: Hospitals, starts: list[Background], tmp_path: Path
) -> None:
    made = mesh.carol.json(*RUN, "--minimum-sites", "1", "--rounds", "1", "--detach")
    run_id = made["id"]
    assert (made["state"], made["config"]) == ("awaiting_approval", {"num-server-rounds": 1})
    mesh.proposed(mesh.b, run_id)
    mesh.b.json("fl", "deny", run_id, "--reason", "not this time")
    mesh.approve(run_id, [mesh.a])
    away = mesh.a.run("fl", "aggregate", run_id, code=3)
    assert away.err.startswith("error: NOT_THE_AGGREGATOR: ")
    watching = mesh.carol.start("watching-partial", "fl", "watch", run_id, "--json")
    aggregating = mesh.carol.start("aggregating", "fl", "aggregate", run_id, "--json")
    starts += [watching, aggregating]
    for process in (aggregating, watching):
        done = process.end()
        assert done.code == 0, done
        assert "warning: the run finished without some sites" in done.err
        told = json.loads(done.out)
        assert (told["state"], told["reason"]) == ("partial", "SITES_DROPPED_OUT")
        assert [len(phase["replies"]) for phase in told["rounds"]] == [1, 1]
    mesh.carol.json("fl", "results", run_id, "-o", str(tmp_path))
    assert (tmp_path / "model.safetensors").stat().st_size > 0


def test_ctrl_c_cancels_the_run_everywhere(mesh: Hospitals, starts: list[Background]) -> None:
    running = mesh.carol.start("interrupted", *RUN)
    starts.append(running)
    run_id = _id(running)
    mesh.proposed(mesh.a, run_id)
    running.until("awaiting_approval")
    running.process.send_signal(signal.SIGINT)
    done = running.end()
    assert done.code == 130, done
    assert mesh.carol.json("fl", "show", run_id)["state"] == "cancelled"
    assert "stopped it from the keyboard" in mesh.carol.run("fl", "watch", run_id, code=1).err
    until(lambda: mesh.a.json("fl", "show", run_id)["proposal"]["state"] == "cancelled")
    assert mesh.a.run("fl", "approve", run_id, "--yes", code=5).err.startswith("error: WRONG_STATE: ")


@pytest.mark.parametrize(
    ("more", "code", "reason"),
    [
        (("--rounds", "0"), 2, "RUN_INVALID"),
        (("--config", "depth=3"), 2, "CONFIG_INVALID"),
        (("--config", "learning-rate=fast"), 2, "CONFIG_INVALID"),
        (("--minimum-sites", "3"), 2, "RUN_INVALID"),
        (("--sites", "nobody"), 2, "PRINCIPAL_INVALID"),
        (("--sites", A), 2, "RUN_INVALID"),
        (("--dataset", "a/b"), 2, "RUN_INVALID"),
        (("--deadline", "soon"), 2, "DURATION_INVALID"),
    ],
)
def test_a_run_that_cannot_be_is_refused_and_creates_nothing(
    mesh: Hospitals, more: tuple[str, ...], code: int, reason: str
) -> None:
    before = len(mesh.carol.json("fl", "ls")["items"])
    done = mesh.carol.run(*RUN, *more, code=code)
    assert f"error: {reason}: " in done.err
    assert done.out == ""
    assert len(mesh.carol.json("fl", "ls")["items"]) == before


def test_an_app_that_is_none_is_refused(mesh: Hospitals, tmp_path: Path) -> None:
    around = ("--sites", SITES, "--dataset", DATASET)
    gone = mesh.carol.run("fl", "run", str(tmp_path / "nothing"), *around, code=4)
    assert "error: LOCAL_FILE_MISSING: " in gone.err
    (tmp_path / "pyproject.toml").write_text("[tool.flwr.app\n")
    broken = mesh.carol.run("fl", "run", str(tmp_path), *around, code=2)
    assert "error: BUNDLE_INVALID: " in broken.err


@pytest.mark.parametrize(
    ("site", "dataset", "reason"),
    [(SITES, "nothing", "DATASET_UNKNOWN"), ("nobody@nowhere.example", DATASET, "PRINCIPAL_UNKNOWN")],
)
def test_what_a_site_does_not_have_fails_the_run_with_the_reason(
    mesh: Hospitals, site: str, dataset: str, reason: str
) -> None:
    done = mesh.carol.run("fl", "run", str(APP), "--sites", site, "--dataset", dataset, "--json", code=1)
    told = json.loads(done.out)
    assert (told["state"], told["reason"]) == ("failed", "TOO_FEW_SITES")
    assert reason in [part["reason"] for part in told["sites"]]
    assert reason in told["message"]
    assert '"level"' not in done.err


def test_who_may_not_see_the_dataset_is_told_that_there_is_none(mesh: Hospitals) -> None:
    done = mesh.dave.run(*RUN, "--json", code=1)
    assert {part["reason"] for part in json.loads(done.out)["sites"]} <= {"DATASET_UNKNOWN", ""}
    assert "DATASET_UNKNOWN" in done.out


@pytest.mark.parametrize("verb", ["show", "watch", "aggregate", "results", "cancel", "approve", "code"])
@pytest.mark.parametrize("run_id", ["17", "nonsense"])
def test_a_run_that_is_none_is_not_found(mesh: Hospitals, verb: str, run_id: str) -> None:
    person = mesh.a if verb in ("approve", "code") else mesh.carol
    assert person.run("fl", verb, run_id, "--yes", code=4).err.startswith("error: RUN_UNKNOWN: ")


def test_a_run_is_cancelled_by_its_starter_only(mesh: Hospitals) -> None:
    run_id = mesh.carol.json(*RUN, "--detach")["id"]
    mesh.proposed(mesh.a, run_id)
    assert mesh.carol.run("fl", "cancel", run_id, code=2).err.startswith("error: CONFIRMATION_NEEDED: ")
    refused = mesh.a.run("fl", "cancel", run_id, "--yes", code=3)
    assert refused.err.startswith("error: NOT_THE_AGGREGATOR: ")
    ended = mesh.carol.json("fl", "cancel", run_id, "--yes", "--reason", "a mistake")
    assert ended["state"] == "cancelled"
