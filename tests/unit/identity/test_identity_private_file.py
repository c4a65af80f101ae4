"""Files with secrets: signing key and local token."""

from __future__ import annotations

import os
import stat

import pytest
from syftmesh_core.errors import IntegrityFailure, WrongState
from syftmesh_identity.adapters import codec
from syftmesh_identity.adapters.local_token import LocalTokenFile
from syftmesh_identity.adapters.signing_key import load_or_create


def test_signing_key_is_made_once_private_and_loaded_again(tmp_path):
    path = tmp_path / "state" / "signing.pem"
    first = load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = load_or_create(path)
    assert (first.kid, first.key.private_bytes_raw()) == (again.kid, again.key.private_bytes_raw())
    assert [p.name for p in path.parent.iterdir()] == ["signing.pem"]


def test_signing_key_open_to_others_is_refused(tmp_path):
    path = tmp_path / "signing.pem"
    load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(WrongState) as caught:
        load_or_create(path)
    assert caught.value.reason == "FILE_NOT_PRIVATE"
    assert str(tmp_path) not in caught.value.message


def test_a_given_signing_key_is_only_read(tmp_path, monkeypatch):
    path = tmp_path / "signing.pem"
    first = load_or_create(path)
    monkeypatch.setattr("syftmesh_identity.adapters.signing_key.write_private", pytest.fail)
    assert load_or_create(path).kid == first.kid


def test_signing_key_behind_a_link_is_refused(tmp_path):
    load_or_create(tmp_path / "real.pem")
    (tmp_path / "link.pem").symlink_to(tmp_path / "real.pem")
    with pytest.raises(WrongState):
        load_or_create(tmp_path / "link.pem")


@pytest.mark.parametrize(
    "content", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_damaged_signing_key_is_never_replaced_in_silence(tmp_path, content):
    path = tmp_path / "signing.pem"
    path.touch(mode=0o600)
    path.write_bytes(content)
    with pytest.raises(IntegrityFailure) as caught:
        load_or_create(path)
    assert caught.value.reason == "SIGNING_KEY_DAMAGED"
    assert path.read_bytes() == content


async def test_local_token_is_made_when_missing_and_kept(tmp_path):
    path = tmp_path / "local.token"
    source = LocalTokenFile(path)
    assert await source.read() is None
    source.create(os.urandom)
    token = await source.read()
    source.create(os.urandom)
    assert await source.read() == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_local_token_is_read_anew_and_a_short_one_is_no_secret(tmp_path):
    path = tmp_path / "local.token"
    source = LocalTokenFile(path)
    source.create(os.urandom)
    path.write_text("a" * 40)
    assert await source.read() == "a" * 40
    path.write_text("")
    assert await source.read() is None


async def test_local_token_open_to_others_is_refused(tmp_path):
    path = tmp_path / "local.token"
    source = LocalTokenFile(path)
    source.create(os.urandom)
    path.chmod(0o644)
    with pytest.raises(WrongState):
        await source.read()


async def test_without_a_path_there_is_no_local_login():
    source = LocalTokenFile(None)
    source.create(os.urandom)
    assert await source.read() is None


async def test_records_survive_their_encoding(world):
    await world.login(label="agent")
    await world.join_tokens.create("alice@x.example", "alice@x.example", "runner", 0)
    for name, records in (
        ("devices", codec.DEVICES),
        ("accounts", codec.ACCOUNTS),
        ("families", codec.FAMILIES),
        ("join_tokens", codec.JOIN_TOKENS),
        ("sites", codec.SITES),
    ):
        (row,) = getattr(world.stores, name).rows.values()
        assert records.decode(records.encode(row.record)) == row.record


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"device_id": "x"}', b"\xff"])
def test_a_damaged_record_is_an_integrity_failure(data):
    with pytest.raises(IntegrityFailure) as caught:
        codec.DEVICES.decode(data)
    assert caught.value.reason == "RECORD_DAMAGED"
