"""A device's stream at this replica: deliveries go out, RECEIVED comes back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from syftmesh_router.domain.envelope import CallMessage
from syftmesh_router.domain.record import CallState


@dataclass(frozen=True, slots=True)
class DeliveryFrame:
    """A call on its way to the device."""

    message: CallMessage
    epoch: int
    attempt: int


@dataclass(frozen=True, slots=True)
class AcceptedFrame:
    """A reply of the device is durable; `state` is the final state that stands."""

    call_id: str
    state: CallState


OutFrame = DeliveryFrame | AcceptedFrame


class StreamLink:
    """One open `Serve` stream; a `ports.DeviceLink`.

    Args:
        device_id: The device.
        apps: The apps it takes.
    """

    def __init__(self, device_id: str, apps: frozenset[str]) -> None:
        self._device_id = device_id
        self._apps = apps
        self._out: asyncio.Queue[OutFrame | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._closed = False

    @property
    def device_id(self) -> str:
        """The device."""
        return self._device_id

    @property
    def apps(self) -> frozenset[str]:
        """The apps it takes."""
        return self._apps

    async def deliver(self, message: CallMessage, epoch: int, attempt: int, timeout_s: float) -> bool:
        """Hand the call over; return whether the device said within the time that it has it stored."""
        if self._closed:
            return False
        call_id = message.envelope.call_id
        known = self._waiting.get(call_id)
        answer = known or asyncio.get_running_loop().create_future()
        if known is None:
            self._waiting[call_id] = answer
            self._out.put_nowait(DeliveryFrame(message, epoch, attempt))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.shield(answer)
        except TimeoutError:
            return False
        finally:
            if known is None:
                self._waiting.pop(call_id, None)

    def received(self, call_id: str) -> None:
        """Note the device's RECEIVED; one that nobody waits for (any more) changes nothing."""
        answer = self._waiting.get(call_id)
        if answer is not None and not answer.done():
            answer.set_result(True)

    def accepted(self, call_id: str, state: CallState) -> None:
        """Tell the device that its reply is durable."""
        self._out.put_nowait(AcceptedFrame(call_id, state))

    def close(self) -> None:
        """End the stream: deliveries on their way count as failed at once."""
        self._closed = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(False)
        self._out.put_nowait(None)

    async def next_frame(self) -> OutFrame | None:
        """Return the next frame for the device, None when the stream is to end."""
        return await self._out.get()
