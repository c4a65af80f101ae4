"""Values of calls, names of files and tables: what comes from others is refused where it does not hold."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from mesh.rds.v1 import rds_pb2
from pydantic import BaseModel
from syftmesh.folder import write_files
from syftmesh.submission import Submission, SubmissionLog
from syftmesh.table import dataframe, one_of
from syftmesh.value import decode, decode_by_type, encode
from syftmesh_core.errors import AlreadyExists, IntegrityFailure, InvalidInput, NotFound


class Ping(BaseModel):
    n: int


@dataclasses.dataclass
class Pong:
    text: str
    when: list[int]


@pytest.mark.parametrize(
    "value", [Ping(n=3), Pong("a", [1, 2]), rds_pb2.JobReference(job_id="x"), b"\x00\xff", bytearray(b"z")]
)
def test_a_value_comes_back_as_it_was(value):
    data, kind = encode(value)
    wanted = bytes if isinstance(value, bytes | bytearray) else type(value)
    assert decode(data, kind, wanted) == value


@pytest.mark.parametrize("value", [{"a": [1, None, "ü"]}, [], "text", 1.5, True])
def test_json_values_come_back_by_their_content_type(value):
    data, kind = encode(value)
    assert decode_by_type(data, kind) == value


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), {"a": object()}, {"a": b"x"}])
def test_what_json_cannot_say_exactly_is_refused(value):
    with pytest.raises(InvalidInput) as caught:
        encode(value)
    assert caught.value.reason == "VALUE_UNENCODABLE"


def test_a_reply_of_another_shape_names_the_field():
    with pytest.raises(IntegrityFailure) as caught:
        decode(b'{"text": "a", "when": [1, "x"]}', "application/json", Pong)
    assert caught.value.reason == "DECODE_FAILED"
    assert "when.1" in caught.value.metadata["field"]
    with pytest.raises(IntegrityFailure):
        decode(b"\xff", "application/x-protobuf", rds_pb2.JobReference)
    with pytest.raises(IntegrityFailure):
        decode_by_type(b"{", "application/json")


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../x", "", ".", "a//b", "a\0b", "a\\b/../c", "x/"]
)
def test_a_hostile_name_writes_nothing(tmp_path: Path, name: str):
    with pytest.raises(InvalidInput):
        write_files(tmp_path / "out", {"good.csv": b"1", name: b"2"})
    assert not (tmp_path / "out").exists()


def test_files_are_written_below_the_folder_and_never_through_a_link(tmp_path: Path):
    out, secret = tmp_path / "out", tmp_path / "secret"
    write_files(out, {"a.csv": b"1", "sub/b.csv": b"2"})
    assert (out / "sub/b.csv").read_bytes() == b"2"
    secret.mkdir()
    (out / "link").symlink_to(secret)
    (out / "file").symlink_to(secret / "made")
    for name in ("link/c.csv", "file"):
        with pytest.raises(AlreadyExists) as caught:
            write_files(out, {name: b"3"})
        assert caught.value.reason == "FILE_IN_THE_WAY"
    assert list(secret.iterdir()) == []


def test_the_only_table_is_meant_when_none_is_named():
    assert one_of(["a.csv", "notes.md"], None) == "a.csv"
    assert one_of(["a.csv"], "b.csv") == "b.csv"
    with pytest.raises(NotFound):
        one_of(["notes.md"], None)
    with pytest.raises(InvalidInput) as several:
        one_of(["a.csv", "b.csv"], None)
    assert several.value.reason == "FILE_AMBIGUOUS"


def test_a_table_is_read_and_what_is_none_is_named():
    assert dataframe("a.csv", b"x,y\n1,2\n").to_dict("records") == [{"x": 1, "y": 2}]
    assert dataframe("A.TSV", b"x\ty\n1\t2\n").to_dict("records") == [{"x": 1, "y": 2}]
    with pytest.raises(IntegrityFailure):
        dataframe("a.csv", b"")
    with pytest.raises(IntegrityFailure):
        dataframe("a.json", b"{")
    with pytest.raises(InvalidInput) as pickle:
        dataframe("a.pkl", b"x")
    assert pickle.value.reason == "TABLE_UNKNOWN"


def test_submissions_are_remembered_and_a_torn_line_is_left_out(tmp_path: Path):
    log = SubmissionLog(tmp_path)
    log.add(Submission("1", "a@x.example", 5))
    log.add(Submission("1", "a@x.example", 9))
    with (tmp_path / "submissions.jsonl").open("a") as file:
        file.write('["2", "b@x')
    assert log.list() == [Submission("1", "a@x.example", 9)]
    assert (log.find("1"), log.find("2")) == (Submission("1", "a@x.example", 9), None)
    log.add(Submission("3", "b@x.example", 11, "call"))
    assert [found.id for found in log.list()] == ["1", "3"], "a torn line does not swallow the next one"
    log.forget("1")
    assert log.list() == [Submission("3", "b@x.example", 11, "call")]
    assert (tmp_path / "submissions.jsonl").stat().st_mode & 0o777 == 0o600
