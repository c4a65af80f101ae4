"""Verbs of the owner's review: job approve, reject, code, release, withhold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from syftmesh.cli.document import findings_table, outputs_table, review_document
from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.local import inside, write_file
from syftmesh.cli.output import Block, Fields, Human, Table, size_text
from syftmesh.cli.quantity import moment

JobId = Annotated[str, typer.Argument(metavar="ID", help="As `job submit` and `job ls` show it.")]
_EXAMPLE_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
_BRIEF = ("id", "state", "submitter", "end_reason", "message", "exit_code", "released")


def register(job: typer.Typer) -> None:
    """Add the verbs to the group of jobs."""
    verb(job, "code", example=f"syftmesh job code {_EXAMPLE_ID} -o review")(code)
    verb(job, "approve", example=f"syftmesh job approve {_EXAMPLE_ID}")(approve)
    verb(job, "reject", example=f"syftmesh job reject {_EXAMPLE_ID} --reason 'names single patients'")(reject)
    verb(
        job,
        "release",
        example=f"syftmesh job release {_EXAMPLE_ID}\n"
        f"syftmesh job release {_EXAMPLE_ID} counts.csv --to carol@lab.example --expires 30d",
    )(release)
    verb(job, "withhold", example=f"syftmesh job withhold {_EXAMPLE_ID} --reason 'too small groups'")(
        withhold
    )


def code(
    frame: Frame,
    job_id: JobId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write it to.")
    ] = None,
) -> None:
    """Show the submitted code of a job at your site, or write it to a folder."""
    with frame.client() as client:
        files = client.site.jobs.code(job_id)
    if output is not None:
        for name in sorted(files):
            write_file(inside(output, name), files[name])
    items = [_source_document(name, files[name]) for name in sorted(files)]
    document = {"id": job_id, "folder": str(output) if output else None, "items": items}
    if output is not None:
        frame.emit(document, code_table(files))
        return
    texts = [files[name].decode("utf-8", "replace") for name in sorted(files)]
    blocks = [Block(f"# {name}\n{text}") for name, text in zip(sorted(files), texts, strict=True)]
    frame.emit(document, *blocks)


def approve(frame: Frame, job_id: JobId) -> None:
    """Approve a job in review: shows what it is, asks, and signs exactly those bytes with this device."""
    with frame.client() as client:
        reviewed = client.site.jobs.get(job_id)
        document = review_document(reviewed)
        files = client.site.jobs.code(job_id)
        frame.confirm(
            f"Approve this job of {document['submitter']} on your private data?",
            *review_parts(document),
            "",
            code_table(files),
        )
        after = review_document(client.site.jobs.approve(reviewed))
    frame.emit(after, brief(after))


def reject(
    frame: Frame,
    job_id: JobId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The submitter reads it.")],
) -> None:
    """Refuse a job in review."""
    with frame.client() as client:
        after = review_document(client.site.jobs.reject(job_id, reason))
    frame.emit(after, brief(after))


def release(
    frame: Frame,
    job_id: JobId,
    files: Annotated[list[str] | None, typer.Argument(metavar="FILE...", help="Which; all.")] = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="EMAIL", help="To whom; the submitter. May be repeated."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="TIME", help="Until when; a moment, or a duration like 30d."),
    ] = None,
    override: Annotated[
        str, typer.Option("--override", metavar="REASON", help="Why it may leave in spite of the gate.")
    ] = "",
) -> None:
    """Let files that a job wrote leave your site, sealed for who gets them, after a question.

    The gate refuses small groups, private rows and identifiers; it names file and cell.
    """
    until = None if expires is None else moment(expires, frame.surroundings.clock)
    with frame.client() as client:
        document = review_document(client.site.jobs.get(job_id))
        who = ", ".join(to or ()) or document["submitter"]
        what = ", ".join(files or ()) or "all files"
        frame.confirm(f"Release {what} to {who}?", *output_parts(document))
        options: dict[str, Any] = {"files": files or None, "to": to or None, "expires": until}
        done = client.site.jobs.release(job_id, override=override, **options)
        after = {**review_document(done.job), "bytes_out": done.bytes_out}
    frame.emit(after, brief(after), outputs_table(_list(after, "outputs")))


def withhold(
    frame: Frame,
    job_id: JobId,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The submitter reads it.")] = "",
) -> None:
    """Keep what a job wrote at your site, for good, after a question."""
    with frame.client() as client:
        document = review_document(client.site.jobs.get(job_id))
        frame.confirm(f"Keep the results of the job {document['id']} for good?", *output_parts(document))
        after = review_document(client.site.jobs.withhold(job_id, reason=reason))
    frame.emit(after, brief(after))


def review_parts(document: Mapping[str, Any]) -> tuple[Human, ...]:
    """Return what a reviewer sees of a job: what is bound by an approval, findings, outputs."""
    nested = ("datasets", "findings", "outputs")
    pairs = [
        (name, value)
        for name, value in document.items()
        if name not in nested and value not in ("", None, [])
    ]
    pairs += [(f"dataset {d['name']}", d["digest"]) for d in document["datasets"]]
    parts: list[Human] = [Fields(pairs), "", findings_table(document["findings"], "Review found nothing.")]
    if document["outputs"]:
        parts += ["", *output_parts(document)]
    return tuple(parts)


def output_parts(document: Mapping[str, Any]) -> tuple[Human, ...]:
    """Return what a job left and what the release gate says of it."""
    outputs = _list(document, "outputs")
    findings = [finding for output in outputs for finding in output["findings"]]
    return outputs_table(outputs), "", findings_table(findings, "The gate found nothing.")


def code_table(files: Mapping[str, bytes]) -> Table:
    """Return the names, sizes and lines of submitted code."""
    rows = [[name, size_text(len(files[name])), files[name].count(b"\n")] for name in sorted(files)]
    return Table(["code", "size", "lines"], rows, "There is no code.")


def _source_document(name: str, content: bytes) -> dict[str, object]:
    return {"name": name, "size_bytes": len(content), "content": content.decode("utf-8", "replace")}


def brief(document: Mapping[str, Any]) -> Fields:
    """Return where a job is, for people."""
    return Fields([(name, document[name]) for name in _BRIEF if document.get(name) not in ("", None, [])])


def _list(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    return list(document[name])
