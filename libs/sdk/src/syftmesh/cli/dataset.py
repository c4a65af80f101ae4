"""Verbs of datasets: dataset create, ls, show, rm."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from syftmesh_core.errors import InvalidInput, NotFound
from syftmesh_core.quote import quoted

from syftmesh.cli.document import dataset_document
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.local import read_file
from syftmesh.cli.output import Block, Fields, Table
from syftmesh.cli.quantity import count, duration_s, size_bytes

Name = Annotated[str, typer.Argument(metavar="NAME", help="Like breast-cancer.")]
GENERATE = "generate"


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    dataset = group(app, "dataset", "Private data with a mock that others may read.")
    verb(
        dataset,
        "create",
        example="syftmesh dataset create breast-cancer --private data/ --audience carol@lab.example",
    )(create)
    verb(dataset, "ls", example="syftmesh dataset ls --site alice@hospital.example --json")(ls)
    verb(dataset, "show", example="syftmesh dataset show alice@hospital.example/breast-cancer")(show)
    verb(dataset, "rm", example="syftmesh dataset rm breast-cancer --yes")(rm)
    return dataset


def create(  # noqa: PLR0913 - one for each option
    frame: Frame,
    name: Name,
    private: Annotated[Path, typer.Option("--private", metavar="PATH", help="File or folder with the data.")],
    mock: Annotated[
        str, typer.Option(metavar="PATH", help="File or folder of the same shape, or generate.")
    ] = GENERATE,
    summary: Annotated[str, typer.Option(help="One line for people.")] = "",
    readme: Annotated[Path | None, typer.Option(metavar="FILE", help="Markdown.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="WORD", help="May be repeated.")] = None,
    audience: Annotated[
        list[str] | None, typer.Option(metavar="EMAIL", help="Who may read card and mock; may be repeated.")
    ] = None,
    min_cell: Annotated[
        str | None, typer.Option(metavar="N", help="Smallest group a result may show; 5.")
    ] = None,
    max_result: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most a job may release; 1MiB.")
    ] = None,
    wall: Annotated[str | None, typer.Option(metavar="DURATION", help="Longest run of a job; 10m.")] = None,
    identifier: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="May never be in a result; may be repeated.")
    ] = None,
) -> None:
    """Register data that lies on this machine; only its mock leaves the site."""
    if not private.exists():
        raise NotFound(
            f"There is no file or folder {quoted(str(private))} on this machine.",
            reason="LOCAL_FILE_MISSING",
            metadata={"file": quoted(str(private))},
        )
    options: dict[str, Any] = {
        "private": private.absolute(),
        "mock": GENERATE if mock == GENERATE else Path(mock).absolute(),
        "summary": summary,
        "readme": read_file(readme).decode("utf-8", "replace") if readme else "",
        "tags": tuple(tag or ()),
        "audience": tuple(audience or ()),
        "policy": _policy(min_cell, max_result, wall, identifier),
    }
    with frame.client() as client, frame.progress(f"registering {name}"):
        made = client.site.datasets.create(name, **options)
    document = dataset_document(made)
    frame.emit(document, f"Registered {document['dataset']}.")


def ls(
    frame: Frame,
    site: Annotated[str | None, typer.Option(metavar="EMAIL", help="Of this site; of all you know.")] = None,
) -> None:
    """List the datasets whose card you may read."""
    with frame.client() as client:
        items = [dataset_document(found) for found in client.datasets.list(site=site)]
    rows = [[item["dataset"], item["summary"], item["tags"]] for item in items]
    frame.emit(
        {"items": items}, Table(["dataset", "summary", "tags"], rows, "There is no dataset that you may see.")
    )


def show(
    frame: Frame,
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET", help="Like alice@hospital.example/breast-cancer.")
    ],
) -> None:
    """Show a dataset: what its card says, and the columns of its tables."""
    with frame.client() as client:
        found = client.datasets.get(dataset if "/" in dataset else f"{client.email}/{dataset}")
        document: dict[str, Any] = {**dataset_document(found), "mock_files": list(found.mock.files())}
    shown = ("dataset", "summary", "tags", "private_digest", "mock_digest", "mock_files")
    rows = [
        [table["file"], column["name"], column["type"]]
        for table in document["tables"]
        for column in table["columns"]
    ]
    frame.emit(
        document,
        Fields([(name, document[name]) for name in shown]),
        Table(["file", "column", "type"], rows, "It has no tables."),
        *([Block(str(document["readme"]))] if document["readme"] else []),
    )


def rm(frame: Frame, name: Name) -> None:
    """Remove a dataset of your own site that no open job names, after a question."""
    with frame.client() as client:
        frame.confirm(f"Remove the dataset {name} of {client.email}, its card and its mock?")
        client.site.datasets.delete(name)
        document = {"site": client.email, "name": name}
    frame.emit(document, f"Removed {document['site']}/{document['name']}.")


def _policy(
    min_cell: str | None, max_result: str | None, wall: str | None, identifier: list[str] | None
) -> dict[str, Any] | None:
    policy: dict[str, Any] = {}
    if min_cell is not None:
        policy["min_cell"] = count(min_cell, "smallest group")
    if max_result is not None:
        policy["max_result_bytes"] = size_bytes(max_result)
    if wall is not None:
        policy["wall_seconds"] = _whole_seconds(wall)
    if identifier:
        policy["identifier_columns"] = list(identifier)
    return policy or None


def _whole_seconds(text: str) -> int:
    seconds = duration_s(text)
    if seconds < 1:
        raise InvalidInput(
            f"{quoted(text)} is too short for a run; give at least 1s.",
            reason="DURATION_INVALID",
            metadata={"duration": quoted(text)},
        )
    return int(seconds)
