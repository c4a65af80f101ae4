"""Lay out every service's own code: its member of the workspace and all members it needs, built as wheels.

``python member.py WORKSPACE OUT`` (an interpreter with hatchling) leaves one root a service, ``OUT/<service>``,
compiled, with the entry points ``service`` and ``health``. What is equal in two services is one file with two names.

``python3 member.py --needs SERVICE`` prints the folders of the members that a service is made of.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

UV, PYTHON = "/opt/uv/bin/uv", "/opt/venv/bin/python"
TOOLS = ("syftmesh", "syftmesh-cluster")
PROGRAMS = ("service", "health")


def projects(workspace: Path) -> dict[str, Path]:
    """Return the folder of each member by its name."""
    files = [workspace / "protos/pyproject.toml", *workspace.glob("*/*/pyproject.toml")]
    return {tomllib.loads(file.read_text())["project"]["name"]: file.parent for file in sorted(files)}


def needs(folder: Path, names: set[str]) -> list[str]:
    """Return which of the members `names` the member in `folder` depends on."""
    stated = tomllib.loads((folder / "pyproject.toml").read_text())["project"].get("dependencies", [])
    return [name for name in (re.split(r"[ <>=~!\[;]", text)[0] for text in stated) if name in names]


def closure(roots: tuple[str, ...], members: dict[str, Path]) -> set[str]:
    """Return the names of all members that `roots` are made of."""
    waiting, found = list(roots), set[str]()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += needs(members[name], set(members))
    return found


def install(name: str, folder: Path, scratch: Path) -> Path:
    """Build the wheel of a member, install it below a folder of its own and compile it; return the folder."""
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(folder)).build(directory=str(scratch / "wheels"), versions=["standard"]))
    root = scratch / name
    prefix = root / "opt/venv"
    command = [UV, "pip", "install", "--quiet", "--link-mode", "copy", "--no-deps", "--no-index"]
    subprocess.run([*command, "--python", PYTHON, "--prefix", str(prefix), str(wheel)], check=True)
    (prefix / ".lock").unlink(missing_ok=True)
    # Where the wheel lay and when is nobody's business, and would make every build another image.
    for note in [*prefix.rglob("uv_cache.json"), *prefix.rglob("direct_url.json")]:
        note.unlink()
        record = note.with_name("RECORD")
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if f"/{note.name}," not in line))
    if not compileall.compile_dir(
        root, quiet=1, stripdir=str(root), prependdir="/", workers=1,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    ):  # fmt: skip
        raise RuntimeError(f"Some module of {name} does not compile.")
    return root


def services_of(members: dict[str, Path]) -> dict[str, tuple[str, ...]]:
    """Return the members that each service, and the tools, begin with."""
    return {f.name: (n,) for n, f in members.items() if f.parent.name == "services"} | {"tools": TOOLS}


def lay_out(workspace: Path, out: Path) -> None:
    """Leave the root of each service, and of the tools, below `out`."""
    scratch = out.with_name(f"{out.name}-members")
    members = projects(workspace)
    installed = {name: install(name, folder, scratch) for name, folder in members.items()}
    for service, roots in services_of(members).items():
        for name in sorted(closure(roots, members)):
            shutil.copytree(installed[name], out / service, copy_function=os.link, dirs_exist_ok=True)
        for program in PROGRAMS:
            target = out / service / "opt/venv/bin" / program
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(Path(__file__).with_name(f"{program}.py"), target)
            target.chmod(0o755)


def main() -> None:
    """Read the command line."""
    if sys.argv[1] == "--needs":
        members = projects(Path())
        print(*sorted(str(members[name]) for name in closure(services_of(members)[sys.argv[2]], members)))
    else:
        lay_out(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
