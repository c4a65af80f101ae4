"""What the steps of the demo share: people, their clients, their data, and the jobs under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from syftmesh_core.clock import Clock, Random, uuid7

from syftmesh_standalone.demo.canary.scan import ScanReport
from syftmesh_standalone.demo.data import DATASET, PrivateTable, private_tables
from syftmesh_standalone.demo.step import steadily
from syftmesh_standalone.demo.training import Training
from syftmesh_standalone.demo.venue import Venue

if TYPE_CHECKING:
    from syftmesh import AsyncClient

T = TypeVar("T")

OWNERS: Final = ("owner@hospital-a.example", "owner@hospital-b.example")
SCIENTIST: Final = "scientist@lab.example"
PURPOSE: Final = "size and texture of nuclei by diagnosis"
PROJECT: Final = "breast-cancer"


@dataclass(slots=True)
class Inquiry:
    """A job that the scientist wants of one owner.

    Attributes:
        owner: The site.
        code: File that runs.
        parameters: For the code.
        purpose: What for.
        job_id: Chosen here, so that asking again is the same job.
    """

    owner: str
    code: Path
    parameters: dict[str, Any]
    purpose: str
    job_id: str


@dataclass(slots=True)
class Story:
    """The state of the demo between its steps.

    Attributes:
        state: State folder with the scientist's keys and results.
        venue: Where it happens.
        clock: Time.
        random: Source of identifiers and markers.
        stack: Closes the clients at the end.
        tables: The owners' private tables.
        clients: Clients by e-mail.
        inquiries: The scientist's analysis, by owner.
        answers: Its released results, by owner.
        pooled: The results of both together.
        bytes_out: What left each site, by kind.
        scan: Result of the canary scan.
        controls: What the scan's control runs found, by name.
        audit: State of each site's audit.
        training: The federated run.
    """

    state: Path
    venue: Venue
    clock: Clock
    random: Random
    stack: AsyncExitStack
    tables: dict[str, PrivateTable] = field(default_factory=dict)
    clients: dict[str, AsyncClient] = field(default_factory=dict)
    inquiries: dict[str, Inquiry] = field(default_factory=dict)
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    pooled: list[dict[str, Any]] = field(default_factory=list)
    bytes_out: dict[str, dict[str, int]] = field(default_factory=dict)
    scan: ScanReport = field(default_factory=ScanReport)
    controls: dict[str, int] = field(default_factory=dict)
    audit: dict[str, dict[str, Any]] = field(default_factory=dict)
    training: Training = field(default_factory=Training)

    async def load(self) -> None:
        """Load and split the data."""
        tables = await asyncio.to_thread(private_tables, OWNERS, self.random)
        self.tables = {table.owner: table for table in tables}

    async def connect(self, email: str) -> None:
        """Connect a person's client; it is closed with the story's stack."""

        async def opened() -> AsyncClient:
            client: AsyncClient = await self.stack.enter_async_context(self.venue.client(email))
            return client

        self.clients[email] = await steadily(opened)

    async def ask(self, email: str, question: Callable[[AsyncClient], Awaitable[T]], **limits: Any) -> T:
        """Return what `question` gives with the client of `email`, tried again as `steadily` does."""
        client = self.clients[email]
        return await steadily(lambda: question(client), **limits)

    def inquiry(self, owner: str, code: Path, parameters: dict[str, Any], purpose: str) -> Inquiry:
        """Return a new inquiry with a job id of its own."""
        return Inquiry(owner, code, parameters, purpose, uuid7(self.clock, self.random))


def dataset_of(owner: str) -> str:
    """Return the name by which a scientist asks for an owner's dataset."""
    return f"{owner}/{DATASET}"
