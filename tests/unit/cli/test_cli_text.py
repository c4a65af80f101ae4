"""Text of others on the terminal, documents, and the values that people write."""

from __future__ import annotations

import io
import json
import math
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh.cli.local import inside, read_file, write_file
from syftmesh.cli.output import Block, Fields, Table, jsonable, size_text, write_human, write_json
from syftmesh.cli.quantity import count, duration_s, json_value, moment, size_bytes
from syftmesh.cli.terminal import many_lines, one_line
from syftmesh_core.errors import IntegrityFailure, InvalidInput, MeshError, NotFound, WrongState
from syftmesh_kit.testing import FakeClock

CLOCK = FakeClock(now_ms=1_767_225_600_000)


@given(st.text())
def test_no_text_keeps_a_control_character(text: str) -> None:
    assert not {unicodedata.category(c) for c in many_lines(text) if c not in "\n\t"} & {
        "Cc",
        "Cf",
        "Cs",
        "Co",
    }
    line = one_line(text)
    assert not set(line) & set("\n\r\t\v\f\x1b\x85\u2028\u2029\u202e\u200b\ufeff\x00\x9b")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07x", "x"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b2Jx", "x"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("a\rb\nc\td", "a b c d"),
        ("safe\u202egnp.exe", "safe\N{REPLACEMENT CHARACTER}gnp.exe"),
        ("nul\0", "nul\N{REPLACEMENT CHARACTER}"),
        ("\x1b", ""),
        ("Grüße 東京 🎉", "Grüße 東京 🎉"),
        ("[bold]x[/bold]", "[bold]x[/bold]"),
    ],
)
def test_escape_sequences_go_and_words_stay(text: str, line: str) -> None:
    assert one_line(text) == line


def test_lines_of_a_block_stay() -> None:
    assert many_lines("a\r\nb\n\tc\x1b[1m\x07") == "a\nb\n\tc\N{REPLACEMENT CHARACTER}"


def _human(*parts: Any, terminal: bool) -> str:
    stream = io.StringIO()
    write_human(stream, parts, terminal=terminal)
    return stream.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_tables_and_fields_show_hostile_values_as_text(*, terminal: bool) -> None:
    evil = "[red]\x1b[31mx\n[/red]"
    text = _human(
        Table(["name"], [[evil]]), Fields([(evil, evil)]), f"say {evil}", Block(evil), terminal=terminal
    )
    assert "\x1b" not in text
    assert text.count("[red]") == 5
    assert text.count("[/red]") == 5


def test_plain_tables_are_never_cut() -> None:
    long = "x" * 500
    text = _human(Table(["name", "size"], [[long, 1], ["y", None]]), terminal=False)
    assert text.splitlines() == [f"NAME{' ' * 498}SIZE", f"{long}  1", f"y{' ' * 501}-"]


def test_an_empty_table_says_so() -> None:
    assert _human(Table(["a"], [], "There is no job."), terminal=False) == "There is no job.\n"


@dataclass
class Thing:
    at: datetime
    data: bytes


def test_documents_hold_plain_json() -> None:
    zone = timezone(timedelta(hours=2))
    value: dict[Any, object] = {
        "nan": math.nan,
        "inf": -math.inf,
        "thing": Thing(datetime(2026, 1, 1, 2, tzinfo=zone), b"\xff"),
        "path": Path("/a/b"),
        "set": frozenset({1}),
        2: None,
    }
    assert jsonable(value) == {
        "nan": "NaN",
        "inf": "-Infinity",
        "thing": {"at": "2026-01-01T00:00:00Z", "data": "/w=="},
        "path": "/a/b",
        "set": [1],
        "2": None,
    }
    stream = io.StringIO()
    write_json(stream, value)
    assert json.loads(stream.getvalue())["nan"] == "NaN"


@pytest.mark.parametrize(("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (None, "-")])
def test_sizes_for_people(size: int | None, text: str) -> None:
    assert size_text(size) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("500ms", 0.5), ("1.5h", 5400), ("2d", 172_800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "30", "s", "-5s", "0s", "1w", "5 m", "1e3s", "5m\n", "٣s", "99999d", "1h30m"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        duration_s(text)
    assert caught.value.reason == "DURATION_INVALID"


def test_moments_are_absolute_or_from_now() -> None:
    assert moment("7d", CLOCK) == datetime(2026, 1, 8, tzinfo=UTC)
    assert moment("2026-02-03T04:05:06+02:00", CLOCK) == datetime(2026, 2, 3, 2, 5, 6, tzinfo=UTC)
    for text in ("tomorrow", "2026-02-03", "2026-02-30T00:00:00Z"):
        with pytest.raises(InvalidInput) as caught:
            moment(text, CLOCK)
        assert caught.value.reason == "TIME_INVALID"


def test_sizes_and_counts() -> None:
    assert (size_bytes("10KB"), size_bytes("2 MiB"), count("5", "number")) == (10_000, 2 << 20, 5)
    with pytest.raises(InvalidInput) as caught:
        size_bytes("1TB")
    assert caught.value.reason == "SIZE_INVALID"
    with pytest.raises(InvalidInput) as caught:
        count("-1", "number")
    assert caught.value.reason == "COUNT_INVALID"


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", "NaN", "[1, Infinity]", b"\xff\xff", "[" * 100_000])
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        json_value(text, "--data")
    assert caught.value.reason == "JSON_INVALID"


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\0b", "..", "a\\..\\b"])
def test_names_of_others_never_lead_out_of_the_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        inside(tmp_path, name)
    assert caught.value.reason == "FILE_NAME_UNSAFE"


def test_names_of_others_never_go_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    with pytest.raises(IntegrityFailure):
        inside(tmp_path / "in", "link/x")
    assert inside(tmp_path / "in", "sub/x") == tmp_path / "in/sub/x"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new/sub/file"
    write_file(target, b"one")
    write_file(target, b"two", mode=0o600)
    assert target.read_bytes() == b"two"
    assert target.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in target.parent.iterdir()] == ["file"]
    with pytest.raises(WrongState) as caught:
        write_file(target.parent, b"x")
    assert caught.value.reason == "LOCAL_FILE_UNWRITABLE"
    assert [entry.name for entry in tmp_path.joinpath("new").iterdir()] == ["sub"]


def test_reading_local_files_fails_with_types(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        read_file(tmp_path / "none")
    with pytest.raises(MeshError) as caught:
        read_file(tmp_path)
    assert caught.value.reason == "LOCAL_FILE_UNREADABLE"
