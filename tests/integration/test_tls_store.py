"""A real S3 server that speaks TLS under an authority of its own, straight and through the gateway."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import Unavailable
from syftmesh_gateway.app import GatewayModule, build
from syftmesh_gateway.settings import GatewaySettings
from syftmesh_kit.interceptor import RpcMetrics, ServerInterceptor
from syftmesh_kit.native import SeaweedServer
from syftmesh_kit.object_store import storage_check
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.testing import background_server
from syftmesh_kit.testing_authority import TestAuthority
from syftmesh_kit.tls import TlsIdentity

pytestmark = pytest.mark.integration


class TlsSeaweedServer(SeaweedServer):
    """SeaweedFS with a second S3 port, over TLS."""

    def __init__(self, state: Path, identity: TlsIdentity, tls_port: int) -> None:
        super().__init__(state)
        self._identity, self._tls_port = identity, tls_port

    def _flags(self, *given: Any) -> list[str]:
        return [
            *super()._flags(*given),
            f"-s3.port.https={self._tls_port}",
            f"-s3.cert.file={self._identity.cert_file}",
            f"-s3.key.file={self._identity.key_file}",
        ]


@dataclass(frozen=True)
class TlsStore:
    config: S3Config
    foreign_ca: Path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsStore]:
    folder = tmp_path_factory.mktemp("s3tls")
    identity = TestAuthority().issue(folder / "tls", "store")
    foreign = TestAuthority("foreign").issue(folder / "foreign", "store")
    (port,) = free_ports(1)
    server = TlsSeaweedServer(folder / "s3", identity, port)
    with background_server(server.start, server.stop) as plain:
        config = replace(plain, endpoint=f"https://localhost:{port}", ca_file=identity.ca_file, timeout_s=5.0)
        asyncio.run(_ready(config))
        yield TlsStore(config, foreign.ca_file)


async def _ready(config: S3Config) -> None:
    found = S3ObjectStore(config)
    async with asyncio.timeout(20):
        while True:
            try:
                await found.ensure_bucket()
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def test_the_store_keeps_its_promises_over_tls(store: TlsStore, unique: str) -> None:
    found = S3ObjectStore(store.config)
    assert await storage_check(found, unique)
    await found.ready()


async def test_a_store_of_an_unknown_authority_is_not_used(store: TlsStore) -> None:
    for ca_file in (store.foreign_ca, None):
        found = S3ObjectStore(replace(store.config, ca_file=ca_file))
        for work in (found.ready(), found.ensure_bucket(), found.put("a/b", b"x"), found.get("a/b")):
            with pytest.raises(Unavailable) as caught:
                await work
            assert caught.value.reason == "OBJECT_STORE_UNTRUSTED"


async def test_a_store_that_does_not_bear_its_name_is_not_used(store: TlsStore) -> None:
    port = store.config.endpoint.rpartition(":")[2]
    found = S3ObjectStore(replace(store.config, endpoint=f"https://localhost.localdomain:{port}"))
    with pytest.raises(Unavailable):
        await found.ready()


async def test_a_store_that_is_away_is_not_called_untrusted(store: TlsStore) -> None:
    (port,) = free_ports(1)
    found = S3ObjectStore(replace(store.config, endpoint=f"https://localhost:{port}", timeout_s=1.0))
    for work in (found.ready(), found.ensure_bucket()):
        with pytest.raises(Unavailable) as caught:
            await work
        assert caught.value.reason == "OBJECT_STORE_AWAY"


@asynccontextmanager
async def gateway(**settings: Any) -> AsyncIterator[GatewayModule]:
    values = {"http_port": 0, "drain_s": 1.0, "advertised_grpc": "self", "allowed_hosts": {"hub.example"}}
    module = await build(GatewaySettings(**{**values, **settings}), clock=SystemClock())
    interceptor = ServerInterceptor(verifier=None, metrics=RpcMetrics(CollectorRegistry()))
    async with ServiceHost([module], interceptor=interceptor, check_interval_s=0.2).running():
        yield module


async def test_relative_presigned_urls_lead_through_the_gateway_to_it(store: TlsStore, unique: str) -> None:
    """As in the cluster: signed for the store's own name, sent to whatever name the hub is reached by."""
    config = replace(store.config, url_base="/objects", signing_host="hub-store:9000")
    found, data, key = S3ObjectStore(config), b"sealed", f"packs/{unique}"
    put = found.presign_put(key, size_bytes=len(data), sha256=hashlib.sha256(data).digest(), ttl_s=30)
    get = found.presign_get(key, ttl_s=30)
    settings = {
        "s3_endpoint": config.endpoint,
        "s3_ca_file": config.ca_file,
        "s3_signing_host": config.signing_host,
    }
    async with (
        gateway(**settings) as module,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{module.http_port}", trust_env=False) as client,
    ):
        hub = {"host": "hub.example:30443"}
        assert (await client.put(put.url, content=data, headers={**put.headers, **hub})).status_code == 200
        assert (await client.get(get.url, headers=hub)).content == data
        assert (await client.get(f"{get.url}0", headers=hub)).status_code == 403
        parts = (await client.get("/healthz")).json()["parts"]
        assert parts == {"object store": "serving"}


async def test_a_gateway_that_does_not_trust_the_store_says_so(store: TlsStore) -> None:
    get = S3ObjectStore(replace(store.config, url_base="/objects")).presign_get("packs/a", ttl_s=30)
    async with (
        gateway(s3_endpoint=store.config.endpoint, s3_ca_file=store.foreign_ca) as module,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{module.http_port}", trust_env=False) as client,
    ):
        answer = await client.get(get.url)
        assert (answer.status_code, answer.json()["reason"]) == (503, "OBJECT_STORE_UNTRUSTED")
        assert (await client.get("/healthz")).json()["parts"] == {"object store": "not_serving"}
