"""The story on the embedded mesh: everything on this machine, below one state folder."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import syftmesh
from syftmesh_client.profile import ProfileStore
from syftmesh_client.site import SiteFolders
from syftmesh_client.wellknown import WellKnown, discover
from syftmesh_core.errors import NotFound
from syftmesh_runner.app import SOCKET_FILE

from syftmesh_standalone.demo.canary.hub import scan_hub
from syftmesh_standalone.demo.child import DemoMesh
from syftmesh_standalone.demo.forgery import forged_approval
from syftmesh_standalone.demo.step import Tell
from syftmesh_standalone.demo.venue import PhraseFile, VenueFacts
from syftmesh_standalone.options import LOOPBACK

if TYPE_CHECKING:
    from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport
    from syftmesh_standalone.demo.data import PrivateTable


class EmbeddedVenue:
    """See `Venue`.

    Args:
        state: State folder of the mesh and of everybody's keys.
        owners: E-mails of the sites to make.
        processes: Whether each service gets a process of its own.
        tell: Takes a line when the mesh died and is started again.
    """

    def __init__(self, state: Path, owners: Sequence[str], *, processes: bool, tell: Tell) -> None:
        self._state = state
        self._owners = tuple(owners)
        self._mesh = DemoMesh(state, owners, processes=processes, tell=tell)

    @property
    def words(self) -> str:
        """Return what is started."""
        return f"a mesh of {len(self._owners)} sites in {self._state}"

    @property
    def patience(self) -> float:
        """Return 1: this machine is the measure."""
        return 1.0

    @property
    def server(self) -> str:
        """Return the hub's address."""
        return self._mesh.server

    @property
    def targets(self) -> Mapping[str, tuple[str, int]]:
        """Return the hub's HTTP port."""
        return {"hub": (LOOPBACK, self._mesh.ports.http)}

    def lifetime(self) -> AbstractAsyncContextManager[None]:
        """Keep the mesh alive for the block, and end it; errors of the block come in a group."""
        return self._mesh.lifetime()

    async def start(self) -> None:
        """Start it; raises as `DemoMesh.start`."""
        await self._mesh.start()

    async def facts(self) -> VenueFacts:
        """Return what its state folder says; raises Unavailable (MESH_AWAY)."""
        info = self._mesh.info()
        away = tuple(name for name, pid in info.children.items() if not pid)
        return VenueFacts(
            source="state folder",
            version=info.version,
            grpc=info.grpc,
            kind="child processes run",
            running=tuple(info.children),
            away=away,
            sites=tuple(info.sites),
        )

    async def healthz(self) -> dict[str, str]:
        """Return the state of each part; raises Unavailable (MESH_AWAY)."""
        return await self._mesh.healthz()

    async def announced(self) -> WellKnown:
        """Return what the hub announces; raises as `discover`."""
        return await discover(self.server)

    async def login(self, email: str) -> None:
        """Log in with the local token of this state folder; raises as `syftmesh.login_async`."""
        path = self._phrase_file(email)
        recovery = None if path.exists() else path
        await syftmesh.login_async(self.server, email=email, recovery_out=recovery, state=self._state)

    async def phrase(self, email: str) -> PhraseFile:
        """Return what can be seen of the phrase's file; raises NotFound (RECOVERY_FILE_MISSING)."""
        return await asyncio.to_thread(phrase_file, self._phrase_file(email))

    def _phrase_file(self, email: str) -> Path:
        return self._state / "recovery" / f"{email}.txt"

    def client(self, email: str) -> AbstractAsyncContextManager[Any]:
        """Return a client of a profile in the state folder; raises as `syftmesh.connect_async`."""
        return syftmesh.connect_async(self.server, profile=email, state=self._state)

    async def place(self, table: PrivateTable) -> Path:
        """Write the table beside the mesh's own folders."""
        return await asyncio.to_thread(table.write, self._state / "private" / table.owner)

    async def mock(self, client: Any, dataset: str, file: str) -> bytes:
        """Return a file of a mock; raises as `AsyncMock.read`."""
        found = await client.site.datasets.get(dataset)
        data: bytes = await found.mock.read(file)
        return data

    async def forged(self, owner: str, job_id: str, change: Mapping[str, Any]) -> str:
        """Forge an approval at the runner's socket; raises as `forged_approval`."""
        profile = ProfileStore(self._state).find(owner)
        if profile is None:
            raise NotFound(f"{owner} has no profile here", reason="PROFILE_UNKNOWN")
        socket = SiteFolders.of(self._state, owner).runner / SOCKET_FILE
        return await forged_approval(profile.folder, socket, job_id, change)

    async def traces(self, owner: str, job_id: str) -> Sequence[str]:  # noqa: ARG002 - the port's signature
        """Return nothing: a sandbox leaves no trace outside."""
        return ()

    async def scan(self, scan: CanaryScan) -> ScanReport:
        """Scan the hub's folder and its object store; raises Unavailable (MESH_AWAY)."""
        return await scan_hub(scan, self._mesh.hub, self._mesh.object_store())


def phrase_file(path: Path) -> PhraseFile:
    """Return what can be seen of a recovery phrase's file.

    Raises:
        NotFound: RECOVERY_FILE_MISSING.
    """
    try:
        return PhraseFile(len(path.read_text().split()), stat.S_IMODE(path.stat().st_mode))
    except FileNotFoundError as error:
        raise NotFound("there is no file with the recovery phrase", reason="RECOVERY_FILE_MISSING") from error
