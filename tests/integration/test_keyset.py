"""Key set and revocations through real key-value buckets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import Unauthenticated, Unavailable
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.keyset import KeySetPublisher, KeySetWatcher, RevocationPublisher, RevocationWatcher
from syftmesh_kit.native import NatsServer
from syftmesh_kit.token import TokenIssuer, TokenVerifier

pytestmark = pytest.mark.integration

CLOCK = SystemClock()


@asynccontextmanager
async def hub(state: Path) -> AsyncIterator[tuple[Bus, asyncio.TaskGroup]]:
    server = NatsServer(state)
    async with asyncio.TaskGroup() as tasks:
        address = await server.start(tasks)
        bus = await Bus.connect(address.url, name="test", user=address.user, password=address.password)
        try:
            yield bus, tasks
        finally:
            await bus.close()
            await server.stop()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await holds():
            await asyncio.sleep(0.02)


def ready(watcher: KeySetWatcher | RevocationWatcher) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        try:
            await watcher.ready()
        except Unavailable:
            return False
        return True

    return check


def reason(verifier: TokenVerifier, token: str) -> str:
    try:
        verifier.verify(token, "sync")
    except Unauthenticated as error:
        return error.reason
    return ""


async def test_keys_are_followed_from_publication_to_retirement(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    async with hub(tmp_path) as (bus, tasks):
        watcher = KeySetWatcher(bus)
        verifier = TokenVerifier(watcher, "embedded", CLOCK)
        watcher.on_retired(verifier.forget_key)
        following = tasks.create_task(watcher.run())
        with pytest.raises(Unavailable) as caught:
            await watcher.ready()
        assert caught.value.reason == "KEY_SET_PENDING"
        publisher = KeySetPublisher(await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_KEYS)))
        await publisher.publish("key/1", key.public_key())
        await eventually(ready(watcher))
        token, _ = TokenIssuer(key, "key/1", "embedded", CLOCK).issue("alice@x.org", "d1")
        assert verifier.verify(token, "sync").principal == "alice@x.org"
        await publisher.retire("key/1")

        async def refused() -> bool:
            return not await ready(watcher)()

        await eventually(refused)
        assert reason(verifier, token) == "TOKEN_INVALID"
        following.cancel()


async def test_revocations_reach_verifiers_that_start_before_and_after(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    issuer = TokenIssuer(key, "k", "embedded", CLOCK)
    async with hub(tmp_path) as (bus, tasks):
        await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_KEYS))
        keys = KeySetWatcher(bus)
        await KeySetPublisher(bus.kv(subject.KV_IDENTITY_KEYS)).publish("k", key.public_key())
        revoked = await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_REVOKED))
        publisher = RevocationPublisher(revoked, CLOCK)
        running = [tasks.create_task(keys.run())]
        tokens = {
            name: issuer.issue(f"{name}@x.org", name) for name in ("token", "device", "principal", "free")
        }
        early = TokenVerifier(keys, "embedded", CLOCK)
        running.append(tasks.create_task(RevocationWatcher(bus, early).run()))
        await eventually(ready(keys))
        for token, _ in tokens.values():
            early.verify(token, "sync")
        await publisher.revoke(token_id=tokens["token"][1].token_id)
        await publisher.revoke(device_id="device")
        await publisher.revoke(principal="principal@x.org")
        late = TokenVerifier(keys, "embedded", CLOCK)
        watcher = RevocationWatcher(bus, late)
        running.append(tasks.create_task(watcher.run()))
        await eventually(ready(watcher))

        async def all_refused() -> bool:
            named = [tokens[name][0] for name in ("token", "device", "principal")]
            return {reason(v, token) for v in (early, late) for token in named} == {"TOKEN_REVOKED"}

        await eventually(all_refused)
        assert early.verify(tokens["free"][0], "sync").principal == "free@x.org"
        for task in running:
            task.cancel()


async def test_a_revocation_covers_tokens_of_a_replica_whose_clock_is_ahead(tmp_path: Path) -> None:
    class Ahead(SystemClock):
        def now_ms(self) -> int:
            return super().now_ms() + 3000

    key = Ed25519PrivateKey.generate()
    async with hub(tmp_path) as (bus, tasks):
        keys = await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_KEYS))
        await KeySetPublisher(keys).publish("k", key.public_key())
        watcher = KeySetWatcher(bus)
        verifier = TokenVerifier(watcher, "embedded", CLOCK)
        revoked = await bus.ensure_kv(topology.bucket(subject.KV_IDENTITY_REVOKED))
        running = [tasks.create_task(work.run()) for work in (watcher, RevocationWatcher(bus, verifier))]
        await eventually(ready(watcher))
        token, _ = TokenIssuer(key, "k", "embedded", Ahead()).issue("a@x.org", "d")
        verifier.verify(token, "sync")
        await RevocationPublisher(revoked, CLOCK).revoke(principal="a@x.org")

        async def refused() -> bool:
            return reason(verifier, token) == "TOKEN_REVOKED"

        await eventually(refused)
        for task in running:
            task.cancel()


async def test_exactly_one_thing_is_revoked_at_a_time(tmp_path: Path) -> None:
    async with hub(tmp_path) as (bus, _tasks):
        publisher = RevocationPublisher(bus.kv(subject.KV_IDENTITY_REVOKED), CLOCK)
        for arguments in ({}, {"device_id": "d", "principal": "p"}):
            with pytest.raises(ValueError, match="exactly one"):
                await publisher.revoke(**arguments)
