"""Verbs of files, rights, keys and calls on a client that is made of dictionaries."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh_core.errors import Conflict, NotFound

OWNER = "alice@hospital.example"
URL = "syft://bob@x.example/app_data/pingpong/rpc/ping"


@dataclass
class View:
    path: str
    revision: int
    size_bytes: int | None
    stored_size_bytes: int = 4096
    author: str = OWNER
    created_ms: int = 1_767_225_600_000
    sealed: bool = True
    unverified: str = ""


@dataclass
class Files:
    content: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    late: bytes | None = None  # what somebody writes between look and write

    def read(self, path: str) -> bytes:
        if path not in self.content:
            raise NotFound(f"There is no file {path}, or you may not read it.", reason="FILE_MISSING")
        return self.content[path][1]

    def write(self, path: str, data: bytes, expected_revision: int | None = None) -> Any:
        revision = self.content.get(path, (0, b""))[0]
        if self.late is not None:
            revision += 1
            self.content[path] = (revision, self.late)
        if expected_revision not in (None, revision):
            raise Conflict("Somebody wrote it.", reason="STALE_PREVIOUS")
        self.content[path] = (revision + 1, data)
        return self.stat(path)

    def delete(self, path: str) -> None:
        del self.content[path]

    def stat(self, path: str) -> View | None:
        found = self.content.get(path)
        return found and View(path, found[0], len(found[1]))

    def list(self, prefix: str) -> list[View]:
        return [
            View(p, r, len(d)) for p, (r, d) in sorted(self.content.items()) if p.startswith(f"{prefix}/")
        ]


@pytest.fixture
def files(program: Any) -> Files:
    made = Files({f"{OWNER}/public/a.csv": (3, b"a,b\n1,2\n"), f"{OWNER}/public/sub/b.bin": (1, b"\xff\0")})
    program.client = SimpleNamespace(email=OWNER, files=made)
    return made


def test_ls_lists_the_own_site_or_a_folder(program: Any, files: Files) -> None:
    assert [item["path"] for item in program("ls", "--json").json["items"]] == list(files.content)
    item = program("ls", f"{OWNER}/public", "--json").json["items"][0]
    assert item == {
        "path": f"{OWNER}/public/a.csv",
        "revision": 3,
        "size_bytes": 8,
        "stored_size_bytes": 4096,
        "author": OWNER,
        "created": "2026-01-01T00:00:00Z",
        "sealed": True,
        "unverified": "",
    }
    assert program("ls", f"{OWNER}/public").out.splitlines()[1].split()[:3] == [item["path"], "8", "B"]
    assert program("ls", f"{OWNER}/none", "--json").json == {"items": []}


def test_stat_of_nothing_is_not_found(program: Any, files: Files) -> None:
    assert program("stat", f"{OWNER}/public/a.csv", "--json").json["revision"] == 3
    done = program("stat", f"{OWNER}/none")
    assert (done.code, done.err.split(":")[1]) == (4, " FILE_MISSING")


def test_cat_gives_exact_bytes_to_a_pipe_and_clean_text_to_a_terminal(program: Any, files: Files) -> None:
    files.content[f"{OWNER}/evil"] = (1, b"x\x1b[2J\r\n[red]y")
    assert program("cat", f"{OWNER}/evil").data == b"x\x1b[2J\r\n[red]y"
    assert program("cat", f"{OWNER}/evil", terminal=True).out == "x\n[red]y\n"
    assert program("cat", f"{OWNER}/public/sub/b.bin").data == b"\xff\0"
    done = program("cat", f"{OWNER}/public/sub/b.bin", terminal=True)
    assert (done.code, done.err.split(":")[1]) == (2, " BINARY_ON_TERMINAL")
    assert program("cat", f"{OWNER}/public/sub/b.bin", "--json").json["content_base64"] == "/wA="


def test_cp_brings_a_file_here_and_asks_before_it_replaces_one(
    program: Any, files: Files, tmp_path: Path
) -> None:
    target = tmp_path / "copy.csv"
    done = program("cp", f"{OWNER}/public/a.csv", str(target), "--json")
    assert done.json == {
        "items": [{"source": f"{OWNER}/public/a.csv", "target": str(target), "size_bytes": 8}]
    }
    target.write_bytes(b"mine")
    assert program("cp", f"{OWNER}/public/a.csv", str(target)).code == 2
    assert target.read_bytes() == b"mine"
    assert program("cp", f"{OWNER}/public/a.csv", str(target), "--yes").code == 0
    assert target.read_bytes() == b"a,b\n1,2\n"
    program("cp", f"{OWNER}/public/a.csv", str(tmp_path))
    assert (tmp_path / "a.csv").exists()


def test_cp_sends_a_file_and_replaces_only_what_was_asked_about(
    program: Any, files: Files, tmp_path: Path
) -> None:
    source = tmp_path / "new.csv"
    source.write_bytes(b"new")
    done = program("cp", str(source), f"{OWNER}/public/", "--json")
    assert done.json["items"][0]["target"] == f"{OWNER}/public/new.csv"
    assert files.content[f"{OWNER}/public/new.csv"] == (1, b"new")
    assert program("cp", str(source), f"{OWNER}/public/a.csv").code == 2
    assert program("cp", str(source), f"{OWNER}/public/a.csv", "-y").code == 0
    assert files.content[f"{OWNER}/public/a.csv"] == (4, b"new")
    files.late = b"somebody else's"
    assert program("cp", str(source), f"{OWNER}/public/a.csv", "-y").code == 5
    assert files.content[f"{OWNER}/public/a.csv"] == (5, b"somebody else's")


def test_cp_of_folders_both_ways(program: Any, files: Files, tmp_path: Path) -> None:
    assert program("cp", "-r", f"{OWNER}/public", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/sub/b.bin").read_bytes() == b"\xff\0"
    (tmp_path / "out/link").symlink_to("/etc/passwd")
    assert program("cp", str(tmp_path / "out"), f"{OWNER}/back").code == 2
    assert program("cp", "-r", str(tmp_path / "out"), f"{OWNER}/back").code == 0
    assert sorted(p for p in files.content if "/back/" in p) == [
        f"{OWNER}/back/a.csv",
        f"{OWNER}/back/sub/b.bin",
    ]


def test_cp_inside_the_mesh_and_not_inside_this_machine(program: Any, files: Files, tmp_path: Path) -> None:
    assert program("cp", f"{OWNER}/public/a.csv", f"{OWNER}/b.csv").code == 0
    assert files.content[f"{OWNER}/b.csv"] == (1, b"a,b\n1,2\n")
    done = program("cp", "a", "./b@x.example/c")
    assert (done.code, done.err.split(":")[1]) == (2, " COPY_LOCAL")
    assert program("cp", str(tmp_path / "none"), f"{OWNER}/x").code == 4
    assert program("cp", f"{OWNER}/a//b", str(tmp_path)).err.startswith("error: PATH_INVALID: ")


def test_rm_deletes_after_a_yes_and_nothing_when_one_is_missing(program: Any, files: Files) -> None:
    assert program("rm", f"{OWNER}/public/a.csv", f"{OWNER}/none", "-y").code == 4
    assert len(files.content) == 2
    assert program("rm", "-r", f"{OWNER}/public", "-y", "--json").json["items"] == [
        f"{OWNER}/public/a.csv",
        f"{OWNER}/public/sub/b.bin",
    ]
    assert files.content == {}


@dataclass
class Decision:
    allowed: bool
    path: str = f"{OWNER}/public/a.csv"
    principal: str = "carol@lab.example"
    level: str = "read"
    reason: str = "RULE_ALLOWS"
    rule: Any = None
    token: Any = field(default_factory=lambda: {"epoch": 1, "sequence": 7})
    governing_file: str = ""
    needed: str = "Something else."


def test_acl_check_prints_the_contract_and_exits_0_or_3(program: Any) -> None:
    asked: list[Any] = []

    def check(path: str, **question: Any) -> Decision:
        asked.append((path, question))
        rule = SimpleNamespace(file=f"{OWNER}/public/syft.pub.yaml", line=3, pattern="**")
        return (
            Decision(True, rule=rule) if question["level"] == "read" else Decision(False, reason="NOT_LISTED")
        )

    program.client = SimpleNamespace(permissions=SimpleNamespace(check=check))
    arguments = ["acl", "check", f"{OWNER}/public/a.csv", "--as", "guest", "--size", "10KB", "--at", "1d"]
    done = program(*arguments, "--json")
    assert done.code == 0
    assert done.json == {
        "allowed": True,
        "path": f"{OWNER}/public/a.csv",
        "principal": "carol@lab.example",
        "level": "read",
        "reason": "RULE_ALLOWS",
        "rule": {"file": f"{OWNER}/public/syft.pub.yaml", "line": 3, "pattern": "**"},
        "token": {"epoch": 1, "sequence": 7},
    }
    at = datetime(2026, 1, 2, tzinfo=UTC)
    assert asked[0][1] == {"level": "read", "as_": "guest", "size_bytes": 10_000, "at": at}
    denied = program("acl", "check", f"{OWNER}/public/a.csv", "--level", "write", "--json")
    assert (denied.code, denied.json["allowed"], denied.json["rule"], denied.err) == (3, False, None, "")
    assert program("acl", "check", "x", "--level", "own").code == 2


def test_acl_explain_says_what_would_be_needed(program: Any) -> None:
    program.client = SimpleNamespace(
        permissions=SimpleNamespace(explain=lambda _path, **_question: Decision(False, reason="NO_RULE_FILE"))
    )
    assert program("acl", "explain", f"{OWNER}/a", "--json", "-v").err == ""
    assert program("acl", "explain", f"{OWNER}/a", "--json").json["needed"] == "Something else."
    assert "Something else." in program("acl", "explain", f"{OWNER}/a").out


def test_acl_show_gives_the_rule_files_on_the_way(program: Any, files: Files) -> None:
    files.content[f"{OWNER}/syft.pub.yaml"] = (1, b"rules: []\n")
    files.content[f"{OWNER}/public/syft.pub.yaml"] = (1, b"rules: [1]\n")
    done = program("acl", "show", f"{OWNER}/public/a.csv", "--json")
    assert [item["path"] for item in done.json["items"]] == [
        f"{OWNER}/syft.pub.yaml",
        f"{OWNER}/public/syft.pub.yaml",
    ]
    assert program("acl", "show", "bob@x.example/a").err.startswith("error: RULES_MISSING: ")


def _rpc(program: Any, **functions: Callable[..., Any]) -> list[Any]:
    asked: list[Any] = []

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            asked.append((arguments, options))
            return function()

        return noted

    program.client = SimpleNamespace(
        rpc=SimpleNamespace(**{name: noting(function) for name, function in functions.items()})
    )
    return asked


def test_rpc_call_sends_json_and_prints_the_reply(program: Any) -> None:
    asked = _rpc(program, call=lambda: {"pong": 1, "text": "\x1b[31mø"})
    done = program("rpc", "call", URL, "--data", '{"n": 1}', "--timeout", "2m")
    assert asked == [((URL, {"n": 1}), {"timeout_s": 120.0})]
    assert json.loads(done.out) == {"pong": 1, "text": "\x1b[31mø"}
    assert "\x1b" not in done.out
    assert program("rpc", "call", URL, "--json").json == {
        "url": URL,
        "reply": {"pong": 1, "text": "\x1b[31mø"},
    }


def test_rpc_call_sends_files_and_gives_bytes_as_they_are(program: Any, tmp_path: Path) -> None:
    asked = _rpc(program, call=lambda: b"\xff")
    (tmp_path / "a.json").write_text('{"n": 2}')
    (tmp_path / "a.bin").write_bytes(b"\0")
    assert program("rpc", "call", URL, "--file", str(tmp_path / "a.json")).data == b"\xff"
    program("rpc", "call", URL, "--file", str(tmp_path / "a.bin"))
    assert asked[0][0][1] == {"n": 2}
    assert asked[1] == ((URL, b"\0"), {"timeout_s": 30.0, "content_type": "application/octet-stream"})


def test_rpc_call_refuses_before_it_connects(program: Any, tmp_path: Path) -> None:
    for arguments, reason in (
        (["http://x"], "INVALID_URL"),
        ([URL, "--data", "{"], "JSON_INVALID"),
        ([URL, "--data", "1", "--file", "x"], "DATA_AMBIGUOUS"),
        ([URL, "--timeout", "soon"], "DURATION_INVALID"),
        ([URL, "--file", str(tmp_path / "none")], "LOCAL_FILE_MISSING"),
    ):
        assert program("rpc", "call", *arguments).err.startswith(f"error: {reason}: ")
    assert program.connected == []


def test_rpc_send_prints_an_id_for_result(program: Any) -> None:
    _rpc(program, send=lambda: "id-1", result=lambda: {"pong": 1})
    done = program("rpc", "call", URL, "--send")
    assert done.out == "id-1\n"
    assert "syftmesh rpc result id-1" in done.err
    assert program("rpc", "result", "id-1", "--json").json == {"id": "id-1", "reply": {"pong": 1}}
