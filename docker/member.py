"""Print the wheels that a service is made of: its own and those of every member of the workspace it needs.

``python3 member.py SERVICE WHEELS`` reads ``protos``, ``libs`` and ``services`` below the current folder.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOTS = {"tools": ("syftmesh", "syftmesh-cluster")}


def members(workspace: Path) -> dict[str, list[str]]:
    """Return each member's name with the members it depends on."""
    files = [workspace / "protos/pyproject.toml", *workspace.glob("libs/*/pyproject.toml")]
    files += workspace.glob("services/*/pyproject.toml")
    projects = [tomllib.loads(file.read_text())["project"] for file in files]
    names = {project["name"] for project in projects}
    needed = {p["name"]: [re.split(r"[ <>=\[;]", d)[0] for d in p.get("dependencies", [])] for p in projects}
    return {name: [d for d in needed[name] if d in names] for name in names}


def closure(service: str, workspace: Path) -> list[str]:
    """Return the names of all members that `service` is made of, sorted.

    Raises:
        KeyError: There is no such service.
    """
    needs = members(workspace)
    open_, found = list(ROOTS.get(service, (f"syftmesh-{service}",))), set[str]()
    while open_:
        name = open_.pop()
        if name not in found:
            found.add(name)
            open_ += needs[name]
    return sorted(found)


def main() -> None:
    """Print one path a line."""
    service, wheels = sys.argv[1], Path(sys.argv[2])
    for name in closure(service, Path.cwd()):
        print(next(wheels.glob(f"{name.replace('-', '_')}-*.whl")))


if __name__ == "__main__":
    main()
