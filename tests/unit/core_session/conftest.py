"""Two devices with fixed keys and a key store in memory that commits whole results or nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.session import peer
from syftmesh_core.session.pqxdh import Link, Own
from syftmesh_core.session.prekey import PrekeyBundle
from syftmesh_core.session.prekey_secret import (
    PrekeyKind,
    PrekeySecret,
    kem_prekey,
    one_time_prekey,
    weekly_prekeys,
)

ASSETS = Path(__file__).parents[2] / "assets"
NOW_MS = 1_700_000_000_000
ENVELOPE = b"envelope header"


class Drbg:
    """Repeatable bytes in place of randomness."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._name}/{self._count}".encode()).digest(size)


class FakeStore:
    """`SessionReader` over dictionaries."""

    def __init__(self) -> None:
        self.prekeys: dict[int, PrekeySecret] = {}
        self.skipped: dict[object, bytes] = {}
        self.remembered: set[tuple[int, bytes]] = set()

    def skipped_key(self, skipped_id):
        return self.skipped.get(skipped_id)

    def signed_prekey(self, key_id):
        return self._of(key_id, PrekeyKind.SIGNED)

    def one_time_prekey(self, key_id):
        return self._of(key_id, PrekeyKind.ONE_TIME)

    def kem_prekey(self, key_id):
        return self._of(key_id, PrekeyKind.KEM_LAST_RESORT, PrekeyKind.KEM_ONE_TIME)

    def is_remembered(self, kem_id, session_id):
        return (kem_id, session_id) in self.remembered

    def _of(self, key_id, *kinds):
        found = self.prekeys.get(key_id)
        return found if found is not None and found.kind in kinds else None


class Endpoint:
    """One device, its store, and its sessions with the other one."""

    def __init__(self, name: str) -> None:
        self.random = Drbg(name)
        secret = DeviceSecret.generate(f"{name}@x.example", f"{name}-1", random=self.random)
        self.own = Own.of(self.random(32), secret)
        self.store = FakeStore()
        self.sessions = peer.PeerSessions()
        self.other: Endpoint
        self.now_ms = NOW_MS
        self.signed = self.new_prekey(PrekeyKind.SIGNED)
        self.last_resort = self.new_prekey(PrekeyKind.KEM_LAST_RESORT)

    @property
    def link(self) -> Link:
        return Link(self.own, self.other.own.party)

    def new_prekey(self, kind: PrekeyKind) -> PrekeySecret:
        made = PrekeySecret.generate(kind, now_ms=self.now_ms, random=self.random)
        self.store.prekeys[made.key_id] = made
        return made

    def bundle(self, *, one_time: bool = True, kem: bool = True) -> bytes:
        secret, public = self.own.secret, self.own.party.device
        kem_key = None
        if kem:
            kem_key = kem_prekey(secret, self.new_prekey(PrekeyKind.KEM_ONE_TIME), public=public)
        return PrekeyBundle(
            device=public,
            weekly=weekly_prekeys(secret, self.signed, self.last_resort, public=public),
            one_time=one_time_prekey(self.new_prekey(PrekeyKind.ONE_TIME)) if one_time else None,
            one_time_kem=kem_key,
        ).to_bytes()

    def start(self, plaintext: bytes, *, reset: bool = False, one_time: bool = True, kem: bool = True):
        data = self.other.bundle(one_time=one_time, kem=kem)
        bundle = PrekeyBundle.from_bytes(data, self.link.peer.device, now_ms=self.now_ms)
        sent = peer.start(
            self.sessions,
            self.link,
            bundle,
            plaintext,
            envelope=ENVELOPE,
            now_ms=self.now_ms,
            reset=reset,
            random=self.random,
        )
        return self.commit_sent(sent)

    def commit_sent(self, sent: peer.SentTo) -> bytes:
        self.sessions = sent.sessions
        self._drop(sent.dropped)
        return sent.message

    def send(self, plaintext: bytes) -> bytes:
        return self.commit_sent(self.try_send(plaintext))

    def try_send(self, plaintext: bytes) -> peer.SentTo:
        return peer.send(self.sessions, plaintext, envelope=ENVELOPE, random=self.random)

    def try_receive(self, data: bytes, envelope: bytes = ENVELOPE) -> peer.ReceivedFrom:
        return peer.receive(
            self.sessions,
            self.link,
            data,
            self.store,
            envelope=envelope,
            now_ms=self.now_ms,
            random=self.random,
        )

    def receive(self, data: bytes) -> bytes:
        found = self.try_receive(data)
        received, store = found.received, self.store
        self.sessions = found.sessions
        store.skipped.update({one.id: one.key for one in received.skipped})
        if received.used_skipped is not None:
            del store.skipped[received.used_skipped]
        for used in (received.used_one_time, received.used_kem):
            if used is not None:
                del store.prekeys[used]
        if received.remember is not None:
            store.remembered.add((received.remember, received.state.session_id))
        self._drop(found.dropped)
        return received.plaintext

    def restart(self) -> None:
        """Lose all that is not stored."""
        self.sessions = peer.PeerSessions.from_bytes(self.sessions.to_bytes())
        prekeys = self.store.prekeys
        self.store.prekeys = {
            key_id: PrekeySecret.from_bytes(key.to_bytes()) for key_id, key in prekeys.items()
        }

    def _drop(self, dropped) -> None:
        self.store.skipped = {i: k for i, k in self.store.skipped.items() if i.session_id not in dropped}


def make_pair() -> tuple[Endpoint, Endpoint]:
    alice, bob = Endpoint("alice"), Endpoint("bob")
    alice.other, bob.other = bob, alice
    return alice, bob


@pytest.fixture
def pair() -> tuple[Endpoint, Endpoint]:
    return make_pair()


@pytest.fixture
def talking(pair) -> tuple[Endpoint, Endpoint]:
    """Two devices whose session both have used."""
    alice, bob = pair
    assert bob.receive(alice.start(b"hello")) == b"hello"
    assert alice.receive(bob.send(b"hello back")) == b"hello back"
    return pair


@pytest.fixture(scope="session")
def new_pair():
    return make_pair


@pytest.fixture(scope="session")
def vectors() -> dict[str, dict]:
    return json.loads((ASSETS / "session_vectors.json").read_text())
