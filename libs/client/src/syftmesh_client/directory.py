"""Other people's devices, verified: the hub brings the chains, and is never believed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from mesh.crypto.v1 import crypto_pb2
from mesh.crypto.v1 import crypto_service_pb2 as rpc
from mesh.crypto.v1 import crypto_service_pb2_grpc as grpc_api
from syftmesh_core.clock import Clock
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.identity.device_list import DeviceList, verify_first, verify_successor
from syftmesh_core.principal import normalise_principal

from syftmesh_client.keystore import KeyStore

CACHE_S: Final = 60.0
"""Seconds that a chain counts as the newest."""

_PAGE_BYTES: Final = 2 * 1024 * 1024
"""An answer of this size may have been cut by the key directory, which fills pages up to it."""

_MAX_PAGES: Final = 256


class DirectorySession(Protocol):
    """The part of `session.HubSession` that is needed here."""

    @property
    def crypto(self) -> grpc_api.KeyDirectoryServiceAsyncStub:
        """The stub of the key directory."""
        ...


@dataclass(frozen=True, slots=True)
class PrincipalKeys:
    """What a verified chain says about a principal.

    Attributes:
        principal: Whose keys they are.
        root: Public key of the account root, 32 bytes; equal to the one pinned.
        version: Version of the newest device list.
        devices: The devices of that list.
    """

    principal: str
    root: bytes = field(repr=False)
    version: int
    devices: tuple[DevicePublic, ...]

    def find(self, device_id: str) -> DevicePublic | None:
        """Return the device of that id, or None where it is not (or no longer) the principal's."""
        return next((device for device in self.devices if device.device_id == device_id), None)


@dataclass(frozen=True, slots=True)
class _Known:
    newest: DeviceList
    at_s: float


class DeviceDirectory:
    """Fetches, verifies and remembers device lists.

    Roots are pinned in the key store at first contact; versions seen are kept there, so that neither can be
    taken back, also not over a restart.

    Args:
        session: The hub.
        keystore: Pins and versions.
        clock: Monotonic time.
    """

    def __init__(self, session: DirectorySession, keystore: KeyStore, clock: Clock) -> None:
        self._session = session
        self._keystore = keystore
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def devices_of(self, principal: str, *, refresh: bool = False) -> PrincipalKeys:
        """Return the verified devices of `principal`, at most 60 s old.

        Args:
            principal: E-mail.
            refresh: Ask the hub also when the chain is fresh.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            NotFound: Nothing was published (PRINCIPAL_UNKNOWN).
            IntegrityFailure: KEY_CHANGED, DEVICE_LIST_INVALID, DEVICE_LIST_ROLLBACK: nothing is sent
                or opened.
            Unavailable: The hub does not answer.
        """
        name = normalise_principal(principal)
        async with self._locks.setdefault(name, asyncio.Lock()):
            known = self._usable(name)
            now_s = self._clock.monotonic_s()
            if known is None or refresh or now_s - known.at_s >= CACHE_S:
                newest = await self._fetch(name, known.newest if known is not None else None)
                known = self._known[name] = _Known(newest, now_s)
        newest = known.newest
        return PrincipalKeys(name, newest.root_key, newest.version, newest.devices)

    async def list_of(self, principal: str, *, refresh: bool = False) -> DeviceList:
        """Return the newest verified list itself, to sign the next one over it; raises as `devices_of`."""
        name = normalise_principal(principal)
        await self.devices_of(name, refresh=refresh)
        return self._known[name].newest

    async def serving_devices(self, principal: str) -> tuple[DevicePublic, ...]:
        """Return the devices of `principal` that take calls; raises as `devices_of`."""
        return tuple(device for device in (await self.devices_of(principal)).devices if device.serves)

    async def publish(self, device_list: bytes) -> int:
        """Publish the own principal's next list and return its version. Idempotent.

        Raises:
            Conflict: Another version was published in between (DEVICE_LIST_STALE).
            MeshError: What the key directory says.
        """
        signed = crypto_pb2.SignedDeviceList(device_list=device_list)
        answer = await self._session.crypto.PublishDeviceList(
            rpc.PublishDeviceListRequest(device_list=signed)
        )
        own = self._keystore.device.principal
        if own in self._known:
            # Stale, not forgotten: the next look verifies only what is new.
            self._known[own] = _Known(self._known[own].newest, float("-inf"))
        return int(answer.version)

    def _usable(self, name: str) -> _Known | None:
        known = self._known.get(name)
        # A person may have accepted a new root meanwhile: what was verified under the old one is void.
        if known is not None and self._keystore.pinned(name) != known.newest.root_key:
            return None
        return known

    async def _fetch(self, name: str, known: DeviceList | None) -> DeviceList:
        for _ in range(_MAX_PAGES):
            version = 0 if known is None else known.version + 1
            answer = await self._session.crypto.ListDevices(
                rpc.ListDevicesRequest(principal=name, from_version=version)
            )
            page = [signed.device_list for signed in answer.device_lists]
            known = self._verified(name, known, page)
            if sum(map(len, page)) < _PAGE_BYTES:
                return await self._accepted(name, known)
        raise _refused(name, "its chain does not end")

    def _verified(self, name: str, known: DeviceList | None, page: Sequence[bytes]) -> DeviceList:
        for data in page:
            if known is None:
                known = verify_first(data, pinned_root=self._keystore.pinned(name))
            else:
                known = verify_successor(known, data)
            if known.principal != name:
                raise _refused(name, "it is another principal's")
        if known is None:
            raise _refused(name, "there is none")
        return known

    async def _accepted(self, name: str, newest: DeviceList) -> DeviceList:
        seen, pinned = self._keystore.list_version(name), self._keystore.pinned(name)
        self._keystore.pin(name, newest.root_key)
        self._keystore.note_list_version(name, newest.version)
        if pinned is None or newest.version > seen:
            await asyncio.to_thread(self._keystore.save)
        return newest


def _refused(name: str, what: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"The device list of {name} is refused: {what}.",
        reason="DEVICE_LIST_INVALID",
        metadata={"principal": name},
    )
