"""Rotation of signing keys: published before they sign, kept until their last token has ended, whatever stops."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syftmesh_core.errors import Conflict, IntegrityFailure, Unavailable
from syftmesh_identity.adapters.key_ring import GUEST_TTL_S, KeyRing
from syftmesh_identity.adapters.ring_store import RINGS
from syftmesh_identity.adapters.signing_key import SigningKey, key_id
from syftmesh_identity.domain.model import Stored
from syftmesh_identity.domain.ring import LAG_S, LONGEST_TOKEN_S, Ring, RingKey
from syftmesh_identity.domain.rotation import LEAD_S, RING, Rotation
from syftmesh_kit.testing import FakeClock, FakeRandom

DAY_S = 24 * 3600
ENDED_S = LEAD_S + LAG_S + LONGEST_TOKEN_S


class Cut(Exception):
    """The process ends here."""


class FakeRings:
    """The one record, with compare-and-set."""

    def __init__(self) -> None:
        self.rows: dict[str, Stored[Ring]] = {}

    async def get(self, key):
        await asyncio.sleep(0)
        return self.rows.get(key)

    async def create(self, key, record):
        await asyncio.sleep(0)
        return self.rows.setdefault(key, Stored(record, 1)).record is record

    async def replace(self, key, record, revision):
        await asyncio.sleep(0)
        if self.rows[key].revision != revision:
            return False
        self.rows[key] = Stored(record, revision + 1)
        return True


@dataclass
class FakePublished:
    """The key set, and since when each key is in it."""

    clock: FakeClock
    keys: dict[str, int] = field(default_factory=dict)

    async def publish(self, key: RingKey) -> None:
        await asyncio.sleep(0)
        self.keys.setdefault(key.kid, self.clock.now_ms())

    async def retire(self, kid: str) -> None:
        await asyncio.sleep(0)
        self.keys.pop(kid, None)


class Cutting:
    """A port of which the `left`-th write ends the process, before it or after it."""

    WRITES = frozenset({"create", "replace", "publish", "retire"})

    def __init__(self, port, replica: Replica) -> None:
        self._port = port
        self._replica = replica

    def __getattr__(self, name):
        method = getattr(self._port, name)
        if name not in self.WRITES:
            return method

        async def call(*arguments):
            self._replica.count_write(after=False)
            result = await method(*arguments)
            self._replica.count_write(after=True)
            return result

        return call


class Replica:
    """One process of the service on shared state."""

    def __init__(self, cluster: Cluster, root: Ed25519PrivateKey, every_s: int = 0) -> None:
        self.cut_at = 0
        self.ring = KeyRing(SigningKey(root, key_id(root)), "embedded", cluster.clock, cluster.random, 900)
        self.rotation = Rotation(
            Cutting(cluster.rings, self),
            self.ring,
            Cutting(cluster.published, self),
            cluster.clock,
            every_s,
        )

    def count_write(self, *, after: bool) -> None:
        if self.cut_at:
            self.cut_at -= 1
            if not self.cut_at:
                raise Cut(after)

    def signing_kid(self) -> str:
        return jwt.get_unverified_header(self.ring.issue("a@x.example", "d").token)["kid"]


class Cluster:
    """State and processes."""

    def __init__(self, every_s: int = 0) -> None:
        self.clock, self.random, self.rings = FakeClock(), FakeRandom(), FakeRings()
        self.published = FakePublished(self.clock)
        self.root = Ed25519PrivateKey.generate()
        self.every_s = every_s

    def replica(self, root: Ed25519PrivateKey | None = None) -> Replica:
        return Replica(self, root or self.root, self.every_s)

    async def started(self) -> Replica:
        made = self.replica()
        await made.rotation.prepare()
        return made

    def seen_by(self, replica: Replica) -> None:
        """Let a replica hear of the ring's newest state, as the watch does."""
        replica.ring.follow(self.rings.rows[RING])


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


async def test_the_first_key_is_the_files_and_is_published_before_it_signs(cluster):
    replica = cluster.replica()
    with pytest.raises(Unavailable) as caught:
        replica.signing_kid()
    assert caught.value.reason == "STARTING"
    await replica.rotation.prepare()
    assert list(cluster.published.keys) == [replica.signing_kid()] == [key_id(cluster.root)]


async def test_a_fresh_key_is_published_at_once_and_signs_a_while_later(cluster):
    replica = await cluster.started()
    kid = await replica.rotation.rotate()
    assert set(cluster.published.keys) == {key_id(cluster.root), kid}
    cluster.clock.advance(LEAD_S - 1)
    assert replica.signing_kid() == key_id(cluster.root)
    cluster.clock.advance(1)
    assert replica.signing_kid() == kid


