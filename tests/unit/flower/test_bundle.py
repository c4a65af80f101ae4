"""Bundles are built by Flower, the same for the same files, and unpacked as they were checked."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from syftmesh_core.errors import InvalidInput, LimitExceeded

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.cli.build import build_fab_from_disk
    from flwr.cli.install import install_from_fab
    from flwr.common.config import get_fused_config_from_fab
    from flwr.supercore.run import Run
    from syftmesh_flower.bundle import build_bundle, extract_bundle, fused_config, read_bundle

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


def test_extract_writes_what_was_checked_with_fixed_modes(tmp_path: Path) -> None:
    folder = app(tmp_path / "small", small__deep__er__x=b"")
    (folder / "small/deep/er/x.py").write_bytes(b"x")
    bundle = read_bundle(build_bundle(folder))
    assert bundle.files["small/deep/er/x.py"] == b"x"
    mask = os.umask(0o077)
    try:
        extract_bundle(bundle, tmp_path / "code")
    finally:
        os.umask(mask)
    found = {path.relative_to(tmp_path / "code").as_posix(): path for path in (tmp_path / "code").rglob("*")}
    files = {name: path.read_bytes() for name, path in found.items() if path.is_file()}
    assert files == dict(bundle.files)
    assert {stat.S_IMODE(found[name].stat().st_mode) for name in files} == {0o444}
    assert {stat.S_IMODE(path.stat().st_mode) for path in found.values() if path.is_dir()} == {0o755}


def test_extract_takes_an_empty_folder_only(tmp_path: Path) -> None:
    bundle = read_bundle(build_bundle(app(tmp_path / "small")))
    (tmp_path / "code").mkdir()
    extract_bundle(bundle, tmp_path / "code")
    with pytest.raises(InvalidInput) as caught:
        extract_bundle(bundle, tmp_path / "code")
    assert caught.value.reason == "BUNDLE_INVALID"


OVERRIDES = [{}, {"rounds": 5}, {"rate": 0.25, "verbose": True}, {"model.width": -1, "mode": ""}]


@pytest.mark.parametrize("overrides", OVERRIDES)
def test_a_configuration_is_fused_as_flower_does(tmp_path: Path, overrides: dict[str, object]) -> None:
    data = build_bundle(app(tmp_path / "small"))
    small, run = read_bundle(data), Run.create_empty(1)
    run.override_config = dict(overrides)  # type: ignore[arg-type]
    assert fused_config(small, overrides) == get_fused_config_from_fab(data, run)
    assert fused_config(small, {})["model.width"] == 16
