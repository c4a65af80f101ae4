"""The pure rules of a federated run: what may begin, what each word changes, how it ends."""

from __future__ import annotations

from typing import Any

import pytest
from syftmesh_core.bundle import read_bundle
from syftmesh_core.errors import InvalidInput, MeshError, WrongState
from syftmesh_superlink.domain import progress
from syftmesh_superlink.domain.draft import Draft, check_draft
from syftmesh_superlink.domain.federation_name import federation_name, parse_federation
from syftmesh_superlink.domain.liveness import Sight, TaskEnd, seen
from syftmesh_superlink.domain.progress import AggregatorReport
from syftmesh_superlink.domain.run import (
    Artifact,
    Phase,
    RoundReport,
    RunState,
    SiteReply,
    SiteRun,
    SiteState,
)
from syftmesh_superlink.domain.verdict import Outcome, final, hopeless

ASKED, AWAITING, APPROVED = SiteState.ASKED, SiteState.AWAITING_APPROVAL, SiteState.APPROVED
DENIED, WITHDRAWN, OUT = SiteState.DENIED, SiteState.WITHDRAWN, SiteState.FAILED


def fails(kind: type[MeshError], call: Any, *arguments: Any) -> MeshError:
    with pytest.raises(kind) as caught:
        call(*arguments)
    return caught.value


# drafts


def draft(make: Any, **changes: Any) -> Draft:
    return Draft(**{"sites": (make.BOB, make.CARL), "dataset": "tiny", "rounds": 3, **changes})


def test_a_draft_gets_its_defaults(make: Any) -> None:
    bundle = read_bundle(make.fab())
    found = check_draft(draft(make, sites=("Bob@Y.example",)), bundle, make.START_MS)
    run = found.run("7", "f", make.ANNA, bundle, make.START_MS)
    assert (run.minimum_sites, run.deadline_ms - make.START_MS) == (1, 7 * 24 * 3600 * 1000)
    assert [(site.site, site.state) for site in run.sites] == [(make.BOB, ASKED)]
    assert (run.state, run.run_config_json, run.app_name) == (RunState.PENDING, "{}", "anna/tiny==1.0.0")


def test_a_number_stays_what_it_is_in_the_app(make: Any) -> None:
    found = check_draft(
        draft(make, run_config_json='{"nested.flag":false,"rate":1,"rounds":4}'), read_bundle(make.fab()), 0
    )
    assert found.config == {"rate": 1.0, "rounds": 4, "nested.flag": False}
    assert type(found.config["rate"]) is float
    assert type(found.config["rounds"]) is int


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("sites", {"sites": ()}),
        ("sites", {"sites": ("nobody",)}),
        ("sites", {"sites": ("bob@y.example", "Bob@y.example")}),
        ("sites", {"sites": tuple(f"s{n}@y.example" for n in range(65))}),
        ("dataset", {"dataset": ""}),
        ("dataset", {"dataset": "../x"}),
        ("rounds", {"rounds": 0}),
        ("rounds", {"rounds": 2501}),
        ("minimum_sites", {"minimum_sites": 3}),
        ("deadline", {"deadline_ms": 1}),
        ("deadline", {"deadline_ms": 31 * 24 * 3600 * 1000 + 1000}),
        ("purpose", {"purpose": "x" * 1001}),
        ("run_config_json", {"run_config_json": "[]"}),
        ("run_config_json", {"run_config_json": "{"}),
        ("run_config_json", {"run_config_json": '{"rate":null}'}),
        ("run_config_json", {"run_config_json": '{"rate":[1]}'}),
        ("run_config_json", {"run_config_json": '{"other":1}'}),
        ("run_config_json", {"run_config_json": '{"rounds":2.5}'}),
        ("run_config_json", {"run_config_json": '{"rate":NaN}'}),
        ("run_config_json", {"run_config_json": "[" * 60000}),
        ("run_config_json", {"run_config_json": " " * 70000}),
    ],
)
def test_a_draft_that_makes_no_run_is_refused(make: Any, field: str, changes: dict[str, Any]) -> None:
    bundle = read_bundle(make.fab())
    error = fails(InvalidInput, check_draft, draft(make, **changes), bundle, 1000)
    assert (error.reason, error.metadata["field"]) == ("RUN_INVALID", field)


# the name of a federation


@pytest.mark.parametrize(
    ("dataset", "sites"),
    [
        ("tiny", ("a@x.org",)),
        ("breast-cancer_2", ("a.b+c_d%e-f@x-y.example.org", "b@y.org", "_x@y.org", ".x@y.org")),
    ],
)
def test_a_federations_name_leads_back_and_passes_flowers_own_check(
    dataset: str, sites: tuple[str, ...]
) -> None:
    from flwr.supercore.utils import check_federation_format

    name = federation_name(dataset, sites)
    check_federation_format(name)
    assert parse_federation(name) == (dataset, sites)


def test_a_plain_name_is_read_too() -> None:
    assert parse_federation("@tiny/a@x.org,b@y.org") == ("tiny", ("a@x.org", "b@y.org"))
    assert parse_federation("@tiny/a@x.org") == ("tiny", ("a@x.org",))


@pytest.mark.parametrize("name", ["", "tiny", "@tiny", "@tiny/", "@/a@x.org", "@a/b/c"])
def test_another_name_is_refused_and_says_how(name: str) -> None:
    error = fails(InvalidInput, parse_federation, name)
    assert error.reason == "RUN_INVALID"
    assert "--federation @breast-cancer/a_40x_2eorg__b_40y_2eorg" in error.message


# a site's word


@pytest.mark.parametrize("state", [AWAITING, APPROVED])
def test_a_site_says_where_it_is(make: Any, state: SiteState) -> None:
    run = progress.site_reported(make.run(ASKED, ASKED), make.BOB, state, "IGNORED", 5)
    assert run.site(make.BOB) == SiteRun(make.BOB, state, "", 5)
    assert run.state is RunState.AWAITING_APPROVAL


def test_what_a_site_says_twice_or_late_changes_nothing(make: Any) -> None:
    run = progress.site_reported(make.run(ASKED, ASKED), make.BOB, APPROVED, "", 5)
    assert progress.site_reported(run, make.BOB, APPROVED, "", 9) is run
    assert progress.site_reported(run, make.BOB, AWAITING, "", 9) is run
    out = progress.site_reported(make.run(ASKED, ASKED, minimum_sites=1), make.BOB, DENIED, "NO", 5)
    assert progress.site_reported(out, make.BOB, DENIED, "NO", 9) is out


@pytest.mark.parametrize("state", [DENIED, WITHDRAWN, OUT])
def test_who_is_out_stays_out(make: Any, state: SiteState) -> None:
    run = make.run(state, APPROVED, minimum_sites=1)
    for word in (AWAITING, APPROVED):
        assert fails(WrongState, progress.site_reported, run, make.BOB, word, "", 5).reason == "WRONG_STATE"


@pytest.mark.parametrize("reason", ["lower", "A-B", "X" * 65, "1A"])
def test_a_reason_is_a_constant(make: Any, reason: str) -> None:
    run = make.run(ASKED, ASKED)
    assert (
        fails(InvalidInput, progress.site_reported, run, make.BOB, DENIED, reason, 5).reason
        == "REPORT_INVALID"
    )
    assert fails(InvalidInput, progress.site_reported, run, make.BOB, ASKED, "", 5).reason == "REPORT_INVALID"


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.PARTIAL, RunState.FAILED, RunState.CANCELLED])
def test_nothing_changes_a_run_that_is_over(make: Any, state: RunState) -> None:
    run = make.run(APPROVED, APPROVED, state=state)
    for call, arguments in (
        (progress.site_reported, (run, make.BOB, WITHDRAWN, "", 5)),
        (progress.aggregator_reported, (run, AggregatorReport(), 5)),
        (progress.may_start, (run, 5)),
        (progress.cancelled, (run, "")),
    ):
        assert fails(WrongState, call, *arguments).reason == "WRONG_STATE"
    assert seen(run, Sight(run.deadline_ms + 1, set(), 1000.0)) is run


def test_too_many_out_end_the_run_at_once_and_it_says_who_and_why(make: Any) -> None:
    run = make.run(ASKED, ASKED, minimum_sites=1)
    run = progress.site_reported(run, make.BOB, DENIED, "OWNER_DENIED", 5)
    assert run.state is RunState.AWAITING_APPROVAL
    run = progress.site_reported(run, make.CARL, OUT, "", 6)
    assert (run.state, run.reason) == (RunState.FAILED, "TOO_FEW_SITES")
    assert f"{make.BOB} denied (OWNER_DENIED); {make.CARL} failed" in run.message
    running = make.run(APPROVED, APPROVED, state=RunState.RUNNING)
    assert progress.site_reported(running, make.BOB, WITHDRAWN, "", 6).reason == "TOO_FEW_SITES"


# when it may start


@pytest.mark.parametrize(
    ("states", "minimum", "passed", "allowed"),
    [
        ((APPROVED, APPROVED), 2, 0.0, True),
        ((APPROVED, DENIED), 1, 0.0, True),
        ((APPROVED, AWAITING), 1, 0.0, False),
        ((APPROVED, ASKED), 1, 0.49, False),
        ((APPROVED, ASKED), 1, 0.5, True),
        ((APPROVED, ASKED), 2, 0.9, False),
        ((ASKED, ASKED), 1, 0.9, False),
    ],
)
def test_a_run_starts_when_all_have_decided_or_half_of_the_time_is_over(
    make: Any, states: tuple[SiteState, ...], minimum: int, passed: float, allowed: Any
) -> None:
    run = make.run(*states, minimum_sites=minimum)
    now_ms = run.created_ms + int((run.deadline_ms - run.created_ms) * passed)
    if allowed:
        progress.may_start(run, now_ms)
    else:
        assert fails(WrongState, progress.may_start, run, now_ms).reason == "APPROVAL_MISSING"


# the aggregator's report


def trained(*replies: tuple[str, bool, str], number: int = 1, phase: Phase = Phase.TRAIN) -> RoundReport:
    return RoundReport(number, phase, tuple(SiteReply(*reply) for reply in replies))


def test_a_proposal_that_arrived_or_failed_is_noted_unless_the_site_said_more(make: Any) -> None:
    run = make.run(ASKED, APPROVED, minimum_sites=1)
    told = AggregatorReport(
        proposed=(SiteRun(make.BOB, OUT, "SITE_UNREACHABLE"), SiteRun(make.CARL, OUT, "X"))
    )
    run = progress.aggregator_reported(run, told, 5)
    assert run.site(make.BOB) == SiteRun(make.BOB, OUT, "SITE_UNREACHABLE", 5)
    assert run.approved == (make.CARL,)
    assert run.state is RunState.AWAITING_APPROVAL


def test_a_phase_reported_again_replaces_the_one_before(make: Any) -> None:
    run = make.run(APPROVED, APPROVED, state=RunState.RUNNING)
    for ok in (False, True):
        run = progress.aggregator_reported(run, AggregatorReport(round=trained((make.BOB, ok, ""))), 5)
    assert [report.replies[0].ok for report in run.reports] == [True]


def test_an_artifact_written_again_replaces_the_one_before(make: Any) -> None:
    run = make.run(APPROVED, APPROVED)
    for size in (1, 2):
        artifact = Artifact("model", "p", "a" * 64, size)
        run = progress.aggregator_reported(run, AggregatorReport(artifacts=(artifact,)), 5)
    assert [artifact.size_bytes for artifact in run.artifacts] == [2]


def test_a_report_that_makes_no_sense_is_refused(make: Any) -> None:
    run = make.run(APPROVED, APPROVED)
    many = tuple(Artifact(f"n{n}", "p", "a" * 64, 1) for n in range(501))
    for told in (
        AggregatorReport(round=trained((make.ANNA, True, ""))),
        AggregatorReport(round=trained((make.BOB, True, ""), (make.BOB, True, ""))),
        AggregatorReport(round=trained((make.BOB, False, "no constant"))),
        AggregatorReport(round=trained(number=0)),
        AggregatorReport(proposed=(SiteRun(make.ANNA, AWAITING),)),
        AggregatorReport(proposed=(SiteRun(make.BOB, APPROVED),)),
        AggregatorReport(proposed=(SiteRun(make.BOB, OUT, "no constant"),)),
        AggregatorReport(artifacts=(Artifact("", "p", "a" * 64, 1),)),
        AggregatorReport(artifacts=(Artifact("n", "p", "A" * 64, 1),)),
        AggregatorReport(artifacts=(Artifact("n", "p" * 501, "a" * 64, 1),)),
        AggregatorReport(artifacts=many),
        AggregatorReport(outcome=Outcome(False, "no constant")),
    ):
        assert fails(InvalidInput, progress.aggregator_reported, run, told, 5).reason == "REPORT_INVALID"


def test_the_reports_of_a_run_have_an_end(make: Any) -> None:
    replies = tuple((site, True, "") for site in (make.BOB, make.CARL))
    reports = tuple(trained(*replies, number=n) for n in range(1, 5001))
    run = make.run(APPROVED, APPROVED, reports=reports)
    told = AggregatorReport(round=trained(*replies, number=5001))
    assert fails(InvalidInput, progress.aggregator_reported, run, told, 5).reason == "REPORT_INVALID"


# the end

FULL = (("bob@y.example", True, ""), ("carl@z.example", True, ""))
HALF = (("bob@y.example", True, ""), ("carl@z.example", False, "UPDATE_REFUSED"))
NONE = (("bob@y.example", False, "X"), ("carl@z.example", False, "X"))


@pytest.mark.parametrize(
    ("states", "minimum", "reports", "outcome", "state", "reason"),
    [
        ((APPROVED, APPROVED), 2, [FULL, FULL], Outcome(True), "succeeded", ""),
        ((APPROVED, APPROVED), 1, [FULL, FULL], Outcome(True), "succeeded", ""),
        ((APPROVED, APPROVED), 1, [FULL, HALF], Outcome(True), "partial", "SITES_DROPPED_OUT"),
        ((APPROVED, APPROVED), 1, [FULL, FULL[:1]], Outcome(True), "partial", "SITES_DROPPED_OUT"),
        ((APPROVED, DENIED), 1, [FULL[:1]], Outcome(True), "partial", "SITES_DROPPED_OUT"),
        ((APPROVED, WITHDRAWN), 1, [FULL], Outcome(True), "partial", "SITES_DROPPED_OUT"),
        ((APPROVED, APPROVED), 2, [FULL, HALF], Outcome(True), "failed", "TOO_FEW_SITES"),
        ((APPROVED, APPROVED), 1, [FULL, NONE], Outcome(True), "failed", "TOO_FEW_SITES"),
        ((APPROVED, APPROVED), 1, [FULL, ()], Outcome(True), "failed", "TOO_FEW_SITES"),
        ((APPROVED, APPROVED), 1, [NONE], Outcome(True), "failed", "NO_RESULTS"),
        ((APPROVED, APPROVED), 1, [()], Outcome(True), "failed", "NO_RESULTS"),
        ((APPROVED, APPROVED), 1, [], Outcome(True), "failed", "NO_RESULTS"),
        ((APPROVED, APPROVED), 1, [FULL], Outcome(False, "APP_ERROR", "boom"), "failed", "APP_ERROR"),
        ((APPROVED, APPROVED), 1, [FULL], Outcome(False), "failed", "SERVER_APP_FAILED"),
    ],
)
def test_the_end_is_what_the_reports_prove(
    make: Any, states: Any, minimum: int, reports: Any, outcome: Outcome, state: str, reason: str
) -> None:
    rounds = tuple(trained(*replies, number=n + 1) for n, replies in enumerate(reports))
    run = final(make.run(*states, minimum_sites=minimum, reports=rounds), outcome)
    assert (run.state.value, run.reason) == (state, reason)
    assert bool(run.message) == (state != "succeeded")


