"""The walk over what a caller may read: complete, in order, resumed by a cursor, without walking in vain."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_world import ALICE, BOB, CAROL, EVE, Running, World
from syftmesh_core.errors import InvalidInput, Unavailable
from syftmesh_permissions.domain.accessible import FEW_RULE_FILES, PAGE_PATHS, ListAccessible, Page
from syftmesh_permissions.domain.cursor import decode_cursor, encode_cursor
from syftmesh_permissions.domain.hope import Hope
from syftmesh_permissions.domain.pace import Pace
from syftmesh_permissions.domain.sight import may_read

FOR_BOB = 'rules:\n  - pattern: "**"\n    access: {read: [bob@x.example]}\n'
FOR_CAROL = 'rules:\n  - pattern: "**"\n    access: {read: [carol@x.example]}\n'
TABLES_FOR_BOB = 'rules:\n  - pattern: "**/*.csv"\n    access: {read: [bob@x.example]}\n'


@pytest.fixture
def mesh(world: World) -> World:
    world.rules(FOR_CAROL)
    world.rules(FOR_BOB, ("shared",))
    world.rules(FOR_CAROL, ("shared", "not"))
    world.rules(TABLES_FOR_BOB, ("tables",))
    world.rules(FOR_BOB, site=CAROL)
    world.put(
        *(f"{ALICE}/private/{n}" for n in range(5)),
        f"{ALICE}/shared/a",
        f"{ALICE}/shared/not/a",
        f"{ALICE}/shared/not/b",
        f"{ALICE}/shared-not/a",
        f"{ALICE}/shared/z",
        f"{ALICE}/tables/a.csv",
        f"{ALICE}/tables/b.txt",
        f"{CAROL}/x",
        f"{EVE}/x",
        f"{BOB}/own",
    )
    return world


FOR_BOB_PATHS = [
    f"{ALICE}/shared/a",
    f"{ALICE}/shared/z",
    f"{ALICE}/tables/a.csv",
    f"{BOB}/own",
    f"{CAROL}/x",
]


async def pages(world: World, caller: str, prefix: str = "", cursor: str = "") -> list[Page]:
    walk = ListAccessible(world, world, world, world)
    return [page async for page in walk.run(caller, prefix, cursor)]


async def paths(world: World, caller: str, prefix: str = "", cursor: str = "") -> list[str]:
    return [path for page in await pages(world, caller, prefix, cursor) for path in page.paths]


async def test_everything_that_may_be_read_comes_in_order(mesh):
    assert await paths(mesh, BOB) == FOR_BOB_PATHS


async def test_the_owner_has_all_of_its_files_and_nobody_elses(mesh):
    assert await paths(mesh, ALICE) == sorted(mesh.paths[ALICE])


@pytest.mark.parametrize("prefix", [f"{ALICE}/shared", f"{ALICE}/shared/", f"{ALICE.upper()}/shared"])
async def test_a_prefix_bounds_the_walk(mesh, prefix):
    assert await paths(mesh, BOB, prefix) == [f"{ALICE}/shared/a", f"{ALICE}/shared/z"]


@pytest.mark.parametrize(
    "prefix", [f"{ALICE}/private", f"{ALICE}/none", "nobody@x.example", f"{ALICE}/shared/a"]
)
async def test_what_may_not_be_known_and_what_is_not_there_are_both_empty(mesh, prefix):
    assert await pages(mesh, BOB, prefix) == []


@pytest.mark.parametrize("caller", ["", "guest"])
async def test_guests_have_what_is_open_to_everybody(mesh, caller):
    mesh.rules('rules:\n  - pattern: "a"\n    access: {read: ["*"]}\n', ("shared", "not"))
    assert await paths(mesh, caller) == [f"{ALICE}/shared/not/a"]


async def test_directories_that_grant_nothing_are_not_walked(mesh):
    mesh.put(*(f"{ALICE}/private/deep/{n}" for n in range(1000)), *(f"{EVE}/{n}" for n in range(1000)))
    assert await paths(mesh, BOB) == FOR_BOB_PATHS
    assert len(mesh.looked_at) < 20
    assert not any(text.startswith(EVE) for text in mesh.looked_at)


async def test_a_directory_deep_below_one_that_grants_nothing_is_found(mesh):
    mesh.rules(FOR_BOB, ("private", "deep", "er"))
    mesh.put(*(f"{ALICE}/private/deep/a/{n}" for n in range(300)), f"{ALICE}/private/deep/er/found")
    assert f"{ALICE}/private/deep/er/found" in await paths(mesh, BOB)
    assert len(mesh.looked_at) < 30


async def test_names_that_sort_late_are_left_out_with_their_directory(mesh):
    mesh.put(f"{ALICE}/private/{chr(0x10FFFF) * 63}", f"{ALICE}/private/{chr(0x10FFFF) * 63}/{chr(0x10FFFF)}")
    assert await paths(mesh, BOB) == FOR_BOB_PATHS
    assert sum(text.startswith(f"{ALICE}/private") for text in mesh.looked_at) == 1


async def test_many_rule_files_are_looked_through_only_after_files_in_vain(mesh):
    for n in range(FEW_RULE_FILES * 2):
        mesh.rules(FOR_CAROL, ("projects", f"p{n}"))
    mesh.put(*(f"{ALICE}/projects/p{n}/{m}" for n in range(FEW_RULE_FILES * 2) for m in range(20)))
    assert await paths(mesh, BOB) == FOR_BOB_PATHS
    in_vain = [text for text in mesh.looked_at if text not in FOR_BOB_PATHS]
    assert len(in_vain) < FEW_RULE_FILES + 20


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_walk_goes_on_behind_any_of_its_pages(mesh, monkeypatch, size):
    monkeypatch.setattr("syftmesh_permissions.domain.accessible.PAGE_PATHS", size)
    walked = await pages(mesh, BOB)
    assert [path for page in walked for path in page.paths] == FOR_BOB_PATHS
    for number, page in enumerate(walked):
        rest = [path for later in walked[number + 1 :] for path in later.paths]
        assert await paths(mesh, BOB, cursor=page.cursor) == rest


async def test_a_walk_goes_on_where_files_have_come_and_gone(mesh):
    cursor = encode_cursor(BOB, "", f"{ALICE}/shared/b-that-is-gone")
    assert await paths(mesh, BOB, cursor=cursor) == FOR_BOB_PATHS[1:]
    mesh.paths.pop(ALICE)
    assert await paths(mesh, BOB, cursor=cursor) == FOR_BOB_PATHS[3:]


async def test_a_cursor_names_nothing_that_may_not_be_read(mesh):
    for page in await pages(mesh, BOB):
        assert base64.urlsafe_b64decode(page.cursor)[12:].decode() == page.paths[-1]


@pytest.mark.parametrize(
    "cursor",
    [
        "!",
        "AAAA",
        "a" * 10_000,
        encode_cursor(CAROL, "", f"{ALICE}/shared/a"),
        encode_cursor(BOB, f"{ALICE}/shared", f"{ALICE}/shared/a"),
        encode_cursor(BOB, "", ALICE),
        encode_cursor(BOB, "", f"{ALICE}//a"),
        encode_cursor(BOB, "", f"{ALICE.upper()}/a"),
        base64.urlsafe_b64encode(base64.urlsafe_b64decode(encode_cursor(BOB, "", "")) + b"\xff").decode(),
    ],
)
async def test_a_foreign_cursor_is_refused(mesh, cursor):
    with pytest.raises(InvalidInput) as refused:
        await pages(mesh, BOB, cursor=cursor)
    assert refused.value.reason == "PAGE_INVALID"


def test_a_cursor_stays_below_its_prefix():
    with pytest.raises(InvalidInput):
        decode_cursor(BOB, f"{ALICE}/a", encode_cursor(BOB, f"{ALICE}/a", f"{ALICE}/ab"))


async def test_a_malformed_prefix_is_refused(mesh):
    with pytest.raises(InvalidInput) as refused:
        await pages(mesh, BOB, f"{ALICE}/../x")
    assert refused.value.reason == "PATH_INVALID"


async def test_nothing_is_listed_while_the_log_is_read(mesh):
    mesh.loading = True
    with pytest.raises(Unavailable):
        await pages(mesh, BOB)


async def test_a_full_page_goes_out_at_once(mesh):
    mesh.put(*(f"{BOB}/f-{n:05}" for n in range(PAGE_PATHS * 2 + 1)))
    sizes = [len(page.paths) for page in await pages(mesh, BOB, BOB)]
    assert sizes == [PAGE_PATHS, PAGE_PATHS, 2]


async def test_a_page_is_at_least_as_fresh_as_its_token(mesh):
    mesh.put(*(f"{ALICE}/shared/f-{n:05}" for n in range(PAGE_PATHS)))
    walk = ListAccessible(mesh, mesh, mesh, mesh).run(BOB, f"{ALICE}/shared", "")
    first = await anext(walk)
    assert first.token == mesh.at
    mesh.rules(FOR_CAROL, ("shared",))
    assert [page async for page in walk] == [], "what was taken away is not given any more"


async def waits(walk: AsyncIterator[Page]) -> int:
    """Walk to the end and return how often others had their turn."""
    waited = 0
    while True:
        step = walk.__anext__()
        try:
            while True:
                step.send(None)
                waited += 1
        except StopIteration:
            continue
        except StopAsyncIteration:
            return waited


async def test_a_long_walk_gives_others_their_turn(mesh):
    mesh.put(*(f"{ALICE}/shared/f-{n:05}" for n in range(5000)))
    mesh.tick_s = 0.001
    assert await waits(ListAccessible(mesh, mesh, mesh, mesh).run(BOB, "", "")) > 20


async def test_a_walk_through_many_datasites_gives_others_their_turn(mesh):
    mesh.put(*(f"p{n}@x.example/f" for n in range(200)))
    mesh.tick_s = 0.001
    assert await waits(ListAccessible(mesh, mesh, mesh, mesh).run(BOB, "", "")) > 20


async def test_looking_through_many_rule_files_gives_others_their_turn(mesh):
    for n in range(400):
        mesh.rules(FOR_CAROL, ("projects", f"p{n}"))
    mesh.tick_s = 0.001
    finding = Running(Hope.find(mesh.tree(ALICE), BOB, mesh.now_ms(), Pace(mesh)))
    assert max(finding) > 10
    assert finding.outcome.hopeless(("projects", "p1", "x")) == ("projects",)


FOLDERS = [(), ("a",), ("a", "b"), ("a", "b", "c"), ("a-b",), ("d",)]
rule_files = st.sampled_from(
    [
        FOR_BOB,
        FOR_CAROL,
        TABLES_FOR_BOB,
        f"terminal: true\n{FOR_BOB}",
        f"terminal: true\n{FOR_CAROL}",
        FOR_BOB + "    expires: 2020-01-01T00:00:00Z\n",
        FOR_BOB + "    deny: ['*@x.example']\n",
        'rules:\n  - pattern: "{{.UserEmail}}/**"\n    access: {read: [USER]}\n',
        "rules: []\n",
    ]
)


@settings(max_examples=200, deadline=None)
@given(
    files=st.dictionaries(st.sampled_from(FOLDERS), rule_files),
    places=st.sets(st.tuples(st.sampled_from(FOLDERS), st.sampled_from(["x", "y.csv", f"{BOB}/z"]))),
    reader=st.sampled_from([BOB, CAROL, "guest", ALICE]),
    many=st.booleans(),
)
def test_the_walk_finds_exactly_what_may_be_read(files, places, reader, many):
    world = World()
    for directory, text in files.items():
        world.rules(text, directory)
    if many:  # so many rule files that they are looked through later, or never
        for n in range(FEW_RULE_FILES):
            world.rules(FOR_CAROL, ("many", str(n)))
        world.put(*(f"{ALICE}/many/{n}/f" for n in range(FEW_RULE_FILES)))
    world.put(*("/".join((ALICE, *directory, name)) for directory, name in places))
    expected = [
        text
        for text in world.paths.get(ALICE, [])
        if may_read(world.tree(ALICE), reader, text, world.now_ms())
    ]
    walk = ListAccessible(world, world, world, world)

    async def walked() -> list[str]:
        return [path async for page in walk.run(reader, "", "") for path in page.paths]

    running = Running(walked())
    for _ in running:
        pass
    assert running.outcome == expected
