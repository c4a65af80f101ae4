"""The command line against a mesh that runs: people, files, rights, and a job from submission to results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ALICE = "alice@hospital.example"
CAROL = "carol@command.example"
PROGRAM = str(Path(sys.executable).with_name("syftmesh"))


@dataclass
class Person:
    """Runs the program as one person."""

    state: Path
    email: str

    def start(self, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        around = {**kept, "SYFTMESH_STATE": str(self.state), "SYFTMESH_PROFILE": self.email}
        return subprocess.Popen(
            [PROGRAM, *arguments],
            env=around,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *arguments: str, code: int = 0, timeout_s: float = 90) -> tuple[bytes, str]:
        process = self.start(arguments)
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == code, (arguments, out.decode(), err.decode())
        return out, err.decode()

    def json(self, *arguments: str, code: int = 0, timeout_s: float = 90) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code, timeout_s=timeout_s)[0])


@pytest.fixture(scope="module")
def alice(mesh: Any) -> Person:
    return Person(mesh.state, ALICE)


@pytest.fixture(scope="module")
def carol(mesh: Any, tmp_path_factory: pytest.TempPathFactory) -> Person:
    made = Person(mesh.state, CAROL)
    phrase = tmp_path_factory.mktemp("phrase") / "phrase.txt"
    found = made.json("login", "--email", CAROL, "--recovery-out", str(phrase))
    assert found == {"email": CAROL, "server": mesh.server, "created": True}
    assert len(phrase.read_text().split()) >= 24
    assert phrase.stat().st_mode & 0o777 == 0o600
    return made


def test_login_twice_is_one_account(mesh: Any, carol: Person) -> None:
    assert carol.json("login", "--email", CAROL)["created"] is False
    found = carol.json("whoami")
    assert (found["email"], found["server"], found["logged_in"]) == (CAROL, mesh.server, True)
    emails = [item["email"] for item in carol.json("profiles")["items"]]
    assert ALICE in emails
    assert CAROL in emails


def test_files_travel_and_rights_are_told(alice: Person, carol: Person, tmp_path: Path) -> None:
    path = f"{ALICE}/public/cli.txt"
    (tmp_path / "here.txt").write_bytes(b"hello\x1b[31m\n")
    item = alice.json("cp", str(tmp_path / "here.txt"), path)["items"][0]
    assert (item["target"], item["size_bytes"]) == (path, 11)
    assert carol.run("cat", path)[0] == b"hello\x1b[31m\n"
    assert carol.json("cat", path)["content"] == "hello\x1b[31m\n"
    assert path in [item["path"] for item in carol.json("ls", f"{ALICE}/public")["items"]]
    assert carol.json("stat", path)["author"] == ALICE
    allowed = carol.json("acl", "check", path)
    assert set(allowed) == {"allowed", "path", "principal", "level", "reason", "rule", "token"}
    assert (allowed["allowed"], allowed["path"], allowed["principal"]) == (True, path, CAROL)
    assert allowed["rule"]["pattern"] == "**"
    assert carol.json("acl", "check", path, "--level", "write", code=3)["allowed"] is False
    assert carol.run("acl", "check", "no path", code=2)[1].startswith("error: PATH_INVALID: ")
    assert carol.run("acl", "check", path, "--as", "nobody", code=2)[1].startswith(
        "error: PRINCIPAL_INVALID: "
    )
    assert alice.json("acl", "check", path, "--as", "anonymous")["allowed"] is True
    assert alice.json("acl", "explain", f"{ALICE}/secret", "--as", CAROL)["allowed"] is False
    assert "**" in alice.run("acl", "show", path)[0].decode()
    assert carol.run("rm", path, "-y", code=3)[1].startswith("error: PERMISSION_DENIED: ")
    assert alice.run("rm", path, code=2)[1].startswith("error: CONFIRMATION_NEEDED: ")
    assert alice.json("rm", path, "-y") == {"items": [path]}
    assert carol.run("cat", path, code=4)[1].startswith("error: FILE_MISSING: ")


def test_both_sides_see_one_safety_number(alice: Person, carol: Person) -> None:
    number = carol.json("keys", "verify", ALICE)["safety_number"]
    assert alice.json("keys", "verify", CAROL)["safety_number"] == number
    assert len(alice.json("keys", "devices")["items"]) >= 3
    assert carol.json("keys", "show")


def test_the_site_and_the_doctor_are_well(alice: Person) -> None:
    assert {"site": ALICE, "agent": True, "runner": True} in alice.json("site", "ls")["items"]
    shown = alice.json("site", "show", ALICE)
    assert shown["local"] == {"agent": True, "runner": True}
    found = alice.json("doctor")
    assert found["ok"], found
    assert {item["check"] for item in found["items"]} >= {
        "state",
        "hub",
        "clock",
        "login",
        "sandbox",
        "version",
    }


def test_a_site_is_made_once_and_its_token_joins_nobody_else(mesh: Any, tmp_path: Path) -> None:
    email = "bob@command.example"
    bob = Person(mesh.state, email)
    phrase = tmp_path / "phrase"
    first = bob.json("site", "init", "--email", email, "--recovery-out", str(phrase))
    made = {"site": email, "server": mesh.server, "created": True, "account_created": True}
    assert first == {**made, "invited": [], "is_local": True}
    again = bob.json("site", "init", "--email", email, "--recovery-out", str(phrase))
    assert (again["created"], again["account_created"]) == (False, False)
    assert {"site": email, "agent": False, "runner": False} in bob.json("site", "ls")["items"]
    warned = [item for item in bob.json("doctor")["items"] if item["status"] == "warn"]
    assert any(email in item["detail"] and "syftmesh up" in item["next"] for item in warned)
    token = tmp_path / "token"
    bob.json("site", "token", "create", "--label", "profile", "--out", str(token))
    assert token.stat().st_mode & 0o777 == 0o600
    elsewhere = Person(tmp_path / "state", "eve@command.example")
    out = ["--recovery-out", str(tmp_path / "eve"), "--server", mesh.server, "--token-file", str(token)]
    refused = elsewhere.run("login", "--email", "eve@command.example", *out, code=3)[1]
    assert "error: JOIN_TOKEN_INVALID: " in refused
    assert bob.json("logout")["hub_told"] is True


def test_errors_have_their_exit_codes(alice: Person, carol: Person, tmp_path: Path) -> None:
    missing = "01890a5d-ac96-774b-bcce-b302099a8057"
    assert carol.run("job", "show", missing, code=4)[1].startswith("error: ")
    assert carol.run("audit", "verify", code=4)[1].startswith("error: SITE_NOT_RUNNING: ")
    assert alice.run("ls", "--server", "http://127.0.0.1:9", code=6)[1].startswith(
        "error: SERVER_UNREACHABLE: "
    )
    assert alice.run("ls", "--profile", "nobody@x.example", code=4)[1].startswith("error: PROFILE_UNKNOWN: ")
    url = f"syft://{ALICE}/app_data/none/rpc/ping"
    assert carol.run("rpc", "call", url, "--data", "1", "--timeout", "5s", code=3)[1].startswith("error: ")


@pytest.fixture(scope="module")
def dataset(alice: Person, carol: Person, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    private = tmp_path_factory.mktemp("private")
    rows = [f"p{n:04},{20 + n * 37 % 70},{'ab'[n * 13 % 5 % 2]}" for n in range(200)]
    (private / "people.csv").write_text("\n".join(["name,age,group", *rows]) + "\n")
    name = "cli-people"
    made = alice.json(
        "dataset", "create", name, "--private", str(private), "--summary", "people", "--audience", carol.email,
        "--identifier", "name",
    )  # fmt: skip
    assert made["dataset"] == f"{ALICE}/{name}"
    yield made["dataset"]
    alice.run("dataset", "rm", name, "-y")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "main.py").write_text(
        "import csv, json, os, pathlib\n"
        "data, out = pathlib.Path(os.environ['DATA_DIR']), pathlib.Path(os.environ['OUTPUT_DIR'])\n"
        "file = next(data.rglob('people.csv'))\n"
        "with file.open() as text:\n"
        "    rows = list(csv.DictReader(text))\n"
        "counts = {g: sum(r['group'] == g for r in rows) for g in sorted({r['group'] for r in rows})}\n"
        "lines = ['group,n', *(f'{g},{n}' for g, n in counts.items())]\n"
        "(out / 'counts.csv').write_text('\\n'.join(lines) + '\\n')\n"
        "print('rows', len(rows))\n"
    )
    return folder


def test_a_dataset_is_seen_by_its_audience(carol: Person, dataset: str) -> None:
    listed = carol.json("dataset", "ls", "--site", ALICE)["items"]
    assert dataset in [item["dataset"] for item in listed]
    shown = carol.json("dataset", "show", dataset)
    assert [column["name"] for column in shown["tables"][0]["columns"]] == ["name", "age", "group"]
    assert shown["mock_files"] == ["people.csv"]


def test_the_mock_runs_here(carol: Person, dataset: str, code: Path, tmp_path: Path) -> None:
    ran = carol.json("job", "run-mock", str(code), "--dataset", dataset, "-o", str(tmp_path / "out"))
    assert ran["exit_code"] == 0
    assert (tmp_path / "out/counts.csv").read_text().startswith("group,n\n")
    assert "rows" in ran["stdout"]


def _until(person: Person, job_id: str, states: set[str]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        found: dict[str, Any] = person.json("job", "show", job_id)
        if found["state"] in states:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.3)


def test_a_job_from_submission_to_results(
    alice: Person, carol: Person, dataset: str, code: Path, tmp_path: Path
) -> None:
    sent = carol.json(
        "job", "submit", str(code), "--entrypoint", "main.py", "--dataset", dataset, "--purpose", "e2e"
    )
    job_id = sent["id"]
    seen = alice.json("job", "show", job_id)
    assert (seen["role"], seen["state"], seen["submitter"], seen["purpose"]) == (
        "owner",
        "in_review",
        CAROL,
        "e2e",
    )
    assert len(seen["code_digest"]) == 64
    assert job_id in [item["id"] for item in alice.json("job", "ls", "--in", "in_review")["items"]]
    assert job_id in [item["id"] for item in carol.json("job", "ls")["items"]]
    assert [item["name"] for item in alice.json("job", "code", job_id)["items"]] == ["main.py"]
    assert alice.run("job", "approve", job_id, code=2)[1].startswith("error: CONFIRMATION_NEEDED: ")
    assert carol.run("job", "approve", job_id, "-y", code=4)[1].startswith("error: ")
    alice.json("job", "approve", job_id, "-y")
    ended = _until(alice, job_id, {"succeeded", "failed"})
    assert ended["state"] == "succeeded", ended
    assert "counts.csv" in [output["name"] for output in ended["outputs"]]
    assert "rows 200" in alice.run("job", "logs", job_id)[0].decode()
    released = alice.json("job", "release", job_id, "counts.csv", "-y")
    assert released["state"] == "released"
    done = carol.json("job", "wait", job_id, "--timeout", "30s")
    assert (done["state"], done["released"]) == ("released", ["counts.csv"])
    assert [item["name"] for item in carol.json("job", "results", job_id)["items"]] == ["counts.csv"]
    carol.json("job", "results", job_id, "-o", str(tmp_path / "results"))
    counts = (tmp_path / "results/counts.csv").read_text().splitlines()
    assert counts[0] == "group,n"
    assert sum(int(line.split(",")[1]) for line in counts[1:]) == 200
    assert alice.run("job", "approve", job_id, "-y", code=5)[1].startswith("error: WRONG_STATE: ")
    kinds = [item["kind"] for item in alice.json("audit", "query", "--job", job_id)["items"]]
    assert "job.approved" in kinds
    assert alice.json("audit", "verify")["ok"] is True
    lines = alice.run("audit", "export")[0].decode().splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == list(range(1, len(lines) + 1))


def test_a_job_is_rejected_with_a_reason_and_another_taken_back(
    alice: Person, carol: Person, dataset: str, code: Path
) -> None:
    submit = ["job", "submit", str(code), "--dataset", dataset, "--purpose", "e2e"]
    first, second = (carol.json(*submit)["id"] for _ in range(2))
    alice.json("job", "reject", first, "--reason", "not this one")
    rejected = carol.json("job", "wait", first, "--timeout", "30s")
    assert (rejected["state"], rejected["message"]) == ("rejected", "not this one")
    assert carol.json("job", "cancel", second, "-y")["state"] in {"in_review", "withdrawn"}
    assert carol.json("job", "wait", second, "--timeout", "30s")["state"] == "withdrawn"


def test_ctrl_c_while_waiting_exits_130(alice: Person, carol: Person, dataset: str, code: Path) -> None:
    job_id = carol.json("job", "submit", str(code), "--dataset", dataset, "--purpose", "e2e")["id"]
    process = carol.start(["job", "wait", job_id])
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"waiting for ")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert b"error: INTERRUPTED: " in err
    assert b"Traceback" not in err
    alice.run("job", "reject", job_id, "--reason", "over")
