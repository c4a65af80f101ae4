"""Own vectors: the bytes of version 1 never change, and a second implementation can check itself."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.identity.device_list import verify_chain
from syftmesh_core.record import SignedRecord, verify_record
from syftmesh_core.sealed import open_sealed, peek
from syftmesh_core.statement import verify_statement

ASSETS = Path(__file__).parents[2] / "assets"


@pytest.fixture(scope="module")
def vectors() -> dict[str, dict]:
    return json.loads((ASSETS / "protocol_vectors.json").read_text())


@pytest.fixture(scope="module")
def author(vectors) -> DevicePublic:
    return DevicePublic.from_bytes(bytes.fromhex(vectors["device"]["alice"]))


def test_same_inputs_still_give_the_same_bytes(vectors):
    spec = importlib.util.spec_from_file_location("maker", ASSETS / "make_protocol_vectors.py")
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    stored = {name: value for name, value in vectors.items() if name != "sealed"}
    assert json.loads(json.dumps(maker.repeatable())) == stored


def test_encoding_is_what_the_page_on_encryption_shows(vectors):
    assert bytes.fromhex(vectors["enc"]["encoded"]).startswith(b"SyftMesh/v1/example\0\0\0\0\x08")


def test_stored_lists_chain_from_the_root(vectors):
    lists = [bytes.fromhex(data) for data in vectors["device_list"]["lists"]]
    found = verify_chain(lists, pinned_root=bytes.fromhex(vectors["root"]["public"]))
    assert found.digest.hex() == vectors["device_list"]["digest"]
    assert [device.device_id for device in found.devices] == ["device-a", "device-c"]


def test_stored_record_and_statement_verify(vectors, author):
    stored = vectors["record"]
    signed = SignedRecord(*(bytes.fromhex(stored[name]) for name in ("record", "content", "signature")))
    record, content = verify_record(signed, author)
    assert (record.path, content.stored_size_bytes) == ("public/h\u00e9llo.txt", 1234)
    data = bytes.fromhex(vectors["statement"]["signed"])
    statement = verify_statement(data, author, kind="rds.approval", now_ms=1_700_000_000_001)
    assert statement.body["recipients"] == ["bob@x.example"]


def test_stored_blob_still_opens(vectors, author):
    stored = vectors["sealed"]
    seeds = tuple(bytes.fromhex(seed) for seed in stored["reader_seeds"])
    blob = bytes.fromhex(stored["blob"])
    opened = open_sealed(
        blob,
        device=DeviceSecret("bob@x.example", "device-b", seeds, serves=True),
        sender=author,
        sender_root=bytes.fromhex(vectors["root"]["public"]),
        expect_kind="rds.submission",
        expect_receiver="bob@x.example",
        now_ms=1_700_000_000_000,
    )
    assert opened.plaintext.hex() == stored["plaintext"]
    assert peek(blob).body_bytes == 64
