"""Downloads stay in the folder that was named, whatever a stranger calls a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from syftmesh.code import packed
from syftmesh.folder import write_files
from syftmesh.mock_run import MockRun
from syftmesh_core.errors import InvalidInput, MeshError, NotFound
from syftmesh_executor.archive import unpack_code


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../../x", "a//b", "", ".", "a/", "a\\b", "a\0b", "x" * 300, "a\nb", "\u202ex"],
)
def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(tmp_path: Path, name: str) -> None:
    target = tmp_path / "in"
    with pytest.raises(InvalidInput):
        write_files(target, {"good.csv": b"1", name: b"2"})
    assert not target.exists()
    assert list(tmp_path.iterdir()) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    target.mkdir()
    (outside / "kept").write_text("kept")
    (target / "link").symlink_to(outside)
    (target / "file").symlink_to(outside / "kept")
    for name in ("link/x", "file"):
        with pytest.raises(MeshError):
            write_files(target, {name: b"evil"})
    assert [path.name for path in outside.iterdir()] == ["kept"]
    assert (outside / "kept").read_text() == "kept"


def test_files_and_folders_are_written_and_replaced(tmp_path: Path) -> None:
    write_files(tmp_path / "a/b", {"x/y.csv": b"first", "z": b""})
    write_files(tmp_path / "a/b", {"x/y.csv": b"2"})
    assert (tmp_path / "a/b/x/y.csv").read_bytes() == b"2"
    run = MockRun(0, "OK", "", "", {"out.csv": b"a\n1\n"})
    assert (run.write(tmp_path / "out") / "out.csv").read_bytes() == b"a\n1\n"
    with pytest.raises(NotFound):
        run.dataframe("other.csv")


def test_code_is_packed_with_the_script_that_runs(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main.py").write_text("1")
    (tmp_path / "code/other.py").write_text("2")
    (tmp_path / "notes.txt").write_text("3")
    archive, script = packed(tmp_path / "code", None)
    assert script == "main.py"
    unpack_code(archive, tmp_path / "unpacked")
    assert sorted(path.name for path in (tmp_path / "unpacked").iterdir()) == ["main.py", "other.py"]
    assert packed(tmp_path / "code", "other.py")[1] == "other.py"
    assert packed(tmp_path / "code/main.py", None)[1] == "main.py"
    for code, entrypoint, reason in (
        (tmp_path / "code", "none.py", "ENTRYPOINT_MISSING"),
        (tmp_path / "code/main.py", "other.py", "ENTRYPOINT_MISSING"),
        (tmp_path / "none", None, "LOCAL_FILE_MISSING"),
        (tmp_path / "notes.txt", None, "JOB_INVALID"),
    ):
        with pytest.raises(MeshError) as refused:
            packed(code, entrypoint)
        assert refused.value.reason == reason
