"""Verbs of federated runs for who starts them: fl run, aggregate, ls, show, watch, cancel, results, serve."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import click
import typer
from syftmesh_core.errors import InvalidInput, MeshError
from syftmesh_core.quote import quoted

from syftmesh.cli import proposal
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Human, Table
from syftmesh.cli.proposal import EXAMPLE_RUN, RunId, own_proposal, own_proposals
from syftmesh.cli.quantity import duration_s
from syftmesh.cli.run_document import (
    Ticker,
    artifact_table,
    proposal_document,
    proposal_parts,
    run_document,
    run_parts,
)

INTERRUPTED = "Its starter stopped it from the keyboard."

Sites = Annotated[
    list[str],
    typer.Option("--sites", metavar="A,B", help="E-mails of the sites, with commas; may be repeated."),
]
Config = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        metavar="KEY=VALUE",
        help="Overrides a setting of the app; a number, true, false or text. May be repeated.",
    ),
]


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    fl = group(app, "fl", "Flower apps over the data of several sites, after each owner's approval.")
    sites = "alice@hospital.example,bob@clinic.example"
    verb(
        fl,
        "run",
        example=f"syftmesh fl run ./app --sites {sites} --dataset breast-cancer --rounds 5 --purpose prognosis",
    )(run)
    verb(fl, "aggregate", example=f"syftmesh fl aggregate {EXAMPLE_RUN}")(aggregate)
    verb(fl, "ls", example="syftmesh fl ls --json")(ls)
    verb(fl, "show", example=f"syftmesh fl show {EXAMPLE_RUN}")(show)
    verb(fl, "watch", example=f"syftmesh fl watch {EXAMPLE_RUN}")(watch)
    verb(fl, "cancel", example=f"syftmesh fl cancel {EXAMPLE_RUN} --yes")(cancel)
    verb(fl, "results", example=f"syftmesh fl results {EXAMPLE_RUN} -o results")(results)
    verb(fl, "serve", example="syftmesh fl serve")(serve)
    proposal.register(fl)
    return fl


def run(  # noqa: PLR0913 - one parameter for each option
    frame: Frame,
    app: Annotated[Path, typer.Argument(metavar="APP", help="Folder of a Flower app.")],
    sites: Sites,
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="Its name, the same at every site.")
    ],
    rounds: Annotated[int | None, typer.Option(metavar="N", help="How many; the app's own number.")] = None,
    minimum_sites: Annotated[
        int | None, typer.Option("--minimum-sites", metavar="N", help="The fewest that may finish; all.")
    ] = None,
    config: Config = None,
    purpose: Annotated[str, typer.Option(metavar="TEXT", help="What for; the owners read it.")] = "",
    deadline: Annotated[
        str | None, typer.Option(metavar="DURATION", help="When it ends at the latest, from now; 7d.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Only ask the sites; `fl aggregate` does the rest.")
    ] = False,
) -> None:
    """Ask sites to take part in a run of a Flower app, and aggregate it here until it is over.

    Ctrl-C cancels the run. Exit 0 when it succeeded, also with fewer sites than asked (a warning says so), 1 when
    it failed or was cancelled.
    """
    settings = _config(config or ())
    deadline_s = None if deadline is None else duration_s(deadline)
    names = [name.strip() for text in sites for name in text.split(",") if name.strip()]
    with frame.client() as client:
        with frame.progress(f"asking {', '.join(names)}"):
            made = client.fl.run(app, names, dataset, rounds, minimum_sites, settings, purpose, deadline_s)
        frame.note(f"run {made.id} was created")
        if not made.snapshot.final:
            frame.note(f"owners decide with: syftmesh fl approve {made.id}")
        if not detach:
            _aggregated(frame, made)
        snapshot = made.snapshot
    if detach:
        _emit_run(frame, snapshot)
        if snapshot.final:
            frame.finish(1)
        frame.note(f"next: syftmesh fl aggregate {made.id}")
        return
    _finish(frame, snapshot)


def aggregate(frame: Frame, run_id: RunId) -> None:
    """Go on with a run of yours: one started with --detach, or whose aggregator has ended.

    Ctrl-C leaves it as it is: held until its deadline, or until this goes on.
    """
    with frame.client() as client:
        found = client.fl.get(run_id)
        found.aggregate(Ticker(frame.note))
        snapshot = found.snapshot
    _finish(frame, snapshot)


def ls(frame: Frame) -> None:
    """List the runs that you started and those that your own site was asked to take part in."""
    with frame.client() as client:
        mine = {p.run_id: p for p in own_proposals(frame, client)}
        items = []
        for found in client.fl.ls():
            document = _with_role(client, run_document(found.snapshot))
            asked = mine.pop(found.id, None)
            items.append({**document, "proposal": asked and proposal_document(asked)})
        items += [_unseen_run(asked) for asked in mine.values()]
    columns = ["id", "role", "state", "dataset", "sites", "round", "reason", "your site"]
    rows = [
        [
            *(i[column] for column in columns[:4]),
            [site["site"] for site in i["sites"]],
            _round(i),
            i["reason"] or None,
            i["proposal"] and i["proposal"]["state"],
        ]
        for i in items
    ]
    frame.emit({"items": items}, Table(columns, rows, "There is no run."))


def show(frame: Frame, run_id: RunId) -> None:
    """Show a run as the hub knows it, and what was proposed to your own site."""
    with frame.client() as client:
        asked, refusal = own_proposal(frame, client, run_id)
        try:
            document = _with_role(client, run_document(client.fl.get(run_id).snapshot))
        except MeshError as error:
            if asked is None:
                raise (refusal or error) from None
            frame.note(f"The hub does not tell of the run: {error.message}")
            document = _unseen_run(asked)
        files = client.site.fl.code(run_id) if asked is not None else {}
    document["proposal"] = None
    parts: list[Human] = list(run_parts(document))
    if asked is not None:
        document["proposal"] = {**proposal_document(asked), "files": sorted(files)}
        parts += ["", "At your site:", *proposal_parts(proposal_document(asked)), ""]
        parts += [proposal.code_table(files)]
    frame.emit(document, *parts)


def watch(frame: Frame, run_id: RunId) -> None:
    """Follow a run until it is over; the exit code is that of `fl run`."""
    with frame.client() as client:
        tick = Ticker(frame.note)
        found = client.fl.get(run_id)
        for snapshot in found.watch():
            tick(snapshot)
        snapshot = found.snapshot
    _finish(frame, snapshot)


def cancel(
    frame: Frame,
    run_id: RunId,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="The people at the sites read it.")
    ] = "",
) -> None:
    """End a run of yours everywhere, after a question."""
    with frame.client() as client:
        found = client.fl.get(run_id)
        frame.confirm(f"End the run {run_id}, which is {found.state}?")
        snapshot = found.cancel(reason).snapshot
    _emit_run(frame, snapshot)


def results(
    frame: Frame,
    run_id: RunId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write them to.")
    ] = None,
) -> None:
    """List what a run of yours left, or write it to a folder: the model, checkpoints, metrics."""
    with frame.client() as client:
        found = client.fl.get(run_id)
        items = run_document(found.snapshot)["artifacts"]
        if output is None:
            files: list[Path] = []
        else:
            with frame.progress(f"reading the results of {run_id}"):
                files = found.results(output)
    document = {
        "id": run_id,
        "folder": str(output) if output else None,
        "files": [str(file) for file in files],
        "items": items,
    }
    if output is None:
        frame.emit(document, artifact_table(items))
        if items:
            frame.note(f"next: syftmesh fl results {run_id} -o DIR")
        return
    frame.emit(document, Table(["file"], [[str(file)] for file in files], "The run has left nothing (yet)."))


def serve(frame: Frame) -> None:
    """Aggregate the runs that you start with Flower's own program, until Ctrl-C.

    Log it in first: `syftmesh login --flwr`.
    """
    tickers: dict[str, Ticker] = {}

    def tell(snapshot: Any) -> None:
        tickers.setdefault(snapshot.id, Ticker(frame.note))(snapshot)

    with frame.client() as client:
        frame.note("Waiting for runs of Flower's own program; Ctrl-C ends it.")
        client.fl.serve(tell)


def _aggregated(frame: Frame, made: Any) -> None:
    try:
        made.aggregate(Ticker(frame.note))
    except (KeyboardInterrupt, click.Abort):
        frame.note(f"cancelling the run {made.id}")
        try:
            made.cancel(INTERRUPTED)
        except MeshError as error:
            frame.note(f"The run could not be cancelled: {error.message}")
            frame.note(f"next: syftmesh fl cancel {made.id}")
        raise
    except MeshError:
        frame.note(f"The run {made.id} waits for its aggregator: syftmesh fl aggregate {made.id}")
        raise


def _finish(frame: Frame, snapshot: Any) -> None:
    """Emit a run that is over and end with the exit code that its state has."""
    _emit_run(frame, snapshot)
    if snapshot.state == "partial":
        frame.note(
            f"warning: the run finished without some sites: {snapshot.message or snapshot.reason or 'see above'}"
        )
    elif snapshot.state != "succeeded":
        frame.finish(1)
    if snapshot.artifacts:
        frame.note(f"next: syftmesh fl results {snapshot.id} -o DIR")


def _emit_run(frame: Frame, snapshot: Any) -> None:
    document = run_document(snapshot)
    frame.emit(document, *run_parts(document))


def _with_role(client: Any, document: dict[str, Any]) -> dict[str, Any]:
    return {"role": "aggregator" if document["aggregator"] == client.email else "site", **document}


def _unseen_run(asked: Any) -> dict[str, Any]:
    """Return a run that only the own site tells of, with the keys of `run_document`."""
    document = proposal_document(asked)
    keys = ("id", "reason", "message", "purpose", "app", "app_digest", "config", "aggregator")
    empty: dict[str, Any] = {
        "sites": [],
        "rounds": [],
        "artifacts": [],
        "rounds_asked": None,
        "minimum_sites": None,
    }
    return {
        "role": "site",
        **{key: document[key] for key in keys},
        **empty,
        "state": None,
        "final": None,
        "stock": None,
        "dataset": document["dataset"]["name"],
        "created": document["created"],
        "updated": document["updated"],
        "deadline": document["expires"],
        "proposal": document,
    }


def _round(document: dict[str, Any]) -> str | None:
    last = max((report["round"] for report in document["rounds"]), default=0)
    return None if document["rounds_asked"] is None else f"{last}/{document['rounds_asked']}"


def _config(texts: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        name = name.strip()
        if not separator or not name or name in found:
            raise InvalidInput(
                f"{quoted(text)} is no setting of its own; write KEY=VALUE, each key once.",
                reason="RUN_INVALID",
                metadata={"field": "config"},
                hint="--config learning-rate=0.1",
            )
        found[name] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    """Return a value as Flower's own program reads it, as TOML; what is none is text."""
    try:
        document = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = document["value"]
    return value if len(document) == 1 and isinstance(value, str | int | float | bool) else text
