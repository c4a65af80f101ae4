"""Who can read a path, and how much of that is told to whom."""

from __future__ import annotations

import pytest
from rule_world import ALICE, BOB, CAROL, DAY_MS, EVE, NOW_MS, World
from syftmesh_core.errors import InvalidInput, Unavailable
from syftmesh_core.permission.reader import ReaderKind, Readers
from syftmesh_permissions.domain.reader import UNSEEN, ListReaders

HIDDEN = """
rules:
  - pattern: "data/**"
    access: {read: [bob@x.example, group:team], admin: [carol@x.example]}
    expires: 2027-02-01T00:00:00Z
  - pattern: "open/**"
    access: {read: ["*"]}
  - pattern: "named/**"
    access: {read: [bob@x.example]}
"""
SHOWN = """
rules:
  - pattern: "syft.pub.yaml"
    access: {read: ["*"]}
  - pattern: "team/**"
    access: {read: [bob@x.example, group:team]}
  - pattern: "users/**"
    access: {read: [USER]}
  - pattern: "denied/**"
    access: {read: [bob@x.example, carol@x.example]}
    deny: [group:team]
"""


@pytest.fixture
def shown(world: World) -> World:
    world.groups(f"groups: {{team: [{CAROL}]}}\n")
    world.rules(HIDDEN)
    world.rules(SHOWN, ("public",))
    return world


def readers(world: World, caller: str, path: str, at_ms: int | None = None) -> Readers:
    return ListReaders(world, world).run(caller, f"{ALICE}/{path}", at_ms)


@pytest.mark.parametrize("admin", [ALICE, CAROL])
def test_an_admin_learns_names_kind_and_rule(shown, admin):
    found = readers(shown, admin, "data/x")
    assert found.kind is ReaderKind.CLOSED
    assert found.principals == {ALICE, BOB, CAROL}
    assert f"{ALICE}/syft.pub.yaml" in found.why


def test_kinds_are_told_apart(shown):
    assert readers(shown, ALICE, "open/x").kind is ReaderKind.PUBLIC
    assert readers(shown, ALICE, "named/x").kind is ReaderKind.CLOSED
    assert readers(shown, ALICE, "public/users/x").kind is ReaderKind.OPEN
    assert readers(shown, ALICE, "none") == Readers(
        ReaderKind.CLOSED, frozenset({ALICE}), "No rule matches the path, so only the owner reads it."
    )


def test_a_moment_may_be_given(shown):
    assert readers(shown, ALICE, "data/x", NOW_MS + 40 * DAY_MS).kind is ReaderKind.CLOSED


def test_an_admin_of_now_is_none_by_the_moment_asked_for(shown):
    shown.time_ms += 40 * DAY_MS
    assert readers(shown, CAROL, "data/x", NOW_MS).why == UNSEEN


def test_whoever_may_read_the_rules_learns_what_they_say_without_members_of_groups(shown):
    found = readers(shown, EVE, "public/team/x")
    assert (found.kind, found.principals) == (ReaderKind.OPEN, {ALICE, BOB})
    assert "group" in found.why
    assert readers(shown, EVE, "public/users/x") == readers(shown, ALICE, "public/users/x")


def test_that_a_group_has_no_members_is_not_told_either(shown):
    shown.groups("groups: {team: []}\n")
    assert readers(shown, ALICE, "public/team/x").kind is ReaderKind.CLOSED
    assert readers(shown, EVE, "public/team/x").kind is ReaderKind.OPEN


def test_whom_a_group_denies_is_not_told_either(shown):
    assert readers(shown, ALICE, "public/denied/x").principals == {ALICE, BOB}
    found = readers(shown, EVE, "public/denied/x")
    assert (found.kind, found.principals) == (ReaderKind.OPEN, {ALICE, BOB, CAROL})


def test_a_reader_who_may_not_read_the_rules_learns_of_itself_and_the_owner(shown):
    assert readers(shown, BOB, "data/x") == Readers(ReaderKind.OPEN, frozenset({ALICE, BOB}), UNSEEN)


@pytest.mark.parametrize("caller", [EVE, "guest", ""])
def test_a_path_that_may_not_be_known_looks_like_one_that_there_is_not(shown, caller):
    unknown = ListReaders(shown, shown).run(caller, "nobody@x.example/data/x")
    assert unknown == Readers(ReaderKind.OPEN, frozenset({"nobody@x.example"}), UNSEEN)
    for path in ("data/x", "none", "open/x" if caller != EVE else "none/x"):
        assert readers(shown, caller, path) == Readers(ReaderKind.OPEN, frozenset({ALICE}), UNSEEN)


def test_a_malformed_path_is_refused(shown):
    with pytest.raises(InvalidInput):
        readers(shown, ALICE, "../x")


def test_nothing_is_told_while_the_log_is_read(shown):
    shown.loading = True
    with pytest.raises(Unavailable):
        readers(shown, ALICE, "data/x")
