"""Verbs of files: ls, stat, cat, rm; copying is in `copying`."""

from __future__ import annotations

import base64
from typing import Annotated, Any

import typer
from syftmesh_core.errors import InvalidInput, NotFound

from syftmesh.cli.document import file_document
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.output import Block, Fields, Table, size_text

MeshPath = Annotated[str, typer.Argument(metavar="PATH", help="Like alice@x.example/public/a.csv.")]


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    verb(app, "ls", example="syftmesh ls alice@hospital.example/public")(ls)
    verb(app, "stat", example="syftmesh stat alice@hospital.example/public/readme.md")(stat)
    verb(app, "cat", example="syftmesh cat alice@hospital.example/public/readme.md")(cat)
    verb(
        app,
        "rm",
        example="syftmesh rm alice@hospital.example/public/old.csv\nsyftmesh rm -r alice@hospital.example/old --yes",
    )(rm)


def ls(
    frame: Frame,
    path: Annotated[str | None, typer.Argument(metavar="PATH", help="A folder; your own site.")] = None,
) -> None:
    """List the files below a folder that you may read, with all folders in it."""
    with frame.client() as client:
        found = [file_document(view) for view in client.files.list(path or client.email)]
    rows = [[f["path"], _size(f), f["revision"], f["author"], f["created"], f["unverified"]] for f in found]
    columns = ["path", "size", "revision", "author", "written", "unverified"]
    frame.emit({"items": found}, Table(columns, rows, "There is no file that you may read."))


def stat(frame: Frame, path: MeshPath) -> None:
    """Show what the verified record of a file says."""
    with frame.client() as client:
        document = file_document(existing(client, path))
    frame.emit(document, Fields(list(document.items())))


def cat(frame: Frame, path: MeshPath) -> None:
    """Write a file to stdout: its exact bytes, or on a terminal its text without control characters."""
    with frame.client() as client:
        data = client.files.read(path)
    show_bytes(frame, data, {"path": path})


def rm(
    frame: Frame,
    paths: Annotated[list[str], typer.Argument(metavar="PATH...", help="Files of the mesh.")],
    recursive: Annotated[
        bool, typer.Option("--recursive", "-r", help="Folders too, with all in them.")
    ] = False,
) -> None:
    """Delete files of the mesh, after a question."""
    with frame.client() as client:
        doomed: list[str] = []
        for path in paths:
            below = [view.path for view in client.files.list(path)] if recursive else []
            doomed += below or [existing(client, path).path]
        rows = [[path] for path in doomed]
        frame.confirm(f"Delete {len(doomed)} file{'s' if len(doomed) != 1 else ''}?", Table(["path"], rows))
        deleted: list[str] = []
        for path in doomed:
            client.files.delete(path)
            deleted.append(path)
            frame.detail(f"deleted {path}")
    frame.emit({"items": deleted}, f"Deleted {len(deleted)}.")


def existing(client: Any, path: str) -> Any:
    """Return the view of the file at `path`.

    Raises:
        NotFound: FILE_MISSING.
    """
    view = client.files.stat(path)
    if view is None:
        raise NotFound(
            f"There is no file {path}, or you may not read it.",
            reason="FILE_MISSING",
            metadata={"path": path},
            hint=f"syftmesh acl check {path}",
        )
    return view


def show_bytes(frame: Frame, data: bytes, document: dict[str, object]) -> None:
    """Write bytes of somebody to stdout; in JSON as text where they are UTF-8, and as base64 where not.

    Raises:
        InvalidInput: BINARY_ON_TERMINAL.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    if frame.json:
        content: dict[str, object]
        content = {"content_base64": base64.b64encode(data).decode()} if text is None else {"content": text}
        frame.emit({**document, "size_bytes": len(data), **content})
    elif not frame.stdout_is_terminal:
        frame.emit_bytes(data)
    elif text is None or "\0" in text:
        raise InvalidInput(
            f"These {len(data)} bytes are no text, and stdout is a terminal.",
            reason="BINARY_ON_TERMINAL",
            hint="Write them to a file: > FILE, or syftmesh cp PATH FILE.",
        )
    else:
        frame.emit({}, Block(text))


def _size(found: dict[str, Any]) -> str:
    exact = found["size_bytes"]
    return size_text(exact) if exact is not None else f"~{size_text(found['stored_size_bytes'])}"
