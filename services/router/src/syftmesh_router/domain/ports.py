"""What the router's domain needs of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from syftmesh_router.domain.envelope import CallMessage, Envelope
from syftmesh_router.domain.record import CallRecord, CallState, Reply


@dataclass(frozen=True, slots=True)
class Versioned:
    """A record with the revision that a compare-and-set needs."""

    record: CallRecord
    revision: int


class CallRecords(Protocol):
    """Keeps the records of calls. Every method raises Unavailable when the store does not answer."""

    async def get(self, call_id: str) -> Versioned | None:
        """Return the record as it is now (linearisable)."""
        ...

    async def create(self, record: CallRecord) -> Versioned | None:
        """Write the record, durably, or return None when there is one of that id already."""
        ...

    async def update(self, old: Versioned, record: CallRecord) -> Versioned | None:
        """Replace `old`, durably, or return None when it was changed meanwhile."""
        ...

    def watch(self) -> AsyncIterator[CallRecord]:
        """Iterate over the records there are, then over every change, for ever."""
        ...


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call in the log, with its place there."""

    message: CallMessage
    sequence: int


class CallLog(Protocol):
    """Calls stored until their site takes them. Every method raises Unavailable."""

    async def append(self, message: CallMessage) -> None:
        """Store the call durably; the same id again within ten minutes is not stored twice."""
        ...

    async def next(self, site: str, sender: str, after: int) -> StoredCall | None:
        """Return the oldest stored call of `sender` to `site` behind the place `after`."""
        ...

    async def remove(self, site: str, stored: StoredCall) -> None:
        """Acknowledge and forget a call that is settled."""
        ...

    async def bury(self, message: CallMessage) -> None:
        """Write a call that cannot be delivered to the dead letters, durably."""
        ...

    def arrivals(self, site: str) -> AsyncGenerator[str, None]:
        """Iterate over the senders of calls to `site`: of what is stored, then of what comes, for ever."""
        ...

    async def let_go(self, site: str) -> None:
        """Give unsettled deliveries back, for the next holder of the site's lease."""
        ...


class Replies(Protocol):
    """Keeps replies. Every method raises Unavailable."""

    async def put_first(self, caller: str, reply: Reply) -> Reply:
        """Store `reply` durably unless there is one already; return the one that stands."""
        ...

    async def get(self, caller: str, call_id: str) -> Reply | None:
        """Return the stored reply."""
        ...


class RightCheck(Protocol):
    """Decides whether a call may be made."""

    def check(self, envelope: Envelope) -> None:
        """Check that the site exists and the sender may write on the endpoint's directory.

        Raises:
            NotFound: SITE_UNKNOWN.
            PermissionDenied: PERMISSION_DENIED.
            Unavailable: The rules are not known now.
        """
        ...


class DeviceLink(Protocol):
    """A device that serves calls through its stream, here or at another replica."""

    @property
    def device_id(self) -> str:
        """The device."""
        ...

    @property
    def apps(self) -> frozenset[str]:
        """The apps it takes."""
        ...

    async def deliver(self, message: CallMessage, epoch: int, attempt: int, timeout_s: float) -> bool:
        """Hand the call over; return whether the device said within the time that it has it stored."""
        ...


class Peers(Protocol):
    """The other replicas."""

    async def submit(self, router: str, message: CallMessage, *, store: bool) -> CallState:
        """Let the holder of the site's lease take the call; raises what it raises.

        Raises:
            Unavailable: It does not answer or holds the lease no more (NOT_HOLDER).
        """
        ...

    async def attach(self, router: str, site: str, link: DeviceLink) -> int:
        """Tell the holder of a device that is connected here; return its epoch. Raises as `submit`."""
        ...

    async def detach(self, router: str, site: str, link: DeviceLink) -> None:
        """Tell the holder that the device is not connected here any more, without waiting for it."""
        ...

    def link(self, router: str, site: str, device_id: str, apps: frozenset[str]) -> DeviceLink:
        """Return a link to a device that is connected to the replica `router`."""
        ...


class SiteLease(Protocol):
    """The lease of one site, as one replica contends for it. Methods raise Unavailable."""

    @property
    def epoch(self) -> int:
        """The epoch under which this replica delivers, 0 while it does not hold the lease."""
        ...

    async def acquire(self, above: int) -> bool:
        """Take the lease if it is free, with an epoch higher than `above`; return whether it is held now."""
        ...

    async def renew(self) -> bool:
        """Renew; return False when it was lost."""
        ...

    async def release(self) -> None:
        """Give it up."""
        ...


class SiteLeases(Protocol):
    """The leases of all sites."""

    def lease(self, site: str) -> SiteLease:
        """Return this replica's hand on the lease of `site`."""
        ...

    async def holder_of(self, site: str) -> str:
        """Return the router that delivers to the site, empty when nobody does. Raises Unavailable."""
        ...


class AppClaims(Protocol):
    """Remembers which apps devices of a site have named, so that `*` does not take them meanwhile."""

    async def claimed(self, site: str) -> frozenset[str]:
        """Return the apps named by a device of the site within the last 30 days."""
        ...

    async def claim(self, site: str, apps: frozenset[str]) -> None:
        """Remember that a device names these apps now."""
        ...
