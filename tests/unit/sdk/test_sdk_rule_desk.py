"""Changing rules by the SDK: planned on what is there, told by whom it reaches, written once or not at all."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from memory_node import MemoryFiles, memory_node
from syftmesh.reach import Gain, reach_texts
from syftmesh.rule_desk import AsyncRuleDesk
from syftmesh_core.errors import (
    Conflict,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unimplemented,
    WrongState,
)

ALICE, BOB, CAROL = "alice@hospital.example", "bob@x.example", "carol@lab.example"
RULES = f"{ALICE}/data/syft.pub.yaml"
NOW_MS = 1_767_225_600_000


@pytest.fixture
def files() -> MemoryFiles:
    made = MemoryFiles()
    for name in ("data/a.csv", "data/b.csv", "data/deep/c.csv", "public/p.txt"):
        made.put(f"{ALICE}/{name}")
    made.put(f"{ALICE}/public/syft.pub.yaml", 'rules:\n- {pattern: "**", access: {read: ["*"]}}\n')
    made.put(f"{ALICE}/syft.groups.yaml", f"groups:\n  team: [{BOB}, {CAROL}]\n")
    return made


@pytest.fixture
def desk(files: MemoryFiles) -> AsyncRuleDesk:
    return AsyncRuleDesk(memory_node(ALICE, files, NOW_MS))


async def test_a_folder_gets_a_rule_file_and_tells_who_reads_what_now(
    desk: AsyncRuleDesk, files: MemoryFiles
) -> None:
    change = await desk.set(f"{ALICE}/data", read=[BOB])
    assert change.adds == (Gain("read", BOB, 3),)
    assert (change.removes, change.file, change.revision) == ((), RULES, 1)
    assert files.text(RULES) == f'rules:\n  - pattern: "**"\n    access:\n      read: ["{BOB}"]\n'
    assert change.diff.startswith(f"--- {RULES}\n+++ {RULES}\n@@ -0,0 +1,4 @@\n+rules:\n")
    again = await desk.set(f"{ALICE}/data", read=[BOB])
    assert (again.diff, again.adds, again.revision) == ("", (), 1)


async def test_a_list_that_is_named_is_replaced_and_others_stay(
    desk: AsyncRuleDesk, files: MemoryFiles
) -> None:
    await desk.set(f"{ALICE}/data", read=[BOB], create=[BOB])
    change = await desk.set(f"{ALICE}/data", read=[CAROL], create=None)
    assert reach_texts(change.adds, change.removes) == [
        f"adds read: {CAROL} on 3 files",
        f"removes read: {BOB} on 3 files",
    ]
    grown = await desk.set(f"{ALICE}/data", read=[BOB], add=True)
    assert (grown.adds, grown.removes) == ((Gain("read", BOB, 3),), ())
    gone = await desk.set(f"{ALICE}/data", remove=[BOB])
    assert {gain.level for gain in gone.removes} == {"read", "create"}
    assert f'read: ["{CAROL}"]' in files.text(RULES)


async def test_write_contains_create_and_read_and_groups_are_their_members(desk: AsyncRuleDesk) -> None:
    change = await desk.set(f"{ALICE}/data", write=["group:team"])
    assert change.adds == tuple(
        Gain(level, who, 3) for level in ("read", "create", "write") for who in (BOB, CAROL)
    )
    unknown = await desk.set(f"{ALICE}/data", read=["group:none"], dry_run=True)
    assert "There is no group none: until it is made, group:none is nobody." in unknown.notes


async def test_a_deeper_rule_file_keeps_deciding(desk: AsyncRuleDesk, files: MemoryFiles) -> None:
    files.put(f"{ALICE}/data/deep/syft.pub.yaml", "rules: []\n")
    assert (await desk.set(f"{ALICE}/data", read=[BOB])).adds == (Gain("read", BOB, 2),)
    closed = await desk.set(f"{ALICE}/data", terminal=True)
    assert closed.adds == (Gain("read", BOB, 1),)
    with pytest.raises(WrongState, match="is terminal") as caught:
        await desk.set(f"{ALICE}/data/deep", read=[CAROL])
    assert caught.value.reason == "RULE_SHADOWED"


async def test_a_file_gets_a_rule_for_its_name_in_its_folder(desk: AsyncRuleDesk, files: MemoryFiles) -> None:
    files.put(f"{ALICE}/data/[a]*.csv")
    change = await desk.set(f"{ALICE}/data/[a]*.csv", read=[BOB])
    assert (change.file, change.adds) == (RULES, (Gain("read", BOB, 1),))
    files.put(RULES, 'rules:\n- {pattern: "{a,aaaaaaaaaaaaaaaaaaaaaaaaaaaaa}.csv", access: {}}\n')
    with pytest.raises(WrongState, match="A more specific rule decides") as caught:
        await desk.set(f"{ALICE}/data/a.csv", read=[BOB])
    assert caught.value.reason == "RULE_SHADOWED"
    assert files.content[RULES][0] == 2


async def test_a_place_where_nothing_lies_is_a_folder_only_when_it_says_so(desk: AsyncRuleDesk) -> None:
    with pytest.raises(NotFound) as caught:
        await desk.set(f"{ALICE}/new", read=[BOB])
    assert caught.value.reason == "FILE_MISSING"
    change = await desk.set(f"{ALICE}/new/", read=[BOB])
    assert (change.file, change.adds) == (f"{ALICE}/new/syft.pub.yaml", (Gain("read", BOB, 0),))
    assert reach_texts(change.adds, change.removes) == [f"adds read: {BOB} on no file yet"]
    assert (await desk.set(ALICE, read=[BOB], pattern="x/**")).file == f"{ALICE}/syft.pub.yaml"


async def test_a_concurrent_change_is_a_conflict_and_nothing_is_lost(
    desk: AsyncRuleDesk, files: MemoryFiles
) -> None:
    planned = await desk.set(f"{ALICE}/data", read=[BOB], dry_run=True)
    assert (RULES in files.content, planned.revision) == (False, 0)
    files.put(RULES, "# theirs\n")
    with pytest.raises(Conflict) as caught:
        await desk.set(f"{ALICE}/data", read=[BOB], expected_revision=planned.revision)
    assert caught.value.reason == "STALE_PREVIOUS"
    files.before_write = lambda: files.put(RULES, "# theirs again\n")
    with pytest.raises(Conflict):
        await desk.set(f"{ALICE}/data", read=[BOB])
    assert files.text(RULES) == "# theirs again\n"


async def test_open_sets_say_what_the_hub_sees(desk: AsyncRuleDesk) -> None:
    def has(change: Any, text: str) -> bool:
        return any(text in note for note in change.notes)

    everyone = await desk.set(f"{ALICE}/data", read=["*"], dry_run=True)
    assert everyone.adds == (Gain("read", "*", 3),)
    assert has(everyone, "plain text")
    for entry in ("USER", "*@corp.example"):
        change = await desk.set(f"{ALICE}/data", write=[entry], dry_run=True)
        assert has(change, f"{entry} is no closed set")
        assert has(change, "not against the hub")
    assert not has(await desk.set(f"{ALICE}/data", read=[BOB], dry_run=True), "hub")


async def test_somebody_whom_another_entry_still_means_is_told(desk: AsyncRuleDesk) -> None:
    await desk.set(f"{ALICE}/data", read=[BOB, "group:team"])
    change = await desk.set(f"{ALICE}/data", remove=[BOB])
    assert change.removes == ()
    assert any("still means bob@x.example" in note for note in change.notes)
    denied = await desk.set(f"{ALICE}/data", deny=[BOB])
    assert denied.removes == (Gain("read", BOB, 3),)


async def test_a_person_named_beside_everyone_gains_and_loses_nothing(desk: AsyncRuleDesk) -> None:
    opened = await desk.set(f"{ALICE}/public", read=["*", BOB])
    assert (opened.adds, opened.removes) == ((), ())
    closed = await desk.set(f"{ALICE}/public", read=["*"])
    assert (closed.adds, closed.removes) == ((), ())
    denied = await desk.set(f"{ALICE}/public", deny=[BOB])
    assert denied.removes == (Gain("read", BOB, 1),)


async def test_personal_rules_are_counted_for_the_person_of_each_path(
    desk: AsyncRuleDesk, files: MemoryFiles
) -> None:
    files.put(f"{ALICE}/data/{BOB}/x")
    files.put(f"{ALICE}/data/{CAROL}/x")
    change = await desk.set(f"{ALICE}/data", read=["USER"], pattern="{{.UserEmail}}/**")
    assert change.adds == (Gain("read", "USER", 0), Gain("read", BOB, 1), Gain("read", CAROL, 1))


async def test_files_whose_readers_change_are_sealed_anew_when_asked(
    desk: AsyncRuleDesk, files: MemoryFiles
) -> None:
    change = await desk.set(f"{ALICE}/data", read=[BOB], pattern="*.csv", reseal=True)
    assert change.resealed == (f"{ALICE}/data/a.csv", f"{ALICE}/data/b.csv")
    assert files.resealed == list(change.resealed)
    assert any("--reseal" in note for note in change.notes)
    again = await desk.set(f"{ALICE}/data", read=[BOB], pattern="*.csv", reseal=True)
    assert (again.diff, again.resealed) == ("", change.resealed)
    with pytest.raises(Unimplemented) as caught:
        await desk.set(f"{ALICE}/data", read=["USER"], reseal=True)
    assert caught.value.reason == "OPEN_READERS"
    assert "USER" not in files.text(RULES)


async def test_an_expired_rule_gives_nobody_anything(desk: AsyncRuleDesk) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    change = await desk.set(f"{ALICE}/data", read=[BOB, "USER"], expires=past)
    assert change.adds == ()
    assert (await desk.set(f"{ALICE}/data", expires="none")).adds == (
        Gain("read", "USER", 3),
        Gain("read", BOB, 3),
    )


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "CHANGE_MISSING"),
        ({"read": ["bob"]}, "ENTRY_INVALID"),
        ({"remove": [""]}, "ENTRY_INVALID"),
        ({"read": [BOB], "pattern": "/x"}, "PATTERN_INVALID"),
        ({"read": [BOB], "expires": datetime(2030, 1, 1)}, "TIME_INVALID"),  # noqa: DTZ001 - it is refused
        ({"max_files": -1}, "COUNT_INVALID"),
        ({"max_file_size_bytes": 2**63}, "COUNT_INVALID"),
        ({"max_files": True}, "COUNT_INVALID"),
        ({"remove": [BOB]}, "RULE_UNKNOWN"),
    ],
)
async def test_wrong_input_names_what_is_wrong_and_changes_nothing(
    desk: AsyncRuleDesk, files: MemoryFiles, asked: dict[str, Any], reason: str
) -> None:
    before = dict(files.content)
    with pytest.raises(MeshError) as caught:
        await desk.set(f"{ALICE}/data", **asked)
    assert caught.value.reason == reason
    assert files.content == before


async def test_rules_of_somebody_else_are_refused_for_nobody_would_believe_them(
    desk: AsyncRuleDesk, files: MemoryFiles
) -> None:
    files.put(f"{BOB}/data/x")
    with pytest.raises(PermissionDenied):
        await desk.set(f"{BOB}/data", read=[ALICE])


async def test_a_path_that_is_none_is_refused(desk: AsyncRuleDesk) -> None:
    for path in ("data", f"{ALICE}/../x", f"{ALICE}//"):
        with pytest.raises(InvalidInput) as caught:
            await desk.set(path, read=[BOB])
        assert caught.value.reason == "PATH_INVALID"
