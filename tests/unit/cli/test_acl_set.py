"""The verbs that change rules and groups, on datasites in memory."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh.blocking_rule import Groups, RuleDesk
from syftmesh.group import AsyncGroups
from syftmesh.rule_desk import AsyncRuleDesk

sys.path.append(str(Path(__file__).parents[1] / "sdk"))

from memory_node import MemoryFiles, memory_node

ALICE, BOB, CAROL = "alice@hospital.example", "bob@x.example", "carol@lab.example"
RULES, FILE = f"{ALICE}/data/syft.pub.yaml", f"{ALICE}/syft.groups.yaml"
BEFORE = f'# mine\nrules:\n- pattern: "**"\n  access:\n    read: [{BOB}]  # since May\n'
AFTER = BEFORE.replace(f"[{BOB}]", f'["{CAROL}"]')
NOW_MS = 1_767_225_600_000


@pytest.fixture
def files(program: Any) -> MemoryFiles:
    made = MemoryFiles()
    made.put(f"{ALICE}/data/a.csv")
    made.put(f"{ALICE}/data/b.csv")
    made.put(RULES, BEFORE)
    node = memory_node(ALICE, made, NOW_MS)
    portal: Any = SimpleNamespace(run=asyncio.run)
    program.client = SimpleNamespace(
        email=ALICE,
        permissions=RuleDesk(portal, AsyncRuleDesk(node)),
        groups=Groups(portal, AsyncGroups(node)),
    )
    return made


def test_acl_set_shows_whom_it_adds_and_removes_above_the_difference_and_asks(
    program: Any, files: MemoryFiles
) -> None:
    done = program("acl", "set", f"{ALICE}/data", "--read", CAROL, terminal=True, answer="y\n")
    assert done.code == 0, done.err
    lines = done.err.splitlines()
    assert lines[:2] == [f"adds read: {CAROL} on 2 files", f"removes read: {BOB} on 2 files"]
    assert f'+    read: ["{CAROL}"]  # since May' in lines
    assert lines.index(f"--- {RULES}") > 1
    assert lines[-1].startswith(f"Write {RULES}? [y/N]")
    assert done.out == f"Wrote {RULES}, revision 2.\n"
    assert files.text(RULES) == AFTER


def test_acl_set_writes_nothing_without_a_yes(program: Any, files: MemoryFiles) -> None:
    asked = ("acl", "set", f"{ALICE}/data", "--read", CAROL)
    declined = program(*asked, terminal=True, answer="n\n")
    assert (declined.code, "DECLINED" in declined.err) == (130, True)
    unasked = program(*asked)
    assert (unasked.code, unasked.err.split(":")[1]) == (2, " CONFIRMATION_NEEDED")
    planned = program(*asked, "--dry-run", "--json")
    assert planned.code == 0
    assert (planned.json["revision"], planned.json["adds"]) == (
        1,
        [{"level": "read", "who": CAROL, "files": 2}],
    )
    assert program(*asked, "--dry-run").out.splitlines()[-1] == "Nothing was written."
    assert files.text(RULES) == BEFORE


def test_acl_set_in_json(program: Any, files: MemoryFiles) -> None:
    done = program("acl", "set", f"{ALICE}/data", "--read", f"{BOB}, *", "--yes", "--json")
    assert done.json == {
        "path": f"{ALICE}/data",
        "file": RULES,
        "pattern": "**",
        "diff": done.json["diff"],
        "adds": [{"level": "read", "who": "*", "files": 2}],
        "removes": [],
        "notes": done.json["notes"],
        "resealed": [],
        "revision": 2,
    }
    assert f'-    read: [{BOB}]  # since May\n+    read: [{BOB}, "*"]  # since May\n' in done.json["diff"]
    assert "plain text" in done.json["notes"][0]
    again = program("acl", "set", f"{ALICE}/data", "--read", BOB, "--read", "*")
    assert (again.code, again.out.splitlines()[-1]) == (0, f"{RULES} says so already.")


def test_acl_set_seals_files_anew_when_asked(program: Any, files: MemoryFiles) -> None:
    asked = ("acl", "set", f"{ALICE}/data", "--read", CAROL, "--reseal")
    done = program(*asked, "--yes")
    assert done.out.splitlines()[-2:] == [f"Wrote {RULES}, revision 2.", "Sealed 2 anew."]
    assert files.resealed == [f"{ALICE}/data/a.csv", f"{ALICE}/data/b.csv"]
    assert program(*asked).err.startswith("error: CONFIRMATION_NEEDED: ")
    assert program(*asked, "--yes").out.splitlines()[-1] == "Sealed 2 anew."
    assert len(files.resealed) == 4


def test_acl_set_takes_all_parts_of_a_rule(program: Any, files: MemoryFiles) -> None:
    done = program(
        "acl", "set", f"{ALICE}/data", "--pattern", "*.csv", "--write", BOB, "--create", "USER", "--admin", CAROL,
        "--deny", "eve@x.example", "--expires", "30d", "--terminal", "--max-file-size", "10MB", "--max-files", "3",
        "--yes", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert files.text(RULES) == (
        f'{BEFORE}- pattern: "*.csv"\n  access:\n    admin: ["{CAROL}"]\n    write: ["{BOB}"]\n    create: ["USER"]\n'
        '  deny: ["eve@x.example"]\n  expires: 2026-01-31T00:00:00Z\n'
        "  limits: {maxFileSize: 10MB, maxFiles: 3}\nterminal: true\n"
    )
    cleared = program(
        "acl", "set", f"{ALICE}/data", "--pattern", "*.csv", "--deny", "", "--remove", f"{BOB},USER", "--expires",
        "none", "--no-terminal", "--max-file-size", "none", "--max-files", "none", "--yes",
    )  # fmt: skip
    assert cleared.code == 0, cleared.err
    assert files.text(RULES) == (
        f'{BEFORE}- pattern: "*.csv"\n  access:\n    admin: ["{CAROL}"]\n    write: []\n    create: []\n  deny: []\n'
        "  limits: {}\nterminal: false\n"
    )


def test_acl_set_is_a_conflict_when_somebody_wrote_since_it_was_shown(
    program: Any, files: MemoryFiles
) -> None:
    files.before_write = lambda: files.put(RULES, "# theirs\n")
    done = program("acl", "set", f"{ALICE}/data", "--read", CAROL, "--yes")
    assert (done.code, done.err.split(":")[1]) == (5, " STALE_PREVIOUS")
    assert files.text(RULES) == "# theirs\n"


@pytest.mark.parametrize(
    ("options", "code", "reason"),
    [
        ((), 2, "CHANGE_MISSING"),
        (("--read", "bob"), 2, "ENTRY_INVALID"),
        (("--read", f"{BOB},,{CAROL}"), 2, "ENTRY_INVALID"),
        (("--write", "BOB@"), 2, "ENTRY_INVALID"),
        (("--create", "group:Über"), 2, "ENTRY_INVALID"),
        (("--admin", "user"), 2, "ENTRY_INVALID"),
        (("--deny", "**"), 2, "ENTRY_INVALID"),
        (("--remove", "x"), 2, "ENTRY_INVALID"),
        (("--read", BOB, "--pattern", "[a"), 2, "PATTERN_INVALID"),
        (("--expires", "tomorrow"), 2, "TIME_INVALID"),
        (("--max-file-size", "much"), 2, "SIZE_INVALID"),
        (("--max-files", "-1"), 2, "COUNT_INVALID"),
        (("--remove", CAROL, "--pattern", "x"), 4, "RULE_UNKNOWN"),
    ],
)
def test_acl_set_refuses_what_is_wrong_in_an_option(
    program: Any, files: MemoryFiles, options: tuple[str, ...], code: int, reason: str
) -> None:
    done = program("acl", "set", f"{ALICE}/data", *options, "--yes")
    assert (done.code, done.err.split(":")[1]) == (code, f" {reason}"), done.err
    assert files.text(RULES) == BEFORE


def test_groups_from_making_to_deleting(program: Any, files: MemoryFiles) -> None:
    files.put(RULES, 'rules: [{pattern: "**", access: {read: ["group:team"]}}]\n')
    made = program("group", "create", "team", BOB, "--json").json
    assert (made["name"], made["file"], made["members"], made["revision"]) == ("team", FILE, [BOB], 1)
    assert (made["adds"], made["removes"]) == ([{"level": "read", "who": BOB, "files": 2}], [])
    assert made["rules"] == [RULES]
    added = program("group", "add", "team", CAROL)
    assert added.out.splitlines()[0] == f"adds read: {CAROL} on 2 files"
    assert added.out.splitlines()[-1] == "Changed the group team."
    assert program("group", "add", "team", CAROL).out.splitlines()[-1] == f"{FILE} says so already."
    planned = program("group", "remove", "team", BOB, "--dry-run")
    assert planned.out.splitlines()[-1] == "Nothing was written."
    assert program("group", "remove", "team", BOB, "--json").json["members"] == [CAROL]
    listed = {"name": "team", "members": [CAROL], "principals": [CAROL]}
    assert program("group", "ls", "--json").json == {"items": [listed]}
    use = {"file": RULES, "line": 1, "pattern": "**", "lists": ["read"]}
    assert program("group", "show", "team", "--json").json == {**listed, "groups": [], "rules": [use]}
    assert RULES in program("group", "show", "team").out
    assert program("group", "rm", "team").err.startswith("error: CONFIRMATION_NEEDED: ")
    assert (
        f"removes read: {CAROL} on 2 files" in program("group", "rm", "team", terminal=True, answer="n\n").err
    )
    assert program("group", "rm", "team", "--yes", "--json").json["removes"][0]["who"] == CAROL
    assert program("group", "ls").out == "There is no group.\n"


def test_a_group_that_nothing_names_is_deleted_without_a_question(program: Any, files: MemoryFiles) -> None:
    program("group", "create", "free")
    assert program("group", "rm", "free", "--dry-run").code == 0
    assert program("group", "rm", "free").out.splitlines()[-1] == "Deleted the group free."


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        (("create", "Team"), 2, "RULES_INVALID"),
        (("create", "x", "*"), 2, "RULES_INVALID"),
        (("create", "x", "group:x"), 2, "RULES_INVALID"),
        (("create", "x", "group:y"), 4, "GROUP_UNKNOWN"),
        (("create", "there"), 5, "GROUP_EXISTS"),
        (("add", "none", BOB), 4, "GROUP_UNKNOWN"),
        (("add", "there"), 2, "USAGE"),
        (("remove", "there", BOB), 4, "MEMBER_UNKNOWN"),
        (("show", "none"), 4, "GROUP_UNKNOWN"),
        (("rm", "none"), 4, "GROUP_UNKNOWN"),
    ],
)
def test_groups_refuse_what_is_wrong(
    program: Any, files: MemoryFiles, line: tuple[str, ...], code: int, reason: str
) -> None:
    files.put(FILE, "groups: {there: []}\n")
    done = program("group", *line)
    assert (done.code, done.err.split(":")[1]) == (code, f" {reason}"), done.err
    assert files.text(FILE) == "groups: {there: []}\n"


def test_acl_readers_tells_who_and_whether_these_are_all(program: Any) -> None:
    asked: list[Any] = []

    def readers(path: str, *, at: Any) -> Any:
        asked.append(at)
        return SimpleNamespace(
            path=path,
            kind="open",
            principals=(ALICE, BOB),
            why="USER is no closed set.",
            token={"epoch": 1, "sequence": 2},
        )

    program.client = SimpleNamespace(permissions=SimpleNamespace(readers=readers))
    done = program("acl", "readers", f"{ALICE}/data", "--json")
    assert done.json == {
        "path": f"{ALICE}/data",
        "kind": "open",
        "principals": [ALICE, BOB],
        "why": "USER is no closed set.",
        "token": {"epoch": 1, "sequence": 2},
    }
    text = program("acl", "readers", f"{ALICE}/data", "--at", "1d").out
    assert [line.split()[0] for line in text.splitlines()] == ["kind", "principals", "why"]
    assert asked[0] is None
    assert asked[1].isoformat() == "2026-01-02T00:00:00+00:00"
    assert program("acl", "readers", f"{ALICE}/data", "--at", "soon").code == 2
