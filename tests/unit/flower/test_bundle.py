"""Bundles are built by Flower, the same for the same files; reading one believes nothing."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.cli.build import build_fab_from_disk
    from flwr.cli.install import install_from_fab
    from flwr.common.config import get_fused_config_from_fab
    from flwr.supercore.run import Run
    from syftmesh_flower import bundle as module
    from syftmesh_flower.bundle import Bundle, build_bundle, fused_config, read_bundle

# Flower uses a name of pathspec that goes away.
pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

EXAMPLE = Path(__file__).parents[3] / "examples" / "breast-cancer-fl"

MANIFEST = """
[project]
name = "small"
version = "1.2.3"

[tool.flwr.app]
publisher = "ann"

[tool.flwr.app.components]
serverapp = "small.server:app"
clientapp = "small.client:app"

[tool.flwr.app.config]
rounds = 3
rate = 0.5
verbose = false
mode = "fast"
[tool.flwr.app.config.model]
width = 16
"""

FILES = {"small/__init__.py": b"", "small/server.py": b"app = 1\n", "small/client.py": b"app = 2\n"}


def app(folder: Path, manifest: str | bytes | None = MANIFEST, **files: bytes) -> Path:
    for name, content in {**FILES, **{key.replace("__", "/"): value for key, value in files.items()}}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    if manifest is not None:
        data = manifest if isinstance(manifest, bytes) else manifest.encode()
        (folder / "pyproject.toml").write_bytes(data)
    return folder


def info(name: str, *, mode: int = 0o100600, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr, entry.compress_type = mode << 16, method
    return entry


def fab(
    *more: tuple[zipfile.ZipInfo | str, bytes], manifest: str = MANIFEST, listed: bytes | None = None
) -> bytes:
    """A zip as Flower writes it, with `more` entries; the list of contents fits unless it is given."""
    buffer = io.BytesIO()
    entries = [("pyproject.toml", manifest.encode()), *FILES.items(), *more]
    lines = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, content in entries:
            archive.writestr(entry, content)
            name = entry if isinstance(entry, str) else entry.filename
            lines.append(f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}")
        archive.writestr(".info/CONTENT", "\n".join(lines).encode() if listed is None else listed)
    return buffer.getvalue()


def refused(data: bytes, reason: str = "BUNDLE_INVALID") -> MeshError:
    with pytest.raises((InvalidInput, LimitExceeded)) as caught:
        read_bundle(data)
    assert caught.value.reason == reason
    return caught.value


def test_the_example_is_built_and_read() -> None:
    data = build_bundle(EXAMPLE)
    bundle = read_bundle(data)
    assert bundle.digest == hashlib.sha256(data).hexdigest()
    assert (bundle.name, bundle.version) == ("syftmesh/breast-cancer-fl", "1.0.0")
    assert bundle.server_app == "breast_cancer_fl.server_app:app"
    assert bundle.client_app == "breast_cancer_fl.client_app:app"
    source = (EXAMPLE / "breast_cancer_fl" / "task.py").read_bytes()
    assert bundle.files["breast_cancer_fl/task.py"] == source
    assert list(bundle.files) == sorted(bundle.files)
    assert bundle.config["num-server-rounds"] == 3


def test_the_bundle_is_flowers_own(tmp_path: Path) -> None:
    folder = app(tmp_path / "small")
    data = build_bundle(folder)
    assert data == build_fab_from_disk(folder)
    installed = install_from_fab(data, tmp_path / "home", skip_prompt=True)
    assert {name: (installed / name).read_bytes() for name in read_bundle(data).files} == dict(
        read_bundle(data).files
    )


def test_the_same_files_give_the_same_bytes_whatever_their_times_and_modes(tmp_path: Path) -> None:
    one, two = app(tmp_path / "one"), app(tmp_path / "two", small__notes=b"left out")
    os.utime(one / "small" / "client.py", (1, 1))
    (one / "small" / "client.py").chmod(0o700)
    (two / "small" / "test_it.py").write_text("left out too")
    assert build_bundle(one) == build_bundle(two)
    (two / "small" / "client.py").write_text("app = 3\n")
    assert build_bundle(one) != build_bundle(two)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("key")
    folder = app(tmp_path / "small")
    (folder / "small" / "linked.py").symlink_to(tmp_path / "secret.py")
    assert "small/linked.py" not in read_bundle(build_bundle(folder)).files


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda text: None, "pyproject.toml"),
        (lambda text: "a = [", "no TOML"),
        (lambda text: b"\xff\xfe", "no TOML"),
        (lambda text: text.replace("[project]", "[other]"), "[project]"),
        (lambda text: "project = 3\n" + text.replace("[project]", "[other]"), "[project]"),
        (lambda text: text.replace('name = "small"', ""), '"name"'),
        (lambda text: text.replace('name = "small"', 'name = "../up"'), '"name"'),
        (lambda text: text.replace('"1.2.3"', '"1..3"'), '"version"'),
        (lambda text: text.replace('"1.2.3"', "1.2"), '"version"'),
        (lambda text: text.replace('publisher = "ann"', ""), '"publisher"'),
        (lambda text: text.replace('"ann"', '"../../ann"'), '"publisher"'),
        (lambda text: text.replace("[tool.flwr.app.components]", "[tool.other]"), "[tool.flwr.app.components]"),
        (lambda text: text.replace('clientapp = "small.client:app"', ""), '"clientapp"'),
        (lambda text: text.replace('serverapp = "small.server:app"', ""), '"serverapp"'),
        (lambda text: text.replace('"small.client:app"', '"small.client"'), '"clientapp"'),
        (lambda text: text.replace('"small.client:app"', '"elsewhere:app"'), "elsewhere:app"),
        (lambda text: text.replace('"small.client:app"', "[1]"), '"clientapp"'),
        (lambda text: text.split("[tool.flwr.app.config]")[0].replace("publisher", "config = 3\npublisher"), "config"),
        (lambda text: text.replace("rounds = 3", "rounds = [3]"), "config"),
        (lambda text: text.replace("rounds = 3", f"rounds = {1 << 63}"), "64-bit"),
        (lambda text: text.replace('publisher = "ann"', 'publisher = "ann"\nfab-format-version = 9'), "Flower"),
        (lambda text: text.replace('version = "1.2.3"', 'version = "1.2.3"\ndependencies = 3'), "Flower"),
        (lambda text: text + "#" * 70_000, "bytes"),
    ],
)  # fmt: skip
def test_an_app_that_lacks_something_is_not_built(
    tmp_path: Path, change: Callable[[str], str | bytes | None], told: str
) -> None:
    folder = app(tmp_path / "small", change(MANIFEST))
    with pytest.raises(InvalidInput) as caught:
        build_bundle(folder)
    assert caught.value.reason == "BUNDLE_INVALID"
    assert told in caught.value.message
    assert str(tmp_path) not in caught.value.message


def test_what_is_no_folder_is_not_built(tmp_path: Path) -> None:
    file = tmp_path / "x.py"
    file.write_text("")
    for path in (file, tmp_path / "missing"):
        with pytest.raises(InvalidInput, match="no folder") as caught:
            build_bundle(path)
        assert caught.value.reason == "BUNDLE_INVALID"


def test_a_pattern_that_flower_refuses_is_told_in_its_words(tmp_path: Path) -> None:
    text = MANIFEST.replace('publisher = "ann"', 'publisher = "ann"\nfab-include = ["nothing/*.py"]')
    with pytest.raises(InvalidInput, match="did not match any files"):
        build_bundle(app(tmp_path / "small", text))


@pytest.mark.parametrize("size", [4 << 20, 11 << 20])
def test_an_app_beyond_our_limit_or_flowers_is_too_large(tmp_path: Path, size: int) -> None:
    folder = app(tmp_path / "small")
    (folder / "small" / "data.json").write_bytes(os.urandom(size))
    with pytest.raises(LimitExceeded) as caught:
        build_bundle(folder)
    assert caught.value.reason == "BUNDLE_TOO_LARGE"
    assert caught.value.metadata["limit_bytes"] == str(4 << 20)


def test_a_folder_of_reserved_names_is_not_built(tmp_path: Path) -> None:
    folder = app(tmp_path / "small")
    (folder / ".syftmesh_client.py").write_text("")
    with pytest.raises(InvalidInput, match="begins with"):
        build_bundle(folder)


@pytest.mark.parametrize(
    "name",
    ["/etc/x.py", "../x.py", "a/../x.py", "./x.py", "a//x.py", "a/", "", ".", "a\\x.py", "C:/x.py", "a\nb.py",
     "a\0b.py", "a,b.py", ".syftmesh", ".syftmesh_client.py", ".SYFTMESH/x.py", "small/.syftmesh-x/y.py", "\u202ex.py",
     "x" * 256 + ".py", "/".join("a" * 33)],
)  # fmt: skip
def test_a_name_that_leads_out_or_is_reserved_is_refused(name: str) -> None:
    entry = info("placeholder")
    entry.filename = name  # ZipInfo itself would tidy the name up
    refused(fab((entry, b"x")))


@pytest.mark.parametrize(
    "name",
    ["small/client.py", "small/CLIENT.py", "Small/other.py", "small/client.py/x", "small"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_already_is_refused(name: str) -> None:
    refused(fab((name, b"x")))


def test_names_that_differ_in_unicode_form_only_are_one() -> None:
    assert "\u00fc.py" in read_bundle(fab(("\u00fc.py", b"x"))).files
    refused(fab(("\u00fc.py", b"x"), ("u\u0308.py", b"y")))


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010600, 0o020600, 0o140600])
def test_what_is_no_regular_file_is_refused(mode: int) -> None:
    assert "link" in refused(fab((info("small/x.py", mode=mode), b"/etc/passwd"))).message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(method: int) -> None:
    assert "compressed" in refused(fab((info("small/x.py", method=method), b"x"))).message


def test_a_stored_file_is_fine() -> None:
    data = fab((info("small/x.py", method=zipfile.ZIP_STORED, mode=0), b"x"))
    assert read_bundle(data).files["small/x.py"] == b"x"


def test_an_encrypted_file_is_refused() -> None:
    data = bytearray(fab())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.rindex(mark) + offset] |= 1
    assert "encrypted" in refused(bytes(data)).message


def test_a_bomb_stops_while_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 1 << 20)
    data = bytearray(fab(("small/x.json", b"0" * (3 << 20))))
    refused(bytes(data), "BUNDLE_TOO_LARGE")
    # The same with headers that tell a small size: only what comes out counts.
    local = data.index(b"small/x.json") - 30
    central = data.rindex(b"small/x.json") - 46
    for at in (local + 22, central + 24):
        struct.pack_into("<I", data, at, 10)
    assert "no readable zip" in refused(bytes(data)).message


def test_the_sum_of_the_files_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED_BYTES", 4096)
    read_bundle(fab(("small/a.json", b"0" * 2000)))
    refused(fab(("small/a.json", b"0" * 2000), ("small/b.json", b"0" * 2000)), "BUNDLE_TOO_LARGE")


def test_too_many_files_are_refused() -> None:
    most = [(f"d/{number}.py", b"") for number in range(module.MAX_FILES - len(FILES) - 1)]
    assert len(read_bundle(fab(*most)).files) == module.MAX_FILES
    refused(fab(*most, ("d/more.py", b"")), "BUNDLE_TOO_LARGE")


def test_a_bundle_over_the_limit_is_not_looked_at() -> None:
    refused(b"\0" * ((4 << 20) + 1), "BUNDLE_TOO_LARGE")


@pytest.mark.parametrize("listed", [b"", b"\xff", b"pyproject.toml,00,8"])
def test_files_that_are_not_as_flowers_list_says_are_refused(listed: bytes) -> None:
    assert ".info/CONTENT" in refused(fab(listed=listed)).message


def test_a_bundle_without_the_list_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", MANIFEST)
    assert ".info/CONTENT" in refused(buffer.getvalue()).message


def test_a_file_that_the_list_does_not_name_is_refused() -> None:
    data = fab()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        listed = archive.read(".info/CONTENT")
    assert ".info/CONTENT" in refused(fab(("small/hidden.py", b"x"), listed=listed)).message


def test_a_manifest_with_a_deep_key_is_refused_at_once() -> None:
    started = time.perf_counter()
    for deep in ("a." * 15_000 + "b = 1", "'a' . " * 10_000 + "b = 1", "[" + "a." * 15_000 + "b]"):
        refused(fab(manifest=MANIFEST + "\n" + deep))
    refused(fab(manifest=MANIFEST + "\nx = " + "[" * 30_000))
    read_bundle(fab(manifest=MANIFEST + "\n[other]\n" + "a" * 30_000 + " = 1"))
    assert time.perf_counter() - started < 2


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_noise_is_no_bundle(data: bytes) -> None:
    refused(data)
    refused(b"PK\3\4" + data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_bundle_is_refused_or_still_whole(data: st.DataObject) -> None:
    good = fab()
    damaged = bytearray(good)
    damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 30))
    try:
        files = dict(read_bundle(bytes(damaged[: len(damaged) - cut])).files)
    except (InvalidInput, LimitExceeded):
        return
    assert files == dict(read_bundle(good).files)


def test_the_digest_changes_with_every_bit() -> None:
    assert read_bundle(fab()).digest != read_bundle(fab(("x.py", b""))).digest


def test_extract_writes_what_was_checked_with_fixed_modes(tmp_path: Path) -> None:
    bundle = read_bundle(fab(("small/deep/er/x.py", b"x")))
    mask = os.umask(0o077)
    try:
        bundle.extract(tmp_path / "code")
    finally:
        os.umask(mask)
    found = {path.relative_to(tmp_path / "code").as_posix(): path for path in (tmp_path / "code").rglob("*")}
    files = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
    assert files == dict(bundle.files)
    assert {stat.S_IMODE(found[name].stat().st_mode) for name in files} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.values() if path.is_dir()} == {0o755}


def test_extract_takes_an_empty_folder_only(tmp_path: Path) -> None:
    bundle = read_bundle(fab())
    (tmp_path / "code").mkdir()
    bundle.extract(tmp_path / "code")
    with pytest.raises(InvalidInput) as caught:
        bundle.extract(tmp_path / "code")
    assert caught.value.reason == "BUNDLE_INVALID"


@pytest.fixture(scope="module")
def small() -> Bundle:
    return read_bundle(fab())


OVERRIDES = [{}, {"rounds": 5}, {"rate": 0.25, "verbose": True}, {"model.width": -1, "mode": ""}]


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_a_configuration_is_fused_as_flower_does(small: Bundle, overrides: dict[str, object]) -> None:
    run = Run.create_empty(1)
    run.override_config = dict(overrides)  # type: ignore[arg-type]
    assert fused_config(small, overrides) == get_fused_config_from_fab(fab(), run)
    assert fused_config(small, {})["model.width"] == 16


def test_a_whole_number_for_a_float_is_a_float(small: Bundle) -> None:
    value = fused_config(small, {"rate": 1})["rate"]
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("key", "value"),
    [("unknown", 1), ("model", {"width": 1}), ("model", 1), ("rounds", 3.0), ("rounds", True), ("rounds", "3"),
     ("rounds", None), ("rounds", 1 << 63), ("rounds", -(1 << 63) - 1), ("rounds", [3]), ("verbose", 1),
     ("verbose", "true"), ("rate", "0.5"), ("rate", True), ("rate", float("nan")), ("rate", float("inf")),
     ("rate", 10**400), ("mode", 3), ("mode", b"x"), ("", 1)],
)  # fmt: skip
def test_an_unknown_key_or_another_type_is_refused(small: Bundle, key: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        fused_config(small, {key: value})
    assert caught.value.reason == "CONFIG_INVALID"
    assert caught.value.metadata == {"key": repr(key)}


def test_a_bundle_cannot_be_changed_after_the_check(small: Bundle) -> None:
    with pytest.raises(TypeError):
        small.files["small/client.py"] = b"other"  # type: ignore[index]
    with pytest.raises(TypeError):
        small.config["rounds"] = 99  # type: ignore[index]
