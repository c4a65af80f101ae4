"""The first steps of a person and of a site: account, devices, standard layout. Each may be cut off anywhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_core.clock import Clock, Random, SystemClock, system_random, uuid7
from syftmesh_core.errors import Conflict, NotFound
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.layout import standard_layout
from syftmesh_core.principal import normalise_principal
from syftmesh_kit.private_file import replace_private

from syftmesh_client.account import add_devices, create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.node import Node, NodeLogin, enter, open_node
from syftmesh_client.profile import Profile
from syftmesh_client.token_file import TokenFile
from syftmesh_client.token_source import TokenSource

KeepPhrase = Callable[[tuple[str, ...]], None]

_PENDING_FILE: Final = "device-list.pending"
_MADE_FILE: Final = "site.json"
_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class SiteFolders:
    """Where the programs of a site on this machine keep their state.

    Attributes:
        agent: Key store, tokens, database and socket of the agent.
        runner: Database, datasets, code and outputs of the runner, and its socket.
        runner_keys: Key store and tokens of the runner.
    """

    agent: Path
    runner: Path
    runner_keys: Path

    @classmethod
    def of(cls, state: Path, email: str) -> SiteFolders:
        """Return the folders of the site `email` below a state folder.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
        """
        base = state / "sites" / normalise_principal(email)
        return cls(base / "agent", base / "runner", base / "runner" / "keys")

    @property
    def is_made(self) -> bool:
        """Whether `provision_site` has finished here once."""
        return (self.agent.parent / _MADE_FILE).is_file()


async def open_account(
    profile: Profile,
    login: NodeLogin,
    *,
    keep_phrase: KeepPhrase,
    clock: Clock | None = None,
    random: Random = system_random,
) -> bool:
    """Give `profile` keys when it has none, log it in and publish its first device list.

    Idempotent, also when an earlier try was cut off: the phrase is given away before anything depends on it,
    and the signed list waits in the folder until the hub has it, for the root key that signed it is dropped.
    What a person brings is looked at first: a wrong code, or somebody else's login, makes neither keys nor phrase.

    Args:
        profile: Who, and where.
        login: How to get tokens.
        keep_phrase: Takes the 24 words of the recovery phrase, when the account is made now.
        clock: Time; None is the machine's.
        random: Source of keys.

    Returns:
        Whether the account was made now.

    Raises:
        MeshError: As `open_node` and `DeviceDirectory.publish`; AlreadyExists or Conflict when the e-mail has
            an account already whose keys are elsewhere.
    """
    clock = clock or SystemClock()
    pending = profile.folder / _PENDING_FILE
    created = False
    try:
        await asyncio.to_thread(KeyStore.open, profile.folder, random=random)
    except NotFound:
        device_id = uuid7(clock, random)
        tokens = await enter(profile.folder, profile.server, login, profile.email, device_id)
        account = create_account(profile.email, clock, random, device_id=device_id)
        keep_phrase(account.phrase)
        await asyncio.to_thread(replace_private, pending, account.device_list)
        await asyncio.to_thread(
            KeyStore.create,
            profile.folder,
            device=account.device,
            own_root=account.root_public,
            random=random,
        )
        if tokens is not None:
            await TokenSource(TokenFile(profile.folder, random), clock).store(tokens)
        created = True
    async with open_node(profile.folder, profile.server, login=login, clock=clock, random=random) as node:
        # Tokens that lie here may have ended at the hub: asking it is what lets the device in anew.
        await node.session.identity.WhoAmI(rpc.WhoAmIRequest())
        if pending.exists():
            await node.directory.publish(await asyncio.to_thread(pending.read_bytes))
            pending.unlink()
    return created


async def provision_site(node: Node, folders: SiteFolders) -> None:
    """Make the site of a person: keys of agent and runner, their place in the device list, the rule files.

    Once it has finished, it does nothing any more: a device that was removed and a rule file that was deleted
    stay away.

    Args:
        node: The person's own admin device.
        folders: Where the site's programs keep their state.

    Raises:
        MeshError: As `DeviceDirectory.publish` and `FileClient.write`.
    """
    if folders.is_made:
        return
    devices = [await _device(node, folder) for folder in (folders.agent, folders.runner_keys)]
    await _list_devices(node, devices)
    for path, data in standard_layout(node.principal).items():
        if await node.files.stat(path) is None:
            await node.files.write(path, data)
    await asyncio.to_thread(replace_private, folders.agent.parent / _MADE_FILE, b"{}\n")


async def _device(node: Node, folder: Path) -> DevicePublic:
    await asyncio.to_thread(_make_private, folder)
    with suppress(NotFound):
        return (await asyncio.to_thread(KeyStore.open, folder, random=node.random)).device.public()
    secret = DeviceSecret.generate(
        node.principal, uuid7(node.clock, node.random), serves=True, random=node.random
    )
    made = await asyncio.to_thread(
        KeyStore.create, folder, device=secret, own_root=node.keystore.own_root, random=node.random
    )
    return made.device.public()


def _make_private(folder: Path) -> None:
    """Make a folder of a site, and those above it that are not there, for its owner alone."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)


async def _list_devices(node: Node, devices: list[DevicePublic]) -> None:
    for left in reversed(range(_TRIES)):
        current = await node.directory.list_of(node.principal, refresh=True)
        missing = [device for device in devices if current.find(device.device_id) is None]
        if not missing:
            return
        try:
            await node.directory.publish(add_devices(current, node.keystore.device, missing))
            return
        except Conflict:
            if not left:
                raise
