"""Published vectors first, then our own: the bytes of version 1 never change."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.object.chunk import ChunkCipher, chunk_address
from syftmesh_core.object.grant import open_grant
from syftmesh_core.object.manifest import open_manifest
from syftmesh_core.object.reader_secret import ReaderSetId, unwrap_key, wrap_key
from syftmesh_core.object.reader_set import verify_reader_set

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="module")
def published() -> dict[str, dict]:
    return json.loads((ASSETS / "object_published.json").read_text())


@pytest.fixture(scope="module")
def vectors() -> dict[str, dict]:
    return json.loads((ASSETS / "object_vectors.json").read_text())


def test_key_wrap_is_that_of_rfc_3394(published):
    kek, key, wrapped = (bytes.fromhex(published["aes_kw"][name]) for name in ("kek", "key", "wrapped"))
    assert wrap_key(kek, key) == wrapped
    assert unwrap_key(kek, wrapped) == key
    assert unwrap_key(kek, wrapped[:-1] + bytes([wrapped[-1] ^ 1])) is None


def test_address_is_blake3(published):
    assert chunk_address(b"").hex() == published["blake3"]["digest"]


def test_same_inputs_still_give_the_same_bytes(vectors):
    spec = importlib.util.spec_from_file_location("object_maker", ASSETS / "make_object_vectors.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    stored = {name: value for name, value in vectors.items() if name != "received"}
    assert json.loads(json.dumps(maker.repeatable())) == stored


def test_stored_manifest_and_pack_open(vectors):
    stored = vectors["file"]
    key = bytes.fromhex(stored["content_key"])
    manifest = open_manifest(bytes.fromhex(stored["manifest"]), site=stored["site"], content_key=key)
    pack, cipher = bytes.fromhex(stored["pack_start"]), ChunkCipher(stored["site"])
    opened = [
        bytes(cipher.open_into(pack[ref.offset : ref.end], ref.secret, bytearray(64))).hex()
        for ref in manifest.chunks
    ]
    assert opened == stored["chunks"]
    assert {ref.pack_id.hex() for ref in manifest.chunks} == {stored["pack_id"]}
    assert (manifest.mode, manifest.mtime_ms, stored["pack_bytes"]) == (0o640, 1_700_000_000_000, 16384)


def test_stored_grant_opens_and_unwraps_both_kinds_of_key(vectors):
    readers, received = vectors["readers"], vectors["received"]
    granter = DevicePublic.from_bytes(bytes.fromhex(readers["granter"]))
    set_id = ReaderSetId("alice@x.example", 3, bytes.fromhex(readers["digest"]))
    found = verify_reader_set(bytes.fromhex(readers["set"]), expect=set_id, granters=lambda *_: granter)
    seeds = tuple(bytes.fromhex(seed) for seed in received["device_seeds"])
    secret = open_grant(
        bytes.fromhex(received["grant"]),
        reader_set=found,
        device=DeviceSecret("bob@x.example", "device-b", seeds),
        granters=lambda *_: granter,
    )
    for wrapped in (readers["wrapped"], received["created_key"]):
        assert secret.unwrap(bytes.fromhex(wrapped)).hex() == readers["content_key"]
