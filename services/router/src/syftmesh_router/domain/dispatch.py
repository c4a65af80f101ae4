"""The caller's side: checks, then one hop to the replica that delivers to the site, then the wait."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import dataclass
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import DeadlineExceeded, NotFound, Unavailable

from syftmesh_router.domain.acceptance import Acceptance
from syftmesh_router.domain.board import CallBoard
from syftmesh_router.domain.delivery import SiteDelivery
from syftmesh_router.domain.ending import Ending
from syftmesh_router.domain.envelope import CallMessage, check_envelope, check_sender, check_size
from syftmesh_router.domain.ports import CallRecords, Peers, RightCheck, SiteLeases
from syftmesh_router.domain.rate import CallRates
from syftmesh_router.domain.record import CallRecord, CallState, Reply

_HOPS: Final = 2


@dataclass(frozen=True, slots=True)
class Requester:
    """The authenticated caller."""

    principal: str
    device_id: str


class LocalDeliveries:
    """The sites whose lease this replica holds."""

    def __init__(self) -> None:
        self._by_site: dict[str, SiteDelivery] = {}

    def put(self, delivery: SiteDelivery) -> None:
        """Deliver to the site from now on."""
        self._by_site[delivery.site] = delivery

    def drop(self, delivery: SiteDelivery) -> None:
        """Deliver to the site no more."""
        if self._by_site.get(delivery.site) is delivery:
            del self._by_site[delivery.site]

    def find(self, site: str) -> SiteDelivery | None:
        """Return the delivery to `site`, None when its lease is not held here."""
        return self._by_site.get(site)


class Dispatch:
    """Takes calls and gives their ends.

    Args:
        rights: Who may call what.
        rates: Limits.
        acceptance: Records and log.
        records: Records of calls.
        ending: Ends of calls.
        board: Waiters.
        local: Sites delivered to here.
        leases: Who delivers to the other sites.
        peers: The other replicas.
        clock: Wall time.
    """

    def __init__(  # noqa: PLR0913 - a composition root calls it, by keyword
        self,
        *,
        rights: RightCheck,
        rates: CallRates,
        acceptance: Acceptance,
        records: CallRecords,
        ending: Ending,
        board: CallBoard,
        local: LocalDeliveries,
        leases: SiteLeases,
        peers: Peers,
        clock: Clock,
    ) -> None:
        self._rights = rights
        self._rates = rates
        self._acceptance = acceptance
        self._records = records
        self._ending = ending
        self._board = board
        self._local = local
        self._leases = leases
        self._peers = peers
        self._clock = clock
        self._orders: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def accept(self, requester: Requester, message: CallMessage, *, store: bool) -> CallState:
        """Take a call and return its state; asked again with the same id and body, the state it has reached.

        Calls of one sender are taken in the order in which they come.

        Raises:
            InvalidInput: INVALID_URL, ENVELOPE_INVALID.
            PermissionDenied: SENDER_MISMATCH, PERMISSION_DENIED.
            NotFound: SITE_UNKNOWN.
            Conflict: CALL_ID_REUSED.
            LimitExceeded: BODY_TOO_LARGE, RATE_LIMITED.
            Unavailable: Ask again with the same id.
        """
        call = message.envelope
        check_sender(call, requester.principal, requester.device_id)
        check_size(message.body)
        check_envelope(call, self._clock.now_ms())
        self._rights.check(call)
        self._rates.take(call.sender, call.site, call.app)
        order = self._orders.get(call.sender)
        if order is None:
            order = self._orders[call.sender] = asyncio.Lock()
        async with order:
            return await self._take(message, store=store)

    async def end(self, requester: Requester, call_id: str, timeout_s: float) -> Reply:
        """Return the end of a call of `requester`, waiting for it at most `timeout_s` seconds.

        Raises:
            NotFound: CALL_UNKNOWN: no such call of this caller.
            DeadlineExceeded: DEADLINE_EXCEEDED.
        """
        with self._board.waiting(call_id) as final:
            record = await self._own(requester, call_id)
            if not record.state.is_final:
                try:
                    async with asyncio.timeout(timeout_s):
                        await final.wait()
                except TimeoutError:
                    raise DeadlineExceeded(
                        "No reply yet. Await it by AwaitReply with the same call id.",
                        metadata={"call_id": call_id},
                    ) from None
                record = await self._own(requester, call_id)
        return await self._ending.reply_of(record)

    async def look(self, requester: Requester, call_id: str) -> tuple[CallState, Reply | None]:
        """Return the state of a call of `requester` now, with its end where it is final.

        Raises:
            NotFound: CALL_UNKNOWN.
        """
        record = await self._own(requester, call_id)
        reply = await self._ending.reply_of(record) if record.state.is_final else None
        return record.state, reply

    async def _take(self, message: CallMessage, *, store: bool) -> CallState:
        site = message.envelope.site
        for _ in range(_HOPS):
            try:
                if (here := self._local.find(site)) is not None:
                    return (await here.submit(message, store=store)).state
                router = await self._leases.holder_of(site)
                if not router:
                    break
                return await self._peers.submit(router, message, store=store)
            except Unavailable as error:
                if error.reason not in {"NOT_HOLDER", "NO_RESPONDER", "PEER_TIMEOUT"}:
                    raise
        # Nobody delivers to the site now: whoever does next finds the call in the log.
        return (await self._acceptance.store(message)).state

    async def _own(self, requester: Requester, call_id: str) -> CallRecord:
        found = await self._records.get(call_id) if call_id else None
        if found is None or found.record.caller != requester.principal:
            raise NotFound("There is no such call of yours.", reason="CALL_UNKNOWN")
        return found.record
