"""The canary scanner on what the real stores write, also compressed by the store itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import nats
import pytest
from nats.js.api import StorageType, StoreCompression, StreamConfig
from syftmesh_kit.native import NatsServer, SeaweedServer
from syftmesh_kit.s3 import S3ObjectStore
from syftmesh_kit.testing import FakeObjectStore
from syftmesh_standalone.demo.canary.hub import scan_hub
from syftmesh_standalone.demo.canary.needle import Secret
from syftmesh_standalone.demo.canary.scan import CanaryScan

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

VALUE = "9f86d081884c7d659a2feaa0c55ad015"
SCAN = CanaryScan([Secret("marker", VALUE)])
_BODY = f"{VALUE[:20]} and {VALUE[20:]} make {VALUE}, ".encode() * 200
"""Written as references to its first words by any compression."""


async def test_a_stream_that_the_bus_compresses_is_read(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        client = await nats.connect(address.url, user=address.user, password=address.password)
        stream = client.jetstream()
        # A stream this small has blocks of 32 kB.
        await stream.add_stream(
            StreamConfig(
                "S",
                subjects=["s"],
                storage=StorageType.FILE,
                compression=StoreCompression.S2,
                max_bytes=120_000,
            )
        )
        for _ in range(7):
            await stream.publish("s", _BODY)
        await client.close()
        # Blocks are compressed when the next one begins; a stop leaves the last one as it is.
        await server.stop()
    blocks = [path.read_bytes() for path in tmp_path.rglob("*.blk")]
    compressed = [block for block in blocks if block.startswith(b"cmp")]
    assert compressed, [block[:8] for block in blocks]
    assert all(VALUE.encode() not in block for block in compressed)
    found = await scan_hub(SCAN, tmp_path, FakeObjectStore())
    assert found.damaged == []
    assert any("snappy or s2" in finding.place for finding in found.findings)
    assert found.unpacked_bytes >= len(compressed) * 1000


async def test_an_object_is_found_through_s3_and_in_the_stores_own_files(tmp_path: Path) -> None:
    server = SeaweedServer(tmp_path / "s3")
    async with asyncio.TaskGroup() as tasks:
        store = S3ObjectStore(await server.start(tasks))
        await store.ensure_bucket()
        await store.put("packs/large", _BODY * 40)
        await store.put("packs/small", VALUE.encode())
        found = await scan_hub(SCAN, tmp_path, store)
        await server.stop()
    assert found.places["objects"] == 2
    assert found.unreadable == []
    parts = {finding.place.split("/")[0] for finding in found.findings}
    assert "objects" in parts
    alone = await scan_hub(SCAN, tmp_path, FakeObjectStore())
    assert alone.found > 0
