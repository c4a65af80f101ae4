"""Rotation of signing keys: each step is one write, so that whatever stops in between is completed by the next look.

A new key is written into the ring (of replicas that begin at once one wins, by compare-and-set), then published, and
only then told when it takes over: a while later, so that every verifier knows it before its first token. The key
before it stays published until its last token has ended, and leaves the key set before it leaves the ring.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import Conflict, Unavailable

from syftmesh_identity.domain.enrolment import RACE_TRIES, busy
from syftmesh_identity.domain.model import Stored
from syftmesh_identity.domain.ports import PublishedKeys, RecordStore, SigningKeys
from syftmesh_identity.domain.ring import Ring, RingKey

RING: Final = "ring"
"""Key of the one record."""

LEAD_S: Final = 60
"""Seconds between the publication of a key and its first token; verifiers follow within milliseconds, and take this
long only when the bus was away from them."""


class Rotation:
    """Keeps the ring.

    Args:
        rings: The state: one record.
        keys: Makes keys and signs with them.
        published: The key set.
        clock: Wall time.
        every_s: Age in seconds at which the newest key is followed by another; 0: only when it is asked for.
    """

    def __init__(
        self,
        rings: RecordStore[Ring],
        keys: SigningKeys,
        published: PublishedKeys,
        clock: Clock,
        every_s: int,
    ) -> None:
        self._rings = rings
        self._keys = keys
        self._published = published
        self._clock = clock
        self._every_s = every_s

    async def prepare(self) -> None:
        """Make the ring when there is none, and publish its keys: tokens can be signed then.

        A ring of another file is replaced: whoever takes the file away wants its keys, and those sealed under it,
        to count no more.

        Raises:
            Unavailable: The state is out of reach.
            Conflict: The state changes too quickly (CONFLICT).
        """
        found = await self._own_ring()
        for key, _ in found.record.published(self._clock.now_ms()):
            await self._published.publish(key)
        self._keys.follow(found)

    async def rotate(self) -> str:
        """Begin to change to a fresh key and return its name.

        Raises:
            Conflict: Another rotation is under way (CONFLICT).
            Unavailable: The state is out of reach, or not made yet (STARTING).
        """
        found, now_ms = await self._look(), self._clock.now_ms()
        fresh = self._keys.mint(now_ms)
        if found.record.is_rotating(now_ms) or not await self._rings.replace(
            RING, found.record.with_key(fresh), found.revision
        ):
            raise Conflict(
                "Another rotation of the signing key is under way. Look at the key set in a minute.",
                reason="CONFLICT",
            )
        await self._take_over()
        return fresh.kid

    async def step(self) -> None:
        """Do what is due: complete a rotation that stopped, let keys go whose tokens have ended, begin a rotation.

        Raises:
            Unavailable: The state is out of reach.
            Conflict: The state changes too quickly (CONFLICT).
        """
        found, now_ms = await self._look(), self._clock.now_ms()
        newest = found.record.keys[-1]
        if newest.signs_from_ms is None:
            await self._take_over()
            return
        for key in found.record.ended(now_ms):
            await self._let_go(key)
        due_ms = newest.signs_from_ms + self._every_s * 1000
        if self._every_s and due_ms <= now_ms and not found.record.is_rotating(now_ms):
            with suppress(Conflict):  # another replica was quicker: its rotation is as good
                await self.rotate()

    async def key_set(self) -> tuple[tuple[RingKey, int | None], ...]:
        """Return the published keys, newest first, each with the end of its last token where that is known.

        Raises:
            Unavailable: The state is out of reach, or not made yet (STARTING).
        """
        return (await self._look()).record.published(self._clock.now_ms())

    async def _own_ring(self) -> Stored[Ring]:
        root = self._keys.root(self._clock.now_ms())
        fresh = Ring(root.kid, (root,))
        for _ in range(RACE_TRIES):
            found = await self._rings.get(RING)
            if found is not None and found.record.root_kid == root.kid:
                return found
            if found is None:
                await self._rings.create(RING, fresh)
                continue
            for key in found.record.keys:
                await self._published.retire(key.kid)
            await self._rings.replace(RING, fresh, found.revision)
        raise busy()

    async def _look(self) -> Stored[Ring]:
        found = await self._rings.get(RING)
        if found is None:
            raise Unavailable(
                "The signing keys are being prepared. Try again in a moment.", reason="STARTING"
            )
        self._keys.follow(found)
        return found

    async def _take_over(self) -> None:
        for _ in range(RACE_TRIES):
            found = await self._look()
            newest = found.record.keys[-1]
            if newest.signs_from_ms is not None:
                return
            await self._published.publish(newest)
            at_ms = self._clock.now_ms() + LEAD_S * 1000
            if await self._rings.replace(RING, found.record.taking_over(at_ms), found.revision):
                await self._look()
                return
        raise busy()

    async def _let_go(self, key: RingKey) -> None:
        await self._published.retire(key.kid)
        for _ in range(RACE_TRIES):
            found = await self._look()
            without = found.record.without(key.kid)
            if without == found.record or await self._rings.replace(RING, without, found.revision):
                return
        raise busy()
