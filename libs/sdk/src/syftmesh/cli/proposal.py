"""Verbs of federated runs for the owners of data: fl approve, code, deny, leave, revoke."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from syftmesh_core.errors import MeshError

from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.local import inside, write_file
from syftmesh.cli.output import Block, Fields, Table, size_text
from syftmesh.cli.run_document import proposal_document, proposal_parts

if TYPE_CHECKING:
    from syftmesh.site_run import Proposal

EXAMPLE_RUN: Final = "1744673709551615"

RunId = Annotated[str, typer.Argument(metavar="RUN", help="As `fl run` and `fl ls` show it.")]
_BRIEF: Final = ("id", "state", "aggregator", "app", "reason", "message")


def register(fl: typer.Typer) -> None:
    """Add the verbs to the group of federated runs."""
    verb(fl, "approve", example=f"syftmesh fl approve {EXAMPLE_RUN}")(approve)
    verb(fl, "code", example=f"syftmesh fl code {EXAMPLE_RUN} -o review")(code)
    verb(fl, "deny", example=f"syftmesh fl deny {EXAMPLE_RUN} --reason 'not this dataset'")(deny)
    verb(fl, "leave", example=f"syftmesh fl leave {EXAMPLE_RUN} --reason 'patients ask'")(leave)
    verb(fl, "revoke", example=f"syftmesh fl revoke {EXAMPLE_RUN} --reason 'signed by mistake'")(leave)


def approve(frame: Frame, run_id: RunId) -> None:
    """Let your site take part in a run: shows what it is, asks, and signs exactly those terms with this device."""
    with frame.client() as client:
        seen = client.site.fl.get(run_id)
        files = client.site.fl.code(run_id)
        document = proposal_document(seen)
        frame.confirm(
            f"Let this app of {document['aggregator']} train on your private data?",
            *proposal_parts(document),
            "",
            code_table(files),
        )
        after = proposal_document(client.site.fl.approve(seen))
    frame.emit(after, brief(after))


def code(
    frame: Frame,
    run_id: RunId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write it to.")
    ] = None,
) -> None:
    """Show the files of an app that was proposed to your site, or write them to a folder."""
    with frame.client() as client:
        files = client.site.fl.code(run_id)
    names = sorted(files)
    if output is not None:
        for name in names:
            write_file(inside(output, name), files[name])
    texts = {name: files[name].decode("utf-8", "replace") for name in names}
    items = [{"name": n, "size_bytes": len(files[n]), "content": texts[n]} for n in names]
    document = {"id": run_id, "folder": str(output) if output else None, "items": items}
    if output is not None:
        frame.emit(document, code_table(files))
        return
    frame.emit(document, *(Block(f"# {name}\n{text}") for name, text in texts.items()))


def deny(
    frame: Frame,
    run_id: RunId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="For your site's own records; it stays there.")
    ],
) -> None:
    """Refuse to take part in a run; the others go on without your site."""
    with frame.client() as client:
        after = proposal_document(client.site.fl.deny(run_id, reason))
    frame.emit(after, brief(after))


def leave(
    frame: Frame,
    run_id: RunId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="For your site's own records; it stays there.")
    ] = "",
) -> None:
    """Take back the approval of a run, after a question: nothing of it runs at your site any more."""
    with frame.client() as client:
        seen = client.site.fl.get(run_id)
        frame.confirm(f"Leave the run {run_id} of {seen.aggregator}, for good?")
        after = proposal_document(client.site.fl.leave(run_id, reason))
    frame.emit(after, brief(after))


def own_proposals(frame: Frame, client: Any) -> list[Proposal]:
    """Return the proposals at the own site; none where no site runs on this machine."""
    try:
        return list(client.site.fl.proposals())
    except MeshError as error:
        _check_absence(frame, error)
        return []


def own_proposal(frame: Frame, client: Any, run_id: str) -> tuple[Proposal | None, MeshError | None]:
    """Return the proposal of a run at the own site; None without one, and the error of a site that is away."""
    try:
        return client.site.fl.get(run_id), None
    except MeshError as error:
        _check_absence(frame, error)
        return None, error if error.code == "UNAVAILABLE" else None


def code_table(files: Mapping[str, bytes]) -> Table:
    """Return names, sizes and lines of an app's files."""
    rows = [[name, size_text(len(files[name])), files[name].count(b"\n")] for name in sorted(files)]
    return Table(["code", "size", "lines"], rows, "There is no code.")


def brief(document: Mapping[str, Any]) -> Fields:
    """Return where a proposal is, for people."""
    return Fields([(name, document[name]) for name in _BRIEF if document.get(name) not in ("", None)])


def _check_absence(frame: Frame, error: MeshError) -> None:
    if error.code not in {"NOT_FOUND", "UNAVAILABLE"}:
        raise error
    frame.detail(error.message)
