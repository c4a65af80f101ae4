"""The story on a cluster: from outside, by kubectl and helm and the hub's one port."""

from __future__ import annotations

import asyncio
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx
import syftmesh
from syftmesh_client.trust import HubTrust
from syftmesh_client.wellknown import WellKnown, discover
from syftmesh_core.errors import Internal, Unavailable
from syftmesh_core.parallel import in_parallel
from syftmesh_kit.process import write_secret_file
from syftmesh_kit.s3 import S3Config, S3ObjectStore

from syftmesh_standalone.demo.canary.hub import scan_hub
from syftmesh_standalone.demo.cluster.forward import HOST, PortForward
from syftmesh_standalone.demo.cluster.installation import HUB, SITE, ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool
from syftmesh_standalone.demo.cluster.record import copy_record, job_traces
from syftmesh_standalone.demo.cluster.session import ConsoleSession, RemoteClient, remote_client
from syftmesh_standalone.demo.cluster.volume import VolumeReader
from syftmesh_standalone.demo.data import FILE
from syftmesh_standalone.demo.embedded import phrase_file
from syftmesh_standalone.demo.step import Tell
from syftmesh_standalone.demo.venue import PhraseFile, VenueFacts

if TYPE_CHECKING:
    from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport
    from syftmesh_standalone.demo.data import PrivateTable

INCOMING: Final = PurePosixPath("/var/lib/syftmesh/incoming")
_POD: Final = f"{SITE}-0"
_CA_FILE: Final = "hub-ca.pem"
_PUBLIC_PORT: Final = 443
_STORE_PORT: Final = 9000
_STORE_NAME: Final = "localhost"
"""The store is the hub's own affair: of this machine's names its certificate has this one alone."""
_BUS_PORT: Final = 4222
_API: Final = ("kubernetes", "default")
_WRITE: Final = """
import os, sys
path = sys.argv[1]
os.umask(0o077)
part = path + ".part"
with open(part, "wb") as file:
    file.write(sys.stdin.buffer.read())
os.replace(part, path)
"""


