"""The verb acl set: shows whom a change of a rule file adds and removes, asks, and writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.output import Block, Human
from syftmesh.cli.quantity import count, moment, size_bytes

if TYPE_CHECKING:
    from syftmesh.reach import Gain
    from syftmesh.rule_desk import RuleChange

_NONE: Final = "none"
_WHO: Final = "WHO,..."

Read = Annotated[list[str] | None, typer.Option("--read", metavar=_WHO, help="Who may read.")]
Write = Annotated[list[str] | None, typer.Option("--write", metavar=_WHO, help="Who may read and change.")]
Create = Annotated[list[str] | None, typer.Option("--create", metavar=_WHO, help="Who may add files.")]
Admin = Annotated[list[str] | None, typer.Option("--admin", metavar=_WHO, help="Who may do everything.")]
Deny = Annotated[
    list[str] | None,
    typer.Option("--deny", metavar=_WHO, help="Whom the rule grants nothing, whatever names them."),
]
Remove = Annotated[
    list[str] | None,
    typer.Option("--remove", metavar=_WHO, help="Who leaves all lists of the rule but deny."),
]


def register(acl: typer.Typer) -> None:
    """Add the verb to the group of rights."""
    verb(
        acl,
        "set",
        example="syftmesh acl set alice@hospital.example/reports --read bob@clinic.example,group:reviewers\n"
        "syftmesh acl set alice@hospital.example/reports/ --pattern '**/*.csv' --read '*' --dry-run\n"
        "syftmesh acl set alice@hospital.example/inbox/ --create USER --max-file-size 10MiB --expires 30d",
    )(set_)


def set_(  # noqa: PLR0913 - one for each option
    frame: Frame,
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="A folder (with / at its end when nothing is in it), or a file."),
    ],
    read: Read = None,
    write: Write = None,
    create: Create = None,
    admin: Admin = None,
    deny: Deny = None,
    remove: Remove = None,
    add: Annotated[
        bool, typer.Option("--add", help="Add to the lists; without it each list that is named is replaced.")
    ] = False,
    pattern: Annotated[
        str | None, typer.Option("--pattern", metavar="P", help="Which paths below the folder; **.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(
            "--expires", metavar="TIME", help="From then on the rule grants nothing; 'none' for never."
        ),
    ] = None,
    terminal: Annotated[
        bool | None,
        typer.Option("--terminal/--no-terminal", help="Whether rule files further down are ignored."),
    ] = None,
    max_file_size: Annotated[
        str | None,
        typer.Option(
            "--max-file-size", metavar="N", help="Largest file of others, like 10MB; 'none' for no bound."
        ),
    ] = None,
    max_files: Annotated[
        str | None,
        typer.Option("--max-files", metavar="N", help="Most files of others; 'none' for no bound."),
    ] = None,
    reseal: Annotated[
        bool,
        typer.Option("--reseal", help="Write the files whose readers change again, for the new readers."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Say who may do what below a folder, or with one file, in its rule file; the rest of the file stays as it is.

    WHO is an e-mail, * for everyone, USER for everyone who is logged in, *@clinic.example, or group:NAME. A rule with
    the same pattern is changed, or a new one is added. Shows whom that adds and removes, then asks.
    """
    clock = frame.surroundings.clock
    asked: dict[str, Any] = {
        **{
            name: _entries(texts)
            for name, texts in (
                ("read", read),
                ("write", write),
                ("create", create),
                ("admin", admin),
                ("deny", deny),
            )
            if texts is not None
        },
        "add": add,
        "remove": _entries(remove or ()),
        "pattern": pattern,
        "expires": _NONE if expires == _NONE else None if expires is None else moment(expires, clock),
        "terminal": terminal,
        "max_file_size_bytes": max_file_size
        if max_file_size in (None, _NONE)
        else size_bytes(str(max_file_size)),
        "max_files": max_files if max_files in (None, _NONE) else count(str(max_files), "number of files"),
        "reseal": reseal,
    }
    with frame.client() as client:
        planned = client.permissions.set(path, **asked, dry_run=True)
        parts = change_parts(planned)
        if dry_run or not (planned.diff or reseal):
            last = "Nothing was written." if planned.diff else f"{planned.file} says so already."
            frame.emit(change_document(planned), *parts, last)
            return
        frame.confirm(
            f"Write {planned.file if planned.diff else 'the files that the rule decides about'}?", *parts
        )
        # Exactly what was shown, or nothing: a change in between is a conflict.
        done = client.permissions.set(path, **asked, expected_revision=planned.revision)
    shown = parts if frame.yes else []
    written = [f"Wrote {done.file}, revision {done.revision}."] if done.diff else []
    sealed = [f"Sealed {len(done.resealed)} anew."] if reseal else []
    frame.emit(change_document(done), *shown, *written, *sealed)


def change_document(change: RuleChange) -> dict[str, object]:
    """Return what `acl set --json` prints."""
    return {
        "path": change.path,
        "file": change.file,
        "pattern": change.pattern,
        "diff": change.diff,
        "adds": gain_items(change.adds),
        "removes": gain_items(change.removes),
        "notes": list(change.notes),
        "resealed": list(change.resealed),
        "revision": change.revision,
    }


def change_parts(change: RuleChange) -> list[Human]:
    """Return a change for people: whom it adds and removes, what to know, and the difference of the file."""
    return [*reach_parts(change.adds, change.removes), *change.notes, *diff_parts(change.diff)]


def gain_items(gains: Iterable[Gain]) -> list[dict[str, object]]:
    """Return who gains or loses what, for documents."""
    return [{"level": gain.level, "who": gain.who, "files": gain.files} for gain in gains]


def reach_parts(adds: Sequence[Gain], removes: Sequence[Gain]) -> list[Human]:
    """Return who gains and loses what, for people."""
    from syftmesh.reach import reach_texts  # brings the whole engine along

    return list(reach_texts(adds, removes))


def diff_parts(diff: str) -> list[Human]:
    """Return the difference of a file for people."""
    return [Block(diff)] if diff else []


def _entries(texts: Iterable[str]) -> list[str]:
    """Return the entries of options that may be given several times, with commas in each; an empty one has none."""
    return [entry.strip() for text in texts if text.strip() for entry in text.split(",")]
