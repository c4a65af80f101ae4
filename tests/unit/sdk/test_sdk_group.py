"""Groups by the SDK: one file, changed again after a lost race, told by whom it reaches."""

from __future__ import annotations

import pytest
from memory_node import MemoryFiles, memory_node
from syftmesh.group import AsyncGroups, Group, GroupUse
from syftmesh.reach import Gain
from syftmesh_core.errors import Conflict, InvalidInput, MeshError, NotFound, Unimplemented, WrongState

ALICE, BOB, CAROL, DORA = "alice@hospital.example", "bob@x.example", "carol@lab.example", "dora@x.example"
FILE, RULES = f"{ALICE}/syft.groups.yaml", f"{ALICE}/data/syft.pub.yaml"
NOW_MS = 1_767_225_600_000


@pytest.fixture
def files() -> MemoryFiles:
    made = MemoryFiles()
    made.put(f"{ALICE}/data/a.csv")
    made.put(f"{ALICE}/data/b.csv")
    made.put(RULES, 'rules:\n- {pattern: "*.csv", access: {read: ["group:team"]}, deny: ["group:out"]}\n')
    return made


@pytest.fixture
def groups(files: MemoryFiles) -> AsyncGroups:
    return AsyncGroups(memory_node(ALICE, files, NOW_MS))


async def test_a_group_gives_its_members_what_rules_give_the_group(
    groups: AsyncGroups, files: MemoryFiles
) -> None:
    made = await groups.create("team", [BOB])
    assert (made.adds, made.removes, made.rules, made.revision) == ((Gain("read", BOB, 2),), (), (RULES,), 1)
    assert made.members == (BOB,)
    assert made.diff.startswith(f"--- {FILE}\n")
    changed = await groups.add("team", [CAROL])
    assert changed.adds == (Gain("read", CAROL, 2),)
    gone = await groups.remove("team", [BOB])
    assert (gone.removes, gone.revision) == ((Gain("read", BOB, 2),), 3)
    await groups.create("out", [CAROL])
    assert (await groups.show("out")).rules == (GroupUse(RULES, 2, "*.csv", ("deny",)),)
    assert files.text(FILE) == f'groups:\n  team: ["{CAROL}"]\n  out: ["{CAROL}"]\n'


async def test_groups_are_listed_as_written_and_resolved(groups: AsyncGroups) -> None:
    assert await groups.list() == []
    await groups.create("leads", [DORA])
    await groups.create("team", [BOB, "group:leads"])
    assert await groups.list() == [
        Group("leads", (DORA,), (DORA,)),
        Group("team", (BOB, "group:leads"), (BOB, DORA)),
    ]
    shown = await groups.show("leads")
    assert (shown.groups, shown.rules) == (("team",), (GroupUse(RULES, 2, "*.csv", ("read",)),))


async def test_a_change_counts_also_by_the_group_around(groups: AsyncGroups) -> None:
    await groups.create("leads")
    await groups.create("team", ["group:leads"])
    change = await groups.add("leads", [DORA])
    assert (change.adds, change.rules) == ((Gain("read", DORA, 2),), (RULES,))


async def test_a_lost_race_is_run_again_on_what_is_there_then(
    groups: AsyncGroups, files: MemoryFiles
) -> None:
    await groups.create("team", [BOB])
    texts = iter([f"# theirs\ngroups:\n  team: [{BOB}, {DORA}]\n"])

    def once() -> None:
        for text in texts:
            files.put(FILE, text)

    files.before_write = once
    change = await groups.add("team", [CAROL])
    assert files.text(FILE) == f'# theirs\ngroups:\n  team: [{BOB}, {DORA}, "{CAROL}"]\n'
    assert (change.revision, change.adds) == (3, (Gain("read", CAROL, 2),))
    files.before_write = lambda: files.put(FILE, files.text(FILE))
    with pytest.raises(Conflict) as caught:
        await groups.add("team", ["eve@x.example"])
    assert caught.value.reason == "STALE_PREVIOUS"


async def test_what_does_not_change_is_not_written(groups: AsyncGroups, files: MemoryFiles) -> None:
    await groups.create("team", [BOB])
    assert (await groups.add("team", [BOB])).diff == ""
    planned = await groups.remove("team", [BOB], dry_run=True)
    assert planned.removes == (Gain("read", BOB, 2),)
    assert files.content[FILE][0] == 1


async def test_files_are_sealed_anew_for_members_when_asked(groups: AsyncGroups, files: MemoryFiles) -> None:
    both = (f"{ALICE}/data/a.csv", f"{ALICE}/data/b.csv")
    made = await groups.create("team", [BOB], reseal=True)
    assert (made.resealed, files.resealed) == (both, list(both))
    assert any("--reseal" in note for note in made.notes)
    assert (await groups.add("team", [BOB], reseal=True)).resealed == both
    assert (await groups.create("other", [DORA], reseal=True)).resealed == ()
    files.put(RULES, 'rules:\n- {pattern: "*.csv", access: {read: ["group:team", "*@corp.example"]}}\n')
    with pytest.raises(Unimplemented) as caught:
        await groups.delete("team", force=True, reseal=True)
    assert caught.value.reason == "OPEN_READERS"
    assert "team" in files.text(FILE)


async def test_a_group_in_use_goes_only_by_force(groups: AsyncGroups, files: MemoryFiles) -> None:
    await groups.create("team", [BOB])
    with pytest.raises(WrongState) as caught:
        await groups.delete("team")
    assert caught.value.reason == "GROUP_IN_USE"
    assert f"line 2 of {RULES}" in caught.value.message
    assert (await groups.delete("team", dry_run=True)).removes == (Gain("read", BOB, 2),)
    gone = await groups.delete("team", force=True)
    assert (gone.removes, gone.members, gone.rules) == ((Gain("read", BOB, 2),), (), (RULES,))
    await groups.create("free")
    await groups.create("around", ["group:free"])
    with pytest.raises(WrongState, match="named by group around"):
        await groups.delete("free")
    await groups.delete("around")
    await groups.delete("free")
    assert await groups.list() == []


async def test_wrong_input_is_refused_before_anything_is_sent(
    groups: AsyncGroups, files: MemoryFiles
) -> None:
    await groups.create("team", [BOB])
    before = dict(files.content)
    cases: list[tuple[MeshError, str]] = []
    for work in (
        groups.create("Team"),
        groups.create("team"),
        groups.create("x", ["group:x"]),
        groups.create("x", ["nobody"]),
        groups.add("none", [BOB]),
        groups.add("team", []),
        groups.remove("team", [DORA]),
        groups.show("none"),
        groups.delete("none"),
    ):
        with pytest.raises(MeshError) as caught:
            await work
        cases.append((caught.value, caught.value.reason))
    assert [reason for _, reason in cases] == [
        "RULES_INVALID",
        "GROUP_EXISTS",
        "RULES_INVALID",
        "RULES_INVALID",
        "GROUP_UNKNOWN",
        "CHANGE_MISSING",
        "MEMBER_UNKNOWN",
        "GROUP_UNKNOWN",
        "GROUP_UNKNOWN",
    ]
    assert isinstance(cases[0][0], InvalidInput)
    assert isinstance(cases[4][0], NotFound)
    assert files.content == before
