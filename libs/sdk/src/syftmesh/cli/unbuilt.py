"""Verbs of the contract that are not built yet: each says so and names what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import typer
from syftmesh_core.errors import Unimplemented

from syftmesh.cli.frame import Frame, group, verb

_SYNC: Final = "a folder of this machine that follows the mesh"
_VERSIONS: Final = "older versions of files"
_APPS: Final = "apps that the program installs and runs"
_FEDERATED: Final = "federated learning on mock data, and runs that go on from a checkpoint"
_ADMIN: Final = "the administration of a hub"
_PRIVACY: Final = "the privacy budget"
_SITES: Final = "the life of sites after they are made"
_RECOVERY: Final = "changing and recovering account keys"
_RDS: Final = "the complete remote data science"

MISSING: Final[Mapping[str, str]] = {
    "mv": "moving files inside the mesh",
    "versions": _VERSIONS,
    "restore": _VERSIONS,
    "usage": "the account of storage used",
    "bridge": "the bridge to HTTP services",
    **{
        f"sync {name}": _SYNC
        for name in ("status", "watch", "pause", "resume", "follow", "unfollow", "follows")
    },
    **{f"sync {name}": _SYNC for name in ("conflicts", "resolve")},
    **{f"app {name}": _APPS for name in ("init", "run", "install", "ls", "logs", "stop", "rm")},
    **{f"policy {name}": "rules that approve jobs by themselves" for name in ("show", "set", "test")},
    **{f"fl {name}": _FEDERATED for name in ("simulate", "resume")},
    **{f"privacy {name}": _PRIVACY for name in ("show", "set")},
    **{f"admin {name}": _ADMIN for name in ("backup", "restore", "rebuild", "scrub", "gc")},
    "keys rotate": _RECOVERY,
    "keys recover": _RECOVERY,
    "keys revoke": _RECOVERY,
    "keys log verify": "the transparency log of keys",
    "job diff": "the difference to the version that was approved last",
    "job revoke": "taking a release back",
    "dataset update": _RDS,
    **{f"site {name}": _SITES for name in ("join", "start", "rename", "pause", "delete")},
    "rpc apps": "the directory of apps",
    "rpc schema": "the directory of apps",
    **{f"rpc dead {name}": "the list of calls that failed for good" for name in ("ls", "show", "retry")},
}
"""Command line without the program's name, and what is missing for it."""

_GROUP_HELP: Final[Mapping[str, str]] = {
    "sync": "Folders that follow the mesh (not built).",
    "app": "Apps of a site (not built).",
    "policy": "Rules that approve by themselves (not built).",
    "privacy": "The budget ledger (not built).",
    "keys log": "The transparency log (not built).",
    "rpc dead": "Calls that failed for good (not built).",
}

Anything = Annotated[list[str] | None, typer.Argument(metavar="ARGUMENT...", help="Whatever it will take.")]


def register(app: typer.Typer, groups: dict[str, typer.Typer]) -> None:
    """Add all of them to `app`, hidden.

    Args:
        app: The root.
        groups: The groups that there are, by name; new ones are added.
    """
    for line, missing in MISSING.items():
        path, _, name = line.rpartition(" ")
        _add(_group(app, groups, path), line, name, missing)


def _group(app: typer.Typer, groups: dict[str, typer.Typer], path: str) -> typer.Typer:
    if not path:
        return app
    if path not in groups:
        parent, _, name = path.rpartition(" ")
        groups[path] = group(_group(app, groups, parent), name, _GROUP_HELP[path], hidden=True)
    return groups[path]


def _add(parent: typer.Typer, line: str, name: str, missing: str) -> None:
    def command(_frame: Frame, arguments: Anything = None) -> None:  # noqa: ARG001 - whatever it will take
        raise Unimplemented(
            f"'syftmesh {line}' is not built yet: it needs {missing}.",
            metadata={"command": line},
            hint="syftmesh --help lists what there is.",
        )

    command.__doc__ = f"Not built yet: needs {missing}."
    settings = {"ignore_unknown_options": True, "allow_interspersed_args": True}
    verb(parent, name, example=f"syftmesh {line}", hidden=True, context_settings=settings)(command)
