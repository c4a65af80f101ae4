"""Datasets: shape, mocks without private rows, generated mocks, links, publication, deletion."""

from __future__ import annotations

import asyncio
import io
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mesh.rds.v1 import rds_service_pb2
from syftmesh_core.clock import system_random
from syftmesh_core.errors import (
    AlreadyExists,
    IntegrityFailure,
    InvalidInput,
    NotFound,
    Unimplemented,
    WrongState,
)
from syftmesh_runner.domain.dataset import Policy
from syftmesh_runner.domain.identifier import IdentifierIndex
from syftmesh_runner.domain.mock import generate, shared_rows

OWNER, CAROL = "alice@hospital.example", "carol@lab.example"
RNG = np.random.default_rng(3)
PRIVATE = pd.DataFrame(
    {
        "id": [f"{RNG.integers(2**63):016x}" for _ in range(300)],
        "nhs": np.unique(RNG.integers(10**9, 10**10, 400))[:300],
        "age": RNG.integers(20, 90, 300),
        "stage": RNG.choice([1, 2, 3], 300),
        "ward": ["north", "south"] * 149 + ["secret ward", "rare ward"],
        "value": RNG.normal(10, 2, 300).round(3),
        "gap": [None if n % 7 == 0 else float(n) * 1.5 for n in range(300)],
        "flag": RNG.random(300) > 0.5,
        "note": [f"note about person {n}" for n in range(300)],
    }
)


def mock_files(world: Any) -> dict[str, bytes]:
    root = f"{OWNER}/app_data/rds/datasets/people/"
    return {path.removeprefix(root): data for path, data in world.hub.files.items() if path.startswith(root)}


def write(world: Any, name: str, text: str) -> str:
    path: Path = world.folder / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("attempt", range(3))
def test_a_generated_mock_has_the_shape_and_nothing_private(attempt: int) -> None:
    made = generate({"t.csv": PRIVATE}, Policy(), system_random)["t.csv"]
    read = pd.read_csv(io.BytesIO(made.to_csv(index=False).encode()))
    original = pd.read_csv(io.BytesIO(PRIVATE.to_csv(index=False).encode()))
    assert [(n, str(t)) for n, t in read.dtypes.items()] == [(n, str(t)) for n, t in original.dtypes.items()]
    assert not shared_rows(PRIVATE, made, 5)
    for column in ("id", "nhs", "note"):
        assert not set(made[column].astype(str)) & set(PRIVATE[column].astype(str))
    assert made["id"].str.fullmatch("[0-9a-f]{16}").all()
    assert set(made["ward"].unique()) <= {"north", "south"}, "rare values are dropped"
    index = IdentifierIndex.of_frames([PRIVATE], ())
    assert not list(index.search(made.to_csv(index=False).encode()))


def test_a_generated_mock_is_near_in_the_middle_and_not_at_the_ends() -> None:
    made = generate({"t.csv": PRIVATE}, Policy(), system_random)["t.csv"]
    assert abs(made["value"].median() - PRIVATE["value"].median()) < 2.5
    extremes = {PRIVATE["value"].min(), PRIVATE["value"].max()}
    assert not extremes & set(made["value"])
    assert len(set(made["value"]) & set(PRIVATE["value"])) < len(made) / 4


def test_two_generated_mocks_differ() -> None:
    first, second = (generate({"t": PRIVATE}, Policy(), system_random)["t"] for _ in range(2))
    assert not first.equals(second)


def test_a_table_of_few_values_still_gets_a_mock() -> None:
    frame = pd.DataFrame({"a": ["x", "y"] * 100})
    assert set(generate({"t": frame}, Policy(), system_random)["t"]["a"]) <= {"x", "y"}


async def test_create_copies_the_private_part_and_publishes_card_and_mock_only(world: Any) -> None:
    dataset = await world.create_dataset()
    async with world.running():
        async with asyncio.timeout(5):
            while "card.json" not in mock_files(world):
                await asyncio.sleep(0.002)
    found = mock_files(world)
    assert set(found) == {"card.json", "mock/table.csv"}
    card = json.loads(found["card.json"])
    assert (card["name"], card["privateDigest"]) == ("people", dataset.private_digest)
    canary = (world.folder / "private/table.csv").read_text().splitlines()[3]
    assert all(canary.encode() not in data for data in world.hub.files.values())
    (copied,) = world.folder.glob("state/datasets/people/*/private/table.csv")
    assert stat.S_IMODE(copied.stat().st_mode) == 0o600
    assert all(stat.S_IMODE(p.stat().st_mode) == 0o700 for p in world.folder.glob("state/**/") if p.is_dir())
    assert stat.S_IMODE((world.folder / "state/rds.sqlite3").stat().st_mode) == 0o600


async def test_nothing_is_published_before_the_rules_let_exactly_the_audience_read(world: Any) -> None:
    await world.create_dataset()
    world.hub.reader_set = {f"{OWNER}/": frozenset({CAROL, "eve@evil.example"})}
    publication = world.module._work.publication
    dataset = world.module._state.datasets.get("people")
    assert not (await publication.publish_dataset(dataset)).published
    assert not mock_files(world)
    world.hub.reader_set = {f"{OWNER}/": frozenset({CAROL})}
    assert (await publication.publish_dataset(dataset)).published
    assert mock_files(world)


