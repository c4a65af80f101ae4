"""`keys devices` and `keys devices revoke` on a client that is made of dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh.device import Device, DeviceEnd
from syftmesh_core.errors import NotFound

PHONE = Device(
    device_id="phone",
    epoch=1,
    serves=False,
    admin=False,
    signing_key="ab" * 32,
    listed=True,
    revoked=False,
    label="profile",
    created=datetime(2025, 12, 29, tzinfo=UTC),
    own=False,
)


@dataclass
class Keys:
    known: list[Device] = field(default_factory=lambda: [PHONE])
    asked: list[str | None] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def devices(self, email: str | None = None) -> list[Device]:
        self.asked.append(email)
        return self.known

    def revoke_device(self, device_id: str) -> DeviceEnd:
        found = next((device for device in self.known if device.device_id == device_id), None)
        if found is None:
            raise NotFound("You have no such device.", reason="DEVICE_UNKNOWN")
        self.ended.append(device_id)
        known = found.revoked is not None
        return DeviceEnd(device_id, found.listed, known and not found.revoked, known, found.own)


@pytest.fixture
def keys(program: Any) -> Keys:
    made = Keys()
    program.client = SimpleNamespace(keys=made)
    return made


def test_devices_show_both_states(program: Any, keys: Keys) -> None:
    done = program("keys", "devices", "--json")
    (item,) = done.json["items"]
    assert {name: item[name] for name in ("device_id", "label", "created", "listed", "revoked", "own")} == {
        "device_id": "phone",
        "label": "profile",
        "created": "2025-12-29T00:00:00Z",
        "listed": True,
        "revoked": False,
        "own": False,
    }
    assert "phone" in program("keys", "devices", "bob@x.example").out
    assert keys.asked == [None, "bob@x.example"]


def test_ending_a_device_asks_with_its_kind_and_age(program: Any, keys: Keys) -> None:
    done = program("keys", "devices", "revoke", "phone", terminal=True, answer="n\n")
    assert "End for ever the profile phone (first login 3 days ago)? [y/N]" in done.err
    assert (done.code, keys.ended) == (130, [])
    done = program("keys", "devices", "revoke", "phone", terminal=True, answer="y\n")
    assert (done.code, keys.ended) == (0, ["phone"])
    assert "Its login and open calls have ended everywhere." in done.out


def test_without_a_terminal_only_yes_ends_a_device(program: Any, keys: Keys) -> None:
    done = program("keys", "devices", "revoke", "phone")
    assert done.err.startswith("error: CONFIRMATION_NEEDED: ")
    assert keys.ended == []
    done = program("keys", "devices", "revoke", "phone", "--yes", "--json")
    assert done.json == {
        "device_id": "phone",
        "unlisted": True,
        "revoked": True,
        "known": True,
        "own": False,
        "label": "profile",
    }


def test_the_own_device_and_those_of_a_site_are_named_as_such(program: Any, keys: Keys) -> None:
    keys.known = [replace(PHONE, own=True), replace(PHONE, device_id="agent-1", label="agent")]
    done = program("keys", "devices", "revoke", "phone", terminal=True, answer="y\n")
    assert "the very device that asks you" in done.err
    assert "logged out" in done.err
    assert "Logged out here." in done.out
    done = program("keys", "devices", "revoke", "agent-1", terminal=True, answer="y\n")
    assert "Your site does not work without it." in done.err


def test_what_is_over_is_completed_without_a_question_and_said_to_be_so(program: Any, keys: Keys) -> None:
    keys.known = [replace(PHONE, listed=False, revoked=True)]
    done = program("keys", "devices", "revoke", "phone")
    assert (done.code, keys.ended) == (0, ["phone"])
    assert "It was not in your device list." in done.out
    assert "The hub had revoked it before." in done.out


def test_a_device_that_never_logged_in_is_said_to_be_so(program: Any, keys: Keys) -> None:
    keys.known = [replace(PHONE, revoked=None, label=None, created=None)]
    done = program("keys", "devices", "revoke", "phone", terminal=True, answer="y\n")
    assert "the device phone (never logged in)?" in done.err
    assert "The hub never saw it log in." in done.out


def test_unknown_devices_and_wrong_arguments_end_nothing(program: Any, keys: Keys) -> None:
    done = program("keys", "devices", "revoke", "other", "--yes")
    assert (done.code, done.err.split(":")[1]) == (4, " DEVICE_UNKNOWN")
    for arguments in (("revoke",), ("bob@x.example", "phone")):
        done = program("keys", "devices", *arguments, "--yes")
        assert (done.code, done.err.split(":")[1]) == (2, " USAGE")
    assert keys.ended == []
