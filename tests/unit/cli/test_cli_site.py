"""Verbs of datasets, jobs, review and audit on a client that is made of dictionaries."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh_core.errors import IntegrityFailure, NotFound, Unavailable, WrongState

OWNER, CAROL = "alice@hospital.example", "carol@lab.example"
JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
SENT = "01890a5d-ac96-774b-bcce-b302099a8058"
EVIL = "\x1b[31m[red]x\nerror: INTERNAL: no"


def _finding(severity: str = "warning", rule: str = "IMPORT_NETWORK", cell: str = "") -> Any:
    return SimpleNamespace(severity=severity, rule=rule, file="main.py", line=3, cell=cell, text=EVIL)


@dataclass
class Review:
    """A job as its reviewer sees it."""

    id: str = JOB
    site: str = OWNER
    state: str = "in_review"
    end_reason: str = ""
    message: str = ""
    submitter: str = CAROL
    project: str = "p"
    purpose: str = EVIL
    datasets: tuple[Any, ...] = (SimpleNamespace(name="breast-cancer", digest="d1"),)
    code_digest: str = "c1"
    entrypoint: str = "main.py"
    parameters: Any = None
    runtime_digest: str = "r1"
    recipients: tuple[str, ...] = (CAROL,)
    findings: tuple[Any, ...] = (_finding(),)
    outputs: tuple[Any, ...] = ()
    exit_code: int | None = None
    created_ms: int = 1_767_225_600_000
    updated_ms: int = 1_767_225_600_000
    expires_ms: int = 0
    released: tuple[str, ...] = ()


@dataclass
class Queue:
    """The jobs of the own site; keeps what was done to them."""

    jobs: dict[str, Review] = field(default_factory=lambda: {JOB: Review()})
    done: list[Any] = field(default_factory=list)
    away: Exception | None = None

    def get(self, job_id: str) -> Review:
        if self.away:
            raise self.away
        if job_id not in self.jobs:
            raise NotFound(f"There is no job {job_id}.", reason="JOB_UNKNOWN")
        return self.jobs[job_id]

    def list(self, states: Any = ()) -> list[Review]:
        if self.away:
            raise self.away
        return [job for job in self.jobs.values() if not states or job.state in states]

    def code(self, job_id: str) -> dict[str, bytes]:
        self.get(job_id)
        return {"main.py": b"print(1)\n", "sub/a.py": b"\x1b[2J"}

    def logs(self, job_id: str) -> str:
        self.get(job_id)
        return "line\n\x1b[31mred\n"

    def _end(self, job_id: str, state: str, *what: Any) -> Review:
        self.done.append((state, job_id, *what))
        job = self.get(job_id)
        job.state = state
        return job

    def approve(self, job: Review) -> Review:
        return self._end(job.id, "approved")

    def reject(self, job_id: str, reason: str) -> Review:
        return self._end(job_id, "rejected", reason)

    def cancel(self, job_id: str) -> Review:
        return self._end(job_id, "cancelled")

    def withhold(self, job_id: str, reason: str = "") -> Review:
        return self._end(job_id, "withheld", reason)

    def release(self, job_id: str, **options: Any) -> Any:
        return SimpleNamespace(job=self._end(job_id, "released", options), bytes_out=77)


@dataclass
class Results:
    content: dict[str, bytes] = field(default_factory=dict)

    def files(self) -> list[str]:
        return list(self.content)

    def read(self, name: str) -> bytes:
        return self.content[name]


@dataclass
class Sent:
    """A job that the profile sent to another site."""

    id: str = SENT
    site: str = "bob@x.example"
    state: str = "released"
    end_reason: str = ""
    message: str = EVIL
    released: tuple[str, ...] = ("counts.csv",)
    results: Results = field(default_factory=Results)

    def wait(self, timeout_s: float | None = None) -> Sent:
        return self

    def cancel(self) -> Sent:
        self.state = "withdrawn"
        return self


@dataclass
class Sending:
    jobs: dict[str, Sent] = field(default_factory=lambda: {SENT: Sent()})
    asked: list[Any] = field(default_factory=list)
    run: Any = None

    def get(self, job_id: str, site: str | None = None) -> Sent:
        if job_id not in self.jobs:
            raise NotFound(f"There is no job {job_id}.", reason="JOB_UNKNOWN")
        return self.jobs[job_id]

    def list(self, site: str | None = None) -> list[Sent]:
        return [job for job in self.jobs.values() if site in (None, job.site)]

    def submit(self, code: Path, **options: Any) -> Sent:
        self.asked.append((code, options))
        return self.jobs[SENT]

    def run_mock(self, code: Path, **options: Any) -> Any:
        self.asked.append((code, options))
        return self.run


@pytest.fixture
def queue(program: Any) -> Queue:
    made = Queue()
    program.client = SimpleNamespace(email=OWNER, site=SimpleNamespace(jobs=made), jobs=Sending())
    return made


def test_job_ls_shows_both_sides_and_filters_by_state(program: Any, queue: Queue) -> None:
    items = program("job", "ls", "--json").json["items"]
    assert [(item["id"], item["role"], item["state"]) for item in items] == [
        (JOB, "owner", "in_review"),
        (SENT, "submitter", "released"),
    ]
    assert [i["id"] for i in program("job", "ls", "--in", "in-review", "--json").json["items"]] == [JOB]
    assert [i["id"] for i in program("job", "ls", "--site", "bob@x.example", "--json").json["items"]] == [
        SENT
    ]
    assert program("job", "ls", "--in", "nowhere").err.startswith("error: STATE_INVALID: ")
    text = program("job", "ls", terminal=True).out
    assert "\x1b[31m" not in text
    assert "[red]x" in text


@pytest.mark.parametrize(
    "away", [NotFound("No site runs.", reason="SITE_NOT_RUNNING"), Unavailable("The site does not answer.")]
)
def test_without_an_own_site_the_sent_jobs_remain(program: Any, queue: Queue, away: Exception) -> None:
    queue.away = away
    assert [item["id"] for item in program("job", "ls", "--json").json["items"]] == [SENT]
    assert program("job", "show", SENT, "--json").json["role"] == "submitter"
    assert program("job", "show", JOB).code == (6 if isinstance(away, Unavailable) else 4)


def test_job_show_of_the_owner_has_digests_findings_and_no_control_characters(
    program: Any, queue: Queue
) -> None:
    document = program("job", "show", JOB, "--json").json
    assert (document["code_digest"], document["datasets"]) == (
        "c1",
        [{"name": "breast-cancer", "digest": "d1"}],
    )
    assert document["findings"][0]["rule"] == "IMPORT_NETWORK"
    text = program("job", "show", JOB).out
    assert "\x1b" not in text
    assert "[red]x error: INTERNAL: no" in text
    assert "IMPORT_NETWORK" in text


def test_approve_shows_what_is_bound_and_signs_after_a_yes(program: Any, queue: Queue) -> None:
    assert program("job", "approve", JOB).err.startswith("error: CONFIRMATION_NEEDED: ")
    assert program("job", "approve", JOB, terminal=True, answer="no\n").code == 130
    assert queue.done == []
    done = program("job", "approve", JOB, terminal=True, answer="y\n")
    assert done.code == 0
    for shown in ("c1", "d1", "IMPORT_NETWORK", "main.py", "sub/a.py", CAROL, "[red]x"):
        assert shown in done.err
    assert "\x1b[31m" not in done.err
    assert queue.done == [("approved", JOB)]


def test_approve_with_yes_gives_the_job_as_json(program: Any, queue: Queue) -> None:
    done = program("job", "approve", JOB, "--yes", "--json")
    assert (done.code, done.json["state"], done.err) == (0, "approved", "")


def test_reject_needs_a_reason(program: Any, queue: Queue) -> None:
    assert program("job", "reject", JOB).code == 2
    assert program("job", "reject", JOB, "--reason", "names people").code == 0
    assert queue.done == [("rejected", JOB, "names people")]


def test_code_is_listed_shown_and_written(program: Any, queue: Queue, tmp_path: Path) -> None:
    assert program("job", "code", JOB).out == "# main.py\nprint(1)\n# sub/a.py\n"
    assert program("job", "code", JOB, "--json").json["items"][0]["content"] == "print(1)\n"
    assert program("job", "code", JOB, "-o", str(tmp_path)).code == 0
    assert (tmp_path / "sub/a.py").read_bytes() == b"\x1b[2J"


def _succeeded(queue: Queue) -> None:
    output = SimpleNamespace(
        name="counts.csv",
        size_bytes=10,
        sha256="s",
        released=False,
        findings=[_finding("block", "SMALL_CELL", "n")],
    )
    queue.jobs[JOB].state, queue.jobs[JOB].outputs = "succeeded", (output,)


def test_release_shows_findings_asks_and_passes_what_was_chosen(program: Any, queue: Queue) -> None:
    _succeeded(queue)
    assert program("job", "release", JOB).err.startswith("error: CONFIRMATION_NEEDED: Th")
    arguments = [
        "job",
        "release",
        JOB,
        "counts.csv",
        "--to",
        CAROL,
        "--expires",
        "7d",
        "--override",
        "agreed",
    ]
    done = program(*arguments, terminal=True, answer="yes\n")
    assert done.code == 0
    assert "SMALL_CELL" in done.err
    options = queue.done[0][2]
    assert options == {
        "files": ["counts.csv"],
        "to": [CAROL],
        "expires": datetime(2026, 1, 8, tzinfo=UTC),
        "override": "agreed",
    }


def test_a_release_that_the_gate_refuses_exits_7(program: Any, queue: Queue, raising: Any) -> None:
    _succeeded(queue)
    queue.release = raising(IntegrityFailure("Two findings.", reason="RELEASE_REFUSED"))  # type: ignore[method-assign]
    done = program("job", "release", JOB, "-y")
    assert (done.code, done.err) == (7, "error: RELEASE_REFUSED: Two findings.\n")


def test_withhold_asks(program: Any, queue: Queue) -> None:
    _succeeded(queue)
    assert program("job", "withhold", JOB).code == 2
    assert program("job", "withhold", JOB, "-y", "--reason", "small").code == 0
    assert queue.done == [("withheld", JOB, "small")]


def test_cancel_is_of_the_side_that_has_the_job(program: Any, queue: Queue) -> None:
    assert program("job", "cancel", JOB, "-y", "--json").json["state"] == "cancelled"
    assert program("job", "cancel", SENT, "-y", "--json").json["state"] == "withdrawn"
    assert queue.done == [("cancelled", JOB)]


def test_logs_are_all_for_the_owner_and_released_ones_for_the_submitter(program: Any, queue: Queue) -> None:
    assert program("job", "logs", JOB).out == "line\nred\n"
    assert program("job", "logs", SENT).err.startswith("error: LOGS_MISSING: ")
    program.client.jobs.jobs[SENT].results.content = {"logs/stdout.txt": b"mine\n", "x": b""}
    assert program("job", "logs", SENT, "--json").json["text"] == "mine\n"


def test_results_are_listed_and_written(program: Any, queue: Queue, tmp_path: Path) -> None:
    program.client.jobs.jobs[SENT].results.content = {"counts.csv": b"a\n", "sub/x": b"1"}
    listed = program("job", "results", SENT, "--json").json
    assert [item["name"] for item in listed["items"]] == ["counts.csv", "sub/x"]
    done = program("job", "results", SENT, "-o", str(tmp_path / "out"), "--json")
    assert (tmp_path / "out/sub/x").read_bytes() == b"1"
    assert done.json["items"][0] == {
        "name": "counts.csv",
        "size_bytes": 2,
        "file": str(tmp_path / "out/counts.csv"),
    }
    program.client.jobs.jobs[SENT].results.content = {"../evil": b"1"}
    done = program("job", "results", SENT, "-o", str(tmp_path / "out"))
    assert done.code == 7
    assert not (tmp_path / "evil").exists()


def test_submit_passes_what_was_said_and_prints_the_id(program: Any, queue: Queue, tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('{"year": 2024}')
    arguments = [
        "--dataset",
        f"{OWNER}/a",
        "--dataset",
        f"{OWNER}/b",
        "--entrypoint",
        "main.py",
        "--purpose",
        "why",
    ]
    more = ["--project", "p", "--parameters", f"@{tmp_path / 'p.json'}"]
    done = program("job", "submit", str(tmp_path), *arguments, *more, "--json")
    assert done.json["id"] == SENT
    assert program.client.jobs.asked == [
        (
            tmp_path,
            {
                "entrypoint": "main.py",
                "datasets": [f"{OWNER}/a", f"{OWNER}/b"],
                "parameters": {"year": 2024},
                "purpose": "why",
                "project": "p",
            },
        )
    ]
    assert f"syftmesh job wait {SENT}" in done.err


def test_submit_refuses_before_it_connects(program: Any, queue: Queue, tmp_path: Path) -> None:
    dataset = ["--dataset", f"{OWNER}/a"]
    for arguments, reason in (
        ([str(tmp_path / "none"), *dataset], "LOCAL_FILE_MISSING"),
        ([str(tmp_path), *dataset, "--parameters", "[1]"], "JSON_INVALID"),
        ([str(tmp_path), *dataset, "--parameters", "@none"], "LOCAL_FILE_MISSING"),
        ([str(tmp_path)], "USAGE"),
    ):
        assert program("job", "submit", *arguments).err.startswith(f"error: {reason}: ")
    assert program.connected == []


def test_run_mock_shows_the_run_writes_outputs_and_fails_with_it(
    program: Any, queue: Queue, tmp_path: Path
) -> None:
    program.client.jobs.run = SimpleNamespace(
        exit_code=0, reason="", stdout="hi\x1b[2J\n", stderr="", outputs={"out.csv": b"1"}
    )
    line = ["job", "run-mock", str(tmp_path), "--dataset", f"{OWNER}/a"]
    done = program(*line, "-o", str(tmp_path / "o"))
    assert done.code == 0
    assert done.out.startswith("hi\n")
    assert "\x1b" not in done.out
    assert (tmp_path / "o/out.csv").read_bytes() == b"1"
    program.client.jobs.run.exit_code = 3
    done = program(*line, "--json")
    assert (done.code, done.json["exit_code"]) == (1, 3)


def noting(notes: list[Any], result: Any) -> Any:
    """Return a function that notes its arguments and gives `result`."""

    def noted(*arguments: Any, **options: Any) -> Any:
        notes.append((*arguments, options) if options else arguments[0])
        return result

    return noted


@dataclass
class Dataset:
    name: str = "breast-cancer"
    site: str = OWNER
    summary: str = EVIL
    readme: str = "# About"
    tags: tuple[str, ...] = ("a",)
    audience: tuple[str, ...] = (CAROL,)
    mock_generated: bool = True
    private_digest: str = "pd"
    mock_digest: str = "md"
    tables: tuple[Any, ...] = (
        SimpleNamespace(file="d.csv", columns=[SimpleNamespace(name="age", type="int64")], mock_rows=5),
    )
    mock: Any = field(default_factory=lambda: SimpleNamespace(files=lambda: ["d.csv"]))


def test_datasets_are_listed_and_shown(program: Any) -> None:
    asked: list[Any] = []

    def found(site: str | None = None) -> list[Dataset]:
        asked.append(site)
        return [Dataset()]

    program.client = SimpleNamespace(
        email=OWNER, datasets=SimpleNamespace(list=found, get=noting(asked, Dataset()))
    )
    item = program("dataset", "ls", "--site", OWNER, "--json").json["items"][0]
    assert (item["dataset"], item["tables"][0]["columns"]) == (
        f"{OWNER}/breast-cancer",
        [{"name": "age", "type": "int64"}],
    )
    shown = program("dataset", "show", "breast-cancer")
    assert "\x1b" not in shown.out
    assert "age" in shown.out
    assert "# About" in shown.out
    assert asked == [OWNER, f"{OWNER}/breast-cancer"]


def test_dataset_create_and_rm(program: Any, tmp_path: Path) -> None:
    done: list[Any] = []
    datasets = SimpleNamespace(
        create=noting(done, Dataset()),
        delete=lambda name: done.append(name),
    )
    program.client = SimpleNamespace(email=OWNER, site=SimpleNamespace(datasets=datasets))
    line = ["dataset", "create", "breast-cancer", "--private"]
    assert program(*line, str(tmp_path / "none")).code == 4
    options = ["--audience", CAROL, "--min-cell", "10", "--wall", "5m", "--identifier", "name", "--tag", "t"]
    assert program(*line, str(tmp_path), *options, "--json").json["name"] == "breast-cancer"
    name, given = done.pop()
    assert (name, given["private"], given["mock"], given["audience"]) == (
        "breast-cancer",
        tmp_path,
        "generate",
        (CAROL,),
    )
    assert given["policy"] == {"min_cell": 10, "wall_seconds": 300, "identifier_columns": ["name"]}
    assert program("dataset", "rm", "breast-cancer").code == 2
    assert done == []
    assert program("dataset", "rm", "breast-cancer", "-y").code == 0
    assert done == ["breast-cancer"]


def _entry(sequence: int) -> Any:
    return SimpleNamespace(
        sequence=sequence,
        at_ms=1_767_225_600_000,
        kind="job.approved",
        actor=OWNER,
        fields={"job_id": JOB, "text": EVIL},
        previous_digest=b"\0" * 32,
        digest=b"\1" * 32,
    )


def test_audit_is_verified_queried_and_exported(program: Any, tmp_path: Path) -> None:
    asked: list[Any] = []
    audit = SimpleNamespace(
        verify=lambda: SimpleNamespace(entries=2, checkpoints=1, root=b"\1" * 32),
        query=noting(asked, [_entry(1)]),
        export=lambda: iter([_entry(1), _entry(2)]),
    )
    program.client = SimpleNamespace(site=SimpleNamespace(audit=audit))
    assert program("audit", "verify", "--json").json == {
        "ok": True,
        "entries": 2,
        "checkpoints": 1,
        "root": "01" * 32,
    }
    found = program("audit", "query", "--dataset", "d", "--job", JOB, "--kind", "job.approved")
    assert asked == [({"dataset": "d", "job_id": JOB, "kind": "job.approved"},)]
    assert "\x1b" not in found.out
    lines = program("audit", "export").out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2]
    assert len(program("audit", "export", "--json").json["items"]) == 2
    target = tmp_path / "audit.jsonl"
    assert program("audit", "export", "-o", str(target), "--json").json == {"file": str(target), "entries": 2}
    assert target.read_text().splitlines() == lines


def test_a_broken_chain_exits_7_and_a_missing_site_4(program: Any, raising: Any) -> None:
    broken = IntegrityFailure("Entry 7 does not follow entry 6.", reason="AUDIT_BROKEN")
    program.client = SimpleNamespace(site=SimpleNamespace(audit=SimpleNamespace(verify=raising(broken))))
    assert program("audit", "verify").code == 7
    missing = NotFound("No site runs here.", reason="SITE_NOT_RUNNING", hint="syftmesh up")
    program.client.site.audit.verify = raising(missing)
    assert program("audit", "verify").code == 4
    program.client.site.audit.verify = raising(WrongState("Not now."))
    assert program("audit", "verify").code == 5
