"""One line in the log for what is waited for, not one for each try."""

from __future__ import annotations

from typing import Any

import structlog
from syftmesh_core.errors import MeshError


class Waiting:
    """Logs why something has to wait, when the reason is another than before.

    Args:
        event: Name of the event, ``<service>.waiting``.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._told = ""
        self._log: Any = structlog.get_logger(f"syftmesh.{event.partition('.')[0]}")

    def note(self, error: MeshError) -> None:
        """Say that a try ended with `error`."""
        if error.reason != self._told:
            self._told = error.reason
            self._log.warning(self._event, reason=error.reason, detail=error.message)

    def clear(self) -> None:
        """Say that a try went well: the next error is told whatever it is."""
        self._told = ""
