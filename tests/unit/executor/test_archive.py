"""Packing is deterministic; unpacking believes nothing."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError
from syftmesh_executor import archive as module
from syftmesh_executor.archive import code_digest, pack_code, unpack_code


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def tar(*members: tuple[tarfile.TarInfo | str, bytes], fmt: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=fmt) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def special(kind: bytes, name: str = "x", link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def refused(data: bytes, folder: Path) -> MeshError:
    target = folder / "target"
    with pytest.raises((InvalidInput, LimitExceeded)) as caught:
        unpack_code(data, target)
    assert not target.exists()
    return caught.value


def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    archives: list[bytes] = []
    for name, order in (("one", "ab"), ("two", "ba")):
        folder = tmp_path / name
        (folder / "sub").mkdir(parents=True)
        for letter in order:
            (folder / f"{letter}.py").write_text(letter)
        (folder / "sub" / "ü.py").write_text("x")
        os.utime(folder / "a.py", (1, len(archives) * 1000 + 5))
        (folder / "a.py").chmod(0o600 if archives else 0o777)
        archives.append(pack_code(folder))
    assert archives[0] == archives[1]
    assert code_digest(archives[0]) == code_digest(archives[1])
    assert len(code_digest(b"")) == 64


@given(
    st.dictionaries(
        st.lists(st.from_regex(r"[a-z]{1,3}", fullmatch=True), min_size=1, max_size=3).map("/".join),
        st.binary(max_size=2000),
        max_size=6,
    )
)
def test_code_comes_back_as_it_was(files: dict[str, bytes]) -> None:
    with TemporaryDirectory() as text:
        source, target = Path(text, "source"), Path(text, "target")
        source.mkdir()
        kept = {n: c for n, c in files.items() if not any(other.startswith(n + "/") for other in files)}
        for name, content in kept.items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(content)
        if not kept:
            return
        unpack_code(pack_code(source), target)
        found = {str(p.relative_to(target)): p.read_bytes() for p in target.rglob("*") if p.is_file()}
        assert found == kept
        assert pack_code(target) == pack_code(source)


def test_a_single_file_is_packed_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("1")
    unpack_code(pack_code(tmp_path / "main.py"), tmp_path / "target")
    assert names(tmp_path / "target") == ["main.py"]
    assert (tmp_path / "target" / "main.py").stat().st_mode & 0o777 == 0o600


def test_packing_refuses_links_and_special_files(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="link"):
        pack_code(folder)
    (folder / "link").unlink()
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInput, match="special"):
        pack_code(folder)
    (tmp_path / "alias").symlink_to(folder)
    with pytest.raises(InvalidInput):
        pack_code(tmp_path / "alias")
    with pytest.raises(InvalidInput):
        pack_code(tmp_path / "missing")


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.CONTTYPE,
     tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE, b"Z"],
)  # fmt: skip
def test_only_regular_files_and_folders_are_unpacked(kind: bytes, tmp_path: Path) -> None:
    assert refused(tar((special(kind, link="/etc/passwd"), b"")), tmp_path).reason == "ARCHIVE_INVALID"


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "a/..", ".", "./x", "a//b", "a\\b", "a\nb", "a\x1b[31mb", "x" * 256,
     "/".join("a" * 40)],
)  # fmt: skip
def test_names_that_leave_or_do_not_travel_are_refused(name: str, tmp_path: Path) -> None:
    assert refused(tar((name, b"")), tmp_path).reason == "ARCHIVE_INVALID"


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("a", "A"), ("ä", "a\u0308"), ("straße", "STRASSE"), ("d/x", "D/y"),
     ("a", "a/b"), ("a/b", "a")],
)  # fmt: skip
def test_names_that_collide_are_refused(names: tuple[str, str], tmp_path: Path) -> None:
    assert refused(tar(*((name, b"") for name in names)), tmp_path).reason == "ARCHIVE_INVALID"


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    data = tar(("caf", b""), fmt=tarfile.USTAR_FORMAT)
    broken = bytearray(data)
    broken[2] = 0xFF
    total = sum(broken[:148]) + 8 * 32 + sum(broken[156:512])
    broken[148:156] = f"{total:06o}\0 ".encode()
    assert refused(bytes(broken), tmp_path).reason == "ARCHIVE_INVALID"


def test_sizes_are_bounded_before_content_is_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("bomb")
    info.size = 1 << 40
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    assert refused(data, tmp_path).reason == "ARCHIVE_TOO_LARGE"


def test_a_size_past_the_end_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("cut")
    info.size = 4096
    assert refused(info.tobuf(tarfile.GNU_FORMAT) + bytes(512), tmp_path).reason == "ARCHIVE_INVALID"


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    data = tar(*((f"{n}", b"") for n in range(5_001)))
    assert refused(data, tmp_path).reason == "ARCHIVE_TOO_LARGE"


def test_limits_hold_for_packing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 10)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "big.py").write_text("x" * 11)
    with pytest.raises(LimitExceeded) as caught:
        pack_code(tmp_path / "code")
    assert caught.value.reason == "ARCHIVE_TOO_LARGE"


@pytest.mark.parametrize("key", ["size", "GNU.sparse.major", "linkpath", "hdrcharset"])
def test_extended_headers_that_change_meaning_are_refused(key: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("x")
    info.pax_headers = {key: "0"}
    refused(tar((info, b"")), tmp_path)


@pytest.mark.parametrize(
    "pack", [lambda data: b"", lambda data: b"no tar", lambda data: data[:100], lambda data: bytes(1024)]
)
def test_what_is_no_archive_is_refused(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    assert refused(pack(tar(("x", b"1"))), tmp_path).reason == "ARCHIVE_INVALID"


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    assert refused(buffer.getvalue(), tmp_path).reason == "ARCHIVE_INVALID"


def test_a_folder_in_use_is_not_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(InvalidInput):
        unpack_code(tar(("x", b"1")), tmp_path)
    assert names(tmp_path) == ["mine"]


@given(st.binary(max_size=3000), st.data())
def test_no_bytes_do_more_than_be_refused(noise: bytes, data: st.DataObject) -> None:
    base = bytearray(tar(("a/b.py", b"1"), (special(tarfile.DIRTYPE, "c"), b""), ("c/d.py", noise[:200])))
    for _ in range(data.draw(st.integers(0, 6))):
        base[data.draw(st.integers(0, 2047))] = data.draw(st.integers(0, 255))
    for candidate in (bytes(base), noise):
        with TemporaryDirectory() as text:
            target = Path(text, "inner", "target")
            try:
                unpack_code(candidate, target)
            except (InvalidInput, LimitExceeded):
                continue
            assert all(p.is_file() or p.is_dir() for p in target.rglob("*"))
            assert names(text) == ["inner"]
            assert names(Path(text, "inner")) == ["target"]
