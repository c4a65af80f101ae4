"""What owners decide, or do not, about federated runs: who waits is seen, nothing starts without them, terms hold."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.errors import WrongState

sys.path.insert(0, str(Path(__file__).parent))
from flower_apps import (
    ALICE,
    BOB,
    CAROL,
    DATASET,
    EVE,
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
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def owners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("owners")) as made:
        yield made


def test_an_owner_who_never_answers_is_named_and_the_run_can_be_cancelled(owners: World) -> None:
    run = owners.ask()
    owners.approve(run, ALICE)
    until(lambda: run.refresh().sites[0].state == "approved", 10, "the hub knows that Alice approved")
    code, shown, _ = _program(owners, CAROL, "show", run.id)
    assert (code, shown["state"]) == (0, "awaiting_approval")
    assert {site["site"]: site["state"] for site in shown["sites"]} == {
        ALICE: "approved",
        BOB: "awaiting_approval",
    }
    waiting = owners.threads.submit(run.aggregate)
    time.sleep(1.0)
    assert not waiting.done()
    assert not owners.servers()
    code, shown, _ = _program(owners, CAROL, "cancel", run.id, "--yes")
    assert (code, shown["state"], shown["reason"]) == (0, "cancelled", "CANCELLED")
    assert waiting.result(10).state == "cancelled"
    for owner in SITES:
        until(lambda owner=owner: owners.proposal(owner, run).state == "cancelled", 15, f"{owner} knows")
        assert owners.tasks(owner, run) == []
    with pytest.raises(WrongState) as late:
        owners.approve(run, BOB)
    assert late.value.reason == "WRONG_STATE"


def test_a_denied_run_that_needs_all_ends_before_anything_starts(owners: World) -> None:
    run = owners.ask()
    owners.approve(run, ALICE)
    owners.people[BOB].site.fl.deny(run.id, "not this dataset")
    ended = owners.threads.submit(run.aggregate).result(15)
    assert (ended.state, ended.reason, ended.rounds) == ("failed", "TOO_FEW_SITES", ())
    assert f"{BOB} denied (DENIED_BY_OWNER)" in ended.message
    assert "not this dataset" not in ended.message
    assert not owners.servers()
    for owner in SITES:
        assert owners.tasks(owner, run) == []
    code, shown, _ = _program(owners, CAROL, "watch", run.id)
    assert (code, shown["state"]) == (1, "failed")


def test_a_run_that_is_denied_by_one_goes_on_with_those_it_needs(owners: World) -> None:
    run = owners.ask(minimum_sites=1)
    owners.people[BOB].site.fl.deny(run.id, "no")
    owners.approve(run, ALICE)
    ended = owners.threads.submit(run.aggregate).result(60)
    assert (ended.state, ended.reason) == ("partial", "SITES_DROPPED_OUT")
    assert f"{BOB} denied (DENIED_BY_OWNER)" in ended.message
    assert (replies(ended, ALICE), replies(ended, BOB)) == (["ok"], [""])
    assert owners.tasks(BOB, run) == []
    owners.no_app_is_left()


def test_a_run_that_is_not_decided_ends_with_its_deadline(owners: World) -> None:
    started = time.monotonic()
    run = owners.ask(deadline_s=5)
    owners.approve(run, ALICE)
    ended = owners.threads.submit(run.aggregate).result(15)
    told("the deadline passed", started)
    assert (ended.state, ended.reason) == ("failed", "DEADLINE_EXCEEDED")
    assert f"Not decided: {BOB}." in ended.message
    assert 5 <= time.monotonic() - started < 12
    # Nobody can approve what is over, whether the site has looked at its clock since or not.
    with pytest.raises(WrongState) as late:
        owners.people[BOB].site.fl.approve(run.id)
    assert late.value.reason in {"APPROVAL_EXPIRED", "WRONG_STATE"}
    for owner in SITES:
        assert owners.tasks(owner, run) == []
    assert not owners.apps()


def test_an_approval_of_other_terms_is_refused_and_audited(owners: World) -> None:
    run = owners.ask()
    seen = owners.proposal(ALICE, run)
    for term, other in (
        ("app_digest", replace(seen, app_digest="0" * 64)),
        ("train_tasks", replace(seen, train_tasks=99)),
        ("run_config", replace(seen, run_config={**seen.run_config, "plan": "[]"})),
    ):
        with pytest.raises(WrongState) as refused:
            owners.people[ALICE].site.fl.approve(other)
        assert (refused.value.reason, refused.value.metadata["term"]) == ("APPROVAL_MISMATCH", term)
    assert owners.people[ALICE].site.fl.approve(seen).state == "approved"
    with pytest.raises(WrongState) as second:
        owners.people[ALICE].site.fl.approve(replace(seen, app_digest="0" * 64))
    assert second.value.reason in {"WRONG_STATE", "APPROVAL_MISMATCH"}
    entries = owners.people[ALICE].site.audit.query(kind="federated.attempt_refused")
    assert len([entry for entry in entries if entry.fields["run_id"] == run.id]) == 4
    assert owners.proposal(ALICE, run).app_digest == seen.app_digest
    run.cancel()


@pytest.mark.parametrize("dataset", [DATASET, "nothing-of-that-name"])
def test_a_dataset_that_one_may_not_see_is_as_if_it_did_not_exist(owners: World, dataset: str) -> None:
    # With a minimum of one, both have to refuse before the run is over.
    run = owners.people[EVE].fl.run(owners.app, SITES, dataset, purpose=PURPOSE, minimum_sites=1)
    until(lambda: run.refresh().final, 15, "the run ends")
    assert (run.state, run.reason) == ("failed", "TOO_FEW_SITES")
    for site in run.sites:
        assert (site.state, site.reason) == ("failed", "DATASET_UNKNOWN")
        assert f"{site.site} failed (DATASET_UNKNOWN)" in run.message
        assert run.id not in [p.run_id for p in owners.people[site.site].site.fl.proposals()]
        entries = owners.people[site.site].site.audit.query(kind="federated.proposal_refused")
        (entry,) = [entry for entry in entries if entry.fields["run_id"] == run.id]
        assert (entry.actor, entry.fields["reason"]) == (EVE, "DATASET_UNKNOWN")


def test_an_app_that_asks_for_more_rounds_than_approved_is_refused_them(owners: World) -> None:
    run = owners.run(config={"more-rounds": 1})
    assert (run.state, run.reason) == ("failed", "NO_RESULTS")
    assert "Round 2" in run.message
    for site in SITES:
        assert f"{site}: TASKS_EXHAUSTED" in run.message
        assert replies(run, site) == ["ok", "TASKS_EXHAUSTED"]
        assert owners.tasks(site, run) == [("train", True, ""), ("train", False, "TASKS_EXHAUSTED")]
        seen = owners.proposal(site, run)
        assert (seen.train_tasks, seen.train_tasks_done, seen.refused_tasks) == (1, 1, 1)
    owners.no_app_is_left()


def _program(owners: World, email: str, *arguments: str) -> tuple[int, Any, str]:
    """Call ``fl`` of the program; return exit code, document and what it told people."""
    done = subprocess.run(
        [sys.executable, "-m", "syftmesh.cli", "fl", *arguments, "--json"],
        env=environment(owners.mesh.state, email),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr
