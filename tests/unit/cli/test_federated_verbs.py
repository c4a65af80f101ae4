"""Verbs of federated runs on a client that is made of dictionaries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh.run_status import (
    RoundReport,
    RunArtifact,
    RunSnapshot,
    RunState,
    SiteReply,
    SiteRun,
    SiteState,
)
from syftmesh.site_run import Proposal
from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.errors import IntegrityFailure, MeshError, NotFound, Unavailable, WrongState
from syftmesh_core.federated import ProposalState, UpdateLimits

ALICE, BOB, CAROL = "alice@hospital.example", "bob@clinic.example", "carol@lab.example"
RUN, OTHER = "17446744073709551615", "23"
EVIL = "\x1b[31m[red]x\nerror: INTERNAL: no"
SITES = ("--sites", f"{ALICE},{BOB}", "--dataset", "breast-cancer")

PENDING = RunSnapshot(
    id=RUN,
    state=RunState.AWAITING_APPROVAL,
    sites=(SiteRun(ALICE, SiteState.AWAITING_APPROVAL), SiteRun(BOB, SiteState.ASKED)),
    rounds=(),
    dataset="breast-cancer",
    rounds_asked=3,
    minimum_sites=2,
    aggregator=CAROL,
    app_name="lab/app 1.0.0",
    app_digest="a" * 64,
    run_config_json='{"rate":0.5}',
    purpose=EVIL,
    deadline_ms=1_767_225_600_000,
)
TRAIN = RoundReport(
    1,
    "train",
    (SiteReply(ALICE, ok=True, received_bytes=2048), SiteReply(BOB, ok=False, reason="GATE")),
    0,
    1500,
)
RUNNING = replace(
    PENDING,
    state=RunState.RUNNING,
    sites=(
        SiteRun(ALICE, SiteState.APPROVED, connected=True),
        SiteRun(BOB, SiteState.DENIED, "DENIED_BY_OWNER"),
    ),
)
MODEL = RunArtifact("model.npz", f"{CAROL}/x", "b" * 64, 9)
SUCCEEDED = replace(RUNNING, state=RunState.SUCCEEDED, rounds=(TRAIN,), artifacts=(MODEL,))
PARTIAL = replace(SUCCEEDED, state=RunState.PARTIAL, reason="SITES_LOST", message=f"{BOB} left")
FAILED = replace(RUNNING, state=RunState.FAILED, reason="APP_FAILED")
CANCELLED = replace(RUNNING, state=RunState.CANCELLED, reason="CANCELLED")

PROPOSAL = Proposal(
    run_id=RUN,
    site=ALICE,
    state=ProposalState.AWAITING_APPROVAL,
    reason="",
    message="",
    aggregator=CAROL,
    app_digest="a" * 64,
    app_name="lab/app 1.0.0",
    dataset=DatasetVersion("breast-cancer", "d" * 64),
    run_config={"rate": 0.5},
    recipients=(Recipient(CAROL, "c" * 64),),
    train_tasks=3,
    evaluate_tasks=6,
    limits=UpdateLimits(1 << 20, 2.5, 20, 8),
    purpose=EVIL,
    runtime_digest="e" * 64,
    partition=0,
    partitions=2,
    train_tasks_done=0,
    evaluate_tasks_done=0,
    refused_tasks=0,
    sent_bytes=0,
    created_ms=1_767_225_600_000,
    updated_ms=1_767_225_600_000,
    expires_ms=1_767_225_700_000,
)


@dataclass
class Run:
    """A run; `steps` are what happens to it while it is aggregated or watched."""

    snapshot: RunSnapshot = PENDING
    steps: list[Any] = field(default_factory=lambda: [PENDING, RUNNING, SUCCEEDED])
    done: list[Any] = field(default_factory=list)
    refusal: MeshError | None = None

    @property
    def id(self) -> str:
        return self.snapshot.id

    @property
    def state(self) -> RunState:
        return self.snapshot.state

    def watch(self) -> Iterator[RunSnapshot]:
        for step in self.steps:
            if isinstance(step, BaseException):
                raise step
            self.snapshot = step
            yield step

    def aggregate(self, tell: Any = None) -> Run:
        self.done.append("aggregate")
        for step in self.watch():
            tell(step)
        return self

    def cancel(self, reason: str = "") -> Run:
        self.done.append(("cancel", reason))
        if self.refusal:
            raise self.refusal
        self.snapshot = CANCELLED
        return self

    def results(self, folder: Path) -> list[Path]:
        self.done.append(("results", folder))
        return [folder / "model.npz"]


@dataclass
class Desk:
    """The starter's desk."""

    made: Run = field(default_factory=Run)
    asked: list[Any] = field(default_factory=list)
    error: BaseException | None = None
    served: list[RunSnapshot] = field(default_factory=list)

    def run(self, *arguments: Any) -> Run:
        self.asked.append(arguments)
        return self.made

    def ls(self) -> list[Run]:
        return [self.made, Run(replace(SUCCEEDED, id=OTHER, aggregator=BOB))]

    def get(self, run_id: str) -> Run:
        if self.error:
            raise self.error
        if run_id != RUN:
            raise NotFound(f"There is no run {run_id}.", reason="RUN_UNKNOWN")
        return self.made

    def serve(self, tell: Any) -> None:
        for snapshot in self.served:
            tell(snapshot)
        raise KeyboardInterrupt


@dataclass
class OwnSite:
    """The own site's proposals; keeps what was decided."""

    proposal: Proposal | None = PROPOSAL
    done: list[Any] = field(default_factory=list)
    error: MeshError | None = None
    files: dict[str, bytes] = field(
        default_factory=lambda: {"pyproject.toml": b"x\n", "app/task.py": b"print(1)\n\x1b[2J"}
    )

    def _found(self, run_id: str) -> Proposal:
        if self.error:
            raise self.error
        if self.proposal is None or run_id != self.proposal.run_id:
            raise NotFound("no such run was proposed here", reason="RUN_UNKNOWN")
        return self.proposal

    def proposals(self) -> list[Proposal]:
        if self.error:
            raise self.error
        return [self.proposal] if self.proposal else []

    def get(self, run_id: str) -> Proposal:
        return self._found(run_id)

    def code(self, run_id: str) -> dict[str, bytes]:
        self._found(run_id)
        return self.files

    def _decided(self, run_id: str, state: ProposalState, *what: Any) -> Proposal:
        self._found(run_id)
        self.done.append(what)
        return replace(PROPOSAL, state=state)

    def approve(self, run: Proposal) -> Proposal:
        return self._decided(run.run_id, ProposalState.APPROVED, "approve", run)

    def deny(self, run_id: str, reason: str) -> Proposal:
        return self._decided(run_id, ProposalState.DENIED, "deny", reason)

    def leave(self, run_id: str, reason: str) -> Proposal:
        return self._decided(run_id, ProposalState.WITHDRAWN, "leave", reason)


@pytest.fixture
def desk(program: Any) -> Desk:
    found = Desk()
    nowhere = OwnSite(None, error=NotFound("no site here", reason="SITE_NOT_RUNNING"))
    program.client = SimpleNamespace(email=CAROL, fl=found, site=SimpleNamespace(fl=nowhere))
    return found


@pytest.fixture
def site(program: Any, desk: Desk) -> OwnSite:
    found = OwnSite()
    program.client.site.fl = found
    program.client.email = ALICE
    return found


def test_run_aggregates_here_and_shows_what_happens(program: Any, desk: Desk) -> None:
    done = program("fl", "run", "app", *SITES, "--json")
    assert desk.asked == [(Path("app"), [ALICE, BOB], "breast-cancer", None, None, {}, "", None)]
    assert done.code == 0
    assert done.json["state"] == "succeeded"
    assert done.json["rounds"][0]["replies"][0] == {
        "site": ALICE,
        "ok": True,
        "reason": "",
        "received_bytes": 2048,
    }
    assert f"run {RUN}: awaiting_approval" in done.err
    assert f"  {ALICE}: approved\n" in done.err
    assert f"  {BOB}: denied, DENIED_BY_OWNER, not connected\n" in done.err
    assert f"  round 1 train, 1.5 s: {ALICE} 2.0 KiB, {BOB} GATE\n" in done.err
    assert f"next: syftmesh fl results {RUN} -o DIR" in done.err


def test_run_gives_every_option_on(program: Any, desk: Desk) -> None:
    options = ("--rounds", "5", "--minimum-sites", "1", "--purpose", "why", "--deadline", "2h")
    config = [
        word for text in ("rate=0.1", "n=5", "deep=true", "name=x y", 'q="5"') for word in ("--config", text)
    ]
    done = program(
        "fl", "run", "app", "--sites", ALICE, "--sites", f" {BOB} ,", *SITES[2:], *options, *config
    )
    assert done.code == 0
    values = {"rate": 0.1, "n": 5, "deep": True, "name": "x y", "q": "5"}
    assert desk.asked == [(Path("app"), [ALICE, BOB], "breast-cancer", 5, 1, values, "why", 7200.0)]


@pytest.mark.parametrize(
    ("text", "value"),
    [("k=2026-01-01", "2026-01-01"), ("k=[1]", "[1]"), ("k=1\nx=2", "1\nx=2"), ("k=", ""), ("k=a=b", "a=b")],
)
def test_setting_that_is_no_value_of_flower_is_text(program: Any, desk: Desk, text: str, value: str) -> None:
    program("fl", "run", "app", *SITES, "--config", text)
    assert desk.asked[0][5] == {"k": value}


@pytest.mark.parametrize("settings", [["rate"], ["=1"], ["k=1", "k=2"]])
def test_setting_that_is_none_is_refused(program: Any, desk: Desk, settings: list[str]) -> None:
    done = program("fl", "run", "app", *SITES, *(word for text in settings for word in ("--config", text)))
    assert (done.code, done.data, desk.asked) == (2, b"", [])
    assert done.err.startswith("error: RUN_INVALID: ")


def test_run_with_a_deadline_that_is_none_is_refused(program: Any, desk: Desk) -> None:
    done = program("fl", "run", "app", *SITES, "--deadline", "soon")
    assert (done.code, desk.asked) == (2, [])
    assert done.err.startswith("error: DURATION_INVALID: ")


@pytest.mark.parametrize(
    ("last", "code", "warns"),
    [(SUCCEEDED, 0, False), (PARTIAL, 0, True), (FAILED, 1, False), (CANCELLED, 1, False)],
)
@pytest.mark.parametrize("verb", ["run", "aggregate", "watch"])
def test_exit_code_says_how_a_run_ended(
    program: Any, desk: Desk, verb: str, last: RunSnapshot, code: int, warns: object
) -> None:
    desk.made.steps = [RUNNING, last]
    done = program("fl", verb, *(("app", *SITES) if verb == "run" else (RUN,)), "--json")
    assert done.code == code
    assert done.json["state"] == str(last.state)
    assert done.json["reason"] == last.reason
    assert (f"warning: the run finished without some sites: {BOB} left" in done.err) is warns
    assert "warning" not in done.out


def test_detached_run_is_only_created(program: Any, desk: Desk) -> None:
    done = program("fl", "run", "app", *SITES, "--detach", "--json")
    assert (done.code, done.json["id"], done.json["state"]) == (0, RUN, "awaiting_approval")
    assert desk.made.done == []
    assert f"next: syftmesh fl aggregate {RUN}" in done.err


def test_a_run_that_nobody_can_decide_on_any_more_is_over_at_once(program: Any, desk: Desk) -> None:
    desk.made.snapshot = FAILED
    done = program("fl", "run", "app", *SITES, "--detach", "--json")
    assert (done.code, done.json["state"]) == (1, "failed")
    assert "owners decide" not in done.err
    assert "next: " not in done.err


def test_ctrl_c_cancels_the_run_without_a_question(program: Any, desk: Desk) -> None:
    desk.made.steps = [RUNNING, KeyboardInterrupt()]
    done = program("fl", "run", "app", *SITES, "--json", terminal=True)
    assert (done.code, done.data) == (130, b"")
    assert desk.made.done == ["aggregate", ("cancel", "Its starter stopped it from the keyboard.")]


def test_ctrl_c_while_the_hub_is_away_says_how_to_cancel_later(program: Any, desk: Desk) -> None:
    desk.made.steps = [KeyboardInterrupt()]
    desk.made.refusal = Unavailable("The hub does not answer.")
    done = program("fl", "run", "app", *SITES)
    assert done.code == 130
    assert f"next: syftmesh fl cancel {RUN}" in done.err


def test_ctrl_c_leaves_a_run_that_is_only_watched_or_gone_on_with(program: Any, desk: Desk) -> None:
    for verb in ("watch", "aggregate"):
        desk.made.steps = [RUNNING, KeyboardInterrupt()]
        assert program("fl", verb, RUN).code == 130
    assert desk.made.done == ["aggregate"]


def test_aggregator_that_fails_says_how_to_go_on(program: Any, desk: Desk) -> None:
    desk.made.steps = [RUNNING, WrongState("Another process has it.", reason="TASK_TAKEN")]
    done = program("fl", "run", "app", *SITES)
    assert done.code == 5
    assert f"syftmesh fl aggregate {RUN}\nerror: TASK_TAKEN: " in done.err
    assert desk.made.done == ["aggregate"]


def test_ls_joins_the_runs_of_the_hub_and_the_proposals_of_the_own_site(program: Any, site: OwnSite) -> None:
    items = program("fl", "ls", "--json").json["items"]
    assert [(i["id"], i["role"], i["state"]) for i in items] == [
        (RUN, "site", "awaiting_approval"),
        (OTHER, "site", "succeeded"),
    ]
    assert items[0]["proposal"]["state"] == "awaiting_approval"
    assert items[1]["proposal"] is None
    site.proposal = replace(PROPOSAL, run_id="99")
    items = program("fl", "ls", "--json").json["items"]
    assert [(i["id"], i["state"]) for i in items][2:] == [("99", None)]
    assert len({frozenset(i) for i in items}) == 1
    assert "99" in program("fl", "ls").out


def test_ls_without_a_site_lists_what_was_started(program: Any, desk: Desk) -> None:
    desk.made.snapshot = SUCCEEDED
    items = program("fl", "ls", "--json").json["items"]
    assert [(i["id"], i["role"]) for i in items] == [(RUN, "aggregator"), (OTHER, "site")]
    lines = program("fl", "ls").out.splitlines()
    assert lines[0].split()[:4] == ["ID", "ROLE", "STATE", "DATASET"]
    assert "1/3" in lines[1]


def test_show_tells_both_sides(program: Any, site: OwnSite) -> None:
    found = program("fl", "show", RUN, "--json").json
    assert (found["id"], found["role"], found["config"]) == (RUN, "site", {"rate": 0.5})
    asked = found["proposal"]
    assert asked["dataset"] == {"name": "breast-cancer", "digest": "d" * 64}
    assert asked["recipients"] == [{"email": CAROL, "root": "c" * 64}]
    assert asked["limits"] == {"max_update_bytes": 1 << 20, "max_norm": 2.5, "min_rows": 20, "max_metrics": 8}
    assert asked["files"] == ["app/task.py", "pyproject.toml"]
    shown = program("fl", "show", RUN)
    assert "At your site:" in shown.out
    assert "app/task.py" in shown.out
    assert "\x1b" not in shown.out


def test_show_without_a_site_tells_of_the_run_alone(program: Any, desk: Desk) -> None:
    desk.made.snapshot = SUCCEEDED
    found = program("fl", "show", RUN, "--json").json
    assert (found["role"], found["proposal"]) == ("aggregator", None)
    assert found["artifacts"] == [{"name": "model.npz", "size_bytes": 9, "sha256": "b" * 64}]
    out = program("fl", "show", RUN).out
    assert "model.npz" in out
    assert "GATE" in out
    assert "At your site" not in out


def test_show_tells_of_the_proposal_where_the_hub_does_not(program: Any, desk: Desk, site: OwnSite) -> None:
    desk.error = Unavailable("The hub does not answer.")
    done = program("fl", "show", RUN, "--json")
    assert (done.code, done.json["state"], done.json["proposal"]["id"]) == (0, None, RUN)
    assert "The hub does not answer." in done.err


def test_show_of_an_unknown_run_is_refused(program: Any, desk: Desk, site: OwnSite) -> None:
    done = program("fl", "show", "5")
    assert (done.code, done.data) == (4, b"")
    assert done.err.startswith("error: RUN_UNKNOWN: ")
    site.error = Unavailable("The site is starting.")
    assert program("fl", "show", "5").code == 6


def test_a_site_that_lies_is_not_hidden(program: Any, desk: Desk, site: OwnSite) -> None:
    site.error = IntegrityFailure("damaged", reason="STATUS_INVALID")
    for line in (("ls",), ("show", RUN)):
        assert program("fl", *line).code == 7


def test_cancel_asks_and_gives_the_reason(program: Any, desk: Desk) -> None:
    done = program("fl", "cancel", RUN)
    assert (done.code, desk.made.done) == (2, [])
    assert "CONFIRMATION_NEEDED" in done.err
    assert program("fl", "cancel", RUN, terminal=True, answer="n\n").code == 130
    assert desk.made.done == []
    done = program("fl", "cancel", RUN, "--reason", "wrong data", "--yes", "--json")
    assert (done.code, done.json["state"]) == (0, "cancelled")
    assert desk.made.done == [("cancel", "wrong data")]


def test_results_are_listed_or_written(program: Any, desk: Desk, tmp_path: Path) -> None:
    desk.made.snapshot = SUCCEEDED
    done = program("fl", "results", RUN, "--json")
    assert (done.json["items"][0]["name"], done.json["files"], done.json["folder"]) == ("model.npz", [], None)
    assert desk.made.done == []
    assert f"next: syftmesh fl results {RUN} -o DIR" in done.err
    done = program("fl", "results", RUN, "-o", str(tmp_path), "--json")
    assert done.json["files"] == [str(tmp_path / "model.npz")]
    assert desk.made.done == [("results", tmp_path)]


def test_results_of_a_run_that_left_none_say_so(program: Any, desk: Desk) -> None:
    assert program("fl", "results", RUN).out == "The run has left nothing (yet).\n"


def test_serve_tells_of_each_run_until_ctrl_c(program: Any, desk: Desk) -> None:
    desk.served = [RUNNING, RUNNING, replace(RUNNING, id=OTHER)]
    done = program("fl", "serve")
    assert (done.code, done.data) == (130, b"")
    assert done.err.count(f"run {RUN}: running") == 1
    assert done.err.count(f"run {OTHER}: running") == 1


def test_approve_shows_everything_asks_and_signs_what_was_shown(program: Any, site: OwnSite) -> None:
    done = program("fl", "approve", RUN, terminal=True, answer="y\n")
    assert done.code == 0
    for text in (
        "a" * 64,
        "d" * 64,
        "c" * 64,
        CAROL,
        "rate = 0.5",
        "1.0 MiB",
        "2.5",
        "app/task.py",
        "e" * 64,
    ):
        assert text in done.err, text
    assert "\x1b[31m" not in done.err
    assert site.done == [("approve", PROPOSAL)]
    assert "approved" in done.out


def test_approve_without_a_yes_signs_nothing(program: Any, site: OwnSite) -> None:
    assert program("fl", "approve", RUN, terminal=True, answer="\n").code == 130
    assert program("fl", "approve", RUN).code == 2
    assert site.done == []
    assert program("fl", "approve", RUN, "--yes", "--json").json["state"] == "approved"


def test_approve_of_limits_that_are_none_says_so(program: Any, site: OwnSite) -> None:
    site.proposal = replace(PROPOSAL, limits=UpdateLimits(1, 0.0, 0, 1), run_config={})
    done = program("fl", "approve", RUN, terminal=True, answer="n\n")
    assert "not clipped" in done.err
    assert "the app's own" in done.err


def test_code_is_shown_or_written(program: Any, site: OwnSite, tmp_path: Path) -> None:
    shown = program("fl", "code", RUN)
    assert "# app/task.py\nprint(1)\n" in shown.out
    assert "\x1b" not in shown.out
    items = program("fl", "code", RUN, "-o", str(tmp_path), "--json").json["items"]
    assert [(i["name"], i["size_bytes"]) for i in items] == [("app/task.py", 13), ("pyproject.toml", 2)]
    assert (tmp_path / "app" / "task.py").read_bytes() == site.files["app/task.py"]


def test_code_that_would_lie_elsewhere_is_not_written(program: Any, site: OwnSite, tmp_path: Path) -> None:
    site.files = {"../x.py": b""}
    assert program("fl", "code", RUN, "-o", str(tmp_path / "out")).code == 7
    assert not (tmp_path / "x.py").exists()


def test_deny_needs_a_reason(program: Any, site: OwnSite) -> None:
    assert program("fl", "deny", RUN).code == 2
    assert program("fl", "deny", RUN, "--reason", "no", "--json").json["state"] == "denied"
    assert site.done == [("deny", "no")]


@pytest.mark.parametrize("verb", ["leave", "revoke"])
def test_leave_asks(program: Any, site: OwnSite, verb: str) -> None:
    assert program("fl", verb, RUN).code == 2
    assert site.done == []
    assert program("fl", verb, RUN, "--reason", "why", "--yes", "--json").json["state"] == "withdrawn"
    assert site.done == [("leave", "why")]


@pytest.mark.parametrize("line", [("approve",), ("code",), ("deny", "--reason", "x"), ("leave", "--yes")])
def test_decisions_need_a_site_that_runs(program: Any, desk: Desk, line: tuple[str, ...]) -> None:
    done = program("fl", line[0], RUN, *line[1:])
    assert (done.code, done.data) == (4, b"")
    assert done.err.startswith("error: SITE_NOT_RUNNING: ")