async def test_the_old_key_leaves_when_its_last_token_has_ended_and_the_key_set_says_when(cluster):
    replica = await cluster.started()
    kid, began_ms = await replica.rotation.rotate(), cluster.clock.now_ms()
    cluster.clock.advance(LEAD_S + LAG_S)
    await replica.rotation.step()
    assert [(key.kid, end) for key, end in await replica.rotation.key_set()] == [
        (kid, None),
        (key_id(cluster.root), began_ms + ENDED_S * 1000),
    ]
    cluster.clock.advance(ENDED_S - LEAD_S - LAG_S - 1)
    await replica.rotation.step()
    assert set(cluster.published.keys) == {key_id(cluster.root), kid}
    cluster.clock.advance(1)
    await replica.rotation.step()
    assert list(cluster.published.keys) == [kid]
    assert [key.kid for key, _ in await replica.rotation.key_set()] == [kid]
    assert replica.signing_kid() == kid


async def test_one_rotation_at_a_time(cluster):
    one, other = await cluster.started(), await cluster.started()
    await one.rotation.rotate()
    for replica in (one, other):
        with pytest.raises(Conflict) as caught:
            await replica.rotation.rotate()
        assert caught.value.reason == "CONFLICT"
    cluster.clock.advance(LEAD_S)
    await other.rotation.rotate()


async def test_of_replicas_that_rotate_at_once_one_wins_and_all_sign_with_its_key(cluster):
    replicas = [await cluster.started() for _ in range(4)]
    results = await asyncio.gather(*(r.rotation.rotate() for r in replicas), return_exceptions=True)
    (kid,) = [result for result in results if isinstance(result, str)]
    assert all(isinstance(result, (str, Conflict)) for result in results)
    cluster.clock.advance(LEAD_S)
    for replica in replicas:
        cluster.seen_by(replica)
    assert {replica.signing_kid() for replica in replicas} == {kid}
    assert set(cluster.published.keys) == {key_id(cluster.root), kid}


async def test_keys_rotate_by_age_and_once_for_all_replicas():
    cluster = Cluster(every_s=30 * DAY_S)
    replicas = [await cluster.started() for _ in range(3)]
    cluster.clock.advance(30 * DAY_S - 1)
    await asyncio.gather(*(replica.rotation.step() for replica in replicas))
    assert len(cluster.published.keys) == 1
    cluster.clock.advance(1)
    await asyncio.gather(*(replica.rotation.step() for replica in replicas))
    assert len(cluster.published.keys) == 2
    cluster.clock.advance(ENDED_S)
    for replica in replicas:
        await replica.rotation.step()
    assert len(cluster.published.keys) == 1


async def test_without_an_age_keys_stay(cluster):
    replica = await cluster.started()
    cluster.clock.advance(3650 * DAY_S)
    await replica.rotation.step()
    assert replica.signing_kid() == key_id(cluster.root)


@pytest.mark.parametrize("cut_at", range(1, 7))
async def test_a_rotation_that_is_killed_anywhere_is_completed_by_another_replica(cluster, cut_at):
    first, second = await cluster.started(), await cluster.started()
    first.cut_at = cut_at
    with suppress(Cut):
        await first.rotation.rotate()
    for _ in range(3):
        await second.rotation.step()
    begun = len(cluster.published.keys) == 2
    assert begun == (cut_at > 1)  # the first write is what begins it
    assert second.signing_kid() == key_id(cluster.root)
    cluster.clock.advance(LEAD_S)
    kid = second.signing_kid()
    assert kid in cluster.published.keys
    assert (kid != key_id(cluster.root)) == begun


@pytest.mark.parametrize("cut_at", range(1, 5))
async def test_a_retirement_that_is_killed_anywhere_is_completed(cluster, cut_at):
    first, second = await cluster.started(), await cluster.started()
    kid = await first.rotation.rotate()
    cluster.clock.advance(ENDED_S)
    first.cut_at = cut_at
    with suppress(Cut):
        await first.rotation.step()
    await second.rotation.step()
    assert list(cluster.published.keys) == [kid]
    assert [key.kid for key in cluster.rings.rows[RING].record.keys] == [kid]


async def test_a_restart_signs_with_the_same_keys_and_publishes_them_again(cluster):
    first = await cluster.started()
    kid = await first.rotation.rotate()
    cluster.clock.advance(LEAD_S)
    cluster.published.keys.clear()
    again = await cluster.started()
    assert set(cluster.published.keys) == {key_id(cluster.root), kid}
    assert again.signing_kid() == kid


