"""A device at work: keys, session, directory, calls and files of one folder, wired once for all programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
from syftmesh_core.clock import Clock, Random, SystemClock, system_random
from syftmesh_core.errors import NotFound, Unauthenticated, WrongState
from syftmesh_kit import private_file

from syftmesh_client.call import CallClient
from syftmesh_client.call_right import SignedRights
from syftmesh_client.call_worker import RightCheck
from syftmesh_client.directory import DeviceDirectory
from syftmesh_client.files import FileClient
from syftmesh_client.inbox import Inbox
from syftmesh_client.incoming import AppHandler
from syftmesh_client.keystore import KeyStore
from syftmesh_client.login import local_relogin, redeem_join_token
from syftmesh_client.login_code import PersonLogin
from syftmesh_client.revision import RevisionMemory
from syftmesh_client.serving import Audit, ServingLoop
from syftmesh_client.session import HubSession
from syftmesh_client.token_file import StoredTokens, TokenFile
from syftmesh_client.token_source import Relogin, TokenSource
from syftmesh_client.traffic import Traffic
from syftmesh_client.trust import HubTrust
from syftmesh_client.wellknown import WellKnown, discover

_STORE_TIMEOUT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class NodeLogin:
    """How a device gets its first tokens, and new ones when the old are of no use any more.

    Attributes:
        local_token_file: ``local.token`` of an embedded mesh, None elsewhere.
        join_token_file: A file of mode 0600 with a join token that works once, None without.
        label: What the device is for: ``profile``, ``agent`` or ``runner``.
        person: What a person brings: a code or a provider; None without.
    """

    local_token_file: Path | None = None
    join_token_file: Path | None = None
    label: str = "profile"
    person: PersonLogin | None = None

    @property
    def has_way(self) -> bool:
        """Whether a device that was never logged in can be."""
        return not (self.local_token_file is None and self.join_token_file is None and self.person is None)


@dataclass(frozen=True, slots=True)
class Node:
    """What a program of one device works with.

    Attributes:
        keystore: The device's keys, and the pins of others.
        session: The hub.
        directory: Verified devices of others.
        calls: Makes calls.
        files: Reads and writes files.
        traffic: Bytes of all of these.
        well_known: What the hub says of itself.
        clock: Time.
        random: Randomness.
        trust: What proves the hub.
    """

    keystore: KeyStore
    session: HubSession
    directory: DeviceDirectory
    calls: CallClient
    files: FileClient
    traffic: Traffic
    well_known: WellKnown
    clock: Clock
    random: Random
    trust: HubTrust = field(default_factory=HubTrust)

    @property
    def principal(self) -> str:
        """Whose device it is."""
        return self.keystore.device.principal

    def serving(
        self,
        inbox: Inbox,
        apps: Mapping[str, AppHandler],
        *,
        audit: Audit | None = None,
        right_check: RightCheck | None = None,
    ) -> ServingLoop:
        """Return a loop that serves `apps` of the own datasite; by default rights come from signed rules."""
        return ServingLoop(
            self.session,
            self.directory,
            self.keystore,
            self.clock,
            inbox,
            apps,
            right_check=right_check or SignedRights(self.files.rules, self.clock),
            audit=audit,
            random=self.random,
            traffic=self.traffic,
        )


@asynccontextmanager
async def open_node(
    folder: Path,
    hub_url: str,
    *,
    login: NodeLogin | None = None,
    passphrase: str | None = None,
    ca_file: Path | None = None,
    traffic: Traffic | None = None,
    clock: Clock | None = None,
    random: Random = system_random,
) -> AsyncIterator[Node]:
    """Open the device of `folder` and log it in at the hub, for the block.

    Args:
        folder: Private folder with the key store; tokens and revisions seen are kept there too.
        hub_url: ``http(s)://host[:port]`` of the hub.
        login: How to get tokens when there are none.
        passphrase: Of the key store, when it has one.
        ca_file: Certificates (PEM) that the hub's must come from; None: ``hub-ca.pem`` of the folder when there,
            else the well-known authorities of the Internet.
        traffic: Where bytes are counted; None makes a new one.
        clock: Time; None is the machine's.
        random: Randomness.

    Raises:
        NotFound: KEYSTORE_MISSING, JOIN_TOKEN_MISSING, LOCAL_TOKEN_MISSING, CA_FILE_MISSING.
        Unauthenticated: NOT_LOGGED_IN, JOIN_TOKEN_INVALID, LOCAL_TOKEN_INVALID, KEYSTORE_LOCKED.
        WrongState: A secret file is open to others (KEYSTORE_MODE, FILE_NOT_PRIVATE).
        IntegrityFailure: The hub does not prove itself (SERVER_UNTRUSTED), or as `discover`.
        Unavailable: The hub does not answer.
    """
    clock, login, traffic = clock or SystemClock(), login or NodeLogin(), traffic or Traffic()
    keystore = await asyncio.to_thread(KeyStore.open, folder, passphrase, random=random)
    trust = await asyncio.to_thread(HubTrust.of_folder, folder, ca_file)
    hub = await discover(hub_url, trust=trust)
    tls = await _credentials(hub, trust, hub_url)
    device = keystore.device
    source = TokenSource(TokenFile(folder, random), clock, relogin=_relogin(hub, login, keystore, tls))
    tokens = await _first_tokens(source, hub, login, keystore, tls, clock)
    if (tokens.principal, tokens.device_id) != (device.principal, device.device_id):
        raise WrongState(
            "The folder's tokens are of another device than its keys: log in anew.", reason="TOKENS_FOREIGN"
        )
    async with (
        _memory(folder) as memory,
        HubSession(hub.grpc_address, source, clock, tls=tls, random=random) as session,
        trust.object_client(hub_url, timeout_s=_STORE_TIMEOUT_S) as http,
    ):
        directory = DeviceDirectory(session, keystore, clock)
        calls = CallClient(session, directory, keystore, clock, random, traffic=traffic)
        files = FileClient(session, directory, keystore, clock, random, http, traffic=traffic, memory=memory)
        yield Node(keystore, session, directory, calls, files, traffic, hub, clock, random, trust)


async def enter(
    folder: Path, hub_url: str, login: NodeLogin, principal: str, device_id: str
) -> StoredTokens | None:
    """Return the tokens of a device that has no keys yet, by what a person brings; None where nobody brings anything.

    Raises:
        MeshError: As `discover`, and as the person's login.
    """
    if login.person is None:
        return None
    trust = await asyncio.to_thread(HubTrust.of_folder, folder)
    hub = await discover(hub_url, trust=trust)
    tls = await _credentials(hub, trust, hub_url)
    return await login.person(
        hub.grpc_address, principal=principal, device_id=device_id, label=login.label, tls=tls
    )


async def _credentials(hub: WellKnown, trust: HubTrust, hub_url: str) -> grpc.ChannelCredentials | None:
    if not hub.grpc_tls:
        return None
    await trust.prove(hub.grpc_address, hub_url)
    return trust.credentials()


@asynccontextmanager
async def _memory(folder: Path) -> AsyncIterator[RevisionMemory]:
    memory = RevisionMemory(folder)
    try:
        yield memory
    finally:
        memory.close()


def read_private(path: Path) -> str:
    """Return the secret in a file that nobody else may read; `private_file` says which that are.

    Raises:
        NotFound: JOIN_TOKEN_MISSING.
        WrongState: FILE_NOT_PRIVATE.
    """
    try:
        data = private_file.read_private(path)
    except WrongState as error:
        raise WrongState(
            "The file with the join token is open to others, or no plain file of yours.",
            reason="FILE_NOT_PRIVATE",
            hint="chmod 600 on it; if others could read it, revoke the token and make a new one.",
        ) from error
    if data is None:
        raise NotFound(
            "The file with the join token is not there.",
            reason="JOIN_TOKEN_MISSING",
            hint="Ask the hub's operator for a join token and write it into a file of mode 0600.",
        )
    return data.decode("ascii", "replace").strip()


async def _first_tokens(
    source: TokenSource,
    hub: WellKnown,
    login: NodeLogin,
    keystore: KeyStore,
    tls: grpc.ChannelCredentials | None,
    clock: Clock,
) -> StoredTokens:
    join = login.join_token_file
    try:
        found = await source.open()
        # A device that was away for long has tokens that nobody renews any more; a join token lets it in again.
        if found.refresh_expires_ms > clock.now_ms() or join is None or not join.exists():
            return found
    except Unauthenticated as error:
        if error.reason != "NOT_LOGGED_IN" or join is None:
            raise
    secret = await asyncio.to_thread(read_private, join)
    device = keystore.device
    tokens = await redeem_join_token(
        hub.grpc_address,
        secret=secret,
        principal=device.principal,
        device_id=device.device_id,
        tls=tls,
    )
    await source.store(tokens)
    return await source.open()


def _relogin(
    hub: WellKnown, login: NodeLogin, keystore: KeyStore, tls: grpc.ChannelCredentials | None
) -> Relogin | None:
    device, person = keystore.device, login.person
    if person is not None:
        return lambda: person(
            hub.grpc_address,
            principal=device.principal,
            device_id=device.device_id,
            label=login.label,
            tls=tls,
        )
    if login.local_token_file is None:
        return None
    return local_relogin(
        hub.grpc_address,
        local_token_file=login.local_token_file,
        principal=device.principal,
        device_id=device.device_id,
        label=login.label,
    )
