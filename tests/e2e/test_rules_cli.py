"""Rules and groups from the command line on a mesh that runs: who is let in reads, who is taken out does not."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

ALICE = "alice@hospital.example"
BOB, DORA = "bob@rules.example", "dora@rules.example"
FOLDER = f"{ALICE}/rules-cli"
RULES, GROUPS = f"{FOLDER}/syft.pub.yaml", f"{ALICE}/syft.groups.yaml"
PROGRAM = str(Path(sys.executable).with_name("syftmesh"))
PAGE = Path(__file__).parents[2] / "docs/permissions.md"


@dataclass(frozen=True)
class Person:
    """Runs the program as one person."""

    state: Path
    email: str

    def run(self, *arguments: str, code: int = 0) -> tuple[bytes, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        around = {**kept, "SYFTMESH_STATE": str(self.state), "SYFTMESH_PROFILE": self.email}
        done = subprocess.run(
            [PROGRAM, *arguments],
            env=around,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout.decode(), done.stderr.decode())
        return done.stdout, done.stderr.decode()

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code)[0])

    def put(self, folder: Path, path: str, text: str) -> None:
        (folder / "upload").write_text(text)
        self.run("cp", str(folder / "upload"), path, "--yes")


def _person(mesh: Any, folder: Path, email: str) -> Person:
    made = Person(mesh.state, email)
    made.json("login", "--email", email, "--recovery-out", str(folder / "phrase"))
    return made


@pytest.fixture(scope="module")
def alice(mesh: Any) -> Iterator[Person]:
    owner = Person(mesh.state, ALICE)
    yield owner
    owner.run("rm", "-r", FOLDER, "--yes")
    owner.run("rm", GROUPS, "--yes")


@pytest.fixture(scope="module")
def bob(mesh: Any, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return _person(mesh, tmp_path_factory.mktemp("bob"), BOB)


@pytest.fixture(scope="module")
def dora(mesh: Any, tmp_path_factory: pytest.TempPathFactory) -> Person:
    return _person(mesh, tmp_path_factory.mktemp("dora"), DORA)


def test_a_member_reads_a_sealed_file_until_taken_out_of_the_group(
    alice: Person, bob: Person, dora: Person, tmp_path: Path
) -> None:
    made = alice.json("group", "create", "rules-cli", BOB, DORA)
    assert (made["file"], made["members"], made["adds"]) == (GROUPS, [BOB, DORA], [])
    ruled = alice.json("acl", "set", f"{FOLDER}/", "--read", "group:rules-cli", "--yes")
    assert [(gain["level"], gain["who"]) for gain in ruled["adds"]] == [("read", BOB), ("read", DORA)]
    path = f"{FOLDER}/report.txt"
    alice.put(tmp_path, path, "first\n")
    assert alice.json("stat", path)["sealed"] is True
    assert bob.run("cat", path)[0] == b"first\n"
    assert alice.json("acl", "readers", path)["principals"] == [ALICE, BOB, DORA]

    gone = alice.json("group", "remove", "rules-cli", BOB)
    assert gone["removes"] == [{"level": "read", "who": BOB, "files": 1}]
    assert gone["rules"] == [RULES]
    assert bob.run("cat", path, code=4)[1].startswith("error: FILE_MISSING: ")
    alice.put(tmp_path, path, "second\n")
    assert bob.run("cat", path, code=4)[1].startswith("error: FILE_MISSING: ")
    assert dora.run("cat", path)[0] == b"second\n"
    explained = alice.json("acl", "explain", path, "--as", BOB)
    assert (explained["allowed"], explained["reason"], explained["governing_file"]) == (
        False,
        "NOT_LISTED",
        RULES,
    )
    assert "rules-cli" in explained["needed"]
    assert alice.json("acl", "readers", path)["principals"] == [ALICE, DORA]
    shown = alice.json("group", "show", "rules-cli")
    assert (shown["members"], [use["file"] for use in shown["rules"]]) == ([DORA], [RULES])


def test_a_rule_file_keeps_what_its_owner_wrote_and_a_refused_one_stays(
    alice: Person, bob: Person, tmp_path: Path
) -> None:
    folder = f"{FOLDER}/kept"
    written = f"# Ask legal first.\nrules:\n- pattern: 'a*'   # drafts\n  access: {{read: [{BOB}]}}\n"
    alice.put(tmp_path, f"{folder}/syft.pub.yaml", written)
    alice.put(tmp_path, f"{folder}/a.txt", "draft\n")
    assert bob.run("cat", f"{folder}/a.txt")[0] == b"draft\n"
    changed = alice.json("acl", "set", f"{folder}/a.txt", "--deny", BOB, "--yes")
    assert changed["removes"] == [{"level": "read", "who": BOB, "files": 1}]
    after = alice.run("cat", f"{folder}/syft.pub.yaml")[0].decode()
    assert after.startswith(written)
    assert bob.run("cat", f"{folder}/a.txt", code=4)[1].startswith("error: FILE_MISSING: ")
    refused = alice.run("acl", "set", folder, "--read", "not-an-entry", "--yes", code=2)[1]
    assert refused.startswith("error: ENTRY_INVALID: ")
    asked = alice.run("acl", "set", folder, "--read", BOB, code=2)[1]
    assert asked.startswith("error: CONFIRMATION_NEEDED: ")
    assert alice.run("cat", f"{folder}/syft.pub.yaml")[0].decode() == after
    denied = bob.run("acl", "set", folder, "--read", BOB, "--yes", code=3)[1]
    assert denied.startswith("error: PERMISSION_DENIED: ")


def test_a_file_is_sealed_anew_for_whom_a_rule_lets_in(alice: Person, bob: Person, tmp_path: Path) -> None:
    path = f"{FOLDER}/anew/plan.txt"
    alice.put(tmp_path, path, "plan\n")
    bob.run("cat", path, code=4)
    done = alice.json("acl", "set", path, "--read", BOB, "--reseal", "--yes")
    assert (done["resealed"], done["adds"]) == ([path], [{"level": "read", "who": BOB, "files": 1}])
    assert bob.run("cat", path)[0] == b"plan\n"


def test_a_new_member_opens_what_was_sealed_before_when_asked(
    alice: Person, bob: Person, dora: Person, tmp_path: Path
) -> None:
    alice.json("group", "create", "rules-late", DORA)
    alice.json("acl", "set", f"{FOLDER}/late/", "--read", "group:rules-late", "--yes")
    path = f"{FOLDER}/late/plan.txt"
    alice.put(tmp_path, path, "plan\n")
    added = alice.json("group", "add", "rules-late", BOB)
    assert added["adds"] == [{"level": "read", "who": BOB, "files": 1}]
    assert bob.run("cat", path, code=3)[1].startswith("error: NO_KEY_FOR_DEVICE: ")
    assert alice.json("group", "add", "rules-late", BOB, "--reseal")["resealed"] == [path]
    assert bob.run("cat", path)[0] == b"plan\n"
    assert dora.run("cat", path)[0] == b"plan\n"


def test_only_its_owner_changes_groups(alice: Person, bob: Person, tmp_path: Path) -> None:
    (tmp_path / "groups").write_text(f"groups: {{rules-cli: [{BOB}]}}\n")
    refused = bob.run("cp", str(tmp_path / "groups"), GROUPS, "--yes", code=3)[1]
    assert refused.startswith("error: PERMISSION_DENIED: ")
    circle = alice.run("group", "add", "rules-cli", "group:rules-cli", code=2)[1]
    assert circle.startswith("error: RULES_INVALID: ")


def _steps(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Iterate over what a page says is typed, each with the lines that it shows for it."""
    for block in re.findall(r"^```console\n(.*?)^```", page.read_text(), re.M | re.S):
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *shown = step.splitlines()
            yield command, shown