async def test_keys_of_a_file_that_was_taken_away_count_no_more(cluster):
    old = await cluster.started()
    await old.rotation.rotate()
    cluster.clock.advance(LEAD_S)
    fresh = Ed25519PrivateKey.generate()
    new = cluster.replica(fresh)
    await new.rotation.prepare()
    assert list(cluster.published.keys) == [new.signing_kid()] == [key_id(fresh)]
    cluster.seen_by(old)
    with pytest.raises(Unavailable) as caught:
        old.signing_kid()
    assert caught.value.reason == "SIGNING_KEY_FOREIGN"


async def test_nothing_at_the_bus_signs_without_the_file(cluster):
    replica = await cluster.started()
    await replica.rotation.rotate()
    cluster.clock.advance(LEAD_S)
    stored = RINGS.encode(cluster.rings.rows[RING].record)
    assert RINGS.decode(stored) == cluster.rings.rows[RING].record
    private = replica.ring._open(cluster.rings.rows[RING].record.keys[-1]).private_bytes_raw()
    assert private.hex().encode() not in stored
    stranger = cluster.replica(Ed25519PrivateKey.generate())
    ring = replace(cluster.rings.rows[RING].record, root_kid=stranger.ring.root(0).kid)
    stranger.ring.follow(Stored(ring, 99))
    with pytest.raises(IntegrityFailure) as caught:
        stranger.signing_kid()
    assert caught.value.reason == "SIGNING_KEY_DAMAGED"


@pytest.mark.parametrize("change", ["sealed", "kid", "cut", "no hex"])
async def test_a_key_that_was_tampered_with_signs_nothing(cluster, change):
    replica = await cluster.started()
    await replica.rotation.rotate()
    cluster.clock.advance(LEAD_S)
    ring = cluster.rings.rows[RING].record
    key = ring.keys[-1]
    changed = {
        "sealed": replace(key, sealed=f"{int(key.sealed[:2], 16) ^ 1:02x}{key.sealed[2:]}"),
        "kid": replace(key, kid="0" * 16),
        "cut": replace(key, sealed=key.sealed[:20]),
        "no hex": replace(key, sealed="zz"),
    }[change]
    late = cluster.replica()
    late.ring.follow(Stored(Ring(ring.root_kid, (*ring.keys[:-1], changed)), 99))
    with pytest.raises(IntegrityFailure):
        late.signing_kid()


async def test_old_news_do_not_bring_an_old_key_back(cluster):
    replica = await cluster.started()
    before = cluster.rings.rows[RING]
    kid = await replica.rotation.rotate()
    cluster.clock.advance(LEAD_S)
    replica.ring.follow(before)
    assert replica.signing_kid() == kid


async def test_a_guests_token_names_nobody_and_ends_soon(cluster):
    replica = await cluster.started()
    access = replica.ring.issue_guest()
    claims = jwt.decode(access.token, options={"verify_signature": False})
    assert (claims["sub"], claims["did"], claims["kind"]) == ("guest", "guest", "guest")
    assert claims["aud"] == ["identity", "sync", "permissions", "gateway"]
    assert claims["exp"] - claims["iat"] == GUEST_TTL_S


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, LAG_S - 1)),
        st.tuples(st.just("wait"), st.integers(1, LONGEST_TOKEN_S)),
        st.tuples(st.sampled_from(["rotate", "step", "issue", "hear"]), st.integers(0, 2)),
        st.tuples(st.sampled_from(["rotate", "step"]), st.integers(0, 2), st.integers(1, 6)),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_whatever_happens_every_token_can_be_verified_until_it_ends(steps):
    asyncio.run(_live_through(steps))


async def _live_through(steps) -> None:
    cluster = Cluster(every_s=2 * DAY_S)
    replicas = [await cluster.started() for _ in range(3)]
    given_out: list[tuple[str, int]] = []
    deaf_s = 0
    for step, number, *cut in steps:
        if step == "wait":
            cluster.clock.advance(number)
            deaf_s += number
            if deaf_s >= LAG_S:  # nobody is deaf for that long and goes on giving out tokens
                deaf_s = 0
                for replica in replicas:
                    cluster.seen_by(replica)
        elif step == "hear":
            cluster.seen_by(replicas[number])
        elif step == "issue":
            kid = replicas[number].signing_kid()
            known_ms = cluster.clock.now_ms() - cluster.published.keys[kid]
            assert kid == key_id(cluster.root) or known_ms >= LEAD_S * 1000
            given_out.append((kid, cluster.clock.now_ms() + LONGEST_TOKEN_S * 1000))
        else:
            replicas[number].cut_at = cut[0] if cut else 0
            try:
                await getattr(replicas[number].rotation, step)()
            except Conflict:
                pass
            except Cut:
                replicas[number] = await cluster.started()
            replicas[number].cut_at = 0
        given_out = [(kid, end_ms) for kid, end_ms in given_out if end_ms > cluster.clock.now_ms()]
        assert {kid for kid, _ in given_out} <= set(cluster.published.keys)
