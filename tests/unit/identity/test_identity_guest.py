"""Guests: only where they are admitted, and not too many from one address."""

from __future__ import annotations

import pytest
from syftmesh_core.errors import LimitExceeded, WrongState
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.guest import GUESTS, Guests
from syftmesh_identity.domain.limit import Limiter


def _guests(world, *, is_enabled: bool = True) -> Guests:
    limiter = Limiter(world.stores.devices.__class__(), Fingerprint(b"k" * 32), world.clock)
    return Guests(world.issuer, limiter, is_enabled=is_enabled)


async def test_a_guest_gets_a_token_and_nothing_that_renews_it(world):
    access = await _guests(world).login("203.0.113.1")
    assert access.token.startswith("guest|guest|")
    assert not world.stores.families.rows
    assert not world.stores.accounts.rows


async def test_a_mesh_without_guests_says_so(world):
    with pytest.raises(WrongState) as caught:
        await _guests(world, is_enabled=False).login("203.0.113.1")
    assert caught.value.reason == "GUESTS_DISABLED"
    assert world.issuer.audiences == []


async def test_guests_are_counted_by_address_within_an_hour(world):
    guests = _guests(world)
    for _ in range(GUESTS.limit):
        await guests.login("203.0.113.1")
    with pytest.raises(LimitExceeded) as caught:
        await guests.login("203.0.113.1")
    assert caught.value.reason == "TOO_MANY_LOGINS"
    assert caught.value.metadata["retry_after_ms"] == "3600000"
    await guests.login("203.0.113.2")
    world.clock.advance(3600)
    await guests.login("203.0.113.1")
