"""Exit codes, error lines, global options and questions: what every verb shares."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh_core.errors import BY_CODE, IntegrityFailure, MeshError, NotFound

EXIT_CODES = {
    "INVALID_ARGUMENT": 2,
    "UNAUTHENTICATED": 3,
    "PERMISSION_DENIED": 3,
    "NOT_FOUND": 4,
    "ALREADY_EXISTS": 5,
    "ABORTED": 5,
    "FAILED_PRECONDITION": 5,
    "UNAVAILABLE": 6,
    "RESOURCE_EXHAUSTED": 6,
    "DEADLINE_EXCEEDED": 6,
    "DATA_LOSS": 7,
    "CANCELLED": 130,
    "UNIMPLEMENTED": 1,
    "INTERNAL": 1,
}


def _reading(answer: Callable[..., Any]) -> Any:
    return SimpleNamespace(email="carol@lab.example", files=SimpleNamespace(read=answer))


@pytest.mark.parametrize("code", BY_CODE)
def test_each_class_of_error_has_its_exit_code_and_its_lines(code: str, program: Any, raising: Any) -> None:
    error = BY_CODE[code]("It is so.", reason="SOME_REASON", hint="do that")
    program.client = _reading(raising(error))
    done = program("cat", "a@x.example/f", "--json")
    assert done.code == EXIT_CODES[code]
    assert done.err == "error: SOME_REASON: It is so.\nhint: do that\n"
    assert done.data == b""


def test_an_error_among_tasks_is_told_as_itself(program: Any, raising: Any) -> None:
    inner = ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("more", [NotFound("Gone.")])])
    program.client = _reading(raising(inner))
    done = program("cat", "a@x.example/f")
    assert (done.code, done.err) == (4, "error: NOT_FOUND: Gone.\n")


def test_a_defect_is_internal_and_its_traceback_only_with_v(program: Any, raising: Any) -> None:
    program.client = _reading(raising(ZeroDivisionError("secret text")))
    done = program("cat", "a@x.example/f")
    assert done.code == 1
    assert done.err.startswith("error: INTERNAL: ")
    assert "secret text" not in done.err
    assert "Traceback" not in done.err
    assert "-v" in done.err.splitlines()[1]
    verbose = program("cat", "a@x.example/f", "-v")
    assert verbose.code == 1
    assert "ZeroDivisionError: secret text" in verbose.err


def test_ctrl_c_exits_130(program: Any, raising: Any) -> None:
    program.client = _reading(raising(KeyboardInterrupt()))
    done = program("cat", "a@x.example/f")
    assert done.code == 130
    assert done.err.startswith("error: INTERRUPTED: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["frobnicate"],
        ["job", "frobnicate"],
        ["cat"],
        ["cat", "a@x.example/f", "--wrong"],
        ["cat", "a@x.example/f", "more"],
        ["job"],
        [],
        ["job", "submit", "code"],
    ],
)
def test_wrong_usage_exits_2_with_a_hint(arguments: list[str], program: Any) -> None:
    done = program(*arguments)
    assert done.code == 2
    lines = done.err.splitlines()
    assert lines[-2].startswith("error: USAGE: ")
    assert lines[-1].startswith("hint: syftmesh")
    assert lines[-1].endswith("--help")
    assert done.data == b""


def test_global_options_reach_the_client(program: Any, tmp_path: Path) -> None:
    program.client = _reading(lambda _path: b"x")
    state = str(tmp_path / "other")
    arguments = ["--server", "http://h:1", "--profile", "a@x.example", "--state", state]
    after = ["cat", "a@x.example/f", *arguments]
    before = [*arguments, "cat", "a@x.example/f"]
    for line in (after, before):
        assert program(*line).code == 0
        assert program.connected.pop() == ("http://h:1", {"profile": "a@x.example", "state": Path(state)})


def test_variables_stand_in_for_options_and_options_win(program: Any, tmp_path: Path) -> None:
    program.client = _reading(lambda _path: b"x")
    program.environ = {"SYFTMESH_SERVER": "http://env:1", "SYFTMESH_PROFILE": "env@x.example"}
    program("cat", "a@x.example/f")
    server, options = program.connected.pop()
    assert (server, options["profile"], options["state"]) == ("http://env:1", "env@x.example", program.state)
    program("cat", "a@x.example/f", "--profile", "option@x.example", "--state", str(tmp_path / "o"))
    server, options = program.connected.pop()
    assert (options["profile"], options["state"]) == ("option@x.example", tmp_path / "o")
    program("--profile", "root@x.example", "cat", "a@x.example/f")
    assert program.connected.pop()[1]["profile"] == "root@x.example"


def _removing() -> tuple[Any, list[str]]:
    deleted: list[str] = []
    files = SimpleNamespace(stat=lambda path: SimpleNamespace(path=path), delete=deleted.append)
    return SimpleNamespace(files=files), deleted


def test_a_question_without_a_terminal_is_an_error_and_nothing_is_done(program: Any) -> None:
    program.client, deleted = _removing()
    done = program("rm", "a@x.example/f", answer="y\n")
    assert done.code == 2
    assert done.err.startswith("error: CONFIRMATION_NEEDED: ")
    assert "--yes" in done.err
    assert deleted == []


@pytest.mark.parametrize("option", ["--yes", "-y"])
def test_yes_answers_the_question(option: str, program: Any) -> None:
    program.client, deleted = _removing()
    assert program("rm", "a@x.example/f", option).code == 0
    assert deleted == ["a@x.example/f"]


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("YES\n", 0), ("n\n", 130), ("\n", 130), ("", 130)])
def test_only_a_yes_on_the_terminal_goes_on(answer: str, code: int, program: Any) -> None:
    program.client, deleted = _removing()
    done = program("rm", "a@x.example/f", terminal=True, answer=answer)
    assert done.code == code
    assert bool(deleted) == (code == 0)
    assert "[y/N]" in done.err


def test_json_is_one_ascii_document_that_steers_no_terminal(program: Any) -> None:
    program.client = _reading(lambda _path: "\x1b[31mrød\x7f\x9b\u202e".encode())
    done = program("cat", "a@x.example/f", "--json")
    assert done.data.isascii()
    assert all(byte >= 32 or byte == 10 for byte in done.data)
    assert b"\x7f" not in done.data
    assert json.loads(done.data)["content"] == "\x1b[31mrød\x7f\x9b\u202e"


def test_an_error_with_hostile_text_stays_on_its_lines(program: Any, raising: Any) -> None:
    evil = "x\nhint: rm -rf /\x1b]0;title\x07\x1b[2J[red]y[/red]"
    program.client = _reading(raising(IntegrityFailure(evil, reason="RECORD_INVALID")))
    done = program("cat", "a@x.example/f")
    assert done.code == 7
    assert done.err == "error: RECORD_INVALID: x hint: rm -rf /[red]y[/red]\n"


def test_every_error_class_is_covered() -> None:
    assert set(EXIT_CODES) == set(BY_CODE)
    assert all(issubclass(kind, MeshError) for kind in BY_CODE.values())
