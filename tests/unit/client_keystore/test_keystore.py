"""The key store: encrypted, private, whole or refused, and safe with several writers."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from syftmesh_client import keystore_folder
from syftmesh_client.keystore import KEY_FILE, LOCK_FILE, STORE_FILE, KeyStore
from syftmesh_core.errors import (
    AlreadyExists,
    Conflict,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.phrase import AccountRoot

SEEDS = (b"\x41\x9f" * 16, b"\x42\x9e" * 16, b"\x43\x9d" * 16)
DEVICE = DeviceSecret("alice@x.example", "alice-1", SEEDS, admin=True)
ROOT, BOB, BOB2 = (AccountRoot(bytes([n]) * 32).public_key for n in (1, 2, 3))


def create(folder: Path, **more) -> KeyStore:
    return KeyStore.create(folder, device=DEVICE, own_root=ROOT, **more)


def reason_of(error: type[MeshError], call, *args, **kwargs) -> str:
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return caught.value.reason


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "profile" / "keys"


@pytest.mark.parametrize("passphrase", [None, "correct horse"])
def test_store_round_trips(folder, passphrase):
    store = create(folder, passphrase=passphrase)
    store.pin("bob@x.example", BOB)
    store.note_list_version("bob@x.example", 4)
    store.confirm_phrase()
    store.save()
    again = KeyStore.open(folder, passphrase)
    assert again.device.to_bytes() == DEVICE.to_bytes()
    assert (again.own_root, again.phrase_confirmed) == (ROOT, True)
    assert again.pinned_roots == {"alice@x.example": ROOT, "bob@x.example": BOB}
    assert (again.pinned("bob@x.example"), again.pinned("carol@x.example")) == (BOB, None)
    assert (again.list_version("bob@x.example"), again.list_version("carol@x.example")) == (4, 0)


def test_files_are_private_and_hold_no_seed_in_the_clear(folder):
    old = os.umask(0)
    try:
        create(folder)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {path.name for path in folder.iterdir()} == {STORE_FILE, KEY_FILE, LOCK_FILE}
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for seed in SEEDS:
            assert seed not in path.read_bytes()


def test_passphrase_store_has_no_key_file(folder):
    create(folder, passphrase="p")
    assert not (folder / KEY_FILE).exists()


def test_nothing_secret_is_shown(folder):
    store = create(folder)
    shown = repr(store) + repr(store._content) + repr(store._key)
    for secret in (*SEEDS, (folder / KEY_FILE).read_bytes()):
        assert secret.hex() not in shown
        assert repr(secret) not in shown


def test_each_writing_uses_a_fresh_key_stream(folder):
    store = create(folder)
    before = (folder / STORE_FILE).read_bytes()
    store.save()
    after = (folder / STORE_FILE).read_bytes()
    assert len(before) == len(after)
    assert before[-100:] != after[-100:]


def test_second_create_is_refused(folder):
    create(folder)
    assert reason_of(AlreadyExists, create, folder) == "KEYSTORE_EXISTS"


def test_key_file_left_by_a_crash_does_not_hinder_create(folder):
    create(folder)
    (folder / STORE_FILE).unlink()
    create(folder)
    assert KeyStore.open(folder).own_root == ROOT


def test_missing_store_is_told_apart_from_a_damaged_one(folder):
    assert reason_of(NotFound, KeyStore.open, folder) == "KEYSTORE_MISSING"
    folder.mkdir(parents=True, mode=0o700)
    assert reason_of(NotFound, KeyStore.open, folder) == "KEYSTORE_MISSING"
    create(folder)
    (folder / KEY_FILE).unlink()
    assert reason_of(IntegrityFailure, KeyStore.open, folder) == "KEYSTORE_DAMAGED"


def test_any_changed_or_missing_byte_is_damage(folder):
    create(folder)
    path = folder / STORE_FILE
    data = path.read_bytes()
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises((IntegrityFailure, Unauthenticated)) as caught:
            KeyStore.open(folder)
        assert caught.value.reason in ("KEYSTORE_DAMAGED", "KEYSTORE_LOCKED")
    for size in (0, 1, len(data) - 1):
        path.write_bytes(data[:size])
        assert reason_of(IntegrityFailure, KeyStore.open, folder) == "KEYSTORE_DAMAGED"
    path.write_bytes(data + b"\0")
    assert reason_of(IntegrityFailure, KeyStore.open, folder) == "KEYSTORE_DAMAGED"


@pytest.mark.parametrize("key", [b"", b"\0" * 31, b"\0" * 32])
def test_another_key_file_is_damage(folder, key):
    create(folder)
    (folder / KEY_FILE).write_bytes(key)
    assert reason_of(IntegrityFailure, KeyStore.open, folder) == "KEYSTORE_DAMAGED"


def test_absurdly_long_file_is_damage(folder, monkeypatch):
    create(folder)
    monkeypatch.setattr(keystore_folder, "MAX_FILE_BYTES", 100)
    assert reason_of(IntegrityFailure, KeyStore.open, folder) == "KEYSTORE_DAMAGED"


def test_passphrase_wrong_missing_or_empty_is_told_apart(folder):
    create(folder, passphrase="caf\u00e9")
    assert reason_of(Unauthenticated, KeyStore.open, folder, "cafe") == "KEYSTORE_PASSPHRASE"
    assert reason_of(Unauthenticated, KeyStore.open, folder) == "KEYSTORE_LOCKED"
    assert reason_of(InvalidInput, KeyStore.open, folder, "") == "PASSPHRASE_INVALID"
    KeyStore.open(folder, "cafe\u0301")


def test_empty_passphrase_makes_no_store(folder):
    assert reason_of(InvalidInput, create, folder, passphrase="") == "PASSPHRASE_INVALID"
    assert not (folder / STORE_FILE).exists()


@pytest.mark.parametrize(
    ("name", "mode", "command"),
    [("", 0o750, "chmod 700 "), (STORE_FILE, 0o644, "chmod 600 "), (KEY_FILE, 0o640, "chmod 600 ")],
)
def test_looser_modes_are_refused_with_the_command_that_mends_them(folder, name, mode, command):
    store = create(folder)
    path = folder / name
    mended = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    with pytest.raises(WrongState) as caught:
        KeyStore.open(folder)
    assert caught.value.reason == "KEYSTORE_MODE"
    assert caught.value.hint == f"{command}{path}"
    assert str(folder) not in caught.value.message
    if name != KEY_FILE:
        assert reason_of(WrongState, store.save) == "KEYSTORE_MODE"
    path.chmod(mended)
    KeyStore.open(folder)


def test_create_refuses_a_folder_open_to_others(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert reason_of(WrongState, create, folder) == "KEYSTORE_MODE"
    assert list(folder.iterdir()) == []


def test_links_pipes_and_files_in_the_folders_place_are_refused(folder, tmp_path):
    create(folder)
    data = (folder / STORE_FILE).read_bytes()
    target = tmp_path / "elsewhere"
    target.write_bytes(data)
    target.chmod(0o600)
    (folder / STORE_FILE).unlink()
    (folder / STORE_FILE).symlink_to(target)
    assert reason_of(WrongState, KeyStore.open, folder) == "KEYSTORE_MODE"
    (folder / STORE_FILE).unlink()
    os.mkfifo(folder / STORE_FILE, 0o600)
    assert reason_of(WrongState, KeyStore.open, folder) == "KEYSTORE_MODE"
    link = tmp_path / "link"
    link.symlink_to(folder)
    for place in (target, link):
        assert reason_of(WrongState, KeyStore.open, place) == "KEYSTORE_MODE"
        assert reason_of(WrongState, create, place) == "KEYSTORE_MODE"


def test_changed_root_is_refused_until_a_person_accepts_it(folder):
    store = create(folder)
    store.pin("bob@x.example", BOB)
    store.pin("bob@x.example", BOB)
    store.note_list_version("bob@x.example", 9)
    with pytest.raises(IntegrityFailure) as caught:
        store.pin("bob@x.example", BOB2)
    assert caught.value.reason == "KEY_CHANGED"
    assert caught.value.metadata == {"principal": "bob@x.example"}
    assert reason_of(IntegrityFailure, store.accept_root, "bob@x.example", old=BOB2, new=BOB) == "KEY_CHANGED"
    assert store.pinned("bob@x.example") == BOB
    store.save()
    store.accept_root("bob@x.example", old=BOB, new=BOB2)
    assert store.list_version("bob@x.example") == 0
    store.save()
    again = KeyStore.open(folder)
    assert (again.pinned("bob@x.example"), again.list_version("bob@x.example")) == (BOB2, 0)


def test_own_root_is_pinned_and_never_replaced(folder):
    store = create(folder)
    assert reason_of(IntegrityFailure, store.pin, "alice@x.example", BOB) == "KEY_CHANGED"
    assert (
        reason_of(InvalidInput, store.accept_root, "alice@x.example", old=ROOT, new=BOB) == "ROOT_KEY_INVALID"
    )


@pytest.mark.parametrize(("email", "root"), [("bob", BOB), ("b@x", b""), ("b@x", bytes(32))])
def test_unusable_root_or_address_is_refused(folder, email, root):
    assert reason_of(InvalidInput, create(folder).pin, email, root) == "ROOT_KEY_INVALID"


def test_older_device_list_than_seen_is_refused(folder):
    store = create(folder)
    store.note_list_version("bob@x.example", 3)
    store.note_list_version("bob@x.example", 3)
    assert reason_of(IntegrityFailure, store.note_list_version, "bob@x.example", 2) == "DEVICE_LIST_ROLLBACK"


def test_what_another_process_saved_meanwhile_is_kept(folder):
    create(folder)
    one, two = KeyStore.open(folder), KeyStore.open(folder)
    one.pin("bob@x.example", BOB)
    one.note_list_version("bob@x.example", 5)
    one.confirm_phrase()
    one.save()
    two.pin("carol@x.example", BOB2)
    two.note_list_version("bob@x.example", 2)
    two.save()
    again = KeyStore.open(folder)
    assert again.pinned_roots == {"alice@x.example": ROOT, "bob@x.example": BOB, "carol@x.example": BOB2}
    assert (again.list_version("bob@x.example"), again.phrase_confirmed) == (5, True)


def test_two_writers_with_different_roots_end_in_key_changed_and_lose_nothing_else(folder):
    create(folder)
    one, two = KeyStore.open(folder), KeyStore.open(folder)
    one.pin("bob@x.example", BOB)
    one.save()
    two.pin("bob@x.example", BOB2)
    two.pin("carol@x.example", BOB2)
    assert reason_of(IntegrityFailure, two.save) == "KEY_CHANGED"
    assert (two.pinned("bob@x.example"), two.pinned("carol@x.example")) == (BOB, BOB2)
    two.save()
    assert KeyStore.open(folder).pinned("carol@x.example") == BOB2


def test_accepted_root_is_not_undone_by_a_writer_that_knew_the_old_one(folder):
    store = create(folder)
    store.pin("bob@x.example", BOB)
    store.note_list_version("bob@x.example", 7)
    store.save()
    stale = KeyStore.open(folder)
    store.accept_root("bob@x.example", old=BOB, new=BOB2)
    store.save()
    stale.confirm_phrase()
    stale.save()
    again = KeyStore.open(folder)
    assert (again.pinned("bob@x.example"), again.list_version("bob@x.example")) == (BOB2, 0)
    assert (again.phrase_confirmed, stale.pinned("bob@x.example")) == (True, BOB2)


def test_accept_after_an_unsaved_pin_is_saved(folder):
    store = create(folder)
    store.pin("bob@x.example", BOB)
    store.accept_root("bob@x.example", old=BOB, new=BOB2)
    store.save()
    assert KeyStore.open(folder).pinned("bob@x.example") == BOB2


def test_concurrent_writers_lose_no_pin(folder):
    create(folder)

    def write(number: int) -> None:
        store = KeyStore.open(folder)
        for step in range(5):
            store.pin(f"p{number}-{step}@x.example", BOB)
            store.save()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(KeyStore.open(folder).pinned_roots) == 21
    assert {path.name for path in folder.iterdir()} == {STORE_FILE, KEY_FILE, LOCK_FILE}


def test_store_replaced_by_another_device_is_not_overwritten(folder):
    store = create(folder)
    key = (folder / KEY_FILE).read_bytes()
    (folder / STORE_FILE).unlink()
    other = DeviceSecret("alice@x.example", "alice-2", SEEDS)
    KeyStore.create(folder, device=other, own_root=ROOT, random=lambda n: key[:n])
    assert reason_of(Conflict, store.save) == "KEYSTORE_REPLACED"


def test_failed_writing_leaves_the_old_store_and_no_rest(folder, monkeypatch):
    store = create(folder)
    before = (folder / STORE_FILE).read_bytes()
    store.confirm_phrase()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable) as caught:
        store.save()
    assert caught.value.reason == "KEYSTORE_UNWRITABLE"
    assert "space left on device" not in str(caught.value)
    monkeypatch.undo()
    assert (folder / STORE_FILE).read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {STORE_FILE, KEY_FILE, LOCK_FILE}
    store.save()
    assert KeyStore.open(folder).phrase_confirmed


def test_save_into_a_removed_folder_says_missing(folder):
    store = create(folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert reason_of(NotFound, store.save) == "KEYSTORE_MISSING"
