"""One suite for every object store: the fake and SeaweedFS."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Iterator

import httpx
import pytest
from syftmesh_core.errors import AlreadyExists, IntegrityFailure, InvalidInput, NotFound, Unavailable
from syftmesh_kit.native import SeaweedServer
from syftmesh_kit.object_store import ObjectStore, PresignedRequest, storage_check
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.testing import FakeObjectStore, background_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def s3_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Config]:
    server = SeaweedServer(tmp_path_factory.mktemp("s3"))
    with background_server(server.start, server.stop) as config:
        asyncio.run(S3ObjectStore(config).ensure_bucket())
        yield config


@pytest.fixture(params=["fake", "seaweedfs"])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    if request.param == "fake":
        return FakeObjectStore()
    return S3ObjectStore(request.getfixturevalue("s3_config"))


@pytest.fixture
def prefix() -> str:
    return f"t/{uuid.uuid4().hex}/"


async def send(store: ObjectStore, request: PresignedRequest, body: bytes = b"", **override: str) -> int:
    """Make a pre-signed request as a client does; `override` changes headers, an empty value removes one."""
    if isinstance(store, FakeObjectStore):
        return store.fulfil(request, body)[0]
    headers = {**request.headers, **{name.replace("_", "-"): value for name, value in override.items()}}
    headers = {name: value for name, value in headers.items() if value}
    async with httpx.AsyncClient(trust_env=False) as client:
        return (await client.request(request.method, request.url, headers=headers, content=body)).status_code


async def test_store_passes_its_own_check(store: ObjectStore, prefix: str) -> None:
    kept = await storage_check(store, prefix.split("/")[1])
    assert "create-if-absent" in kept
    assert [info.key async for info in store.list(f"check/{prefix.split('/')[1]}/")] == []


async def test_store_that_overwrites_is_refused() -> None:
    class Overwriting(FakeObjectStore):
        async def put(self, key: str, data: bytes, *, create: bool = True) -> None:
            await super().put(key, data, create=False)

    with pytest.raises(IntegrityFailure) as caught:
        await storage_check(Overwriting(), "x")
    assert (caught.value.reason, caught.value.metadata["promise"]) == ("STORE_UNFIT", "create-if-absent")


async def test_put_creates_once(store: ObjectStore, prefix: str) -> None:
    await store.put(prefix + "a", b"first")
    with pytest.raises(AlreadyExists) as caught:
        await store.put(prefix + "a", b"second")
    assert caught.value.reason == "OBJECT_EXISTS"
    assert await store.get(prefix + "a") == b"first"
    await store.put(prefix + "a", b"third", create=False)
    assert await store.get(prefix + "a") == b"third"


async def test_one_of_four_writers_wins(store: ObjectStore, prefix: str) -> None:
    async def write(number: int) -> bool:
        try:
            await store.put(prefix + "a", f"writer {number}".encode())
        except AlreadyExists:
            return False
        return True

    assert sum(await asyncio.gather(*(write(number) for number in range(4)))) == 1


async def test_ranges(store: ObjectStore, prefix: str) -> None:
    await store.put(prefix + "a", bytes(range(200)))
    assert await store.get(prefix + "a", start=10, end=20) == bytes(range(10, 20))
    assert await store.get(prefix + "a", start=190) == bytes(range(190, 200))
    assert await store.get(prefix + "a", start=190, end=500) == bytes(range(190, 200))
    for start, end in ((5, 5), (-1, None), (200, None), (300, 400)):
        with pytest.raises(InvalidInput) as caught:
            await store.get(prefix + "a", start=start, end=end)
        assert caught.value.reason == "RANGE_INVALID"


async def test_empty_object(store: ObjectStore, prefix: str) -> None:
    await store.put(prefix + "a", b"")
    assert await store.get(prefix + "a") == b""
    found = await store.head(prefix + "a")
    assert found is not None
    assert found.size_bytes == 0


async def test_missing_object(store: ObjectStore, prefix: str) -> None:
    assert await store.head(prefix + "a") is None
    for arguments in ({}, {"start": 3}, {"start": 3, "end": 5}):
        with pytest.raises(NotFound) as caught:
            await store.get(prefix + "a", **arguments)
        assert caught.value.reason == "OBJECT_MISSING"
    await store.delete(prefix + "a")


async def test_list_is_ordered_and_goes_on_after_a_key(store: ObjectStore, prefix: str) -> None:
    keys = [f"{prefix}{name}" for name in ("b/2", "a", "b/1", "c")]
    for key in keys:
        await store.put(key, b"x")
    assert [info.key async for info in store.list(prefix)] == sorted(keys)
    assert [info.key async for info in store.list(prefix, after=prefix + "b/1")] == [
        prefix + "b/2",
        prefix + "c",
    ]
    assert [info.key async for info in store.list(prefix + "b/")] == [prefix + "b/1", prefix + "b/2"]
    assert [info.key async for info in store.list(prefix + "none/")] == []


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "a b", "ä", "a\n", "x" * 513, "a?b"]
)
async def test_bad_keys_are_refused(store: ObjectStore, key: str) -> None:
    for use in (store.put(key, b""), store.get(key), store.head(key), store.delete(key)):
        with pytest.raises(InvalidInput) as caught:
            await use
        assert caught.value.reason == "OBJECT_KEY_INVALID"
    with pytest.raises(InvalidInput):
        store.presign_get(key, ttl_s=5)


async def test_presigned_put_writes_exactly_these_bytes_once(store: ObjectStore, prefix: str) -> None:
    body = b"b" * 1000
    request = store.presign_put(prefix + "a", size_bytes=1000, sha256=hashlib.sha256(body).digest(), ttl_s=30)
    assert await send(store, request, b"c" * 1000) == 400
    assert await send(store, request, body + b"more", content_length="") == 403
    assert await store.head(prefix + "a") is None
    assert await send(store, request, body) == 200
    assert await send(store, request, body) == 412
    assert await store.get(prefix + "a") == body


async def test_presigned_get_reads(store: ObjectStore, prefix: str) -> None:
    await store.put(prefix + "a", b"0123456789")
    assert await send(store, store.presign_get(prefix + "a", ttl_s=30)) == 200


@pytest.mark.parametrize(("ttl_s", "digest"), [(0, bytes(32)), (61, bytes(32)), (30, bytes(31))])
def test_presigning_is_bounded(store: ObjectStore, prefix: str, ttl_s: int, digest: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        store.presign_put(prefix + "a", size_bytes=1, sha256=digest, ttl_s=ttl_s)
    assert caught.value.reason == "PRESIGN_INVALID"


async def test_presigned_put_cannot_drop_or_change_what_it_binds(s3_config: S3Config, prefix: str) -> None:
    store = S3ObjectStore(s3_config)
    body = b"x" * 10
    request = store.presign_put(prefix + "a", size_bytes=10, sha256=hashlib.sha256(body).digest(), ttl_s=30)
    assert await send(store, request, body, if_none_match="") == 403
    assert await send(store, request, body, x_amz_checksum_sha256="") == 403
    other = PresignedRequest("PUT", request.url.replace(f"{prefix}a", f"{prefix}b"), request.headers, 0)
    assert await send(store, other, body) == 403
    assert [info async for info in store.list(prefix)] == []


async def test_presigned_get_answers_ranges_and_expires(s3_config: S3Config, prefix: str) -> None:
    store = S3ObjectStore(s3_config)
    await store.put(prefix + "a", b"0123456789")
    request = store.presign_get(prefix + "a", ttl_s=1)
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(request.url, headers={"range": "bytes=2-4"})
        assert (answer.status_code, answer.content) == (206, b"234")
        async with asyncio.timeout(10):
            while (await client.get(request.url)).status_code != 403:
                await asyncio.sleep(0.3)


async def test_signed_for_a_public_host(s3_config: S3Config, prefix: str) -> None:
    public = S3Config(
        s3_config.endpoint,
        s3_config.access_key,
        s3_config.secret_key,
        signing_host="hub.example",
        url_base="https://hub.example/objects",
    )
    store = S3ObjectStore(public)
    await store.put(prefix + "a", b"x")
    request = store.presign_get(prefix + "a", ttl_s=30)
    assert request.url.startswith(f"https://hub.example/objects/syftmesh/{prefix}a?")
    direct = request.url.replace("https://hub.example/objects", s3_config.endpoint)
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(direct)).status_code == 403
        assert (await client.get(direct, headers={"host": "hub.example"})).status_code == 200


async def test_store_that_is_away_is_typed() -> None:
    store = S3ObjectStore(S3Config("http://127.0.0.1:1", "a", "b", timeout_s=1))
    with pytest.raises(Unavailable) as caught:
        await store.get("a")
    assert caught.value.reason == "OBJECT_STORE_AWAY"
    assert "127.0.0.1" not in caught.value.message


async def test_wrong_credentials_are_unavailable_not_missing(s3_config: S3Config) -> None:
    store = S3ObjectStore(S3Config(s3_config.endpoint, s3_config.access_key, "wrong", timeout_s=2))
    with pytest.raises(Unavailable):
        await store.head("a")
    with pytest.raises(Unavailable):
        await store.ensure_bucket()


def test_secrets_are_not_in_representations(s3_config: S3Config) -> None:
    store = S3ObjectStore(s3_config)
    assert s3_config.secret_key not in repr(s3_config)
    assert "Signature" not in repr(store.presign_get("a", ttl_s=5))