@pytest.mark.parametrize("audience", [["USER"], ["*@lab.example"], ["group:x"]])
async def test_an_open_audience_is_not_built(world: Any, audience: list[str]) -> None:
    with pytest.raises(Unimplemented) as caught:
        await world.create_dataset(audience=audience)
    assert caught.value.reason == "OPEN_READERS"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Upper"},
        {"name": "../x"},
        {"name": ""},
        {"name": "a" * 64},
        {"audience": ["nobody"]},
        {"private_path": "/nonexistent/x.csv"},
        {"private_path": ""},
        {"mock_path": "x", "generate_mock": True},
        {"mock_path": "", "generate_mock": False},
        {"policy": {"identifier_columns": ["tpyo"]}},
    ],
)
async def test_what_cannot_be_registered_is_refused(world: Any, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        await world.create_dataset(**changes)
    assert caught.value.reason == "DATASET_INVALID"
    assert not list(world.folder.glob("state/staging/*"))


async def test_differences_of_shape_are_listed(world: Any) -> None:
    await world.create_dataset(name="other")
    mock = write(world, "mock/table.csv", "group,age,extra\na,1.5,x\n")
    write(world, "mock/more.csv", "a\n1\n")
    with pytest.raises(InvalidInput) as caught:
        await world.create_dataset(mock_path=str(Path(mock).parent), generate_mock=False)
    text = caught.value.message
    for said in ("more.csv", "lacks the column 'value'", "has the column 'extra'", "'age' is int64"):
        assert said in text


@pytest.mark.parametrize("row", ["a,0,0.000\n", "A , 0 ,0\n", "a,0.0,0e0\n"])
async def test_a_mock_with_a_private_row_is_refused_however_it_is_written(world: Any, row: str) -> None:
    private = write(world, "p/table.csv", "group,age,value\na,0,0.000\nb,7,0.333\na,14,0.667\n")
    mock = write(world, "m/table.csv", "group,age,value\nx,3,1.5\n" + row)
    if ".0," in row:
        private = write(world, "p/table.csv", "group,age,value\na,0.0,0.000\nb,7.5,0.333\na,14,0.667\n")
    with pytest.raises(IntegrityFailure) as caught:
        await world.create_dataset(private_path=private, mock_path=mock, generate_mock=False)
    assert caught.value.reason == "MOCK_HOLDS_PRIVATE_ROWS"
    assert "0.667" not in caught.value.message


async def test_a_mock_with_values_of_a_named_identifier_column_is_refused(world: Any) -> None:
    private = write(world, "p/t.csv", "pid,x\nabc-1234567,1\nabc-7654321,2\n")
    mock = write(world, "m/t.csv", "pid,x\nabc-1234567,9\n")
    with pytest.raises(IntegrityFailure):
        await world.create_dataset(
            private_path=private,
            mock_path=mock,
            generate_mock=False,
            policy={"identifier_columns": ["pid"]},
        )


async def test_a_mock_of_other_rows_is_taken(world: Any) -> None:
    private = write(world, "p/t.csv", "a,b\n1,x\n2,y\n")
    mock = write(world, "m/t.csv", "a,b\n5,x\n6,y\n7,z\n")
    dataset = await world.create_dataset(private_path=private, mock_path=mock, generate_mock=False)
    assert (dataset.tables[0].mock_rows, dataset.mock_generated) == (3, False)


async def test_an_opaque_file_needs_a_mock_of_its_own_that_is_not_the_same_file(world: Any) -> None:
    private = write(world, "p/scan.bin", "private bytes")
    with pytest.raises(InvalidInput):
        await world.create_dataset(private_path=private)
    with pytest.raises(IntegrityFailure):
        await world.create_dataset(private_path=private, mock_path=private, generate_mock=False)
    mock = write(world, "m/scan.bin", "mock bytes")
    await world.create_dataset(private_path=private, mock_path=mock, generate_mock=False)


@pytest.mark.parametrize("where", ["itself", "inside", "folder"])
async def test_links_are_never_followed(world: Any, where: str) -> None:
    target = write(world, "elsewhere/secret.csv", "a\n1\n")
    part = world.folder / "linked"
    if where == "itself":
        part.symlink_to(target)
    else:
        part.mkdir()
        (part / "x").symlink_to(target if where == "inside" else Path(target).parent)
    with pytest.raises(InvalidInput) as caught:
        await world.create_dataset(private_path=str(part))
    assert "link" in caught.value.message


async def test_names_are_unique_and_listed_in_pages(world: Any) -> None:
    for name in ("b", "a", "c"):
        await world.create_dataset(name=name)
    with pytest.raises(AlreadyExists):
        await world.create_dataset(name="a")
    page = await world.datasets.ListDatasets(rds_service_pb2.ListDatasetsRequest(page_size=2), None)
    assert ([d.name for d in page.datasets], page.next_page_token) == (["a", "b"], "b")
    with pytest.raises(InvalidInput) as caught:
        await world.datasets.ListDatasets(rds_service_pb2.ListDatasetsRequest(page_size=-1), None)
    assert caught.value.reason == "PAGE_INVALID"


async def test_delete_waits_for_open_jobs_and_then_removes_everything(world: Any) -> None:
    job_id = await world.submit()
    await world.module._work.publication.publish_dataset(world.module._state.datasets.get("people"))
    request = rds_service_pb2.DeleteDatasetRequest(name="people")
    with pytest.raises(WrongState) as caught:
        await world.datasets.DeleteDataset(request, None)
    assert caught.value.reason == "DATASET_IN_USE"
    world.module._work.decision.reject(job_id, "no")
    await world.datasets.DeleteDataset(request, None)
    assert not mock_files(world)
    assert not list(world.folder.glob("state/datasets/*"))
    with pytest.raises(NotFound):
        await world.datasets.GetDataset(rds_service_pb2.GetDatasetRequest(name="people"), None)
