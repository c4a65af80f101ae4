"""The asynchronous client: one person's device at one hub."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, NoReturn, Self

from syftmesh_client.node import Node, open_node
from syftmesh_client.profile import Profile, ProfileStore, node_login
from syftmesh_client.traffic import Traffic
from syftmesh_core.errors import WrongState

from syftmesh.dataset import AsyncDatasets
from syftmesh.file import AsyncFiles
from syftmesh.group import AsyncGroups
from syftmesh.job_desk import AsyncJobs
from syftmesh.key import AsyncKeys
from syftmesh.permission import AsyncPermissions
from syftmesh.rpc import AsyncRpc
from syftmesh.run_desk import AsyncFederated
from syftmesh.site import AsyncSite
from syftmesh.submission import CALLS_FILE, SubmissionLog

_PARTS: Final = frozenset({"datasets", "jobs", "fl", "files", "permissions", "groups", "rpc", "keys", "site"})


class AsyncClient:
    """Everything that a person does with the mesh; made by `syftmesh.connect_async`, used with ``async with``.

    Args:
        profile: Who, and where the keys are.
        server: The hub's address.
        state: State folder, for the own site's sockets.
    """

    datasets: AsyncDatasets
    """Datasets of sites."""
    jobs: AsyncJobs
    """Jobs that one submits."""
    fl: AsyncFederated
    """Federated runs that one starts."""
    files: AsyncFiles
    """Files of datasites."""
    permissions: AsyncPermissions
    """Who may do what."""
    groups: AsyncGroups
    """Groups of the own datasite."""
    rpc: AsyncRpc
    """Calls to apps."""
    keys: AsyncKeys
    """Own keys and those of others."""
    site: AsyncSite
    """The own site on this machine."""

    def __init__(self, profile: Profile, server: str, state: Path) -> None:
        self._profile = profile
        self._server = server
        self._state = state
        self._stack = AsyncExitStack()
        self._node: Node | None = None
        self._is_closed = False
        self.traffic = Traffic()

    @property
    def email(self) -> str:
        """Whose client it is."""
        return self._profile.email

    @property
    def server(self) -> str:
        """The hub's address."""
        return self._server

    async def open(self) -> Self:
        """Connect; called by ``async with``.

        Raises:
            WrongState: It is open, or was closed (CLIENT_CLOSED).
            MeshError: As `open_node`.
        """
        if self._node is not None or self._is_closed:
            raise WrongState("A client is opened once: connect again.", reason="CLIENT_CLOSED")
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def _open(self) -> None:
        login = node_login(self._state, self._server)
        opening = open_node(self._profile.folder, self._server, login=login, traffic=self.traffic)
        node = self._node = await self._stack.enter_async_context(opening)
        # Two programs may note themselves at once, and which one is last does not matter.
        with suppress(WrongState):
            await asyncio.to_thread(ProfileStore(self._state).note_used, self._profile)
        self.datasets = AsyncDatasets(node)
        self.jobs = AsyncJobs(node, self.datasets, SubmissionLog(self._profile.folder))
        self.fl = AsyncFederated(node, self._profile.folder, self._server)
        self.files = AsyncFiles(node)
        self.permissions = AsyncPermissions(node)
        self.groups = AsyncGroups(node)
        self.rpc = AsyncRpc(node, SubmissionLog(self._profile.folder, CALLS_FILE))
        self.keys = AsyncKeys(node)
        self.site = AsyncSite(node, self._state, self.datasets)
        self._stack.push_async_callback(self.site.close)
        self._stack.push_async_callback(self.fl.close)

    async def close(self) -> None:
        """Close all connections; safe to call again."""
        self._is_closed = True
        await self._stack.aclose()
        for part in _PARTS:
            self.__dict__.pop(part, None)

    def __getattr__(self, name: str) -> NoReturn:
        # Only what `open` sets, and what does not exist, is looked for here.
        if name in _PARTS:
            raise WrongState(
                "The client is not open: use it with `async with`.",
                reason="CLIENT_CLOSED",
                metadata={"part": name},
            )
        raise AttributeError(name)

    async def __aenter__(self) -> Self:
        """Open the client."""
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.email} at {self.server}>"
