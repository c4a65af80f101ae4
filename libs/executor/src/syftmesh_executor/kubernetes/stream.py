"""A program that runs in a container: bytes to its input, bytes from its output, over one WebSocket.

The subprotocol is Kubernetes' ``v4.channel.k8s.io``: each message begins with the number of its stream.
"""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

from websocket import WebSocketException

from syftmesh_executor.pod.wire import FrameReader, Kind, WireError

_STDIN, _STDOUT = 0, 1
_SILENCE_S = 60.0
"""The carrier says something every 15 s; silence for longer means that the connection is dead."""
# A socket that another thread closes shows as any of the last two.
_BROKEN = (WebSocketException, OSError, ValueError, AttributeError)


class StreamBroken(Exception):
    """The connection to the pod is gone, or the program in it has ended."""


class ExecStream:
    """The streams of one program; one thread may receive while others send.

    Args:
        socket: A connected WebSocket.
    """

    def __init__(self, socket: Any) -> None:
        self._socket = socket

    def send(self, data: bytes) -> None:
        """Write to the program's input.

        Raises:
            StreamBroken: It takes no more.
        """
        try:
            self._socket.send_binary(bytes((_STDIN,)) + data)
        except _BROKEN as error:
            raise StreamBroken from error

    def frames(self) -> Iterator[tuple[Kind, bytes]]:
        """Give every frame that the program writes, until it ends.

        Raises:
            StreamBroken: The connection is gone or silent.
            WireError: What it writes are no frames.
        """
        reader = FrameReader()
        while (block := self._receive()) is not None:
            yield from reader.feed(block)

    def wait(self) -> None:
        """Wait until the program has ended.

        Raises:
            StreamBroken: The connection is gone or silent.
        """
        while self._receive() is not None:
            continue

    def close(self) -> None:
        """End the connection, also under a thread that receives."""
        self._socket.abort()
        self._socket.shutdown()

    def _receive(self) -> bytes | None:
        """Return output of the program, empty for something else, None at its end."""
        try:
            if not self._socket.sock or not self._readable():
                raise TimeoutError("silence")
            message = self._socket.recv()
        except _BROKEN as error:
            raise StreamBroken from error
        if not message:
            return None
        if isinstance(message, str):
            raise WireError("text where bytes belong")
        return message[1:] if message[0] == _STDOUT else b""

    def _readable(self) -> bool:
        plain = self._socket.sock
        if getattr(plain, "pending", lambda: 0)():
            return True
        poll = select.poll()
        poll.register(plain.fileno(), select.POLLIN)
        return bool(poll.poll(_SILENCE_S * 1000))
