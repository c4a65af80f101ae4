"""Which pushed messages are still without their objects: nobody is woken for what cannot be pulled whole."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Hashable
from typing import Final

from syftmesh_superlink.domain.wake import Wakes

_MAX_SESSIONS: Final = 4096


class PushSessions:
    """Wakes who waits for messages once all objects of their session have come.

    Args:
        wakes: The waiters.
    """

    def __init__(self, wakes: Wakes) -> None:
        self._wakes = wakes
        self._missing: OrderedDict[str, tuple[set[str], tuple[Hashable, ...]]] = OrderedDict()

    def await_objects(self, session: str, missing: Collection[str], keys: Collection[Hashable]) -> None:
        """Remember a session; when nothing is missing, wake at once."""
        if not missing:
            self._wake(keys)
            return
        self._missing[session] = (set(missing), tuple(keys))
        while (
            len(self._missing) > _MAX_SESSIONS
        ):  # of senders who went away: waiters look again by themselves
            self._missing.popitem(last=False)

    def arrived(self, session: str, object_id: str) -> None:
        """Note that an object has come."""
        found = self._missing.get(session)
        if found is None:
            return
        found[0].discard(object_id)
        if not found[0]:
            del self._missing[session]
            self._wake(found[1])

    def _wake(self, keys: Collection[Hashable]) -> None:
        for key in keys:
            self._wakes.wake(key)
