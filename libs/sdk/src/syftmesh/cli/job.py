"""Verbs of jobs for both sides: job submit, run-mock, ls, show, logs, cancel, results."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from syftmesh_core.errors import InvalidInput, MeshError, NotFound
from syftmesh_core.job import JobState
from syftmesh_core.quote import quoted

from syftmesh.cli import review
from syftmesh.cli.document import job_document, review_document
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.local import inside, read_file, write_file
from syftmesh.cli.output import Block, Fields, Human, Table, size_text
from syftmesh.cli.quantity import duration_s, json_value
from syftmesh.cli.review import JobId

Result = TypeVar("Result")

_EXAMPLE_ID = "01890a5d-ac96-774b-bcce-b302099a8057"

Code = Annotated[Path, typer.Argument(metavar="CODE", help="A script, or a folder with it.")]
Entrypoint = Annotated[
    str | None, typer.Option("--entrypoint", metavar="FILE", help="The script inside the folder; main.py.")
]
Site = Annotated[
    str | None,
    typer.Option(
        "--site", metavar="EMAIL", help="Where it was sent, for jobs not submitted from this profile."
    ),
]
Parameters = Annotated[
    str | None, typer.Option("--parameters", metavar="JSON", help="What the job gets, or @FILE.")
]


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    job = group(app, "job", "Analyses on the private data of others, after review.")
    dataset = "alice@hospital.example/breast-cancer"
    verb(
        job,
        "submit",
        example=f"syftmesh job submit analysis/ --entrypoint main.py --dataset {dataset} --purpose prevalence",
    )(submit)
    verb(job, "run-mock", example=f"syftmesh job run-mock analysis/ --dataset {dataset} -o out")(run_mock)
    verb(job, "ls", example="syftmesh job ls --in in_review --json")(ls)
    verb(job, "show", example=f"syftmesh job show {_EXAMPLE_ID}")(show)
    verb(job, "wait", example=f"syftmesh job wait {_EXAMPLE_ID} --timeout 10m")(wait)
    verb(job, "logs", example=f"syftmesh job logs {_EXAMPLE_ID}")(logs)
    verb(job, "cancel", example=f"syftmesh job cancel {_EXAMPLE_ID} --yes")(cancel)
    verb(job, "results", example=f"syftmesh job results {_EXAMPLE_ID} -o results")(results)
    review.register(job)
    return job


def submit(
    frame: Frame,
    code: Code,
    dataset: Annotated[
        list[str], typer.Option("--dataset", metavar="OWNER/NAME", help="May be repeated, of one site.")
    ],
    entrypoint: Entrypoint = None,
    parameters: Parameters = None,
    purpose: Annotated[
        str, typer.Option(help="What for; the reviewer reads it and a site asks for it.")
    ] = "",
    project: Annotated[str, typer.Option(help="A label that budgets and audit group by.")] = "",
    wait_: Annotated[bool, typer.Option("--wait", help="Until it is released, withheld or over.")] = False,
) -> None:
    """Send code to the owner of a dataset for review; prints the id of the job.

    When the owner is offline, the job waits for it; nothing runs before it is approved.
    """
    values = _parameters(parameters)
    _check_code(code)
    with frame.client() as client:
        sent = client.jobs.submit(
            code,
            entrypoint=entrypoint,
            datasets=list(dataset),
            parameters=values,
            purpose=purpose,
            project=project,
        )
        if wait_:
            with frame.progress(f"waiting for {sent.id} ({sent.state})"):
                sent = sent.wait()
        document = job_document(sent)
    frame.emit(document, *_job_parts(document))
    if not wait_:
        frame.note(f"next: syftmesh job wait {document['id']}")


def run_mock(
    frame: Frame,
    code: Code,
    dataset: Annotated[str, typer.Option("--dataset", metavar="OWNER/NAME", help="Whose mock.")],
    entrypoint: Entrypoint = None,
    parameters: Parameters = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for what it writes.")
    ] = None,
) -> None:
    """Run the same code, unchanged, on the mock of a dataset, on this machine; exit 1 when it fails."""
    values = _parameters(parameters)
    _check_code(code)
    with frame.client() as client, frame.progress(f"running {code} on the mock of {dataset}"):
        run = client.jobs.run_mock(code, entrypoint=entrypoint, dataset=dataset, parameters=values)
    names = sorted(run.outputs)
    if output is not None:
        for name in names:
            write_file(inside(output, name), run.outputs[name])
    outputs = [{"name": name, "size_bytes": len(run.outputs[name])} for name in names]
    document = {
        "exit_code": run.exit_code,
        "reason": run.reason,
        "stdout": run.stdout,
        "stderr": run.stderr,
        "outputs": outputs,
        "folder": str(output) if output else None,
    }
    rows = [[item["name"], size_text(int(str(item["size_bytes"])))] for item in outputs]
    frame.emit(
        document,
        *(Block(text) for text in (_text(run.stdout), _text(run.stderr)) if text),
        Fields([("exit code", run.exit_code), ("reason", run.reason)]),
        Table(["file", "size"], rows, "It wrote no files."),
    )
    if run.exit_code != 0:
        frame.finish(1)


def ls(
    frame: Frame,
    site: Annotated[str | None, typer.Option(metavar="EMAIL", help="Jobs sent to this site.")] = None,
    in_: Annotated[
        list[str] | None, typer.Option("--in", metavar="STATE", help="In this state; may be repeated.")
    ] = None,
) -> None:
    """List the jobs that wait at your own site and those that you sent to others."""
    wanted = [_state(text) for text in in_ or ()]
    with frame.client() as client:
        queue = [] if site not in (None, client.email) else _queue(frame, client, wanted)
        sent = [job_document(job) for job in client.jobs.list(site=site)]
    mine = {str(item["id"]) for item in queue}
    items = queue + [
        {"role": "submitter", **item}
        for item in sent
        if item["id"] not in mine and (not wanted or item["state"] in wanted)
    ]
    columns = ["id", "role", "site", "state", "end_reason", "message"]
    rows = [[item[column] for column in columns] for item in items]
    frame.emit({"items": items}, Table(columns, rows, "There is no job."))


def show(frame: Frame, job_id: JobId, site: Site = None) -> None:
    """Show a job: at your own site with digests, findings and outputs, else what its submitter knows."""

    def as_owner(client: Any) -> tuple[dict[str, object], tuple[Human, ...]]:
        document = {"role": "owner", **review_document(client.site.jobs.get(job_id))}
        return document, review.review_parts(document)

    def as_submitter(client: Any) -> tuple[dict[str, object], tuple[Human, ...]]:
        document = {"role": "submitter", **job_document(client.jobs.get(job_id, site=site))}
        return document, _job_parts(document)

    with frame.client() as client:
        document, parts = by_side(frame, client, as_owner, as_submitter)
    frame.emit(document, *parts)


def wait(
    frame: Frame,
    job_id: JobId,
    site: Site = None,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="How long; without end.")] = None,
) -> None:
    """Wait until a job that you sent is released, withheld or over."""
    timeout_s = None if timeout is None else duration_s(timeout)
    with frame.client() as client:
        job = client.jobs.get(job_id, site=site)
        with frame.progress(f"waiting for {job_id} ({job.state})"):
            job = job.wait(timeout_s=timeout_s)
        document = job_document(job)
    frame.emit(document, *_job_parts(document))


def logs(frame: Frame, job_id: JobId, site: Site = None) -> None:
    """Write what the job printed to stdout: its owner sees all, its submitter what was released."""

    def as_submitter(client: Any) -> str:
        found = client.jobs.get(job_id, site=site).results
        names = [name for name in found.files() if name.startswith("logs/")]
        if not names:
            raise NotFound(
                f"No logs of the job {quoted(job_id)} were released.",
                reason="LOGS_MISSING",
                metadata={"job_id": quoted(job_id)},
                hint=f"syftmesh job show {job_id}",
            )
        return "".join(found.read(name).decode("utf-8", "replace") for name in names)

    with frame.client() as client:
        text = by_side(frame, client, lambda found: found.site.jobs.logs(job_id), as_submitter)
    frame.emit({"id": job_id, "text": text}, Block(text))


def cancel(frame: Frame, job_id: JobId, site: Site = None) -> None:
    """End a job: its submitter takes it back, its owner stops it."""
    with frame.client() as client:
        is_owner, job = by_side(
            frame,
            client,
            lambda found: (True, found.site.jobs.get(job_id)),
            lambda found: (False, found.jobs.get(job_id, site=site)),
        )
        frame.confirm(f"End the job {job_id}, which is {job.state}?")
        if is_owner:
            document = review_document(client.site.jobs.cancel(job_id))
        else:
            document = job_document(job.cancel())
    frame.emit(document, review.brief(document))


def results(
    frame: Frame,
    job_id: JobId,
    site: Site = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write them to.")
    ] = None,
) -> None:
    """List the released files of a job that you sent, or write them to a folder."""
    items: list[dict[str, object]] = []
    with frame.client() as client:
        found = client.jobs.get(job_id, site=site).results
        for name in found.files():
            item: dict[str, object] = {"name": name}
            if output is not None:
                data = found.read(name)
                target = inside(output, name)
                write_file(target, data)
                item |= {"size_bytes": len(data), "file": str(target)}
            items.append(item)
    document = {"id": job_id, "folder": str(output) if output else None, "items": items}
    rows = [[item["name"], item.get("file")] for item in items]
    frame.emit(document, Table(["name", "file"], rows, "Nothing is released."))
    if items and output is None:
        frame.note(f"next: syftmesh job results {job_id} -o DIR")


def by_side(
    frame: Frame, client: Any, as_owner: Callable[[Any], Result], as_submitter: Callable[[Any], Result]
) -> Result:
    """Return what `as_owner` gives when the job is in the queue of the own site, else what `as_submitter` gives.

    Raises:
        MeshError: Of the submitter's side, or of the own site when the job is nowhere and the site did not answer.
    """
    try:
        return as_owner(client)
    except NotFound as error:
        frame.detail(error.message)
        site_error: MeshError | None = None
    except MeshError as error:
        if error.code != "UNAVAILABLE":
            raise
        site_error = error
    try:
        return as_submitter(client)
    except NotFound:
        if site_error is not None:
            raise site_error from None
        raise


def _queue(frame: Frame, client: Any, wanted: list[str]) -> list[dict[str, object]]:
    try:
        found = client.site.jobs.list(states=tuple(wanted))
    except MeshError as error:
        if error.code not in {"NOT_FOUND", "UNAVAILABLE"}:
            raise
        frame.detail(error.message)
        return []
    keys = ("id", "site", "state", "end_reason", "message", "submitter", "project", "purpose", "created")
    documents = [review_document(job) for job in found]
    return [{"role": "owner", **{key: document[key] for key in keys}} for document in documents]


def _job_parts(document: Mapping[str, object]) -> tuple[Human, ...]:
    return (Fields([(name, value) for name, value in document.items() if value not in ("", None, [])]),)


def _parameters(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    if text.startswith("@"):
        value = json_value(read_file(Path(text[1:])), text[1:])
    else:
        value = json_value(text, "--parameters")
    if not isinstance(value, dict):
        raise InvalidInput(
            f"The parameters are {quoted(json.dumps(value))} and must be a JSON object.",
            reason="JSON_INVALID",
            metadata={"source": "--parameters"},
            hint="""Like --parameters '{"year": 2024}'.""",
        )
    return value


def _check_code(code: Path) -> None:
    if not code.exists():
        raise NotFound(
            f"There is no file or folder {quoted(str(code))} on this machine.",
            reason="LOCAL_FILE_MISSING",
            metadata={"file": quoted(str(code))},
        )


def _state(text: str) -> str:
    try:
        return JobState(text.lower().replace("-", "_")).value
    except ValueError as error:
        raise InvalidInput(
            f"{quoted(text)} is no state of a job; there are {', '.join(JobState)}.",
            reason="STATE_INVALID",
            metadata={"state": quoted(text)},
        ) from error


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
