"""Fakes of identity's ports and use cases built on them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from syftmesh_core.clock import uuid7
from syftmesh_identity.domain.enrolment import Enrolment
from syftmesh_identity.domain.join import JoinTokens
from syftmesh_identity.domain.login import LocalLogin
from syftmesh_identity.domain.model import IssuedAccess, Stored
from syftmesh_identity.domain.person import Administrators, People
from syftmesh_identity.domain.refresh import Sessions

LOCAL_TOKEN = "l" * 43
ADMIN = "admin@hub.example"
REFRESH_TTL_S = 3600
SERVICES = frozenset({"identity", "sync", "superlink"})


@dataclass
class FakeClock:
    at_ms: int = 1_800_000_000_000

    def now_ms(self) -> int:
        return self.at_ms

    def monotonic_s(self) -> float:
        return self.at_ms / 1000

    def advance(self, seconds: float) -> None:
        self.at_ms += int(seconds * 1000)


class FakeRandom:
    """Random bytes that are different at each call and the same in each run."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, size: int) -> bytes:
        self.calls += 1
        return self.calls.to_bytes(4, "big").rjust(size, b"\x5a")


class FakeRecords:
    """A compare-and-set store; `before_write` lets a test race in between."""

    def __init__(self) -> None:
        self.rows: dict[str, Stored] = {}
        self.before_write: Callable[[], None] | None = None
        self._revision = 0

    async def get(self, key):
        await asyncio.sleep(0)
        return self.rows.get(key)

    async def create(self, key, record):
        await self._race()
        if key in self.rows:
            return False
        self._put(key, record)
        return True

    async def replace(self, key, record, revision):
        await self._race()
        if key not in self.rows or self.rows[key].revision != revision:
            return False
        self._put(key, record)
        return True

    async def list(self, prefix=""):
        return [row.record for key, row in self.rows.items() if not prefix or key.startswith(f"{prefix}/")]

    def _put(self, key, record):
        self._revision += 1
        self.rows[key] = Stored(record, self._revision)

    async def _race(self):
        await asyncio.sleep(0)
        hook, self.before_write = self.before_write, None
        if hook is not None:
            hook()


@dataclass
class FakeStores:
    devices: FakeRecords = field(default_factory=FakeRecords)
    accounts: FakeRecords = field(default_factory=FakeRecords)
    families: FakeRecords = field(default_factory=FakeRecords)
    join_tokens: FakeRecords = field(default_factory=FakeRecords)
    sites: FakeRecords = field(default_factory=FakeRecords)


@dataclass
class FakeRevocations:
    tokens: list[str] = field(default_factory=list)
    devices: list[str] = field(default_factory=list)
    principals: list[str] = field(default_factory=list)

    async def revoke_token(self, token_id: str, expires_ms: int) -> None:
        self.tokens.append(token_id)

    async def revoke_device(self, device_id: str) -> None:
        self.devices.append(device_id)

    async def revoke_principal(self, principal: str) -> None:
        self.principals.append(principal)


@dataclass
class FakeIssuer:
    clock: FakeClock
    random: FakeRandom
    audiences: list[tuple[str, ...]] = field(default_factory=list)

    def issue(self, principal: str, device_id: str, audiences: Sequence[str] = ()) -> IssuedAccess:
        self.audiences.append(tuple(audiences))
        token_id = uuid7(self.clock, self.random)
        return IssuedAccess(f"{principal}|{device_id}|{token_id}", token_id, self.clock.now_ms() + 900_000)

    def issue_guest(self) -> IssuedAccess:
        return self.issue("guest", "guest", ("sync",))


@dataclass
class FakeSecret:
    token: str | None = LOCAL_TOKEN

    async def read(self) -> str | None:
        return self.token


class World:
    """All use cases on fakes."""

    def __init__(self) -> None:
        self.clock, self.random = FakeClock(), FakeRandom()
        self.stores, self.revocations, self.secret = FakeStores(), FakeRevocations(), FakeSecret()
        self.enrolment = Enrolment(self.stores, self.revocations, self.clock)
        self.issuer = FakeIssuer(self.clock, self.random)
        self.sessions = Sessions(
            self.stores,
            self.enrolment,
            self.revocations,
            self.issuer,
            self.clock,
            self.random,
            REFRESH_TTL_S,
            SERVICES,
        )
        self.local_login = LocalLogin(self.secret, self.enrolment, self.sessions)
        self.administrators = Administrators(frozenset({ADMIN}))
        self.join_tokens = JoinTokens(
            self.stores, self.enrolment, self.sessions, self.administrators, self.clock, self.random
        )
        self.people = People(self.stores, self.enrolment, self.revocations, self.clock)

    async def login(self, principal="alice@x.example", device_id="dev-1", label="profile"):
        return await self.local_login.login(LOCAL_TOKEN, principal, device_id, label)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture(scope="session")
def world_of() -> type[World]:
    """What makes a fresh world for each example of a property."""
    return World
