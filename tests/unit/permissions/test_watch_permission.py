"""Answers that come again when they change: by rules, by groups, by the clock."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from rule_world import ALICE, BOB, CAROL, DAY_MS, EVE, NOW_MS, Over, World
from syftmesh_core.errors import InvalidInput, PermissionDenied, Unavailable
from syftmesh_core.permission.ruleset import Level
from syftmesh_permissions.domain.batch import AskMany
from syftmesh_permissions.domain.inquiry import Inquiry
from syftmesh_permissions.domain.question import Questions
from syftmesh_permissions.domain.ruling import Rulings
from syftmesh_permissions.domain.watch import LOOK_S, Told, WatchMany

READS = 'rules:\n  - pattern: "**"\n    access: {read: [bob@x.example, group:team]}\n'
NOTHING = "rules: []\n"
IN_AN_HOUR = """
rules:
  - pattern: "**"
    access: {read: [bob@x.example], admin: [carol@x.example]}
    expires: 2027-01-15T09:00:00Z
"""
SHOWN_FOR_AN_HOUR = """
rules:
  - pattern: "syft.pub.yaml"
    access: {read: [bob@x.example]}
    expires: 2027-01-15T09:00:00Z
  - pattern: "**"
    access: {read: [bob@x.example]}
"""
EXPIRES_MS = NOW_MS + 3_600_000
DATED = 'rules:\n  - pattern: "{{.Year}}-{{.Month}}-{{.Date}}/**"\n    access: {read: [bob@x.example]}\n'

X = (f"{ALICE}/x", Level.READ, None, None, None)
Y = (f"{ALICE}/y", Level.READ, None, None, None)
OF_CAROL = (f"{CAROL}/x", Level.READ, None, None, None)


def watching(world: World, caller: str, *questions: tuple) -> AsyncIterator[Told]:
    many = AskMany(Rulings(world, world, lambda verdict: verdict), world, world)
    return WatchMany(many, world, world, world, world.sleep).run(
        caller, Questions.of([Inquiry(*question) for question in questions])
    )


async def everything(watch: AsyncIterator[Told]) -> list[Told]:
    """Return all that is told until the script ends."""
    found = []
    try:
        async for item in watch:
            found.append(item)
    except Over:
        return found
    raise AssertionError("a watch does not end by itself")


async def told(world: World, caller: str, *questions: tuple) -> list[tuple[int, bool, int]]:
    """Return index, answer and sequence of everything told until the script ends."""
    found = await everything(watching(world, caller, *questions))
    return [(item.index, item.answer.allowed, item.token.sequence) for item in found]


def passes(world: World):
    """Let the time pass for which the last wait was to last at most."""

    def step() -> None:
        world.time_ms += round(world.waits[-1] * 1000)

    return step


async def test_every_question_is_answered_first(world):
    world.rules(READS)
    assert await told(world, BOB, X, OF_CAROL, Y) == [(0, True, 11), (1, False, 11), (2, True, 11)]


async def test_a_change_of_rules_is_told(world):
    world.script = [lambda: world.rules(READS), lambda: world.rules(NOTHING)]
    assert await told(world, BOB, X) == [(0, False, 10), (0, True, 11), (0, False, 12)]


async def test_a_change_of_groups_is_told(world):
    world.rules(READS)
    world.script = [
        lambda: world.groups(f"groups: {{team: [{EVE}]}}\n"),
        lambda: world.groups("groups: {}\n"),
    ]
    assert await told(world, EVE, X) == [(0, False, 11), (0, True, 12), (0, False, 13)]


async def test_what_stays_the_same_is_not_told_again(world):
    world.rules(READS)
    world.script = [lambda: world.rules(READS + "# the same\n"), lambda: world.rules(READS, site=CAROL)]
    assert await told(world, BOB, X) == [(0, True, 11)]


async def test_changes_elsewhere_ask_nothing_again(world):
    world.rules(READS)
    asked = []
    original = world.tree
    world.tree = lambda site: (asked.append(site), original(site))[1]
    world.script = [lambda: world.rules(READS, site=EVE)] * 3
    assert await told(world, BOB, X, OF_CAROL) == [(0, True, 11), (1, False, 11)]
    assert EVE not in asked


async def test_a_datasite_that_nobody_knows_is_waited_for(world):
    world.script = [passes(world), lambda: world.rules(READS, site=CAROL)]
    assert await told(world, BOB, OF_CAROL) == [(0, False, 10), (0, True, 11)]
    assert world.waits[0] == LOOK_S


async def test_an_expiry_is_told_at_its_moment(world):
    world.rules(IN_AN_HOUR)
    world.time_ms = EXPIRES_MS - 2000
    world.script = [passes(world)]
    assert await told(world, BOB, X) == [(0, True, 11), (0, False, 11)]
    assert world.waits[0] == 2.0
    assert world.waits[1] == LOOK_S


async def test_a_date_in_a_pattern_is_told_at_midnight(world):
    world.rules(DATED)
    midnight_ms = (NOW_MS // DAY_MS + 1) * DAY_MS
    world.time_ms = midnight_ms - 500
    world.script = [passes(world)]
    today = (f"{ALICE}/2027-01-15/x", Level.READ, None, None, None)
    tomorrow = (f"{ALICE}/2027-01-16/x", Level.READ, None, None, None)
    assert await told(world, BOB, today, tomorrow) == [
        (0, True, 11),
        (1, False, 11),
        (0, False, 11),
        (1, True, 11),
    ]
    assert world.waits[0] == 0.5


async def test_a_rule_that_hides_by_its_expiry_changes_what_is_shown(world):
    world.rules(SHOWN_FOR_AN_HOUR)
    world.time_ms = EXPIRES_MS - 1000
    world.script = [passes(world)]
    found = [item.answer for item in await everything(watching(world, BOB, X))]
    assert [(verdict.allowed, verdict.rule is not None) for verdict in found] == [(True, True), (True, False)]


async def test_a_clock_set_back_is_noticed(world):
    world.rules(IN_AN_HOUR)
    world.time_ms = EXPIRES_MS + 1000

    def step_back() -> None:
        world.time_ms = EXPIRES_MS - 1000

    world.script = [step_back]
    assert await told(world, BOB, X) == [(0, False, 11), (0, True, 11)]


async def test_news_that_come_together_are_looked_at_together(world):
    world.rules(READS)

    async def sleep(seconds: float) -> None:
        world.naps.append(seconds)
        if len(world.naps) == 1:
            world.rules(READS, site=CAROL)

    world.sleep = sleep
    world.script = [lambda: world.rules(NOTHING)]
    assert await told(world, BOB, X, OF_CAROL) == [
        (0, True, 11),
        (1, False, 11),
        (0, False, 13),
        (1, True, 13),
    ]
    assert world.naps[0] < 1.0


async def test_whoever_takes_answers_slowly_gets_the_newest_only(world):
    world.rules(READS)
    watch = watching(world, BOB, X)
    assert (await anext(watch)).answer.allowed
    for text in (NOTHING, READS, NOTHING, READS, NOTHING):
        world.rules(text)
    last = await anext(watch)
    assert (last.answer.allowed, last.token.sequence) == (False, 16)
    with pytest.raises(Over):
        await anext(watch)


async def test_the_watch_ends_with_the_right_to_ask_about_others(world):
    world.rules(IN_AN_HOUR)
    about_bob = (f"{ALICE}/x", Level.READ, BOB, None, None)
    watch = watching(world, CAROL, OF_CAROL, about_bob)
    assert [(await anext(watch)).index for _ in range(2)] == [0, 1]
    world.rules(READS)
    with pytest.raises(PermissionDenied) as ended:
        await anext(watch)
    assert ended.value.metadata["index"] == "1"


async def test_the_watch_ends_with_a_right_that_expires(world):
    world.rules(IN_AN_HOUR)
    world.time_ms = EXPIRES_MS - 1000
    world.script = [passes(world)]
    watch = watching(world, CAROL, (f"{ALICE}/x", Level.READ, BOB, None, None))
    await anext(watch)
    with pytest.raises(PermissionDenied):
        await anext(watch)


async def test_the_watch_ends_when_the_rules_are_not_known_any_more(world):
    world.rules(READS)
    watch = watching(world, BOB, X)
    await anext(watch)
    world.loading = True
    with pytest.raises(Unavailable):
        await anext(watch)


async def test_a_bad_question_is_named(world):
    watch = watching(world, BOB, X, ("x", Level.READ, None, None, None))
    with pytest.raises(InvalidInput) as refused:
        await anext(watch)
    assert refused.value.metadata["index"] == "1"
