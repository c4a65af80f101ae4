"""App bundles come from strangers: what is not a plain zip of a Flower app is refused, and nothing is unpacked."""

from __future__ import annotations

import io
import random
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.cli.build import build_fab_from_files
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError
from syftmesh_runner.domain.bundle import MAX_FILES, MAX_PACKED_BYTES, read_bundle

Zip = Callable[..., bytes]


def refusal(data: bytes) -> MeshError:
    with pytest.raises((InvalidInput, LimitExceeded)) as caught:
        read_bundle(data)
    return caught.value


def test_files_come_in_order_with_the_name_of_the_app(zipped: Zip, app_files: dict[str, bytes]) -> None:
    bundle = read_bundle(zipped(app_files))
    assert bundle.app_name == "carol/breast-cancer 1.0.0"
    assert [name for name, _ in bundle.files] == [".info/CONTENT", "app/client.py", "pyproject.toml"]
    assert dict(bundle.files)["app/client.py"] == b"app = 1\n"


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
def test_what_flower_builds_is_taken(app_files: dict[str, bytes]) -> None:
    project = app_files["pyproject.toml"] + b"\n[tool.flwr.app.config]\nlr = 0.1\n"
    project = project.replace(
        b'version = "1.0.0"', b'version = "1.0.0"\nlicense = "Apache-2.0"\ndescription = "d"'
    )
    files: dict[str, bytes | Path] = {
        "pyproject.toml": project,
        "app/__init__.py": b"",
        "app/server.py": b"app = 1\n",
        "app/client.py": b"app = 1\n",
    }
    data, _ = build_fab_from_files(files)
    bundle = read_bundle(data)
    assert bundle.app_name == "carol/breast-cancer 1.0.0"
    assert {"app/client.py", ".info/CONTENT", "pyproject.toml"} <= {name for name, _ in bundle.files}


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "..",
        ".",
        "a\\b",
        "a\x1b[31mb",
        "x" * 300,
        "a/" * 40 + "b",
    ],
)
def test_names_that_do_not_stay_inside_are_refused(
    zipped: Zip, app_files: dict[str, bytes], name: str
) -> None:
    assert refusal(zipped({**app_files, name: b""})).reason == "BUNDLE_INVALID"


@pytest.mark.parametrize(
    "names", [("app/Client.py",), ("a", "a/b"), ("\u00e9", "e\u0301"), ("PYPROJECT.TOML",)]
)
def test_names_that_are_one_on_another_machine_are_refused(
    zipped: Zip, app_files: dict[str, bytes], names: tuple[str, ...]
) -> None:
    assert refusal(zipped({**app_files, **dict.fromkeys(names, b"")})).reason == "BUNDLE_INVALID"


def test_the_same_name_twice_is_refused(app_files: dict[str, bytes]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in app_files.items():
            archive.writestr(name, content)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("app/client.py", b"other")
    assert refusal(buffer.getvalue()).reason == "BUNDLE_INVALID"


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_links_and_special_files_are_refused(app_files: dict[str, bytes], kind: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in app_files.items():
            archive.writestr(name, content)
        entry = zipfile.ZipInfo("app/link")
        entry.external_attr = (kind | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    assert refusal(buffer.getvalue()).reason == "BUNDLE_INVALID"


def test_folders_are_passed_over(zipped: Zip, app_files: dict[str, bytes]) -> None:
    assert "app/" not in dict(read_bundle(zipped({"app/": b"", **app_files})).files)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing_are_refused(zipped: Zip, app_files: dict[str, bytes], method: int) -> None:
    assert refusal(zipped(app_files, method)).reason == "BUNDLE_INVALID"


def test_sizes_are_bounded(zipped: Zip, app_files: dict[str, bytes]) -> None:
    assert refusal(b"\0" * (MAX_PACKED_BYTES + 1)).reason == "BUNDLE_TOO_LARGE"
    many = {f"f{n}": b"" for n in range(MAX_FILES)}
    assert refusal(zipped({**app_files, **many})).reason == "BUNDLE_TOO_LARGE"
    assert refusal(zipped({**app_files, "zeros": bytes(65 << 20)})).reason == "BUNDLE_TOO_LARGE"


def test_a_size_that_lies_unpacks_no_more_than_it_says(zipped: Zip, app_files: dict[str, bytes]) -> None:
    data = bytearray(zipped({**app_files, "zeros": bytes(1 << 20)}))
    size = (1 << 20).to_bytes(4, "little")
    at = data.find(size)
    while at >= 0:
        data[at : at + 4] = (8).to_bytes(4, "little")
        at = data.find(size)
    assert refusal(bytes(data)).reason == "BUNDLE_INVALID"


@pytest.mark.parametrize(
    "project",
    [
        None,
        b"",
        b"\xff",
        b"x = ",
        b"tool = 1",
        b"[tool]\nflwr = []",
        b"[tool.flwr.app.components]\nserverapp = 'a:b'",
        b"[tool.flwr.app.components]\nclientapp = 'a:b'",
        b"[tool.flwr.app.components]\nclientapp = 'a:b'\nserverapp = ''",
        b"[tool.flwr.app.components]\nclientapp = 'a:b'\nserverapp = 1",
        b"[tool.flwr.app]\ncomponents = 'x'",
        b"[project]\nname = \"a\\u001b[2J\"\n[tool.flwr.app.components]\nclientapp = 'a:b'\nserverapp = 'a:c'",
        b"a = " + b"[" * 50_000,
        b"#" * 300_000,
    ],
)
def test_a_bundle_without_both_components_is_refused(
    zipped: Zip, app_files: dict[str, bytes], project: bytes | None
) -> None:
    del app_files["pyproject.toml"]
    files = app_files if project is None else {**app_files, "pyproject.toml": project}
    assert refusal(zipped(files)).reason == "BUNDLE_INVALID"


def test_damaged_bytes_are_refused_or_read_and_nothing_else(zipped: Zip, app_files: dict[str, bytes]) -> None:
    data = zipped(app_files)
    reasons: set[str] = set()
    source = random.Random(7)  # noqa: S311
    for _ in range(3000):
        damaged: Any = bytearray(data)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        if source.random() < 0.2:
            damaged = damaged[: source.randrange(len(damaged))]
        try:
            read_bundle(bytes(damaged))
        except MeshError as error:
            reasons.add(error.reason)
    assert reasons <= {"BUNDLE_INVALID", "BUNDLE_TOO_LARGE"}
