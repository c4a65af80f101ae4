"""Device lists out of the stream KEYLOG, each chain verified here: nobody is taken at their word."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final, Protocol

import structlog
from mesh.crypto.v1 import crypto_pb2
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.identity.device_list import DeviceList, verify_first, verify_successor
from syftmesh_kit import subject
from syftmesh_kit.message import StreamMessage
from syftmesh_kit.stream import StreamState
from syftmesh_kit.waiting import Waiting

_RETRY_S: Final = 0.25
_CATCH_UP_S: Final = 2.0

_log: Any = structlog.get_logger("syftmesh.keylog")


class KeyBus(Protocol):
    """The part of `syftmesh_kit.bus.Bus` that is needed here."""

    async def stream_state(self, stream: str) -> StreamState:
        """Return what the stream holds."""
        ...

    async def last_message(self, subject: str, *, stream: str = "") -> StreamMessage | None:
        """Return the newest message on `subject`."""
        ...

    def ordered_consumer(
        self, stream: str, *, from_sequence: int = 1, subjects: Sequence[str] = (), newest_only: bool = False
    ) -> AsyncIterator[StreamMessage]:
        """Iterate over the stream in order, for ever."""
        ...


class KeyLog:
    """See `domain.ports.DeviceKeys`. Run `run` in a task."""

    def __init__(self, bus: KeyBus) -> None:
        self._bus = bus
        self._lists: dict[str, DeviceList] = {}
        self._sequence = 0
        self._caught_up = False
        self._changed = asyncio.Event()

    def check(self) -> None:
        """Raise Unavailable (KEYS_LOADING) as long as the key log is being read."""
        if not self._caught_up:
            raise Unavailable("The key log is being read: ask again in a moment.", reason="KEYS_LOADING")

    async def device(self, principal: str, device_id: str) -> DevicePublic | None:
        """Return the device in the newest list of `principal`, None where it is not in it.

        The newest list is what the stream has now: a device that was removed a moment ago signs nothing more.

        Raises:
            Unavailable: The key log cannot be asked, or is not read up to there (KEYS_LOADING).
        """
        name = subject.keylog(principal)
        newest = await self._bus.last_message(name, stream=subject.KEYLOG)
        if newest is not None and not await self._wait_for(newest.sequence):
            raise Unavailable("The key log is not read to its end: ask again.", reason="KEYS_LOADING")
        devices = self._lists.get(name)
        return None if devices is None else devices.find(device_id)

    async def run(self) -> None:
        """Read the key log, for ever; what does not chain is skipped and logged."""
        target = await self._begin()
        self._advance(0, caught_up=target == 0)
        async for message in self._bus.ordered_consumer(subject.KEYLOG):
            self._take(message)
            reached = message.sequence >= target or message.pending == 0
            self._advance(message.sequence, caught_up=self._caught_up or reached)

    async def _begin(self) -> int:
        waiting = Waiting("keylog.waiting")
        while True:
            try:
                state = await self._bus.stream_state(subject.KEYLOG)
            except MeshError as error:
                waiting.note(error)
                await asyncio.sleep(_RETRY_S)
                continue
            return state.last_sequence if state.messages else 0

    def _take(self, message: StreamMessage) -> None:
        if message.type_name != crypto_pb2.SignedDeviceList.DESCRIPTOR.full_name:
            return
        try:
            data = message.decode(crypto_pb2.SignedDeviceList).device_list
            found = self._verified(message.subject, data)
        except MeshError as error:
            _log.error("keylog.entry_refused", sequence=message.sequence, reason=error.reason)
            return
        if subject.keylog(found.principal) == message.subject:
            self._lists[message.subject] = found

    def _verified(self, name: str, data: bytes) -> DeviceList:
        known = self._lists.get(name)
        if known is not None:
            return known if known.encoded == data else verify_successor(known, data)
        return verify_first(data)

    async def _wait_for(self, sequence: int) -> bool:
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                while self._sequence < sequence:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _advance(self, sequence: int, *, caught_up: bool) -> None:
        self._sequence, self._caught_up = max(self._sequence, sequence), caught_up
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
