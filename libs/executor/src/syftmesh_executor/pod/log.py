"""Keeping the ends of an endless stream, at constant memory."""

from __future__ import annotations

from collections import deque

_MARKER = b"\n[... %d bytes left out ...]\n"
_MARKER_BYTES = 64


class CappedLog:
    """The first and last half of what is fed, never more than `cap_bytes` together.

    The end matters most: that is where Python prints why it stopped.
    """

    def __init__(self, cap_bytes: int) -> None:
        self._cap = cap_bytes
        half = max((cap_bytes - _MARKER_BYTES) // 2, 0)
        self._head_cap, self._tail_cap = cap_bytes - _MARKER_BYTES - half, half
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self.total_bytes = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the stream."""
        self.total_bytes += len(data)
        room = self._cap - len(self._head)
        if room > 0:
            self._head += data[:room]
        # The tail also holds what the head holds, so that nothing is missing when both meet.
        self._tail.append(data[-self._cap :])
        self._tail_bytes += min(len(data), self._cap)
        while self._tail_bytes - len(self._tail[0]) >= self._cap:
            self._tail_bytes -= len(self._tail.popleft())

    def value(self) -> bytes:
        """Return what is kept, with a line that says how much is not."""
        if self.total_bytes <= self._cap:
            return bytes(self._head)
        if self._cap <= 2 * _MARKER_BYTES:
            return bytes(self._head[: self._cap])
        tail = b"".join(self._tail)[-self._tail_cap :]
        left_out = self.total_bytes - self._head_cap - self._tail_cap
        return bytes(self._head[: self._head_cap]) + _MARKER % left_out + tail
