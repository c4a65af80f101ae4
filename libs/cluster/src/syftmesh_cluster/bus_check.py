"""Proves that the message bus is as the product needs it: TLS, our user, JetStream, on disk before acknowledged.

``python -m syftmesh_cluster.bus_check`` with ``SYFTMESH_NATS_URL``, ``_NATS_USER``, ``_NATS_PASSWORD``, the three
``_TLS_*_FILE`` and ``_NATS_MONITOR_URL``; prints one line per check, and ends with 1 when one failed.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import nats.errors
from nats.js.errors import APIError
from syftmesh_core.clock import Clock, SystemClock
from syftmesh_core.errors import IntegrityFailure, MeshError, Unavailable
from syftmesh_kit.bus import Bus
from syftmesh_kit.durability import assert_sync_always, monitor_document
from syftmesh_kit.settings import load_settings

from syftmesh_cluster.program import log_quietly, run_program, say
from syftmesh_cluster.settings import BusCheckSettings

_PAUSE_S: Final = 1.0

Check = Callable[[], Awaitable[str]]
"""Returns what was seen; raises a MeshError that says what does not hold."""


class BusCheck:
    """The checks of one bus.

    Args:
        settings: Where it is, and as whom we come.
        clock: For waiting.
    """

    def __init__(self, settings: BusCheckSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """Check everything and print one line per check.

        Raises:
            IntegrityFailure: Checks failed (BUS_NOT_CONFORMANT, metadata ``checks``).
        """
        urls = sorted(self._settings.nats_monitor_url)
        named = [(f"durable {url}", self._durable(url)) for url in urls]
        named += [("encrypted", self._encrypted), ("login", self._login)]
        if urls and self._settings.nats_replicas > 1:
            named.append(("servers", self._servers(urls[0])))
        deadline_s = self._clock.monotonic_s() + self._settings.wait_s
        failed = [name for name, check in named if not await self._holds(name, check, deadline_s)]
        if not urls:
            say("note  durable: not asked, no monitoring port is named (SYFTMESH_NATS_MONITOR_URL)")
        if failed:
            names = ", ".join(failed)
            raise IntegrityFailure(
                f"The message bus is not as SyftMesh needs it: {names}.",
                reason="BUS_NOT_CONFORMANT",
                metadata={"checks": names},
                hint="Correct what the lines above name, in the bus's configuration or in the values.",
            )
        say("The message bus conforms.")

    async def _holds(self, name: str, check: Check, deadline_s: float) -> bool:
        while True:
            try:
                seen = await check()
            except Unavailable as error:
                if self._clock.monotonic_s() + _PAUSE_S < deadline_s:
                    await asyncio.sleep(_PAUSE_S)
                    continue
                say(f"fail  {name}: {error.reason}: {error.message}")
                return False
            except MeshError as error:
                say(f"fail  {name}: {error.reason}: {error.message}")
                return False
            say(f"ok    {name}: {seen}")
            return True

    def _durable(self, url: str) -> Check:
        async def check() -> str:
            await assert_sync_always(url)
            return "every write is on disk before it is acknowledged"

        return check

    async def _encrypted(self) -> str:
        settings = self._settings
        if not all(url.startswith("tls://") for url in settings.nats_url.split(",")):
            raise IntegrityFailure("The address does not begin with tls://.", reason="BUS_NOT_ENCRYPTED")
        if settings.tls is None:
            raise IntegrityFailure(
                "SYFTMESH_TLS_CERT_FILE, _KEY_FILE and _CA_FILE are not set.", reason="BUS_NOT_ENCRYPTED"
            )
        return "mutual TLS"

    async def _login(self) -> str:
        settings = self._settings
        bus = await Bus.connect(
            settings.nats_url,
            name="bus-check",
            user=settings.nats_user or None,
            password=settings.nats_password.get_secret_value() or None,
            tls=settings.tls.client_context() if settings.tls is not None else None,
            connect_timeout_s=5.0,
        )
        try:
            info: Any = await bus.jetstream.account_info()
        except (nats.errors.Error, APIError, TimeoutError) as error:
            raise Unavailable(
                "JetStream does not answer this user: it is switched off, has no leader, or the user lacks the "
                "right to $JS.API.INFO.",
                reason="JETSTREAM_AWAY",
            ) from error
        finally:
            with suppress(nats.errors.Error):
                await bus.close()
        return f"as {settings.nats_user or 'nobody'}, JetStream holds {info.streams} streams"

    def _servers(self, url: str) -> Check:
        async def check() -> str:
            wanted = self._settings.nats_replicas
            cluster = (await monitor_document(f"{url}/jsz")).get("meta_cluster") or {}
            others = cluster.get("replicas") or []
            # Whether another server is current only the leader knows; who is gone all see.
            present = 1 + sum(not peer.get("offline") for peer in others)
            if not cluster.get("leader") or present < wanted:
                raise Unavailable(
                    f"{present if cluster else 1} of {wanted} servers take part, or they have no leader.",
                    reason="BUS_INCOMPLETE",
                )
            return f"{present} take part, {cluster['leader']} leads"

        return check


def main() -> int:
    """Run the program and return its exit code."""

    async def run() -> None:
        await BusCheck(load_settings(BusCheckSettings), SystemClock()).run()

    return run_program(run)


if __name__ == "__main__":
    log_quietly()
    sys.exit(main())
