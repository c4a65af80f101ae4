"""The programs that lay out images, on small folders: no builder is needed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docker_{name}", ROOT / f"docker/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("syftmesh/sync:dev", "docker.io/syftmesh/sync:dev"),
        ("sync:dev", "docker.io/library/sync:dev"),
        ("registry.example.org/mesh/sync:1", "registry.example.org/mesh/sync:1"),
        ("localhost:5000/sync:1", "localhost:5000/sync:1"),
        ("localhost/sync:1", "localhost/sync:1"),
    ],
)
def test_references_are_named_as_a_kubelet_reads_them(short: str, full: str) -> None:
    assert _program("archive").full_name(short) == full


def test_archive_carries_full_names_of_all_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = _program("archive")
    layout, packed = tmp_path / "layout", tmp_path / "images.tar"
    layout.mkdir()
    manifests = [{"annotations": {archive.REFERENCE: f"syftmesh/{name}:dev"}} for name in ("sync", "job")]
    (layout / "index.json").write_text(json.dumps({"manifests": manifests}))
    monkeypatch.setattr(sys, "argv", ["archive.py", str(layout), str(packed)])
    archive.main()

    with tarfile.open(packed) as tar:
        index = json.load(tar.extractfile("index.json"))  # type: ignore[arg-type]
    names = [manifest["annotations"][archive.FULL_NAME] for manifest in index["manifests"]]
    assert names == ["docker.io/syftmesh/sync:dev", "docker.io/syftmesh/job:dev"]


def test_root_has_a_program_with_its_libraries_and_runs_it(tmp_path: Path) -> None:
    rootfs = _program("rootfs")
    root = rootfs.Root(tmp_path)
    root.add(Path(shutil.which("cat") or "/bin/cat"))
    copied = {path.name for path in tmp_path.rglob("*") if path.is_file()}

    assert {"cat", "libc.so.6"} <= copied
    assert "dash" not in copied


def test_root_drops_setuid_and_keeps_links(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "program").write_text("#!/bin/sh\n")
    (source / "program").chmod(0o6777)
    (source / "link").symlink_to("program")
    _program("rootfs").Root(out).add(source / "link")
    below = out / source.relative_to("/")

    assert (below / "link").readlink() == Path("program")
    assert (below / "program").stat().st_mode & 0o7777 == 0o755


def test_root_leaves_out_what_lies_beneath_and_what_no_image_needs(tmp_path: Path) -> None:
    source, out, beneath = tmp_path / "source", tmp_path / "out", tmp_path / "beneath"
    for name in ("kept.py", "there.py", "ensurepip/x.py", "__pycache__/x.pyc", "test/x.py"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("x")
    there = beneath / source.relative_to("/") / "there.py"
    there.parent.mkdir(parents=True)
    there.write_text("x")
    _program("rootfs").Root(out, (beneath,)).add(source)

    assert [path.name for path in out.rglob("*") if path.is_file()] == ["kept.py"]


def test_root_refuses_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        _program("rootfs").Root(tmp_path / "out").add(tmp_path / "nothing")


def test_members_of_a_service_are_all_it_needs_and_no_other_service() -> None:
    member = _program("member")
    members = member.projects(ROOT)
    services = member.services_of(members)

    assert member.closure(services["sync"], members) == {
        "syftmesh-sync", "syftmesh-core", "syftmesh-kit", "syftmesh-protos",
    }  # fmt: skip
    assert {"syftmesh", "syftmesh-cluster", "syftmesh-client"} <= member.closure(services["tools"], members)
    with pytest.raises(KeyError):
        member.closure(("syftmesh-nothing",), members)


def test_bill_names_distributions_and_debian_packages_and_is_the_same_twice(tmp_path: Path) -> None:
    sbom = _program("sbom")
    info = tmp_path / "opt/venv/lib/python3.11/site-packages/Some_Thing-1.2+x.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.2+x\nLicense-Expression: MIT\n"
    )
    record = tmp_path / "var/lib/dpkg/status.d/libc6"
    record.parent.mkdir(parents=True)
    record.write_text("Package: libc6\nVersion: 1:2.36\nArchitecture: amd64\nDescription: C\n more: here\n")
    bill = sbom.bill(tmp_path, "syftmesh/sync", "0.1")

    assert [component["purl"] for component in bill["components"]] == [
        "pkg:deb/debian/libc6@1%3A2.36?arch=amd64", "pkg:pypi/some-thing@1.2%2Bx",
    ]  # fmt: skip
    assert bill["components"][1]["licenses"] == [{"expression": "MIT"}]
    assert bill == sbom.bill(tmp_path, "syftmesh/sync", "0.1")
    assert bill["serialNumber"] != sbom.bill(tmp_path, "syftmesh/sync", "0.2")["serialNumber"]


def test_loading_says_what_to_do_without_a_cluster(tmp_path: Path) -> None:
    environment = os.environ | {"SYFTMESH_LOCAL_CLUSTER": str(tmp_path / "none"), "KIND_CLUSTER": ""}
    done = subprocess.run(
        ["bash", str(ROOT / "docker/load.sh"), "sync"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
        timeout=30,
    )

    assert done.returncode == 1
    assert "KIND_CLUSTER" in done.stderr
    assert "registry" in done.stderr
