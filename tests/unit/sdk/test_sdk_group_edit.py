"""Changes of the file of groups: comments stay, and what the hub would refuse is refused before it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_text import Pen
from syftmesh.group_edit import member_text, members_of, with_group, with_members, without_group
from syftmesh_core.errors import AlreadyExists, InvalidInput, MeshError, NotFound
from syftmesh_core.permission import parse_groups

BOB, DORA, EVE = "bob@x.example", "dora@x.example", "eve@x.example"
WRITTEN = (BOB, "Dora@X.example", "group:leads", "eve+1@x.example")
TEXT = (
    "# who may look\n"
    "groups:\n"
    "  leads: [dora@x.example]  # since May\n"
    "  reviewers:\n"
    "    - 'bob@x.example' # on leave\n"
    "    - group:leads\n"
    "  # the end"
)


@st.composite
def group_files(draw: Any) -> tuple[str, list[str], list[str]]:
    """A file with the groups leads and team, the text of leads, and the comments in order."""
    pen = Pen(draw)
    margin = pen.one_of("  ", "    ")
    lines = [*pen.above(""), f"groups:{pen.behind()}", *pen.above(margin)]
    leads = pen.list_lines("leads", pen.some(WRITTEN[:2]), margin)
    lines += [*leads, *pen.above(margin), *pen.list_lines("team", pen.some(WRITTEN), margin), *pen.above("")]
    newline = pen.one_of("\n", "\r\n")
    return newline.join(lines) + pen.one_of("", newline), [newline.join(leads)], pen.comments


@settings(max_examples=100, deadline=None)
@given(file=group_files(), who=st.lists(st.sampled_from((*WRITTEN, EVE)), min_size=1, unique=True))
def test_a_change_of_members_keeps_all_comments_and_other_groups(
    file: tuple[str, list[str], list[str]], who: list[str]
) -> None:
    text, untouched, comments = file
    before = parse_groups(text.encode())
    grown = with_members(text.encode(), "team", add=who)
    shrunk = with_members(grown, "team", remove=who)
    for data in (grown, shrunk):
        after, at = data.decode(), 0
        for comment in comments:
            at = after.index(comment, at) + len(comment)
        assert untouched[0] in after
        assert parse_groups(data).members["leads"] == before.members["leads"]
    canonical = {member_text(member) for member in who}
    held = set(members_of(before, "team"))
    assert set(members_of(parse_groups(grown), "team")) == held | canonical
    assert set(members_of(parse_groups(shrunk), "team")) == held - canonical
    assert with_members(grown, "team", add=who) == grown


def test_groups_are_made_changed_and_deleted_in_place() -> None:
    made = with_group(b"", "leads", [DORA])
    assert made == b'groups:\n  leads: ["dora@x.example"]\n'
    assert with_group(made, "all", ["group:leads", BOB]) == (
        b'groups:\n  leads: ["dora@x.example"]\n  all: ["group:leads", "bob@x.example"]\n'
    )
    assert with_group(b"groups: {}  # none yet\n", "a", []) == b"groups:  # none yet\n  a: []\n"
    assert with_group(b"{groups: {}}", "a", [BOB]) == b'{groups: {a: ["bob@x.example"]}}'
    assert with_group(b"groups: {a: []}", "b", [BOB]) == b'groups: {a: [], b: ["bob@x.example"]}'
    assert with_members(TEXT.encode(), "reviewers", add=[EVE], remove=[BOB]).decode() == (
        "# who may look\ngroups:\n  leads: [dora@x.example]  # since May\n  reviewers:\n"
        '    # on leave\n    - group:leads\n    - "eve@x.example"\n  # the end'
    )
    assert without_group(TEXT.encode(), "leads").decode() == (
        "# who may look\ngroups:\n  reviewers:\n    - 'bob@x.example' # on leave\n    - group:leads\n  # the end"
    )
    assert parse_groups(without_group(with_group(b"", "a", []), "a")).members == {}


def test_a_name_that_other_readers_take_for_a_number_is_quoted() -> None:
    for name in ("2024", "no", "on", "null", "1e3"):
        data = with_group(b"", name, [BOB])
        assert f'"{name}": ' in data.decode()
        assert members_of(parse_groups(data), name) == [BOB]


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda data: with_group(data, "Über", []), InvalidInput, "is no name of a group"),
        (lambda data: with_group(data, 'a: ["x"]\n b', []), InvalidInput, "is no name of a group"),
        (lambda data: with_group(data, "x", ["*"]), InvalidInput, "cannot be a member of x"),
        (lambda data: with_group(data, "x", ["bob"]), InvalidInput, "cannot be a member of x"),
        (lambda data: with_group(data, "x", ["group:x"]), InvalidInput, "contain each other: x > x"),
        (lambda data: with_group(data, "x", ["group:none"]), NotFound, "There is no group 'none'"),
        (lambda data: with_group(data, "leads", []), AlreadyExists, "There is a group leads already"),
        (
            lambda data: with_members(data, "leads", add=["group:reviewers"]),
            InvalidInput,
            "contain each other: leads > reviewers > leads",
        ),
        (lambda data: with_members(data, "leads", add=["*@x.example"]), InvalidInput, "cannot be a member"),
        (lambda data: with_members(data, "none", add=[BOB]), NotFound, "there are: leads, reviewers"),
        (
            lambda data: with_members(data, "reviewers", remove=[DORA]),
            NotFound,
            "is no member of reviewers itself",
        ),
        (lambda data: without_group(data, "none"), NotFound, "There is no group 'none'"),
        (lambda data: with_group(b"groups: []", "x", []), InvalidInput, "groups is not a mapping"),
        (
            lambda data: with_group(data, "x", [f"a{n}@x.example" for n in range(2001)]),
            InvalidInput,
            "more than 2000 members",
        ),
    ],
)
def test_what_the_parser_refuses_is_refused_here(
    change: Callable[[bytes], bytes], kind: type[MeshError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        change(TEXT.encode())
    assert words in caught.value.message
