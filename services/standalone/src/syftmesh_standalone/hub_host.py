"""All services of the hub in this process: one bus connection, one gRPC port, one registry of metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock
from syftmesh_core.ending import EndingGroup
from syftmesh_crypto.app import build as build_crypto
from syftmesh_crypto.settings import CryptoSettings
from syftmesh_gateway.app import build as build_gateway
from syftmesh_gateway.settings import GatewaySettings
from syftmesh_identity.app import build as build_identity
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.bus import Bus
from syftmesh_kit.hub import HubModule
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.journal import JournalMetrics
from syftmesh_kit.keyset import KeySetWatcher, RevocationWatcher
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.settings import load_settings
from syftmesh_kit.token import TokenVerifier
from syftmesh_permissions.app import build as build_permissions
from syftmesh_permissions.settings import PermissionsSettings
from syftmesh_router.app import build as build_router
from syftmesh_router.settings import RouterSettings
from syftmesh_superlink.app import build as build_superlink
from syftmesh_superlink.settings import SuperlinkSettings
from syftmesh_sync.app import build as build_sync
from syftmesh_sync.settings import SyncSettings

from syftmesh_standalone.options import (
    DOMAINS,
    ISSUER,
    LOOPBACK,
    SIGNING_KEY_FILE,
    SUPERLINK_FOLDER,
    HubPlace,
    local_token,
)
from syftmesh_standalone.readiness import hub_ready
from syftmesh_standalone.store import Stores

READY_S: Final = 30.0
DRAIN_S: Final = 1.5
"""The whole mesh stops within five seconds, and sites, hub and stores do so one after the other."""


@asynccontextmanager
async def hub_in_process(
    place: HubPlace, stores: Stores, *, clock: Clock, registry: CollectorRegistry, metrics: RpcMetrics
) -> AsyncIterator[None]:
    """Serve the hub for the block, which begins when every service is ready.

    Args:
        place: Where the hub listens and keeps its files.
        stores: Bus and object store.
        clock: Time.
        registry: What the gateway shows at ``/metrics``.
        metrics: The RPC metrics in it.

    Raises:
        Unavailable: A port is in use (PORT_IN_USE), the bus is away (BUS_UNREACHABLE), or START_TIMEOUT.
        WrongState, IntegrityFailure: A secret file is open to others or damaged.
    """
    address = stores.bus
    bus = await Bus.connect(address.url, name="hub", user=address.user, password=address.password)
    try:
        modules = await _modules(place, stores, bus, clock, registry)
        keys = KeySetWatcher(bus)
        verifier = TokenVerifier(keys, ISSUER, clock)
        keys.on_retired(verifier.forget_key)
        revocations = RevocationWatcher(bus, verifier)
        public = frozenset[str]().union(*(module.public_methods for module in modules))
        interceptor = ServerInterceptor(verifier=verifier, metrics=metrics, public_methods=public)
        host = ServiceHost(modules, interceptor=interceptor, address=place.grpc, drain_s=DRAIN_S)
        bus.on_state(lambda _connected: host.check_now())
        async with EndingGroup() as tasks:
            tasks.create_task(keys.run())
            tasks.create_task(revocations.run())
            async with host.running():
                await hub_ready(host, READY_S)
                await keys.ready()
                yield
            tasks.end()
    finally:
        await bus.close()


async def _modules(
    place: HubPlace, stores: Stores, bus: Bus, clock: Clock, registry: CollectorRegistry
) -> list[HubModule]:
    store = S3ObjectStore(stores.s3, clock=clock)
    journal = JournalMetrics(registry)
    identity = load_settings(
        IdentitySettings,
        issuer=ISSUER,
        signing_key_file=place.folder / SIGNING_KEY_FILE,
        local_token_file=local_token(place.folder),
    )
    flower = f"{LOOPBACK}:{free_ports(1)[0]}"
    superlink = load_settings(
        SuperlinkSettings,
        issuer=ISSUER,
        state_dir=place.folder / SUPERLINK_FOLDER,
        http_listen=flower,
        drain_s=DRAIN_S,
    )
    gateway = load_settings(
        GatewaySettings,
        issuer=ISSUER,
        http_host=LOOPBACK,
        http_port=place.http_port,
        advertised_grpc=place.grpc,
        backends=dict.fromkeys(DOMAINS, place.grpc),
        superlink_http=f"http://{flower}",
        advertised_flower=place.flower,
        s3_endpoint=stores.s3.endpoint,
        drain_s=DRAIN_S,
    )
    return [
        await build_identity(identity, bus=bus, clock=clock),
        await build_crypto(
            load_settings(CryptoSettings), bus=bus, object_store=store, clock=clock, journal_metrics=journal
        ),
        await build_sync(
            load_settings(SyncSettings), bus=bus, object_store=store, clock=clock, journal_metrics=journal
        ),
        await build_permissions(load_settings(PermissionsSettings), bus=bus, object_store=store, clock=clock),
        await build_router(load_settings(RouterSettings), bus=bus, object_store=store, clock=clock),
        await build_gateway(gateway, clock=clock, registry=registry),
        # Drained before the gateway, whose requests it holds.
        await build_superlink(superlink, bus=bus, clock=clock),
    ]
