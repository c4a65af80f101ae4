"""Accounts: first keys, more devices, fewer devices, recovery."""

from __future__ import annotations

import hashlib

import pytest
from syftmesh_client.account import add_devices, create_account, recover_devices, remove_devices
from syftmesh_core.errors import InvalidInput
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import verify_chain
from syftmesh_core.identity.phrase import AccountRoot

EMAIL = "alice@x.example"


class FixedClock:
    def now_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_s(self) -> float:
        return 0.0


def counted():
    calls = iter(range(1000))
    return lambda size: hashlib.shake_256(str(next(calls)).encode()).digest(size)


@pytest.fixture
def account():
    return create_account(EMAIL, FixedClock(), counted(), serves=True)


@pytest.fixture
def laptop() -> DeviceSecret:
    return DeviceSecret(EMAIL, "laptop", (bytes([1]) * 32, bytes([2]) * 32, bytes([3]) * 32))


def test_new_account_chains_from_the_root_of_its_phrase(account):
    root = AccountRoot.from_phrase(account.phrase)
    assert root.public_key == account.root_public
    current = verify_chain([account.device_list], pinned_root=account.root_public)
    assert current.devices == (account.device.public(),)
    assert (account.device.admin, account.device.serves, account.device.principal) == (True, True, EMAIL)
    assert account.device.device_id.startswith("018bcfe5-6800-7")


def test_account_shows_neither_phrase_nor_keys(account):
    shown = repr(account)
    assert not any(f"'{word}'" in shown for word in account.phrase)
    assert len(account.phrase) == 24


def test_accounts_of_real_randomness_differ():
    one, two = (create_account(EMAIL, FixedClock()) for _ in range(2))
    assert one.phrase != two.phrase
    assert one.root_public != two.root_public


def test_devices_are_added_and_removed_by_an_admin_device(account, laptop):
    current = verify_chain([account.device_list])
    added = add_devices(current, account.device, [laptop.public()])
    both = verify_chain([account.device_list, added])
    assert [d.device_id for d in both.devices] == [account.device.device_id, "laptop"]
    removed = remove_devices(both, account.device, ["laptop"])
    assert verify_chain([account.device_list, added, removed]).devices == (account.device.public(),)


def test_device_without_the_flag_changes_nothing(account, laptop):
    current = verify_chain([account.device_list])
    both = verify_chain([account.device_list, add_devices(current, account.device, [laptop.public()])])
    for call in (
        lambda: add_devices(both, laptop, [laptop.public()]),
        lambda: remove_devices(both, laptop, [account.device.device_id]),
        lambda: remove_devices(both, account.device, ["unknown"]),
        lambda: remove_devices(both, account.device, ["laptop", account.device.device_id]),
    ):
        with pytest.raises(InvalidInput) as caught:
            call()
        assert caught.value.reason == "DEVICE_LIST_INVALID"


def test_phrase_alone_brings_a_new_device_in(account, laptop):
    current = verify_chain([account.device_list])
    recovered = recover_devices(current, " ".join(account.phrase), [laptop.public()])
    found = verify_chain([account.device_list, recovered], pinned_root=account.root_public)
    assert (found.signer, found.find("laptop")) == (None, laptop.public())


def test_phrase_of_another_account_recovers_nothing(account, laptop):
    current = verify_chain([account.device_list])
    with pytest.raises(InvalidInput) as caught:
        recover_devices(current, "abandon " * 23 + "art", [laptop.public()])
    assert caught.value.reason == "PHRASE_OTHER_ACCOUNT"
