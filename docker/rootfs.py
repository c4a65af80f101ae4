"""Lay out the root of an image: the programs named, what they link to, and nothing else of the distribution.

``python3 rootfs.py OUT [--python] [--program NAME ...] [--path PATH ...] [--below ROOT]`` copies each program with
the shared libraries it needs; `--python` adds the interpreter that runs this, its standard library (without tests,
installers and editors) and compiled files. What already lies in ROOT is left out, so that layers do not repeat
each other. Package managers, compilers and shells' histories cannot be forgotten, for nobody copied them.
"""

from __future__ import annotations

import argparse
import compileall
import os
import py_compile
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

LEFT_OUT = {
    "EXTERNALLY-MANAGED",
    "__pycache__", "config-3.11-x86_64-linux-gnu", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "site-packages", "test", "tests", "tkinter", "turtle.py", "turtledemo", "venv",
}  # fmt: skip
# What wheels for this platform may link to (PEP 600), beside what the interpreter itself does.
WHEEL_LIBRARIES = (
    "libanl.so.1", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libnss_dns.so.2", "libnss_files.so.2",
    "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libstdc++.so.6", "libutil.so.1", "libz.so.1",
)  # fmt: skip
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"


class Root:
    """The folder that becomes an image's root.

    Args:
        out: Where it grows.
        below: Roots of layers beneath; files there are not copied again.
    """

    def __init__(self, out: Path, below: tuple[Path, ...] = ()) -> None:
        self.out = out
        self._below = below
        self._done: set[Path] = set()
        self.copied: list[Path] = []

    def add(self, path: Path) -> None:
        """Copy the file, link (and what it points to) or folder at `path`, with every library it needs.

        Raises:
            FileNotFoundError: There is nothing at `path`.
        """
        path = path.parent.resolve() / path.name
        if path in self._done:
            return
        self._done.add(path)
        if path.is_symlink():
            self._copy(path)
            self.add(path.parent / path.readlink())
        elif path.is_dir():
            for child in sorted(path.iterdir()):
                if child.name not in LEFT_OUT and not child.name.startswith(("_test", "config-3.")):
                    self.add(child)
        else:
            self._copy(path)
            for library in libraries(path):
                self.add(library)

    def _copy(self, path: Path) -> None:
        relative = path.relative_to("/")
        if any((root / relative).exists() or (root / relative).is_symlink() for root in self._below):
            return
        self.copied.append(path)
        target = self.out / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)
        if not path.is_symlink():
            target.chmod(path.stat().st_mode & 0o755)  # neither setuid nor writable by others


def libraries(path: Path) -> list[Path]:
    """Return the shared libraries that `path` links to, the dynamic linker too; none for anything but ELF."""
    with path.open("rb") as file:
        if file.read(4) != b"\x7fELF":
            return []
    found = subprocess.run(["ldd", str(path)], capture_output=True, text=True, check=False)
    if found.returncode:  # linked statically
        return []
    if "not found" in found.stdout:
        raise FileNotFoundError(f"A library of {path} is missing:\n{found.stdout}")
    return [Path(word) for word in found.stdout.split() if word.startswith("/")]


def record(root: Root, copied: list[Path]) -> None:
    """Write which packages of the distribution the files `copied` are of, where scanners of images look for it."""
    asked = [str(path) for path in copied]
    asked += [
        path.removeprefix("/usr") for path in asked if path.startswith("/usr/")
    ]  # before the merge of /usr
    found = subprocess.run(
        ["dpkg-query", "--search", *asked], capture_output=True, text=True, check=False
    ).stdout
    packages = {
        line.split(": /")[0].split(":")[0] for line in found.splitlines() if not line.startswith("diversion ")
    }
    folder = root.out / "var/lib/dpkg/status.d"
    folder.mkdir(parents=True, exist_ok=True)
    for package in sorted(packages):
        told = subprocess.run(
            ["dpkg-query", "--status", package], capture_output=True, text=True, check=True
        ).stdout
        folder.joinpath(package).write_text(told)


