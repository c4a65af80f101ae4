"""Which devices of one site take calls now, and which of them takes a call for an app."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Final

from syftmesh_router.domain.ports import DeviceLink

ANY_APP: Final = "*"


class Absence(Enum):
    """Why nobody takes a call now."""

    AWAY = "away"
    """The site, or the device that serves the app, is away: the call is stored for it."""
    NOT_SERVED = "not_served"
    """The site is online and nobody there serves such an app."""


class DeviceBook:
    """The devices of one site that are online, as the holder of the site's lease knows them."""

    def __init__(self) -> None:
        self._links: dict[str, DeviceLink] = {}
        self._claimed: frozenset[str] = frozenset()
        self._changed = asyncio.Event()
        self.version = 0
        """Counts changes."""

    @property
    def is_empty(self) -> bool:
        """Whether no device is online."""
        return not self._links

    def claim(self, apps: frozenset[str]) -> None:
        """Reserve apps for the devices that name them, also while these are away."""
        self._claimed |= apps - {ANY_APP}

    def put(self, link: DeviceLink) -> None:
        """Take in a device; its older link, if there is one, counts no more."""
        self._links[link.device_id] = link
        self.claim(link.apps)
        self._tell()

    def drop(self, link: DeviceLink) -> None:
        """Forget a link; a newer one of the same device stays."""
        if self._links.get(link.device_id) is link:
            del self._links[link.device_id]
            self._tell()

    def find(self, device_id: str) -> DeviceLink | None:
        """Return the link of a device."""
        return self._links.get(device_id)

    def links(self) -> list[DeviceLink]:
        """Return all links."""
        return list(self._links.values())

    def for_app(self, app: str, *, call_number: int = 0) -> DeviceLink | Absence:
        """Return the device that takes a call for `app`.

        Devices that name the app come first; several share its calls by `call_number`. One that takes `*`
        gets what no device of the site names, online or not: a job for a runner that is just restarting
        must wait for it, and not be answered with NOT_FOUND by the agent.
        """
        naming = [link for link in self._links.values() if app in link.apps]
        if naming:
            return naming[call_number % len(naming)]
        if not self._links or app in self._claimed:
            return Absence.AWAY
        others = [link for link in self._links.values() if ANY_APP in link.apps]
        return others[call_number % len(others)] if others else Absence.NOT_SERVED

    async def wait_changed(self) -> None:
        """Return at the next change."""
        await self._changed.wait()

    def _tell(self) -> None:
        self.version += 1
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
