"""Verbs of groups: group create, ls, show, add, remove, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from syftmesh.cli.acl_set import diff_parts, gain_items, reach_parts
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.frame import group as command_group
from syftmesh.cli.output import Fields, Human, Table

if TYPE_CHECKING:
    from syftmesh.group import Group, GroupChange, GroupDetail

Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the group: a-z, 0-9, _ and -.")]
Members = Annotated[list[str], typer.Argument(metavar="MEMBER...", help="E-mails, and groups as group:NAME.")]
Reseal = Annotated[
    bool, typer.Option("--reseal", help="Write the files whose readers change again, for the new readers.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")]


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    groups = command_group(app, "group", "Groups of people, for group:NAME in your rule files.")
    verb(groups, "create", example="syftmesh group create reviewers bob@clinic.example dora@lab.example")(
        create
    )
    verb(groups, "ls", example="syftmesh group ls --json")(ls)
    verb(groups, "show", example="syftmesh group show reviewers")(show)
    verb(groups, "add", example="syftmesh group add reviewers eve@lab.example group:leads")(add)
    verb(groups, "remove", example="syftmesh group remove reviewers bob@clinic.example --dry-run")(remove)
    verb(groups, "rm", example="syftmesh group rm reviewers --yes")(rm)
    return groups


def create(
    frame: Frame,
    name: Name,
    members: Annotated[
        list[str] | None, typer.Argument(metavar="[MEMBER...]", help="E-mails, and groups as group:NAME.")
    ] = None,
    reseal: Reseal = False,
    dry_run: DryRun = False,
) -> None:
    """Make a group of people."""
    with frame.client() as client:
        change = client.groups.create(name, members or (), reseal=reseal, dry_run=dry_run)
    _emit(frame, change, f"Made the group {name}.", dry_run=dry_run)


def ls(frame: Frame) -> None:
    """List your groups."""
    with frame.client() as client:
        items = [group_document(found) for found in client.groups.list()]
    rows = [[item["name"], item["members"], len(item["principals"])] for item in items]
    frame.emit({"items": items}, Table(["name", "members", "people"], rows, "There is no group."))


def show(frame: Frame, name: Name) -> None:
    """Show a group: its members as they are written, who that is, and which of your rules name it."""
    with frame.client() as client:
        found = client.groups.show(name)
    document = detail_document(found)
    pairs = [(key, document[key]) for key in ("name", "members", "principals", "groups")]
    frame.emit(document, Fields(pairs), uses_table(found))


def add(frame: Frame, name: Name, members: Members, reseal: Reseal = False, dry_run: DryRun = False) -> None:
    """Put people, or other groups, into a group, and show what they gain by it."""
    with frame.client() as client:
        change = client.groups.add(name, members, reseal=reseal, dry_run=dry_run)
    _emit(frame, change, f"Changed the group {name}.", dry_run=dry_run)


def remove(
    frame: Frame, name: Name, members: Members, reseal: Reseal = False, dry_run: DryRun = False
) -> None:
    """Take people, or other groups, out of a group, and show what they lose by it."""
    with frame.client() as client:
        change = client.groups.remove(name, members, reseal=reseal, dry_run=dry_run)
    _emit(frame, change, f"Changed the group {name}.", dry_run=dry_run)


def rm(frame: Frame, name: Name, reseal: Reseal = False, dry_run: DryRun = False) -> None:
    """Delete a group; asks when rules name it, which then name nobody."""
    with frame.client() as client:
        found = client.groups.show(name)
        is_used = bool(found.rules or found.groups)
        if is_used and not dry_run:
            planned = client.groups.delete(name, dry_run=True)
            frame.confirm(
                f"Delete the group {name}, which is in use?",
                Fields([("member of", found.groups)]),
                uses_table(found),
                *reach_parts(planned.adds, planned.removes),
            )
        change = client.groups.delete(name, force=is_used, reseal=reseal, dry_run=dry_run)
    _emit(frame, change, f"Deleted the group {name}.", dry_run=dry_run)


def group_document(found: Group) -> dict[str, Any]:
    """Return what is said of a group."""
    return {"name": found.name, "members": list(found.members), "principals": list(found.principals)}


def detail_document(found: GroupDetail) -> dict[str, Any]:
    """Return what `group show --json` prints."""
    rules = [
        {"file": use.file, "line": use.line, "pattern": use.pattern, "lists": list(use.lists)}
        for use in found.rules
    ]
    return {**group_document(found), "groups": list(found.groups), "rules": rules}


def change_document(change: GroupChange) -> dict[str, object]:
    """Return what the verbs that change a group print with ``--json``."""
    return {
        "name": change.name,
        "file": change.file,
        "members": list(change.members),
        "diff": change.diff,
        "adds": gain_items(change.adds),
        "removes": gain_items(change.removes),
        "rules": list(change.rules),
        "notes": list(change.notes),
        "resealed": list(change.resealed),
        "revision": change.revision,
    }


def uses_table(found: GroupDetail) -> Table:
    """Return the rules that name a group, for people."""
    rows = [[use.file, use.line, use.pattern, use.lists] for use in found.rules]
    return Table(["rule file", "line", "pattern", "lists"], rows, "No rule names it.")


def _emit(frame: Frame, change: GroupChange, done: str, *, dry_run: bool) -> None:
    parts: list[Human] = reach_parts(change.adds, change.removes)
    if change.rules:
        parts.append(f"named by {', '.join(change.rules)}")
    parts += change.notes
    last = "Nothing was written." if dry_run else done if change.diff else f"{change.file} says so already."
    sealed = [f"Sealed {len(change.resealed)} anew."] if change.resealed else []
    frame.emit(change_document(change), *parts, *diff_parts(change.diff), last, *sealed)
