from __future__ import annotations

import hashlib
import uuid

import pytest
from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_sync.domain.upload import MAX_OBJECT_BYTES, ObjectSpec

SITE = "alice@site.example"
EVE = "eve@evil.example"


def spec(data: bytes) -> ObjectSpec:
    return ObjectSpec(hashlib.sha256(data).digest(), len(data))


def operation() -> str:
    return str(uuid.uuid4())


async def test_a_url_takes_exactly_the_announced_bytes_once(hub):
    (target,) = await hub.upload.run(hub.caller(SITE), operation(), SITE, [spec(b"data")])
    url = target.grant.url
    assert hub.store.do("PUT", url, b"longer data")[0] == 403
    assert hub.store.do("PUT", url, b"evil")[0] == 400
    assert hub.store.do("PUT", url, b"data")[0] == 200
    assert hub.store.do("PUT", url, b"data")[0] == 412
    assert target.grant.expires_at_ms - hub.clock.now_ms() <= 60_000


async def test_what_the_operation_has_put_is_present_also_after_a_restart(hub):
    name, caller = operation(), hub.caller(SITE)
    (first,) = await hub.upload.run(caller, name, SITE, [spec(b"data")])
    hub.store.do("PUT", first.grant.url, b"data")
    await hub.restart()
    (second,) = await hub.upload.run(caller, name, SITE, [spec(b"data")])
    assert second.grant is None


async def test_an_unfinished_upload_gets_fresh_urls(hub):
    name, caller = operation(), hub.caller(SITE)
    (first,) = await hub.upload.run(caller, name, SITE, [spec(b"data")])
    (second,) = await hub.upload.run(caller, name, SITE, [spec(b"data")])
    assert second.grant.url != first.grant.url
    assert hub.store.do("PUT", second.grant.url, b"data")[0] == 200


async def test_what_a_readable_file_names_is_present_and_nothing_else_is(hub):
    await hub.write(f"{SITE}/a", b"data")
    await hub.write(f"{SITE}/drop/syft.pub.yaml", b"rules: [{pattern: '**', access: {write: [USER]}}]\n")
    (mine,) = await hub.upload.run(hub.caller(SITE), operation(), SITE, [spec(b"data")])
    (theirs,) = await hub.upload.run(hub.caller(EVE), operation(), SITE, [spec(b"data")])
    assert mine.grant is None
    assert theirs.grant is not None


async def test_windows_of_one_operation_add_up(hub):
    name, caller = operation(), hub.caller(SITE)
    for part in range(3):
        await hub.upload.run(caller, name, SITE, [spec(f"{part}-{i}".encode()) for i in range(64)])
    assert len((await hub.ledger.find(name)).objects) == 192


async def test_an_operation_holds_a_thousand_objects_at_most(hub):
    name, caller = operation(), hub.caller(SITE)
    windows = [[spec(f"{part}-{i}".encode()) for i in range(64)] for part in range(16)]
    for window in windows[:15]:
        await hub.upload.run(caller, name, SITE, window)
    with pytest.raises(LimitExceeded) as error:
        await hub.upload.run(caller, name, SITE, windows[15])
    assert error.value.reason == "TOO_MANY_OBJECTS"


@pytest.mark.parametrize(
    ("objects", "error", "reason"),
    [
        ([ObjectSpec(bytes(31), 1)], InvalidInput, "OBJECT_INVALID"),
        ([ObjectSpec(bytes(32), MAX_OBJECT_BYTES + 1)], LimitExceeded, "FILE_TOO_LARGE"),
        ([ObjectSpec(bytes(32), 1)] * 65, LimitExceeded, "TOO_MANY_OBJECTS"),
        ([ObjectSpec(bytes(32), 1)] * 2, InvalidInput, "OBJECT_INVALID"),
    ],
)
async def test_malformed_objects_are_refused(hub, objects, error, reason):
    with pytest.raises(error) as refused:
        await hub.upload.run(hub.caller(SITE), operation(), SITE, objects)
    assert refused.value.reason == reason


@pytest.mark.parametrize("name", ["", "x", "../../etc", str(uuid.UUID(int=1)) + "\n", uuid.UUID(int=1).hex])
async def test_an_operation_id_is_a_uuid(hub, name):
    with pytest.raises(InvalidInput) as refused:
        await hub.upload.run(hub.caller(SITE), name, SITE, [])
    assert refused.value.reason == "OPERATION_INVALID"


async def test_who_could_write_nothing_stores_nothing(hub):
    with pytest.raises(PermissionDenied):
        await hub.upload.run(hub.caller(EVE), operation(), SITE, [spec(b"junk")])


async def test_an_operation_of_another_caller_or_datasite_is_foreign(hub):
    name = operation()
    await hub.upload.run(hub.caller(SITE), name, SITE, [spec(b"data")])
    with pytest.raises(PermissionDenied):
        await hub.upload.run(hub.caller(EVE), name, EVE, [spec(b"data")])


async def test_a_known_object_with_another_size_is_refused(hub):
    await hub.write(f"{SITE}/a", b"data")
    with pytest.raises(InvalidInput):
        await hub.upload.run(
            hub.caller(SITE), operation(), SITE, [ObjectSpec(hashlib.sha256(b"data").digest(), 5)]
        )
