"""What must lie in no image, and what must lie in each."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from image_builder import IMAGES, PYTHON, Image, reference
from lock_file import locked

ROOT = Path(__file__).parents[2]
SITE = "opt/venv/lib/python3.11/site-packages"
_MB = 1_000_000
_LIMITS = dict.fromkeys(IMAGES, 260 * _MB) | {
    "superlink": 400 * _MB, "agent": 400 * _MB, "runner": 400 * _MB, "tools": 400 * _MB,
    "job": 700 * _MB, "proxy": 30 * _MB,
}  # fmt: skip
_PROGRAMS = {
    "gcc", "cc", "c++", "g++", "clang", "ld", "as", "make", "cmake", "apt", "apt-get", "apk", "dpkg", "dpkg-query",
    "yum", "rpm", "pip", "pip3", "pipx", "uv", "uvx", "easy_install", "conda", "npm", "perl", "curl", "wget", "git",
    "ssh", "su", "sudo", "mount", "passwd", "bash",
}  # fmt: skip
_INSTALLERS = {"pip", "uv", "setuptools", "wheel", "ensurepip", "hatchling", "venv", "distlib"}
_SETTINGS = {
    "pip.conf",
    "pip.ini",
    "uv.toml",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    "sources.list",
    ".npmrc",
}
_HISTORIES = re.compile(r"^\.(\w+_history|lesshst|viminfo|wget-hsts)$")

every_image = pytest.mark.parametrize("image", IMAGES, indirect=True)
every_python = pytest.mark.parametrize("image", PYTHON, indirect=True)


def _files(image: Image) -> Iterator[tuple[Path, os.stat_result]]:
    for folder, folders, files in os.walk(image.root):
        for name in (*folders, *files):
            path = Path(folder) / name
            yield path, path.lstat()


@every_image
def test_image_keeps_its_size(image: Image) -> None:
    sizes = {state.st_ino: state.st_size for _, state in _files(image) if stat.S_ISREG(state.st_mode)}

    assert sum(sizes.values()) <= _LIMITS[image.name]


@every_image
def test_image_runs_as_its_own_user(image: Image) -> None:
    assert image.config["User"] == "65532:65532"
    passwd = (image.root / "etc/passwd").read_text()
    assert "syftmesh:x:65532:65532:" in passwd


@every_image
def test_image_has_no_compiler_and_no_installer(image: Image) -> None:
    programs = [
        path for path, state in _files(image)
        if path.name in _PROGRAMS and stat.S_ISREG(state.st_mode) and state.st_mode & 0o111
    ]  # fmt: skip
    modules = [
        path for place in (SITE, "usr/lib/python3.11", "usr/local/lib/python3.11", "usr/lib/python3/dist-packages")
        for name in _INSTALLERS for path in (image.root / place).glob(name)
    ]  # fmt: skip

    assert programs == []
    assert modules == []


@every_image
def test_image_has_no_file_that_gives_rights(image: Image) -> None:
    special = [path for path, state in _files(image) if state.st_mode & 0o6000]
    writable = [
        path for path, state in _files(image)
        if state.st_mode & 0o002 and not stat.S_ISLNK(state.st_mode) and not state.st_mode & stat.S_ISVTX
    ]  # fmt: skip
    devices = [
        path for path, state in _files(image) if stat.S_ISBLK(state.st_mode) or stat.S_ISCHR(state.st_mode)
    ]

    assert special == []
    assert writable == []
    assert devices == []


@every_image
def test_image_owns_only_its_folders_of_state(image: Image) -> None:
    ours = {f"/{path.relative_to(image.root)}" for path, state in _files(image) if state.st_uid == 65532}

    assert ours == {"/run/syftmesh", "/var/lib/syftmesh"}


@every_image
def test_image_has_no_history_and_no_settings_of_its_build(image: Image) -> None:
    found = [path for path, _ in _files(image) if path.name in _SETTINGS or _HISTORIES.match(path.name)]

    assert found == []
    assert not (image.root / "root").exists()
    assert not (image.root / "build").exists()
    assert list((image.root / "tmp").iterdir()) == []


@every_image
def test_image_says_nothing_of_where_it_was_built(image: Image) -> None:
    names = [name for name in image.env if re.match(r"(?i)(pip|uv)_|.*(proxy|index|token|password)", name)]
    addresses = re.findall(r"https?://[^\s\"'\\]+", image.raw)
    given = {
        os.environ.get(name) for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX")
    } - {None, ""}
    notes = [*image.root.glob(f"{SITE}/*/direct_url.json"), *image.root.glob(f"{SITE}/*/uv_cache.json")]

    assert names == []
    assert addresses == [], "no label, variable or step of its history names an address"
    assert not [value for value in given if value in image.raw]
    assert notes == []


@every_image
def test_image_trusts_no_authority_of_the_building_machine(image: Image) -> None:
    bundle = (image.root / "etc/ssl/certs/ca-certificates.crt").read_text()
    local = [file.read_text().strip() for file in Path("/usr/local/share/ca-certificates").rglob("*.crt")]

    assert bundle.count("BEGIN CERTIFICATE") > 100
    assert not [certificate for certificate in local if certificate in bundle]
    assert [path.name for path in (image.root / "etc/ssl/certs").iterdir()] == ["ca-certificates.crt"]


@every_image
def test_image_says_what_it_is(image: Image) -> None:
    labels = {
        key.removeprefix("org.opencontainers.image."): value for key, value in image.config["Labels"].items()
    }

    assert labels["title"] == f"syftmesh-{image.name}"
    assert labels["licenses"].startswith("Apache-2.0")
    assert re.fullmatch(r"[0-9a-f]{40}", labels["revision"])
    assert labels["version"] == _version()


@every_python
def test_image_is_compiled(image: Image) -> None:
    """A read-only root cannot keep what Python compiles, and no clock makes these files stale."""
    places = [
        image.root / SITE,
        *image.root.glob("usr/lib/python3.11"),
        *image.root.glob("usr/local/lib/python3.11"),
    ]
    modules = [path for place in places for path in place.rglob("*.py")]
    missing = [path for path in modules if not _compiled(path).exists()]

    assert len(modules) > 500
    assert missing == []
    assert _compiled(modules[0]).read_bytes()[4:8] == (1).to_bytes(4, "little"), (
        "never checked against its source"
    )


@every_python
def test_image_has_exactly_what_its_lock_says(image: Image) -> None:
    stated = locked(ROOT / f"requirements/{image.name}.lock") - {("uv", _version_of_uv())}
    found = {
        tuple(path.name.removesuffix(".dist-info").lower().replace("_", "-").rsplit("-", 1))
        for path in (image.root / SITE).glob("*.dist-info")
    }
    own = {pair for pair in found if pair[0].startswith("syftmesh")}

    assert found - own - stated - {("uv", _version_of_uv())} == set()
    assert stated - found == set()
    assert {version for _, version in own} <= {_version()}


@every_image
def test_image_comes_with_its_bill_of_materials(image: Image) -> None:
    import json

    bill = json.loads((ROOT / f"build/sbom/{image.name}.cdx.json").read_text())
    named = {component["purl"] for component in bill["components"]}
    python = {purl for purl in named if purl.startswith("pkg:pypi/")}

    assert bill["specVersion"] == "1.6"
    assert bill["metadata"]["component"]["name"] == reference(image.name).split(":")[0]
    assert any(purl.startswith("pkg:deb/debian/libc6@") for purl in named)
    assert len(python) == len(list((image.root / SITE).glob("*.dist-info")))


def test_images_share_their_layers(image_named: Callable[[str], Image]) -> None:
    base = {image_named(name).layers[0] for name in PYTHON}
    # Identity has packages of its own: it speaks with mail servers and providers.
    packages = {image_named(name).layers[1] for name in ("sync", "permissions", "crypto", "router")}

    assert len(base) == 1
    assert len(packages) == 1


def _compiled(path: Path) -> Path:
    return path.parent / "__pycache__" / f"{path.stem}.cpython-311.pyc"


def _version() -> str:
    text = (ROOT / "libs/core/pyproject.toml").read_text()
    found = re.search(r'^version = "(.*)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def _version_of_uv() -> str:
    return dict(locked(ROOT / "requirements/bootstrap.lock"))["uv"]