class ClusterVenue:
    """See `Venue`.

    Args:
        state: State folder: the scientist's keys and results.
        owners: E-mails of the sites.
        options: Where on the cluster, and what.
        tell: Takes lines for people.
        keep: Leave everything on the cluster.
        kubectl: Talks with the cluster.
        helm: Installs.
    """

    def __init__(
        self,
        state: Path,
        owners: Sequence[str],
        options: ClusterOptions,
        *,
        tell: Tell,
        keep: bool = False,
        kubectl: Tool | None = None,
        helm: Tool | None = None,
    ) -> None:
        self._state = state
        self._options = options
        self._keep = keep
        self._tell = tell
        self._kubectl = kubectl or Tool("kubectl")
        self._installation = Installation(options, tuple(owners), self._kubectl, helm or Tool("helm"), tell)
        self._volumes = VolumeReader(self._kubectl, options.hub_namespace)
        self._tasks: asyncio.TaskGroup | None = None
        self._open: AsyncExitStack | None = None
        self._server = options.hub_url or ""
        self._store_port = 0
        self._targets: dict[str, tuple[str, int]] = {}
        self._sessions: dict[str, ConsoleSession] = {}

    @property
    def words(self) -> str:
        """Return what is started."""
        places = ", ".join(self._installation.namespaces[: 1 + len(self._installation.owners)])
        return f"a hub and {len(self._installation.owners)} sites in the namespaces {places}"

    @property
    def patience(self) -> float:
        """Return the factor for requests that go through the API server and pods that start for a run."""
        return 4.0

    @property
    def server(self) -> str:
        """Return the hub's address as this machine reaches it."""
        return self._server

    @property
    def targets(self) -> Mapping[str, tuple[str, int]]:
        """Return the hub's port, its bus and store, and the API server, as pods reach them."""
        return self._targets

    @asynccontextmanager
    async def lifetime(self) -> AsyncIterator[None]:
        """Keep the port-forwards for the block, and take everything away after it; errors come in a group."""
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as stack:
            self._tasks, self._open = tasks, stack
            try:
                yield
            finally:
                # Whoever cancels a second time leaves the namespaces behind; once is answered in order.
                await asyncio.shield(self._end())

    async def _end(self) -> None:
        if self._open is not None:
            await self._open.aclose()
        if self._keep:
            self._tell(f"kept on the cluster: {', '.join(self._installation.namespaces)}")
            return
        await self._installation.uninstall()

    async def start(self) -> None:
        """Install hub and sites, and open the ports; raises helm's and kubectl's last words."""
        await self._installation.install_hub()
        ca = await self._installation.hub_ca()
        await asyncio.to_thread(write_secret_file, self._ca_file, ca.decode())
        if not self._server:
            port = await self._forward(f"{HUB}-gateway", _PUBLIC_PORT)
            self._server = f"https://{HOST}:{port}"
        self._store_port = await self._forward(f"{HUB}-store", _STORE_PORT)
        owners = self._installation.owners
        await in_parallel([self._installation.install_site(owner) for owner in owners], at_once=len(owners))
        self._targets = await self._reachable()
        # The consoles' programs take seconds to load.
        await in_parallel([self._session(owner).ask("phrase") for owner in owners], at_once=len(owners))

    async def _forward(self, service: str, port: int) -> int:
        if self._tasks is None or self._open is None:
            raise Internal("the cluster's demo was started outside its lifetime")
        log = self._state / f"forward-{service}.log"
        forward = PortForward(self._options.hub_namespace, service, port, log)
        self._open.push_async_callback(forward.stop)
        await forward.start(self._tasks)
        return forward.port

    async def _reachable(self) -> dict[str, tuple[str, int]]:
        namespace = self._options.hub_namespace
        return {
            "hub": (await self._address(f"{HUB}-gateway", namespace), _PUBLIC_PORT),
            "message bus": (await self._address(f"{HUB}-nats", namespace), _BUS_PORT),
            "object store": (await self._address(f"{HUB}-store", namespace), _STORE_PORT),
            "API server": (await self._address(*_API), _PUBLIC_PORT),
        }

    async def _address(self, service: str, namespace: str) -> str:
        """Return an address of a Service by number, so that an attempt does not end at its name."""
        found = await self._kubectl.json("get", "service", service, "-n", namespace, "-o", "json")
        address = str(found["spec"].get("clusterIP") or "")
        return f"{service}.{namespace}.svc" if address in {"", "None"} else address

    @property
    def _ca_file(self) -> Path:
        return self._state / _CA_FILE

    async def facts(self) -> VenueFacts:
        """Return what helm and the API server say; raises their last words."""
        spaces = self._installation.namespaces[: 1 + len(self._installation.owners)]
        found = await in_parallel([self._workloads(space) for space in spaces], at_once=len(spaces))
        ready = {name: is_ready for part in found for name, is_ready in part.items()}
        return VenueFacts(
            source="the operator's tools",
            version=await self._installation.version(),
            grpc=urlsplit(self._server).netloc,
            kind="workloads are ready",
            running=tuple(name for name, is_ready in ready.items() if is_ready),
            away=tuple(name for name, is_ready in ready.items() if not is_ready),
            sites=await self._joined(),
        )

    async def _workloads(self, namespace: str) -> dict[str, bool]:
        """Return whether each workload of a namespace has all its pods ready."""
        found = await self._kubectl.json("get", "deployments,statefulsets", "-n", namespace, "-o", "json")
        return {
            f"{namespace}/{item['metadata']['name']}": item.get("status", {}).get("readyReplicas", 0)
            >= item["spec"].get("replicas", 1)
            for item in found["items"]
        }

    async def _joined(self) -> tuple[str, ...]:
        """Return the sites whose own program says so; each in its own pod."""
        found = []
        for owner in self._installation.owners:
            status = await self._session(owner).ask("client", "site.status")
            found.append(str(status.site))
        return tuple(found)

    async def healthz(self) -> dict[str, str]:
        """Return the state of each part, as the gateway tells; raises Unavailable (MESH_AWAY)."""
        try:
            context = ssl.create_default_context(cafile=str(self._ca_file))
            async with httpx.AsyncClient(trust_env=False, timeout=5.0, verify=context) as client:
                document = (await client.get(f"{self._server}/healthz")).json()
            return {str(name): str(word) for name, word in document["parts"].items()}
        except (httpx.HTTPError, OSError, ValueError, KeyError, AttributeError) as error:
            raise Unavailable("the gateway does not answer", reason="MESH_AWAY") from error

    async def announced(self) -> WellKnown:
        """Return what the hub announces; raises as `discover`."""
        return await discover(self._server, trust=HubTrust.of_file(self._ca_file))

    async def login(self, email: str) -> None:
        """Log in with a token that the hub's operator makes; raises as `syftmesh.login_async`."""
        token = self._state / "join.token"
        await asyncio.to_thread(write_secret_file, token, await self._installation.join_token(email))
        phrase = self._phrase_file(email)
        try:
            await syftmesh.login_async(
                self._server,
                email=email,
                token_file=token,
                ca_file=self._ca_file,
                recovery_out=None if phrase.exists() else phrase,
                state=self._state,
            )
        finally:
            token.unlink(missing_ok=True)

    def _phrase_file(self, email: str) -> Path:
        return self._state / "recovery" / f"{email}.txt"

    async def phrase(self, email: str) -> PhraseFile:
        """Return what can be seen of a phrase: an owner's lies in the site's volume."""
        if email not in self._installation.owners:
            return await asyncio.to_thread(phrase_file, self._phrase_file(email))
        words, mode = await self._session(email).ask("phrase")
        return PhraseFile(int(words), int(mode))

    def client(self, email: str) -> AbstractAsyncContextManager[Any]:
        """Return the scientist's client, or one that works in an owner's console."""
        if email in self._installation.owners:
            return remote_client(self._session(email))
        return syftmesh.connect_async(self._server, profile=email, state=self._state)

    def _session(self, owner: str) -> ConsoleSession:
        known = self._sessions.get(owner)
        if known is None:
            place = self._installation.site_of(owner)
            known = self._sessions[owner] = ConsoleSession(self._kubectl, place, _POD, owner)
            if self._open is not None:
                self._open.push_async_callback(known.close)
        return known

    async def place(self, table: PrivateTable) -> PurePath:
        """Write the table into the folder that the owner's runner reads."""
        path = INCOMING / FILE
        place = ("exec", "-i", "-n", self._installation.site_of(table.owner), _POD, "-c", "console", "--")
        await self._kubectl.run(*place, "python", "-c", _WRITE, str(path), stdin=table.csv())
        return path

    async def mock(self, client: Any, dataset: str, file: str) -> bytes:
        """Return a file of a mock, read in the owner's console."""
        if not isinstance(client, RemoteClient):
            raise Internal("mocks are read by their owners here")
        data: bytes = await client.follow("site.datasets.get", (dataset,), "mock.read", (file,))
        return data

    async def forged(self, owner: str, job_id: str, change: Mapping[str, Any]) -> str:
        """Forge an approval in the owner's console; raises as `forged_approval`."""
        return str(await self._session(owner).ask("forged", job_id, dict(change)))

    async def traces(self, owner: str, job_id: str) -> Sequence[str]:
        """Return the Events of the run's Job."""
        return await job_traces(self._kubectl, f"{self._installation.site_of(owner)}-jobs", job_id)

    async def scan(self, scan: CanaryScan) -> ScanReport:
        """Scan the raw files of every volume of the hub, its objects by S3, and all that kubectl shows of the story."""
        with tempfile.TemporaryDirectory(prefix="syftmesh-hub-") as folder:
            copy = Path(folder)
            await in_parallel(
                [self._volumes.copy(copy), copy_record(self._kubectl, self._installation.namespaces, copy)],
                at_once=2,
            )
            return await scan_hub(scan, copy, await self._object_store())

    async def _object_store(self) -> S3ObjectStore:
        keys = await self._installation.secret(f"{HUB}-store")
        ca = self._state / "store-ca.pem"
        if not ca.exists():
            authority = (await self._installation.secret(f"{HUB}-tls-store"))["ca.crt"]
            await asyncio.to_thread(write_secret_file, ca, authority.decode())
        return S3ObjectStore(
            S3Config(
                f"https://{_STORE_NAME}:{self._store_port}",
                keys["access-key"].decode(),
                keys["secret-key"].decode(),
                ca_file=ca,
            )
        )
