"""Real servers for integration tests: one nats-server and one S3 server per test process, on free ports."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from syftmesh_kit.bus import Bus
from syftmesh_kit.native import NatsAddress, NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.testing import background_server


@pytest.fixture(scope="session")
def nats_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsAddress]:
    """A nats-server that syncs every write; shared by the process: use streams and subjects of your own."""
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    with background_server(server.start, server.stop) as address:
        yield address


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Config]:
    """A SeaweedFS with the bucket ``syftmesh``; shared by the process: use prefixes of your own."""
    server = SeaweedServer(tmp_path_factory.mktemp("s3"))
    with background_server(server.start, server.stop) as config:
        asyncio.run(S3ObjectStore(config).ensure_bucket())
        yield config


@pytest.fixture
async def bus(nats_url: NatsAddress) -> AsyncIterator[Bus]:
    """A connection to the shared nats-server."""
    found = await Bus.connect(nats_url.url, name="test", user=nats_url.user, password=nats_url.password)
    yield found
    await found.close()


@pytest.fixture
def unique() -> str:
    """A name that no other test has used."""
    return f"t{uuid.uuid4().hex[:12]}"
