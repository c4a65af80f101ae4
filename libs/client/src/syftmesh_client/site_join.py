"""How agent and runner of a site come to the hub where no mesh of this machine lets them in: invited by the owner."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_kit.private_file import replace_private

from syftmesh_client.node import Node
from syftmesh_client.profile import keep_trust
from syftmesh_client.site import SiteFolders
from syftmesh_client.token_file import TokenFile

JOIN_FILE: Final = "join.token"
TTL_S: Final = 24 * 3600
"""Seconds for which a program may come with its token: it starts at once as a rule."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program of a site.

    Attributes:
        label: ``agent`` or ``runner``.
        keys: Folder of its key store and tokens.
        token_file: Where it looks for its join token.
    """

    label: str
    keys: Path
    token_file: Path


def programs(folders: SiteFolders) -> tuple[Program, Program]:
    """Return agent and runner of a site."""
    return (
        Program("agent", folders.agent, folders.agent / JOIN_FILE),
        Program("runner", folders.runner_keys, folders.runner / JOIN_FILE),
    )


async def invite_programs(node: Node, folders: SiteFolders) -> list[str]:
    """Let agent and runner in: each gets what proves the hub, and a join token unless it is logged in already.

    Idempotent: a token that was not used yet is replaced, one that is needed no more is removed.

    Args:
        node: The owner's device.
        folders: Where the programs keep their state; `provision_site` has made their keys.

    Returns:
        The labels of those who got a token.

    Raises:
        WrongState: KEYSTORE_MODE, STATE_UNUSABLE.
        Unavailable: The hub does not answer.
    """
    invited = []
    for program in programs(folders):
        await asyncio.to_thread(keep_trust, program.keys, node.trust)
        if await _is_logged_in(node, program):
            await asyncio.to_thread(program.token_file.unlink, missing_ok=True)
            continue
        request = rpc.CreateJoinTokenRequest(principal=node.principal, label=program.label, ttl_seconds=TTL_S)
        answer = await node.session.identity.CreateJoinToken(request)
        await asyncio.to_thread(replace_private, program.token_file, f"{answer.secret}\n".encode())
        invited.append(program.label)
    return invited


async def _is_logged_in(node: Node, program: Program) -> bool:
    tokens = await TokenFile(program.keys, node.random).read()
    return tokens is not None and tokens.refresh_expires_ms > node.clock.now_ms()
