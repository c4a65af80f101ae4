"""Steps 1 to 5: the mesh, the people, the data, and the scientist's first look."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import AlreadyExists
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo import job
from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport
from syftmesh_standalone.demo.data import DATASET, FEATURES, FILE, IDENTIFIER, PrivateTable
from syftmesh_standalone.demo.step import Checks, eventually, steadily
from syftmesh_standalone.demo.story import OWNERS, PURPOSE, SCIENTIST, Story, dataset_of

PARTS: Final = ("crypto", "identity", "permissions", "rpc", "sync")
"""Parts of the hub that this story needs."""
CODE_FOLDER: Final = Path(job.__file__).parent
SUMMARY_CODE: Final = CODE_FOLDER / "summary.py"
SUMMARY_FILE: Final = "summary.csv"
PARAMETERS: Final[dict[str, Any]] = {"features": list(FEATURES)}
_PHRASE_WORDS: Final = 24


async def mesh_up(story: Story, checks: Checks) -> None:
    """Step 1: the mesh starts; every part of the hub serves, and every place that says so says the same version."""
    # The tables take as long to load as the stores to start.
    await in_parallel([story.venue.start(), story.load()], at_once=2)
    health = await steadily(story.venue.healthz)
    facts = await steadily(story.venue.facts)
    known = await steadily(story.venue.announced)
    checks.note(f"hub {story.venue.server}, gRPC {known.grpc_address}, version {known.version}")
    serving = sorted(name for name, word in health.items() if word == "serving")
    checks.that(set(PARTS) <= set(serving), f"the gateway says that these serve: {', '.join(serving)}")
    checks.that(
        known.version == facts.version, f"hub and {facts.source} say the same version, {facts.version}"
    )
    checks.that(known.grpc_address == facts.grpc, "the hub's own address book leads to its services")
    checks.that(
        not facts.away,
        f"{facts.kind}: {', '.join(sorted(facts.running))}",
        otherwise=f"these do not run: {', '.join(facts.away)}",
    )
    checks.that(set(OWNERS) == set(facts.sites), f"sites: {', '.join(OWNERS)}")


async def people(story: Story, checks: Checks) -> None:
    """Step 2: three people hold keys of their own, and see the same safety numbers."""
    await steadily(partial(story.venue.login, SCIENTIST))
    # Here, and one after the other: what a client opens belongs to the task that will close it.
    for email in (*OWNERS, SCIENTIST):
        await story.connect(email)
    for email in (*OWNERS, SCIENTIST):
        file = await steadily(partial(story.venue.phrase, email))
        kept = file.mode == 0o600 and file.words >= _PHRASE_WORDS
        checks.that(kept, f"{email}: recovery phrase in a file of mode {file.mode:04o}")
    for owner in OWNERS:
        site = await eventually(partial(_connected, story, owner), what=f"the connection of {owner}'s site")
        checks.that(bool(site.connected), f"{owner}: the site takes calls, version {site.version}")
    for one, other in ((OWNERS[0], SCIENTIST), (OWNERS[1], SCIENTIST), OWNERS):
        here, there = await in_parallel([_number(story, one, other), _number(story, other, one)], at_once=2)
        checks.that(here == there, f"{one} and {other} see the same safety number:")
        checks.note(here)


async def _connected(story: Story, owner: str) -> Any:
    status = await story.ask(owner, lambda client: client.site.status())
    return status if status.connected else None


async def _number(story: Story, own: str, other: str) -> str:
    found = await story.ask(own, lambda client: client.keys.verify(other))
    return str(getattr(found, "safety_number", found))


async def datasets(story: Story, checks: Checks) -> None:
    """Step 3: each owner registers a private table; a mock is generated that holds nothing of it."""
    tables = list(story.tables.values())
    sizes = "/".join(str(len(table.frame)) for table in tables)
    checks.that(
        sum(len(table.frame) for table in tables) == 569,
        f"569 real records, split {sizes} between the owners",
    )
    made = await in_parallel([_register(story, table) for table in tables], at_once=2)
    for table, found in zip(tables, made, strict=True):
        checks.note(f"{dataset_of(table.owner)}: private {_short(found.private_digest)}")
        checks.note(f"{' ' * len(dataset_of(table.owner))}  mock    {_short(found.mock_digest)}")
        _check_mock(checks, table, await _mock(story, table.owner))


async def _mock(story: Story, owner: str) -> bytes:
    return await story.ask(owner, lambda client: story.venue.mock(client, DATASET, FILE))


async def _register(story: Story, table: PrivateTable) -> Any:
    path = await steadily(partial(story.venue.place, table))

    async def create(client: Any) -> Any:
        try:
            return await client.site.datasets.create(
                DATASET,
                path,
                mock="generate",
                summary=f"{len(table.frame)} breast masses: diagnosis and 30 features of their nuclei",
                readme="Wisconsin Diagnostic Breast Cancer (UCI, CC BY 4.0), one owner's part.",
                tags=("oncology",),
                audience=(SCIENTIST,),
                policy={"identifier_columns": [IDENTIFIER], "min_cell": 5},
            )
        except AlreadyExists:
            return await client.site.datasets.get(DATASET)

    return await story.ask(table.owner, create, within_s=60, try_s=45)


def _check_mock(checks: Checks, table: PrivateTable, mock: bytes) -> None:
    report = ScanReport()
    CanaryScan(table.secrets()).scan(report, "mock", "mock", mock)
    header = mock.decode().splitlines()[0].split(",")
    checks.that(
        header == list(table.frame.columns), f"{table.owner}: the mock has the same {len(header)} columns"
    )
    checks.that(
        report.found == 0, f"{table.owner}: no {IDENTIFIER} and no row of the private table in the mock"
    )


def _short(digest: str) -> str:
    return f"{digest[:16]}..."


async def discovery(story: Story, checks: Checks) -> None:
    """Step 4: the scientist finds both datasets and reads their mocks, not the private tables."""
    for owner in OWNERS:
        await _discover(story, owner, checks)


async def _discover(story: Story, owner: str, checks: Checks) -> None:
    listed = await story.ask(SCIENTIST, lambda client: client.datasets.list(site=owner))
    checks.that(DATASET in [found.name for found in listed], f"found {dataset_of(owner)}")
    found = await dataset(story, owner)
    frame = await story.ask(SCIENTIST, lambda _: found.mock.dataframe())
    private = story.tables[owner].frame
    same = [(str(a), str(b)) for a, b in frame.dtypes.items()] == [
        (str(a), str(b)) for a, b in private.dtypes.items()
    ]
    checks.that(same, f"read its mock: {len(frame)} rows, columns and types of the private table")
    shared = set(frame[IDENTIFIER]) & set(story.tables[owner].identifiers)
    checks.that(not shared, "none of its identifiers is one of the private table")


async def dataset(story: Story, owner: str) -> Any:
    """Return an owner's dataset as the scientist sees it."""
    return await story.ask(SCIENTIST, lambda client: client.datasets.get(dataset_of(owner)))


async def rehearsal(story: Story, checks: Checks) -> None:
    """Step 5: the analysis runs on a mock, on the scientist's own machine."""
    found = await dataset(story, OWNERS[0])
    client = story.clients[SCIENTIST]
    run = await steadily(
        lambda: client.jobs.run_mock(SUMMARY_CODE, dataset=found, parameters=PARAMETERS),
        try_s=40,
        within_s=60,
    )
    checks.that(run.exit_code == 0, f"{SUMMARY_CODE.name} ran on the mock of {dataset_of(OWNERS[0])}")
    frame = run.dataframe(SUMMARY_FILE)
    expected = ["diagnosis", "n", *(f"{name}_{kind}" for name in FEATURES for kind in ("mean", "std"))]
    checks.that(list(frame.columns) == expected, f"it wrote {SUMMARY_FILE} with {len(frame)} groups")
    for owner in OWNERS:
        story.inquiries[owner] = story.inquiry(owner, SUMMARY_CODE, PARAMETERS, PURPOSE)
