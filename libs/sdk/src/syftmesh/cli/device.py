"""Work with a profile's own device where the SDK has no verb for it: its login, its site, its join tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from syftmesh.cli.frame import Frame

if TYPE_CHECKING:
    from syftmesh_client.node import Node
    from syftmesh_client.profile import Profile

Result = TypeVar("Result")


def chosen_profile(frame: Frame) -> Profile:
    """Return the profile that the command is for.

    Raises:
        MeshError: As `ProfileStore.choose`.
    """
    from syftmesh_client.profile import ProfileStore

    return ProfileStore(frame.state).choose(frame.profile)


def on_device(frame: Frame, work: Callable[[Node], Awaitable[Result]]) -> Result:
    """Open the device of the chosen profile, do `work` with it and return what it returns.

    Raises:
        MeshError: As `open_node` and `work`.
    """
    from syftmesh_client.node import open_node
    from syftmesh_client.profile import node_login

    from syftmesh.cli.log import quiet_logs

    quiet_logs(frame.surroundings.stderr, verbose=frame.verbose)
    profile = chosen_profile(frame)
    server = frame.server or profile.server
    opened = frame.surroundings.open_node or open_node

    async def run() -> Result:
        async with opened(profile.folder, server, login=node_login(frame.state, server)) as node:
            return await work(node)

    return asyncio.run(run())
