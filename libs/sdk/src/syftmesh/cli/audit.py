"""Verbs of the own site's audit chain: audit verify, query, export."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.local import write_file
from syftmesh.cli.output import Block, Fields, Table, jsonable, unix_ms_text

if TYPE_CHECKING:
    from syftmesh.site_audit import AuditEntry


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    audit = group(app, "audit", "Who touched what, under which approval, and what left.")
    verb(audit, "verify", example="syftmesh audit verify --json")(verify)
    verb(audit, "query", example="syftmesh audit query --dataset breast-cancer")(query)
    verb(audit, "export", example="syftmesh audit export -o audit.jsonl")(export)
    return audit


def verify(frame: Frame) -> None:
    """Check the whole chain and its signed checkpoints; the first bad entry is named."""
    with frame.client() as client:
        found = client.site.audit.verify()
    document = {
        "ok": True,
        "entries": found.entries,
        "checkpoints": found.checkpoints,
        "root": found.root.hex(),
    }
    frame.emit(document, Fields(list(document.items())))


def query(
    frame: Frame,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Entries that name this dataset.")
    ] = None,
    job: Annotated[str | None, typer.Option(metavar="ID", help="Entries that name this job.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="KIND", help="Entries of this kind, like job.approved.")
    ] = None,
) -> None:
    """List entries, oldest first."""
    with frame.client() as client:
        found = client.site.audit.query(dataset=dataset, job_id=job, kind=kind)
        items = [entry_document(entry) for entry in found]
    rows = [
        [item["sequence"], item["at"], item["kind"], item["actor"], _line(item["fields"])] for item in items
    ]
    columns = ["sequence", "at", "kind", "actor", "facts"]
    frame.emit({"items": items}, Table(columns, rows, "There is no such entry."))


def export(
    frame: Frame,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="File to write to; stdout.")
    ] = None,
) -> None:
    """Write the whole chain as JSON Lines, one entry a line."""
    with frame.client() as client:
        items = [entry_document(entry) for entry in client.site.audit.export()]
    lines = "".join(f"{_line(item)}\n" for item in items)
    if output is not None:
        write_file(output, lines.encode())
        document = {"file": str(output), "entries": len(items)}
        frame.emit(document, f"Wrote {len(items)} entries to {output}.")
        return
    frame.emit({"items": items}, Block(lines))


def entry_document(entry: AuditEntry) -> dict[str, object]:
    """Return what is said of an entry of the chain."""
    return {
        "sequence": entry.sequence,
        "at": unix_ms_text(entry.at_ms),
        "kind": entry.kind,
        "actor": entry.actor,
        "fields": entry.fields,
        "previous_digest": entry.previous_digest.hex(),
        "digest": entry.digest.hex(),
    }


def _line(value: object) -> str:
    return json.dumps(jsonable(value), ensure_ascii=True, separators=(",", ":"))