def test_drop_outs_are_named_with_round_and_reason(make: Any) -> None:
    run = make.run(APPROVED, APPROVED, minimum_sites=1, reports=(trained(*FULL), trained(*HALF, number=2)))
    assert final(run, Outcome(True)).message == f"{make.CARL} gave nothing in round 2 (UPDATE_REFUSED)."


def test_evaluation_decides_nothing_and_queries_do_where_nothing_was_trained(make: Any) -> None:
    weak = trained(*NONE, phase=Phase.EVALUATE)
    run = make.run(APPROVED, APPROVED, reports=(trained(*FULL), weak))
    assert final(run, Outcome(True)).state is RunState.SUCCEEDED
    asked = make.run(APPROVED, APPROVED, reports=(trained(*FULL, phase=Phase.QUERY), weak))
    assert final(asked, Outcome(True)).state is RunState.SUCCEEDED
    assert final(make.run(APPROVED, APPROVED, reports=(weak,)), Outcome(True)).reason == "NO_RESULTS"


def test_messages_of_ends_have_an_end(make: Any) -> None:
    assert len(final(make.run(APPROVED), Outcome(False, "X", "m" * 5000)).message) == 1000
    assert hopeless(make.run(APPROVED, ASKED)) is None


# time

BOTH = {"bob@y.example", "carl@z.example"}


@pytest.mark.parametrize(
    ("sight", "state", "reason"),
    [
        ({}, "running", ""),
        ({"silence_s": 20.0}, "running", ""),
        ({"silence_s": 20.5}, "held", "AGGREGATOR_AWAY"),
        ({"silence_s": 90.5}, "failed", "AGGREGATOR_LOST"),
        ({"connected": {"bob@y.example"}}, "held", "TOO_FEW_CONNECTED"),
        ({"end": TaskEnd.LOST, "ended_for_s": 10.0}, "failed", "AGGREGATOR_LOST"),
        ({"end": TaskEnd.FAILED, "ended_for_s": 10.0}, "failed", "SERVER_APP_FAILED"),
        ({"end": TaskEnd.UNKNOWN, "ended_for_s": 10.0}, "failed", "RUN_LOST"),
        ({"end": TaskEnd.COMPLETED, "ended_for_s": 10.0}, "failed", "NO_RESULTS"),
        ({"end": TaskEnd.COMPLETED, "ended_for_s": 9.0}, "running", ""),
        ({"now_ms": 10**15}, "failed", "DEADLINE_EXCEEDED"),
    ],
)
def test_time_holds_and_ends_a_run(make: Any, sight: dict[str, Any], state: str, reason: str) -> None:
    run = make.run(APPROVED, APPROVED, state=RunState.RUNNING)
    values = {"now_ms": make.START_MS, "connected": BOTH, "silence_s": 0.0, **sight}
    found = seen(run, Sight(**values))
    assert (found.state.value, found.reason) == (state, reason)


def test_a_held_run_goes_on(make: Any) -> None:
    run = make.run(APPROVED, APPROVED, state=RunState.HELD, reason="AGGREGATOR_AWAY", message="m")
    found = seen(run, Sight(make.START_MS, BOTH, 0.0))
    assert (found.state, found.reason, found.message) == (RunState.RUNNING, "", "")


def test_a_run_that_nobody_decided_ends_with_its_deadline_and_names_them(make: Any) -> None:
    run = make.run(APPROVED, AWAITING, state=RunState.AWAITING_APPROVAL)
    waiting = Sight(run.deadline_ms - 1, set(), 1e9)
    assert seen(run, waiting) is run
    found = seen(run, Sight(run.deadline_ms, set(), 0.0))
    assert (found.state, found.reason) == (RunState.FAILED, "DEADLINE_EXCEEDED")
    assert make.CARL in found.message
    assert make.BOB not in found.message