def test_the_page_for_owners_holds(mesh: Any, tmp_path: Path) -> None:
    kept = {name: os.environ[name] for name in ("HOME", "PYTHONPATH") if name in os.environ}
    path = f"{Path(PROGRAM).parent}:{os.environ['PATH']}"
    around = {**kept, "PATH": path, "SYFTMESH_STATE": str(mesh.state), "SYFTMESH_PROFILE": ALICE}
    steps = list(_steps(PAGE))
    assert len(steps) > 10
    for command, shown in steps:
        done = subprocess.run(
            ["bash", "-c", command], env=around, cwd=tmp_path, capture_output=True, timeout=90, check=False
        )
        assert done.returncode == 0, (command, done.stderr.decode())
        written = done.stdout.decode().splitlines()
        assert [line for line in shown if line not in written] == [], (command, written)
    code = re.search(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert code is not None
    ran = subprocess.run(
        [sys.executable, "-c", code[1]],
        env=around,
        cwd=tmp_path,
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr.decode()
    assert ran.stdout.decode().splitlines() == [
        "dora@lab.example gains read on 0",
        f"{ALICE}/reports/syft.pub.yaml is at revision 6",
    ]
    Person(mesh.state, ALICE).run("rm", "-r", f"{ALICE}/reports", "--yes")
