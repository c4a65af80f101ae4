"""An embedded mesh as a child process, with two accounts: who calls, and whose site is called."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.child import module, running
from syftmesh_client.node import Node, open_node
from syftmesh_client.profile import Profile, ProfileStore, node_login
from syftmesh_client.site import SiteFolders, open_account, provision_site

CALLER: Final = "alice@caller.example"
SITE: Final = "bob@site.example"
APP: Final = "bench"
RULES: Final = f'rules:\n  - pattern: "**"\n    access: {{write: ["{CALLER}"]}}\n'
UNLIMITED: Final = {
    f"SYFTMESH_ROUTER_{name}": "100000000"
    for name in ("SENDER_PER_S", "SENDER_BURST", "APP_PER_S", "APP_BURST")
}
"""The router's rate limits are lifted: what is measured is the cost of a call, not the limit."""


@dataclass(frozen=True, slots=True)
class Mesh:
    """A mesh that runs.

    Attributes:
        state: Its state folder.
        server: Its address.
        log: Where children write.
    """

    state: Path
    server: str
    log: Path

    @asynccontextmanager
    async def node(self, email: str) -> AsyncIterator[Node]:
        """Open the profile of an account, made when there is none."""
        store = ProfileStore(self.state)
        profile = store.find(email) or await self._account(store, email)
        async with open_node(
            profile.folder, profile.server, login=node_login(self.state, self.server)
        ) as node:
            yield node

    async def site(self) -> Path:
        """Make the called site and return the folder of the device that serves it."""
        folders = SiteFolders.of(self.state, SITE)
        async with self.node(SITE) as owner:
            await provision_site(owner, folders)
            await owner.files.write(f"{SITE}/app_data/{APP}/rpc/syft.pub.yaml", RULES.encode())
        login = node_login(self.state, self.server)
        async with open_node(folders.agent, self.server, login=login):
            return folders.agent

    async def _account(self, store: ProfileStore, email: str) -> Profile:
        profile = store.save(email, self.server)
        await open_account(profile, node_login(self.state, self.server), keep_phrase=lambda _words: None)
        return profile


@asynccontextmanager
async def running_mesh(folder: Path) -> AsyncIterator[Mesh]:
    """Run a mesh without sites on a state below `folder`."""
    state, log = folder / "state", folder / "mesh.log"
    command = (*module("syftmesh_standalone"), "--state", str(state), "--http-port", "0", "--grpc-port", "0")
    async with running(*command, log=log, word="SyftMesh is ready", variables=UNLIMITED) as (_, line):
        yield Mesh(state, line.split()[-1], log)
