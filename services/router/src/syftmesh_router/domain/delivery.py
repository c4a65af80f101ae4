"""Delivery to one site by the holder of its lease: nothing lost, nothing overtaken within a sender."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.ending import EndingGroup
from syftmesh_core.errors import MeshError, Unavailable

from syftmesh_router.domain.acceptance import Acceptance
from syftmesh_router.domain.device_book import Absence, DeviceBook
from syftmesh_router.domain.ending import Ending
from syftmesh_router.domain.envelope import CallMessage
from syftmesh_router.domain.ports import CallLog, CallRecords, DeviceLink, StoredCall
from syftmesh_router.domain.record import CallRecord, CallState

REASON_APP_UNKNOWN = "APP_UNKNOWN"
REASON_UNDELIVERABLE = "CALL_UNDELIVERABLE"

_log: Any = structlog.get_logger("syftmesh.router")


@dataclass(frozen=True, slots=True)
class DeliveryTimes:
    """How long things may take.

    Attributes:
        direct_s: Seconds for RECEIVED on the direct path before the call is stored.
        stored_s: Seconds for RECEIVED of a stored call.
        retry_s: Pause after a failed delivery, doubled each time.
        note_s: Seconds that a directly delivered call has to end before its delivery is noted.
        attempts: Failed deliveries after which a call is a dead letter.
    """

    direct_s: float = 0.2
    stored_s: float = 5.0
    retry_s: float = 0.2
    note_s: float = 0.05
    attempts: int = 5


@dataclass(slots=True)
class _Line:
    """One sender's calls to the site: `lock` orders what comes in, `direct` is set while none goes direct."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    direct: asyncio.Event = field(default_factory=asyncio.Event)
    woken: bool = False
    worker: asyncio.Task[None] | None = None

    def __post_init__(self) -> None:
        self.direct.set()


