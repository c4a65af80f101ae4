"""What the agent knows of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AgentStatus:
    """The state of the site, as its owner may see it.

    Attributes:
        site: The datasite's e-mail.
        device_id: The agent's device.
        is_connected: Whether the stream to the router is open.
        bytes_sent: Bytes that left the site since it was made, by kind.
        layout_missing: Rule files of the standard layout that the site lacks; None before it was looked at.
    """

    site: str
    device_id: str
    is_connected: bool
    bytes_sent: Mapping[str, int] = field(default_factory=dict)
    layout_missing: tuple[str, ...] | None = None
