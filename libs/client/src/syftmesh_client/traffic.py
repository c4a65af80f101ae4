"""How many bytes went to the hub and its object store, and how many came."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class TrafficKind(StrEnum):
    """What the bytes were: bodies at the object store, messages of the hub's services, or a SuperNode's talk."""

    OBJECT = "object"
    MESSAGE = "message"
    UPDATE = "update"


class Traffic:
    """Counters in bytes; one may be shared by several clients of a thread."""

    def __init__(self) -> None:
        self._sent = dict.fromkeys(TrafficKind, 0)
        self._received = dict.fromkeys(TrafficKind, 0)

    def add_sent(self, kind: TrafficKind, size_bytes: int) -> None:
        """Count `size_bytes` sent; every try counts."""
        self._sent[kind] += size_bytes

    def add_received(self, kind: TrafficKind, size_bytes: int) -> None:
        """Count `size_bytes` received."""
        self._received[kind] += size_bytes

    @property
    def sent(self) -> Mapping[TrafficKind, int]:
        """Bytes sent by kind, as of now."""
        return dict(self._sent)

    @property
    def received(self) -> Mapping[TrafficKind, int]:
        """Bytes received by kind, as of now."""
        return dict(self._received)

    @property
    def sent_bytes(self) -> int:
        """All bytes sent."""
        return sum(self._sent.values())

    @property
    def received_bytes(self) -> int:
        """All bytes received."""
        return sum(self._received.values())
