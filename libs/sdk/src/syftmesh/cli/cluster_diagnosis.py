"""The checks of doctor inside a hub's cluster: message bus and object store, asked themselves.

What to ask stands in variables ``SYFTMESH_DOCTOR_*``, which the chart's test pod has; each part without its variable is
left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import httpx
import nats.errors
from syftmesh_core.clock import Clock, system_random, uuid7
from syftmesh_core.errors import InvalidInput, MeshError
from syftmesh_kit.bus import Bus
from syftmesh_kit.durability import assert_sync_always
from syftmesh_kit.object_store import storage_check
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.settings import S3Settings, ServiceSettings, load_settings, settings_config

from syftmesh.cli.diagnosis import Finding, Status
from syftmesh.cli.output import size_text

PREFIX: Final = "SYFTMESH_DOCTOR_"
_LOGS: Final = "kubectl logs -l app.kubernetes.io/component={} --tail=20"
_BUS: Final = _LOGS.format("nats")
_STORE: Final = _LOGS.format("store")
_CHECK_S: Final = 30.0
_CONNECT_S: Final = 10.0
_USED_WARN: Final = 0.8
_USED_FAIL: Final = 0.95


class DoctorSettings(ServiceSettings, S3Settings):
    """Where bus and store are, and as whom to ask them."""

    model_config = settings_config("doctor")

    nats_monitor: str = ""
    """Base URLs of the bus's monitoring ports, separated by commas."""


def cluster_findings(environ: Mapping[str, str], clock: Clock) -> list[Finding]:
    """Look at what the variables name.

    Args:
        environ: Variables of the process.
        clock: Gives the store's check its name.
    """
    given = {
        name.removeprefix(PREFIX).lower(): value for name, value in environ.items() if name.startswith(PREFIX)
    }
    try:
        settings = load_settings(DoctorSettings, **given)
    except InvalidInput as error:
        return [Finding("cluster", Status.FAIL, error.message, error.hint)]
    return asyncio.run(_findings(settings, frozenset(given), clock))


async def _findings(settings: DoctorSettings, named: frozenset[str], clock: Clock) -> list[Finding]:
    checks: list[Callable[[], Awaitable[Finding]]] = []
    for url in filter(None, (part.strip().rstrip("/") for part in settings.nats_monitor.split(","))):
        checks += [lambda url=url: durability_finding(url), lambda url=url: bus_space_finding(url)]  # type: ignore[misc]
    if "nats_url" in named:
        checks.append(lambda: bus_finding(settings))
    if "s3_endpoint" in named:
        checks.append(lambda: store_finding(settings, clock))
    if not checks:
        detail = "Neither bus nor store is named here: this is not the test pod of a hub."
        return [Finding("cluster", Status.FAIL, detail, "helm test RELEASE")]
    return [await check() for check in checks]


async def durability_finding(monitor_url: str) -> Finding:
    """Look whether the bus has on disk what it acknowledges."""
    try:
        await assert_sync_always(monitor_url)
    except MeshError as error:
        return Finding("bus disk", Status.FAIL, error.message, _BUS)
    return Finding("bus disk", Status.OK, "acknowledges only what is on disk")


async def bus_space_finding(monitor_url: str) -> Finding:
    """Look how much of its disk the bus has used."""
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=_CONNECT_S) as client:
            found: Any = (await client.get(f"{monitor_url}/jsz")).raise_for_status().json()
        used, limit = int(found["storage"]), int(found["config"]["max_storage"])
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return Finding("bus space", Status.FAIL, "The bus does not tell how full it is.", _BUS)
    share = used / limit if limit > 0 else 0.0
    detail = f"{size_text(used)} of {size_text(limit)} used" if limit > 0 else f"{size_text(used)} used"
    if share >= _USED_WARN:
        status = Status.FAIL if share >= _USED_FAIL else Status.WARN
        return Finding(
            "bus space", status, detail, "Enlarge the volume of the bus, and its limit in the values."
        )
    return Finding("bus space", Status.OK, detail)


async def bus_finding(settings: DoctorSettings) -> Finding:
    """Look whether the bus takes user, password and certificate, and keeps streams."""
    try:
        tls = None if settings.tls is None else settings.tls.client_context()
        bus = await Bus.connect(
            settings.nats_url,
            name="doctor",
            user=settings.nats_user or None,
            password=settings.nats_password.get_secret_value() or None,
            tls=tls,
            connect_timeout_s=_CONNECT_S,
        )
    except MeshError as error:
        return Finding("bus", Status.FAIL, error.message, _BUS)
    try:
        account = await bus.client.jetstream().account_info()
    except (nats.errors.Error, TimeoutError):
        return Finding("bus", Status.FAIL, "The bus does not answer for its streams.", _BUS)
    finally:
        await bus.close()
    way = "mutual TLS" if tls is not None else "no TLS"
    return Finding("bus", Status.OK, f"takes its user by {way}, keeps {account.streams} streams")


async def store_finding(settings: DoctorSettings, clock: Clock) -> Finding:
    """Look whether the object store keeps the promises that the product is built on."""
    try:
        async with asyncio.timeout(_CHECK_S):
            store = S3ObjectStore(S3Config.of(settings), clock)
            kept = await storage_check(store, f"doctor-{uuid7(clock, system_random)}")
    except MeshError as error:
        return Finding("store", Status.FAIL, error.message, _STORE)
    except TimeoutError:
        return Finding("store", Status.FAIL, "The object store is too slow to be checked.", _STORE)
    return Finding("store", Status.OK, f"keeps its {len(kept)} promises: {', '.join(kept)}")
