"""One NATS connection of one service, with what nats-py leaves to its callers.

Reconnects for ever; readiness is a real barrier; requests survive a responder that is just starting.
"""

from __future__ import annotations

import asyncio
import random as jitter_source
import re
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final, Self

import nats.errors
import structlog
from google.protobuf.message import Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import JetStreamContext
from syftmesh_core.errors import Unavailable

from syftmesh_kit.fault import TLS_EXPECTED, bus_error, connect_error, unreachable
from syftmesh_kit.message import type_headers
from syftmesh_kit.trace import current_traceparent

_FIRST_CONNECT_PAUSE_S: Final = 0.2  # nats-py says int and sleeps it; 0 would spin while nobody listens

_ONE_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")

_PERMISSION: Final = re.compile(
    r"permissions violation for (publish|subscription) to \"?([^\s\".]*(?:\.[^\s\".]*)?)"
)

StateListener = Callable[[bool], None]
Handler = Callable[[Msg], Awaitable[None]]


class BusConnection:
    """One NATS connection: state, barrier, subscriptions and requests. `bus.Bus` adds JetStream."""

    def __init__(self, client: Client, name: str, timeout_s: float) -> None:
        self._client = client
        self._name = name
        self._timeout_s = timeout_s
        self._js: JetStreamContext = client.jetstream(timeout=timeout_s)
        self._listeners: list[StateListener] = []
        self._connected = asyncio.Event()
        self._generation = 0
        self._closed = False
        self._lost = asyncio.Event()
        self._refusal = connect_error(OSError())
        self._told: set[str] = set()
        self._probe = ""
        self._log: Any = structlog.get_logger("syftmesh.bus")

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        user: str | None = None,
        password: str | None = None,
        credentials_file: str | None = None,
        tls: ssl.SSLContext | None = None,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 10.0,
    ) -> Self:
        """Connect and return the bus.

        Args:
            url: ``nats://host:port``, or ``tls://`` (several separated by commas), without credentials.
            name: Name of the service, shown in the server's monitoring.
            user: User of the service.
            password: Its password.
            credentials_file: NATS credentials file, instead of user and password.
            tls: Context for mutual TLS, which a ``tls://`` address requires of the server.
            timeout_s: Seconds that one request or publish may take.
            connect_timeout_s: Seconds to wait for the first connection.

        Raises:
            Unavailable: No connection within the time: nobody answers (BUS_UNREACHABLE), user or password are
                refused (BUS_REFUSED), a certificate is (BUS_UNTRUSTED). Each change of the reason is logged
                meanwhile.
        """
        client = _TlsClient() if url.startswith("tls://") else Client()
        bus = cls(client, name, timeout_s)
        connecting = asyncio.create_task(
            client.connect(
                servers=url.split(","),
                name=name,
                user=user,
                password=password,
                user_credentials=credentials_file,
                tls=tls,
                inbox_prefix=_inbox_prefix(user),
                max_reconnect_attempts=-1,
                reconnect_time_wait=_FIRST_CONNECT_PAUSE_S,  # type: ignore[arg-type]
                connect_timeout=2,
                ping_interval=10,
                max_outstanding_pings=2,
                reconnect_to_server_handler=_Backoff(),
                error_cb=bus._on_error,
                disconnected_cb=bus._on_disconnected,
                reconnected_cb=bus._on_reconnected,
                closed_cb=bus._on_closed,
            )
        )
        try:
            await asyncio.wait({connecting}, timeout=connect_timeout_s)
            if not connecting.done():
                raise TimeoutError
            connecting.result()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            raise bus._refusal from error
        finally:
            if not connecting.done() or connecting.exception() is not None:
                await _end(connecting)
                await client.close()
        bus._found()
        bus._probe = client.new_inbox()
        await client.subscribe(bus._probe, cb=_answer)
        return bus

    async def close(self) -> None:
        """Close the connection; subscriptions and consumers end."""
        self._closed = True
        await self._client.close()

    @property
    def is_connected(self) -> bool:
        """Return whether the connection stands now."""
        return self._connected.is_set() and self._client.is_connected

    @property
    def is_closed(self) -> bool:
        """Return whether `close` was called; consumers end then."""
        return self._closed

    @property
    def generation(self) -> int:
        """Return how often the connection was made again; a change means that something may be missed."""
        return self._generation

    @property
    def client(self) -> Client:
        """Return the nats-py client, for what this class does not offer."""
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """Return the nats-py JetStream context, for what this class does not offer."""
        return self._js

    def on_state(self, listener: StateListener) -> None:
        """Call `listener` with True when the connection is back and with False when it is lost."""
        self._listeners.append(listener)

    async def lost(self) -> None:
        """Return when the server has ended the connection in a way after which it is not made again.

        That is no outage, which is survived, but an error that the server holds against this client (its user
        was removed, for one): only a new start helps.
        """
        await self._lost.wait()

    async def wait_connected(self, timeout_s: float) -> None:
        """Return when the connection stands.

        Raises:
            Unavailable: It does not within `timeout_s` seconds (BUS_UNREACHABLE).
        """
        if self._closed:
            raise unreachable()
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise unreachable() from None

    async def ready(self) -> None:
        """Return when every subscription made so far is known to the server: a true barrier.

        nats-py's `flush` writes its PING past pending SUBs, so one flush proves nothing. Two flushes and an
        answered request of our own prove that the server has read everything that was written before.

        Raises:
            Unavailable: Not within the timeout, or not connected now (BUS_UNREACHABLE).
        """
        if not self.is_connected:
            raise unreachable()
        try:
            await self._client.flush(timeout=int(self._timeout_s) or 1)
            await self._client.flush(timeout=int(self._timeout_s) or 1)
            await self._client.request(self._probe, b"", timeout=self._timeout_s)
        except (nats.errors.Error, TimeoutError, OSError) as error:
            raise unreachable() from error

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message on `subject`; replicas with the same `queue` share them.

        The handler is a coroutine function and must not raise: wrap it, or answer errors itself. Call `ready`
        before telling anybody.
        """
        return await self._client.subscribe(subject, queue=queue, cb=handler)

    async def request(self, subject: str, payload: Message, *, timeout_s: float | None = None) -> Msg:
        """Send `payload` and return the answer; tried again while nobody is listening yet.

        Raises:
            Unavailable: Nobody answers within the time (NO_RESPONDER, BUS_TIMEOUT) or no connection.
            LimitExceeded: The payload is above the server's limit (MESSAGE_TOO_LARGE).
        """
        headers = type_headers(payload, current_traceparent())
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (timeout_s or self._timeout_s)
        pause_s = 0.01
        while True:
            left_s = deadline - loop.time()
            await self.wait_connected(max(left_s, 0))
            try:
                return await self._client.request(
                    subject, payload.SerializeToString(), timeout=max(left_s, 0.001), headers=headers
                )
            except nats.errors.NoRespondersError as error:
                if loop.time() + pause_s >= deadline:
                    raise Unavailable(
                        "Nobody answers this request now. Try again in a moment.",
                        reason="NO_RESPONDER",
                        metadata={"subject": subject},
                    ) from error
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, 0.25)
            except nats.errors.Error as error:
                raise bus_error(error, subject) from error

    async def notify(self, subject: str, payload: Message, *, reply: str = "") -> None:
        """Send `payload` to whoever listens now; nothing is stored and nothing is acknowledged."""
        headers = type_headers(payload, current_traceparent())
        try:
            await self._client.publish(subject, payload.SerializeToString(), reply=reply, headers=headers)
        except nats.errors.Error as error:
            raise bus_error(error, subject) from error

    async def _on_error(self, error: Exception) -> None:
        self._log.debug("bus.error", kind=type(error).__name__)
        denied = _PERMISSION.search(str(error).lower())
        if denied is not None:  # never the whole subject: its later parts name people
            self._log.error("bus.permission_denied", bus=self._name, verb=denied[1], subject=denied[2])
        elif not self.is_connected:
            self._note(connect_error(error))

    def _note(self, refusal: Unavailable) -> None:
        """Keep why there is no connection, and log each reason once until there is one.

        A refusal and an answer that is cut off come by turns from the same server, and of several servers one may
        refuse and one be away: what somebody has to mend counts more than that nobody answers.
        """
        if refusal.reason != "BUS_UNREACHABLE" or self._refusal.reason == "BUS_UNREACHABLE":
            self._refusal = refusal
        if self._refusal.reason not in self._told:
            self._told.add(self._refusal.reason)
            self._log.warning(
                "bus.waiting", bus=self._name, reason=self._refusal.reason, detail=self._refusal.message
            )

    def _found(self) -> None:
        self._told.clear()
        self._refusal = connect_error(OSError())
        self._connected.set()

    async def _on_closed(self) -> None:
        await self._on_disconnected()
        if not self._closed and self._probe:
            self._log.error("bus.lost", bus=self._name)
            self._lost.set()

    async def _on_disconnected(self) -> None:
        if self._connected.is_set():
            self._connected.clear()
            self._log.warning("bus.disconnected", bus=self._name)
            self._tell(connected=False)

    async def _on_reconnected(self) -> None:
        self._generation += 1
        self._found()
        self._log.info("bus.reconnected", bus=self._name, generation=self._generation)
        self._tell(connected=True)

    def _tell(self, *, connected: bool) -> None:
        for listener in self._listeners:
            listener(connected)


class _TlsClient(Client):
    """A client that says nothing, least of all its password, to a server that does not speak TLS.

    nats-py upgrades a connection when the server asks for it, whatever the address says: whoever sits in between
    would only have to leave that out.
    """

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:  # noqa: FBT001
        if initial_connection and not info.get("tls_required"):
            raise nats.errors.Error(TLS_EXPECTED)
        await super()._process_info(info, initial_connection)


def _inbox_prefix(user: str | None) -> str:
    """Return where answers to `user` go: below its own name, so that the server can keep other users out of there."""
    return f"_INBOX.{user}" if user and _ONE_TOKEN.fullmatch(user) else "_INBOX"


class _Backoff:
    """Chooses the next server in turn and waits longer each time, with jitter (0.05 to 2 s)."""

    def __init__(self) -> None:
        self._turn = 0

    def __call__(self, servers: list[Any], _info: dict[str, Any]) -> tuple[Any, float]:
        server = servers[self._turn % len(servers)]
        self._turn += 1
        tries = min(int(server.reconnects), 6)
        return server, min(0.05 * 2**tries, 2.0) * (0.5 + jitter_source.random() / 2)  # noqa: S311 - jitter


async def _end(task: asyncio.Task[None]) -> None:
    # nats-py can swallow one cancellation while it tries a server (wait_for in Python 3.11): ask until it ends.
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.1)


async def _answer(message: Msg) -> None:
    if message.reply:
        await message.respond(b"")
