"""The stream KEYLOG as `domain.ports.DeviceListLog`, with a verified read model of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import structlog
from mesh.crypto.v1 import crypto_pb2
from syftmesh_core.errors import IntegrityFailure, MeshError, Unavailable
from syftmesh_core.identity.device_list import DeviceList, verify_first, verify_successor
from syftmesh_kit import subject
from syftmesh_kit.message import PublishAck, StreamMessage
from syftmesh_kit.stream import StreamState
from syftmesh_kit.waiting import Waiting

from syftmesh_crypto.domain.ports import Chain, DeviceListLog

_RETRY_S: Final = 0.25
_CATCH_UP_S: Final = 5.0

JournalBarrier = Callable[[int], Awaitable[None]]
"""Returns once the journal holds a sequence of the stream."""

_log: Any = structlog.get_logger("syftmesh.crypto")


class LogBus(Protocol):
    """The part of `syftmesh_kit.bus.Bus` that is needed here."""

    async def stream_state(self, stream: str) -> StreamState:
        """Return what the stream holds."""
        ...

    async def last_message(self, subject: str, *, stream: str = "") -> StreamMessage | None:
        """Return the newest message on `subject`."""
        ...

    async def publish(
        self,
        subject: str,
        payload: crypto_pb2.SignedDeviceList,
        *,
        operation_id: str = "",
        expected_last: int | None = None,
    ) -> PublishAck:
        """Append to the stream."""
        ...

    def ordered_consumer(
        self, stream: str, *, from_sequence: int = 1, subjects: Sequence[str] = (), newest_only: bool = False
    ) -> AsyncIterator[StreamMessage]:
        """Iterate over the stream in order, for ever."""
        ...


class KeyLog(DeviceListLog):
    """Reads and appends. Run `run` in a task.

    Args:
        bus: The message bus.
        barrier: Waits for the journal; None when the log is not journaled.
    """

    def __init__(self, bus: LogBus, barrier: JournalBarrier | None = None) -> None:
        self._bus = bus
        self._barrier = barrier
        self._chains: dict[str, Chain] = {}
        self._sequence = 0
        self._caught_up = False
        self._changed = asyncio.Event()

    def check(self) -> None:
        """Return when the log has been read once.

        Raises:
            Unavailable: It has not (KEYS_LOADING).
        """
        if not self._caught_up:
            raise _loading()

    async def chain(self, principal: str) -> Chain | None:
        """Return the chain that the stream has at this moment, read and verified here."""
        name = subject.keylog(principal)
        newest = await self._bus.last_message(name, stream=subject.KEYLOG)
        if newest is None:
            return None
        await self._wait_for(newest.sequence)
        found = self._chains.get(name)
        if found is None:
            raise IntegrityFailure(
                f"What the key log holds for {principal} does not verify. Rebuild it from the journal.",
                reason="KEYLOG_DAMAGED",
                metadata={"principal": principal},
            )
        return found

    async def append(self, new: DeviceList, expected_sequence: int) -> int:
        """Append `new` behind the entry of that sequence; its digest makes a repetition harmless."""
        ack = await self._bus.publish(
            subject.keylog(new.principal),
            crypto_pb2.SignedDeviceList(device_list=new.encoded),
            operation_id=hashlib.sha256(new.encoded).hexdigest(),
            expected_last=expected_sequence,
        )
        return ack.sequence

    async def wait_durable(self, sequence: int) -> None:
        """Return once the journal holds `sequence`."""
        if self._barrier is not None:
            await self._barrier(sequence)

    async def run(self) -> None:
        """Read the log for ever; an entry that does not chain is skipped and logged as an error."""
        target = await self._end_of_log()
        self._advance(0, caught_up=target == 0)
        async for message in self._bus.ordered_consumer(subject.KEYLOG):
            self._take(message)
            self._advance(message.sequence, caught_up=message.sequence >= target or message.pending == 0)

    async def _end_of_log(self) -> int:
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
            return  # kinds of entries that come with the complete key directory
        known = self._chains.get(message.subject)
        try:
            data = message.decode(crypto_pb2.SignedDeviceList).device_list
            found = verify_first(data) if known is None else verify_successor(known.newest, data)
        except MeshError as error:
            _log.error("keylog.entry_refused", sequence=message.sequence, reason=error.reason)
            if known is not None:  # appends name the newest entry of the subject, whatever it holds
                self._chains[message.subject] = Chain(known.lists, message.sequence)
            return
        if subject.keylog(found.principal) != message.subject:
            _log.error("keylog.entry_refused", sequence=message.sequence, reason="SUBJECT_FOREIGN")
            return
        lists = () if known is None else known.lists
        self._chains[message.subject] = Chain((*lists, found), message.sequence)

    async def _wait_for(self, sequence: int) -> None:
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                while self._sequence < sequence:
                    await self._changed.wait()
        except TimeoutError:
            raise _loading() from None

    def _advance(self, sequence: int, *, caught_up: bool) -> None:
        self._sequence = max(self._sequence, sequence)
        self._caught_up = self._caught_up or caught_up
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()


def _loading() -> Unavailable:
    return Unavailable("The key log is being read. Try again in a moment.", reason="KEYS_LOADING")
