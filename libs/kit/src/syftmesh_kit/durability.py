"""Proof that a live nats-server syncs every write before it acknowledges."""

from __future__ import annotations

from typing import Any

import httpx
from syftmesh_core.errors import IntegrityFailure, Unavailable


async def assert_sync_always(monitor_url: str) -> None:
    """Ask the server itself, at its monitoring port, whether it runs with ``sync_interval: always``.

    ``/varz`` (``jetstream.config``) and ``/jsz`` (``config``) say ``"sync_always": true``; the key is absent
    otherwise, and ``sync_interval`` shows 2 min in both cases.

    Raises:
        IntegrityFailure: It does not: a power failure would lose what was acknowledged (STORE_NOT_DURABLE).
        Unavailable: The monitoring port does not answer (BUS_UNREACHABLE).
    """
    varz = await monitor_document(f"{monitor_url}/varz")
    jsz = await monitor_document(f"{monitor_url}/jsz")
    in_varz = varz.get("jetstream", {}).get("config", {}).get("sync_always")
    in_jsz = jsz.get("config", {}).get("sync_always")
    if in_varz is not True or in_jsz is not True:
        raise IntegrityFailure(
            "nats-server acknowledges messages before they are on disk. Set `sync_interval: always`.",
            reason="STORE_NOT_DURABLE",
        )


async def monitor_document(url: str) -> dict[str, Any]:
    """Return a document of nats-server's monitoring port, e.g. ``<monitor>/varz``.

    Raises:
        Unavailable: The port does not answer with one (BUS_UNREACHABLE).
    """
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
            answer: dict[str, Any] = (await client.get(url)).raise_for_status().json()
            return answer
    except (httpx.HTTPError, ValueError) as error:
        raise Unavailable(
            "The monitoring port of nats-server does not answer.", reason="BUS_UNREACHABLE"
        ) from error
