"""Where the story happens, as a port: everything in it that depends on where the mesh runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from syftmesh_client.wellknown import WellKnown

    from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport
    from syftmesh_standalone.demo.data import PrivateTable


@dataclass(frozen=True, slots=True)
class VenueFacts:
    """What is known of a mesh besides what its hub says.

    Attributes:
        source: Who says so, for people.
        version: Version of the mesh.
        grpc: ``host:port`` of the hub's gRPC services.
        kind: What `running` are, with their verb, for people.
        running: Names of the parts that run.
        away: Names of those that should and do not.
        sites: E-mails of the sites.
    """

    source: str
    version: str
    grpc: str
    kind: str
    running: tuple[str, ...]
    away: tuple[str, ...]
    sites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PhraseFile:
    """The file with somebody's recovery phrase: how many words, and its mode."""

    words: int
    mode: int


class Venue(Protocol):
    """A mesh with two owners, a place for the scientist, and a view of everything that the hub keeps.

    Every method but `start` may be called again after it failed.
    """

    @property
    def words(self) -> str:
        """What is started, for people."""
        ...

    @property
    def patience(self) -> float:
        """By how much longer than on one machine everything may take."""
        ...

    @property
    def server(self) -> str:
        """The hub's address, as the scientist reaches it."""
        ...

    @property
    def targets(self) -> Mapping[str, tuple[str, int]]:
        """Hosts and ports of the mesh that a job must not reach, by name."""
        ...

    def lifetime(self) -> AbstractAsyncContextManager[None]:
        """Keep what `start` starts alive for the block, and take it away; errors of the block may come in a group."""
        ...

    async def start(self) -> None:
        """Start it.

        Raises:
            MeshError: Why it does not start.
        """
        ...

    async def facts(self) -> VenueFacts:
        """Return what is known of it; raises Unavailable (MESH_AWAY)."""
        ...

    async def healthz(self) -> dict[str, str]:
        """Return the state of each part by name, as the gateway tells; raises Unavailable (MESH_AWAY)."""
        ...

    async def announced(self) -> WellKnown:
        """Return what the hub announces; raises as `discover`."""
        ...

    async def login(self, email: str) -> None:
        """Give somebody here an account; again does nothing more."""
        ...

    async def phrase(self, email: str) -> PhraseFile:
        """Return what can be seen of somebody's recovery phrase."""
        ...

    def client(self, email: str) -> AbstractAsyncContextManager[Any]:
        """Return a client of somebody: a `syftmesh.AsyncClient`, or what answers as one."""
        ...

    async def place(self, table: PrivateTable) -> PurePath:
        """Write a private table to where its owner's site reads it, and return that path."""
        ...

    async def mock(self, client: Any, dataset: str, file: str) -> bytes:
        """Return a file of a mock, as its owner reads it with a client of `client`."""
        ...

    async def forged(self, owner: str, job_id: str, change: Mapping[str, Any]) -> str:
        """Sign the approval of a job with some terms exchanged, with the owner's own key.

        Returns:
            The reason with which the site refuses it; empty when it takes it.
        """
        ...

    async def traces(self, owner: str, job_id: str) -> Sequence[str]:
        """Return what can be seen of a run from outside, as lines for people."""
        ...

    async def scan(self, scan: CanaryScan) -> ScanReport:
        """Scan everything that the hub keeps; raises Unavailable when a part cannot be reached."""
        ...