def frame(root: Root) -> None:
    """Write what is no package's: the folders, the users, the authorities' certificates."""
    for link, target in (
        ("bin", "usr/bin"),
        ("sbin", "usr/sbin"),
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
    ):
        (root.out / target).mkdir(parents=True, exist_ok=True)
        (root.out / link).symlink_to(target)
    for folder in ("etc/ssl/certs", "var/lib/syftmesh", "run/syftmesh", "opt", "proc", "sys", "dev", "home"):
        (root.out / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root.out / folder).mkdir(parents=True, exist_ok=True)
        (root.out / folder).chmod(0o1777)
    for folder in ("var/lib/syftmesh", "run/syftmesh"):
        os.chown(root.out / folder, 65532, 65532)
    etc = root.out / "etc"
    etc.joinpath("passwd").write_text(
        "root:x:0:0:root:/:/usr/sbin/nologin\nsyftmesh:x:65532:65532:SyftMesh:/tmp:/usr/sbin/nologin\n"
    )
    etc.joinpath("group").write_text("root:x:0:\nsyftmesh:x:65532:\n")
    etc.joinpath("nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    # Only the authorities that the distribution ships: never one that the building machine happens to trust.
    shipped = sorted(Path("/usr/share/ca-certificates/mozilla").glob("*.crt"))
    root.out.joinpath(CERTIFICATES).write_text("".join(c.read_text().rstrip() + "\n" for c in shipped))
    openssl = root.out / "usr/lib/ssl"
    openssl.mkdir(parents=True)
    openssl.joinpath("certs").symlink_to("/etc/ssl/certs")
    openssl.joinpath("cert.pem").symlink_to(f"/{CERTIFICATES}")
    for path in (Path("/etc/os-release"), Path("/etc/ld.so.conf"), *Path("/usr/lib/locale").glob("C.*")):
        root.add(path)
    for path in sorted(Path("/usr/share/doc").glob("*/copyright")):  # licences go with what is passed on
        root.add(path)


def python(root: Root) -> None:
    """Add the interpreter that runs this, its standard library, and compiled files that no clock invalidates."""
    executable = Path(sys.executable)
    for name in ("python", "python3", "python3.11"):
        for folder in {executable.parent, executable.resolve().parent}:
            if (folder / name).exists():
                root.add(folder / name)
    stdlib = Path(sysconfig.get_path("stdlib"))
    root.add(stdlib)
    for name in WHEEL_LIBRARIES:
        root.add(library(name))
    compiled(root.out / stdlib.relative_to("/"), stdlib)


def library(name: str) -> Path:
    """Return where the dynamic linker finds `name`.

    Raises:
        FileNotFoundError: It finds it nowhere.
    """
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for line in listed.splitlines():
        if line.strip().startswith(f"{name} "):
            return Path(line.rsplit("=> ", 1)[1])
    raise FileNotFoundError(f"The dynamic linker knows no {name}.")


def compiled(folder: Path, shown: Path) -> None:
    """Compile every module below `folder`, which the image will have as `shown`.

    Raises:
        RuntimeError: A module does not compile.
    """
    done = compileall.compile_dir(
        folder, quiet=1, stripdir=str(folder), prependdir=str(shown), workers=0,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip
    if not done:
        raise RuntimeError(f"Some module below {shown} does not compile.")


def main() -> None:
    """Read the command line and lay out the root."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--python", action="store_true")
    parser.add_argument("--frame", action="store_true")
    parser.add_argument("--program", nargs="*", default=[])
    parser.add_argument("--path", nargs="*", default=[], type=Path)
    parser.add_argument("--below", nargs="*", default=[], type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    root = Root(given.out, tuple(given.below))
    if given.frame:
        frame(root)
    if given.python:
        python(root)
    for name in given.program:
        found = shutil.which(name)
        if found is None:
            raise SystemExit(f"rootfs: there is no program {name}")
        root.add(Path(found))
    for path in given.path:
        root.add(path)
    record(root, [path for path in root.copied if "/share/doc/" not in str(path)])


if __name__ == "__main__":
    main()
