"""What comes out of a pod and what goes in: nothing that comes is believed, and what goes is whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput
from syftmesh_executor.kubernetes.collect import Collection
from syftmesh_executor.kubernetes.staging import order_of, send_gathered, staging_frames
from syftmesh_executor.output import OutputTooLargeError
from syftmesh_executor.pod import carrier
from syftmesh_executor.pod.wire import MAX_PAYLOAD, FrameReader, Kind, WireError, pack, pack_json
from syftmesh_executor.port import Limits, RunSpec


def entry(path: str | bytes, sort: str = "file", links: Any = 1, size: Any = 0) -> bytes:
    name = path.encode() if isinstance(path, str) else path
    return json.dumps({"path": name.hex(), "type": sort, "links": links, "size": size}).encode()


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Collection]:
    made = Collection(tmp_path / "output", 100)
    made.start()
    yield made
    made.drop()


def test_files_and_folders_arrive(output: Collection, tmp_path: Path) -> None:
    output.entry(entry("a", "folder"))
    output.entry(entry("a/x", size=5))
    output.data(b"hel")
    output.data(b"lo")
    output.entry(entry("empty"))
    files, findings = output.end()
    assert [(file.path, file.size_bytes) for file in files] == [("a/x", 5), ("empty", 0)]
    assert (tmp_path / "output/a/x").read_bytes() == b"hello"
    assert findings == ()


@pytest.mark.parametrize("path", ["../x", "/x", "a//b", "a/./b", "", "a/../../x", "x\0y", "."])
def test_names_that_lead_out_are_no_entries(output: Collection, path: str, tmp_path: Path) -> None:
    with pytest.raises(WireError):
        output.entry(entry(path))
    assert list(tmp_path.iterdir()) == [tmp_path / "output"]


@pytest.mark.parametrize(
    "payload",
    [b"", b"[]", b"{}", b"\xff", entry("x", "socket"), entry("x", links="1"), entry("x", size=-1),
     json.dumps({"path": "zz", "type": "file", "links": 1, "size": 0}).encode()],
)  # fmt: skip
def test_what_is_no_entry_is_refused(output: Collection, payload: bytes) -> None:
    with pytest.raises(WireError):
        output.entry(payload)


def test_what_must_not_come_stays_behind_with_its_content(output: Collection) -> None:
    output.entry(entry("link", "link"))
    output.entry(entry("pipe", "other"))
    output.entry(entry("two", links=2))
    output.entry(entry(b"bad\xff", size=3))
    output.data(b"abc")
    output.entry(entry(b"bad\x1b", "folder"))
    output.entry(entry(b"bad\x1b/inner", size=2))
    output.data(b"ab")
    files, findings = output.end()
    assert files == ()
    assert [finding.reason for finding in findings] == [
        "SYMBOLIC_LINK", "SPECIAL_FILE", "HARD_LINK", "NAME_UNPRINTABLE", "NAME_UNPRINTABLE",
    ]  # fmt: skip


def test_more_than_allowed_ends_it(output: Collection) -> None:
    with pytest.raises(OutputTooLargeError):
        output.entry(entry("big", size=101))
    output.entry(entry("x", size=100))
    output.data(bytes(100))
    with pytest.raises(OutputTooLargeError):
        output.entry(entry("y", size=1))
    with pytest.raises(OutputTooLargeError):
        output.entry(entry("/".join(["d"] * 40)))


def test_content_is_as_much_as_was_announced(output: Collection) -> None:
    output.entry(entry("x", size=2))
    with pytest.raises(WireError):
        output.data(b"abc")
    with pytest.raises(WireError):
        output.end()


def test_dropping_leaves_nothing(output: Collection, tmp_path: Path) -> None:
    output.entry(entry("x", size=2))
    output.drop()
    assert not (tmp_path / "output").exists()


@given(
    st.lists(st.tuples(st.sampled_from(list(Kind)), st.binary(max_size=300)), max_size=8), st.integers(1, 50)
)
def test_frames_arrive_as_they_were_sent_however_they_are_cut(
    frames: list[tuple[Kind, bytes]], cut: int
) -> None:
    data = b"".join(pack(kind, payload) for kind, payload in frames)
    reader = FrameReader()
    found = [frame for at in range(0, len(data), cut) for frame in reader.feed(data[at : at + cut])]
    assert found == frames


@pytest.mark.parametrize(
    "data", [b"\x00" * 5, b"\xff\0\0\0\0", bytes((1,)) + (MAX_PAYLOAD + 1).to_bytes(4, "big")]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        list(FrameReader().feed(data))


def frames_of(spec: RunSpec) -> list[tuple[Kind, bytes]]:
    sent: list[bytes] = []
    send_gathered(staging_frames(spec, order_of(spec, {})), sent.append)
    return list(FrameReader().feed(b"".join(sent)))


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    code, data = tmp_path / "code", tmp_path / "people"
    (code / "pkg").mkdir(parents=True)
    (code / "main.py").write_text("pass")
    (code / "pkg/big.bin").write_bytes(bytes(300_000))
    data.mkdir()
    (data / "t.csv").write_text("a")
    return RunSpec("r", code, "main.py", {"people": data}, tmp_path / "out", limits=Limits(wall_s=7))


def test_what_is_staged_is_what_the_carrier_writes(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots = {"code": tmp_path / "in/code", "data": tmp_path / "in/data"}
    for root in roots.values():
        root.mkdir(parents=True)
    (roots["data"] / "left-over").write_text("of a session that broke")
    monkeypatch.setattr(carrier, "_ROOTS", roots)
    order = carrier._stage(iter(frames_of(spec)))
    assert (order["wall_s"], order["entrypoint"], order["channel"]) == (7, "main.py", False)
    assert (roots["code"] / "pkg/big.bin").read_bytes() == bytes(300_000)
    assert [path.name for path in roots["data"].iterdir()] == ["t.csv"]


def test_several_data_sets_have_folders_and_a_file_its_name(spec: RunSpec, tmp_path: Path) -> None:
    single = tmp_path / "single.csv"
    single.write_text("x")
    both = RunSpec("r", spec.code_dir, "main.py", {**spec.datasets, "one": single}, tmp_path / "out")
    paths = [
        json.loads(payload)["path"]
        for kind, payload in frames_of(both)
        if kind in (Kind.FILE, Kind.FOLDER) and json.loads(payload)["root"] == "data"
    ]
    assert paths == ["people", "people/t.csv", "one", "one/single.csv"]


def test_links_are_not_staged(spec: RunSpec) -> None:
    (spec.code_dir / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput):
        frames_of(spec)


@pytest.mark.parametrize("change", ["digest", "path", "order", "end"])
def test_what_does_not_arrive_whole_is_not_taken(
    spec: RunSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    roots = {"code": tmp_path / "in/code", "data": tmp_path / "in/data"}
    for root in roots.values():
        root.mkdir(parents=True)
    monkeypatch.setattr(carrier, "_ROOTS", roots)
    frames = frames_of(spec)
    at = next(index for index, (kind, _) in enumerate(frames) if kind is Kind.FILE_END)
    if change == "digest":
        frames[at] = (Kind.FILE_END, b"0" * 64)
    elif change == "path":
        payload = pack_json(Kind.FILE, {"root": "code", "path": "../../x"})
        frames[at + 1 : at + 1] = FrameReader().feed(payload)
    elif change == "order":
        frames.insert(at + 1, (Kind.CHANNEL, b"x"))
    else:
        frames.pop()
    with pytest.raises(WireError):
        carrier._stage(iter(frames))
