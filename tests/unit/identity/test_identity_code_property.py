"""Whatever people do within an hour: never more than five codes for an e-mail or an address, or five tries of one."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from syftmesh_core.errors import LimitExceeded, MeshError
from syftmesh_identity.domain.code import CodeLogin, CodePolicy, CodeState, LoginCode
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.limit import Limiter
from syftmesh_kit.testing import FakeRandom

HOUR_MS = 3_600_000
EMAILS = [f"p{number}@x.example" for number in range(3)]
ADDRESSES = [f"192.0.2.{number}" for number in range(3)]


class Codes:
    """A store that remembers how often each code was written after a comparison."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.compared: Counter[str] = Counter()
        self.used: Counter[str] = Counter()

    async def get(self, key):
        return await self.inner.get(key)

    async def create(self, key, record):
        return await self.inner.create(key, record)

    async def replace(self, key, record: LoginCode, revision):
        before = self.inner.rows.get(key)
        written = await self.inner.replace(key, record, revision)
        if written and before is not None and before.record.code_hash == record.code_hash:
            self.compared[record.code_hash] += 1
        return written


class Mailbox:
    def __init__(self) -> None:
        self.newest: dict[str, str] = {}

    def write(self, mail):
        return mail

    async def open(self) -> Mailbox:
        await asyncio.sleep(0)
        return self

    def finish(self, mail, _failed) -> None:
        if mail is not None:
            self.newest[mail.principal] = mail.code


class Story:
    """Random people, at most four at once, with a clock that jumps between them."""

    def __init__(self, world, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - a story, no secret
        self.world = world
        records = type(world.stores.devices)
        self.codes, self.mailbox = Codes(records()), Mailbox()
        fingerprint = Fingerprint(b"k" * 32)
        self.replicas = [
            self._replica(records, fingerprint, usages) for usages in [records()] for _ in range(2)
        ]
        self.given: list[tuple[int, str, str]] = []
        self.entered: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def _replica(self, _records, fingerprint, usages) -> CodeLogin:
        limiter = Limiter(usages, fingerprint, self.world.clock)
        return CodeLogin(
            CodeState(self.codes, limiter, fingerprint),
            self.mailbox,
            self.world.stores,
            self.world.enrolment,
            self.world.sessions,
            CodePolicy(tries_per_address=1000),
            self.world.clock,
            FakeRandom(self.dice.randrange(2**32)),
        )

    async def step(self) -> None:
        await asyncio.gather(*(self._act() for _ in range(self.dice.randint(1, 4))))
        self.world.clock.advance(self.dice.choice([0, 0, 1, 30, 300, 900]))

    async def _act(self) -> None:
        email, address = self.dice.choice(EMAILS), self.dice.choice(ADDRESSES)
        replica = self.dice.choice(self.replicas)
        if self.dice.random() < 0.4:
            try:
                await replica.request(email, address)
            except LimitExceeded:
                return
            self.given.append((self.world.clock.now_ms(), email, address))
            return
        right = self.dice.random() < 0.2 and email in self.mailbox.newest
        code = self.mailbox.newest[email] if right else "0" * 8
        try:
            await replica.login(email, code, f"dev-{email[:2]}", "profile", address)
        except MeshError as error:
            self.refused[error.reason] += 1
        else:
            self.entered[code] += 1

    def check(self) -> None:
        for at_ms, *_ in self.given:
            within = [entry for entry in self.given if at_ms <= entry[0] < at_ms + HOUR_MS]
            for place in (1, 2):
                most = max(Counter(entry[place] for entry in within).values())
                assert most <= 5
        assert max(self.codes.compared.values(), default=0) <= 5
        assert max(self.entered.values(), default=0) <= 1
        assert set(self.refused) <= {"CODE_INVALID", "CONFLICT"}


@pytest.mark.parametrize("seed", range(40))
async def test_no_story_gives_more_codes_or_tries_than_allowed(world, seed):
    story = Story(world, seed)
    for _ in range(60):
        await story.step()
    story.check()


async def test_the_stories_reach_every_limit(world):
    story = Story(world, 7)
    for _ in range(400):
        await story.step()
    story.check()
    assert max(story.codes.compared.values()) == 5
    assert max(story.entered.values()) == 1
    counts = Counter()
    for at_ms, *_ in story.given:
        within = [entry for entry in story.given if at_ms <= entry[0] < at_ms + HOUR_MS]
        counts["email"] = max(counts["email"], *Counter(entry[1] for entry in within).values())
        counts["address"] = max(counts["address"], *Counter(entry[2] for entry in within).values())
    assert counts == {"email": 5, "address": 5}