class SiteDelivery:
    """Delivers the calls of one site while this replica holds the site's lease.

    Args:
        site: The datasite.
        book: Its devices that are online.
        acceptance: Makes records and appends to the log.
        records: Records of calls.
        log: Stored calls.
        ending: Ends calls.
        clock: Wall time.
        epoch: Gives the lease's epoch, 0 when the lease is not held (any more).
        times: Timeouts.
    """

    def __init__(  # noqa: PLR0913 - a composition root calls it, by keyword
        self,
        site: str,
        *,
        book: DeviceBook,
        acceptance: Acceptance,
        records: CallRecords,
        log: CallLog,
        ending: Ending,
        clock: Clock,
        epoch: Callable[[], int],
        times: DeliveryTimes,
    ) -> None:
        self.site = site
        self.book = book
        self._acceptance = acceptance
        self._records = records
        self._calls = log
        self._ending = ending
        self._clock = clock
        self._epoch = epoch
        self._times = times
        self._lines: dict[str, _Line] = {}
        self._waiting: set[str] = set()
        self._tasks: asyncio.TaskGroup | None = None
        self._number = 0

    async def submit(self, message: CallMessage, *, store: bool) -> CallRecord:
        """Take a new call, or one that was asked before; return its record.

        Raises:
            Conflict: CALL_ID_REUSED.
            Unavailable: The lease is lost (NOT_HOLDER), or it may or may not be stored.
        """
        sender = message.envelope.sender
        line = self._lines.setdefault(sender, _Line())
        async with line.lock:
            record = await self._acceptance.record_of(message)
            if record.state is not CallState.PENDING:
                return record
            link = self._link_for(message)
            if link is Absence.NOT_SERVED:
                return await self._end_unserved(record)
            if not store and not isinstance(link, Absence):
                delivered = await self._direct(line, link, message, record)
                if delivered is not None:
                    return delivered
            await self._acceptance.append(message)
        self.wake(sender)
        return record

    def wake(self, sender: str) -> None:
        """Look at the stored calls of `sender`."""
        line = self._lines.setdefault(sender, _Line())
        line.woken = True
        # One that was cancelled before its first step is done, and could not say so itself.
        if self._tasks is not None and (line.worker is None or line.worker.done()):
            line.worker = self._tasks.create_task(self._work(sender, line))

    async def run(self) -> None:
        """Deliver what is stored, for ever; ends by cancellation, when the lease is lost or given up."""
        try:
            async with EndingGroup() as tasks:
                self._tasks = tasks
                try:
                    for sender in list(self._lines):
                        self.wake(sender)
                    tasks.create_task(self._wake_on_change())
                    async with aclosing(self._calls.arrivals(self.site)) as senders:
                        async for sender in senders:
                            self.wake(sender)
                finally:
                    self._tasks = None
                    tasks.end()
        finally:
            self._tasks = None
            with suppress(MeshError):
                await self._calls.let_go(self.site)

    def _held_epoch(self) -> int:
        epoch = self._epoch()
        if not epoch:
            raise Unavailable("Another replica delivers to this site now. Try again.", reason="NOT_HOLDER")
        return epoch

    def _link_for(self, message: CallMessage) -> DeviceLink | Absence:
        self._number += 1
        return self.book.for_app(message.envelope.app, call_number=self._number)

    async def _direct(
        self, line: _Line, link: DeviceLink, message: CallMessage, record: CallRecord
    ) -> CallRecord | None:
        """Try the direct path; None when it was not open or gave no RECEIVED in time."""
        epoch = self._held_epoch()
        e = message.envelope
        line.direct.clear()
        try:
            # Asked of the log itself: a call that another replica stored a moment ago must not be overtaken.
            if await self._calls.next(e.site, e.sender, 0) is not None:
                return None
            if not await link.deliver(message, epoch, 1, self._times.direct_s):
                return None
            return await self._note_delivered(record)
        finally:
            line.direct.set()

    async def _note_delivered(self, record: CallRecord) -> CallRecord:
        """Note a direct delivery, unless the reply is quicker: the call is durable at the site by now.

        Were the note lost with this process, the call would only be delivered again, and the site knows it.
        """
        if self._tasks is None:
            return await self._delivered(record.call_id) or record
        self._tasks.create_task(self._delivered_later(record.call_id))
        return record.moved(CallState.DELIVERED)

    async def _delivered_later(self, call_id: str) -> None:
        await asyncio.sleep(self._times.note_s)
        if not self._ending.ended_here(call_id):
            with suppress(MeshError):
                await self._delivered(call_id)

    async def _delivered(self, call_id: str) -> CallRecord | None:
        while (found := await self._records.get(call_id)) is not None:
            if found.record.state is not CallState.PENDING:
                return found.record
            delivered = found.record.moved(CallState.DELIVERED)
            if await self._records.update(found, delivered) is not None:
                return delivered
        return None

    async def _end_unserved(self, record: CallRecord) -> CallRecord:
        ended = await self._ending.by_router(record.call_id, CallState.NOT_FOUND, REASON_APP_UNKNOWN)
        return ended or record

    async def _wake_on_change(self) -> None:
        while True:
            await self.book.wait_changed()
            waiting, self._waiting = self._waiting, set()
            for sender in waiting:
                self.wake(sender)

    async def _work(self, sender: str, line: _Line) -> None:
        """Deliver the stored calls of `sender`, oldest first, until none is left that can be delivered."""
        try:
            while line.woken:
                line.woken = False
                seen = self.book.version
                try:
                    waits = await self._pass(sender, line)
                except MeshError as error:
                    _log.info("delivery.paused", site=self.site, reason=error.reason)
                    await asyncio.sleep(self._times.retry_s)
                    line.woken = True
                    continue
                if waits and seen == self.book.version:
                    self._waiting.add(sender)
                elif waits:
                    line.woken = True
        finally:
            line.worker = None

    async def _pass(self, sender: str, line: _Line) -> bool:
        """Walk once over the stored calls; return whether one waits for a device that is away.

        Calls to an app whose device is away do not hold up those to other apps; within an app, order holds.
        """
        away: set[str] = set()
        after = 0
        while (stored := await self._calls.next(self.site, sender, after)) is not None:
            await line.direct.wait()
            app = stored.message.envelope.app
            if app in away or not await self._settle(stored):
                away.add(app)
                after = stored.sequence
        return bool(away)

    async def _settle(self, stored: StoredCall) -> bool:
        """Bring a stored call to its site or to its end; False when its device is away."""
        call = stored.message.envelope
        while True:
            record = await self._acceptance.record_of(stored.message, recreate=True)
            if record.state is CallState.PENDING and call.expires_ms <= self._clock.now_ms():
                await self._ending.expire(call.call_id)
                continue
            if record.state is not CallState.PENDING:
                break
            link = self._link_for(stored.message)
            if link is Absence.AWAY:
                return False
            if link is Absence.NOT_SERVED:
                await self._end_unserved(record)
                break
            assert not isinstance(link, Absence)  # noqa: S101 - told to the type checker
            epoch = self._held_epoch()
            if await link.deliver(stored.message, epoch, record.attempts + 1, self._times.stored_s):
                await self._delivered(call.call_id)
                break
            if await self._failed(stored, record):
                break
        await self._calls.remove(self.site, stored)
        return True

    async def _failed(self, stored: StoredCall, record: CallRecord) -> bool:
        """Count a failed delivery; return whether it was the last one."""
        found = await self._records.get(record.call_id)
        if found is None or found.record.state is not CallState.PENDING:
            return found is not None
        counted = found.record.failed_once_more()
        await self._records.update(found, counted)
        _log.info("call.delivery_failed", call_id=record.call_id, site=self.site, attempts=counted.attempts)
        if counted.attempts >= self._times.attempts:
            await self._calls.bury(stored.message)
            await self._ending.by_router(record.call_id, CallState.FAILED, REASON_UNDELIVERABLE)
            return True
        with suppress(TimeoutError):  # a device that comes back is tried at once
            async with asyncio.timeout(self._times.retry_s * 2**counted.attempts):
                await self.book.wait_changed()
        return False
