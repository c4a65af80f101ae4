from __future__ import annotations

import pytest
from syftmesh_core.path import parse_path
from syftmesh_core.permission import ReaderKind, Readers, RuleTree, parse_ruleset, readers_of
from syftmesh_core.principal import user_hash

ALICE, BOB, EVE, CAROL = "alice@x.org", "bob@x.org", "eve@corp.example", "carol@x.org"
NOW = 1_800_000_000_000
GROUPS = {"team": frozenset({EVE, CAROL})}


def readers(rule: str, path: str = "f") -> Readers:
    tree = RuleTree(ALICE).with_groups(GROUPS)
    tree = tree.with_rules((), parse_ruleset(f"rules: [{rule}]".encode()), 1)
    return readers_of(tree, parse_path(f"{ALICE}/{path}"), NOW)


def of(access: str, more: str = "", pattern: str = "**", path: str = "f") -> tuple[str, set[str]]:
    answer = readers(f"{{pattern: '{pattern}', access: {{{access}}}{more}}}", path)
    assert ALICE in answer.principals
    assert answer.why.endswith(".")
    return answer.kind.value, set(answer.principals) - {ALICE}


def test_what_nobody_was_given_is_the_owners() -> None:
    empty = readers_of(RuleTree(ALICE), parse_path(f"{ALICE}/f"), NOW)
    assert empty.kind is ReaderKind.CLOSED
    assert empty.principals == {ALICE}
    assert of("read: ['*']", pattern="other") == ("closed", set())
    assert of("") == ("closed", set())
    assert of(f"create: [{BOB}]") == ("closed", set())


def test_e_mails_are_a_closed_set_whichever_level_names_them() -> None:
    assert of(f"read: [{BOB}], write: [{EVE}], admin: [{CAROL}]") == ("closed", {BOB, EVE, CAROL})


def test_everyone_is_public() -> None:
    assert of("read: ['*']")[0] == "public"
    assert of("write: ['*']")[0] == "public"
    assert of("read: ['*']", f", deny: [{BOB}, USER]")[0] == "public"


def test_deny_takes_out_and_expiry_ends() -> None:
    assert of(f"read: [{BOB}, {EVE}]", ", deny: ['*@corp.example']") == ("closed", {BOB})
    assert of(f"read: [{BOB}, {EVE}]", ", deny: ['group:team']") == ("closed", {BOB})
    assert of("read: ['*']", ", deny: ['*']") == ("closed", set())
    assert of(f"read: [USER, {BOB}]", ", deny: [USER]") == ("closed", set())
    assert of("read: ['*']", ", expires: '2020-01-01T00:00:00Z'") == ("closed", set())


@pytest.mark.parametrize(
    ("entry", "kind"),
    [("USER", "open"), ("*@corp.example", "open"), ("group:team", "closed"), ("group:no", "closed")],
)
def test_what_may_grow_is_open_and_a_group_of_the_owner_is_not(entry: str, kind: str) -> None:
    known = {EVE, CAROL} if entry == "group:team" else set()
    assert of(f"read: [{BOB}, '{entry}']") == (kind, known | {BOB})
    assert of(f"read: [{BOB}, '{entry}']", f", deny: [{EVE}]") == (kind, (known | {BOB}) - {EVE})


@pytest.mark.parametrize("entry", ["USER", "*", "*@x.org", BOB])
def test_a_personal_place_is_closed_to_its_person(entry: str) -> None:
    for pattern, path in (
        ("{{.UserEmail}}/**", f"{BOB}/f"),
        ("p/u_{{.UserEmail}}.d/**", f"p/u_{BOB}.d/f"),
        ("{{upper .UserEmail}}/**", f"{BOB.upper()}/f"),
        ("**/{{.UserEmail}}/{a,f}", f"x/{BOB}/f"),
    ):
        assert of(f"read: ['{entry}']", pattern=pattern, path=path) == ("closed", {BOB})


def test_lists_and_deny_of_a_personal_rule_count() -> None:
    assert of(f"read: [{EVE}]", pattern="{{.UserEmail}}/**", path=f"{BOB}/f") == ("closed", set())
    assert of("read: [USER]", f", deny: [{BOB}]", "{{.UserEmail}}/**", f"{BOB}/f") == ("closed", set())
    assert of("read: ['*']", ", deny: [USER]", "{{.UserEmail}}/**", f"{BOB}/f") == ("closed", set())
    assert of("read: ['*@corp.example']", pattern="{{.UserEmail}}/**", path=f"{BOB}/f") == ("closed", set())


def test_a_personal_rule_for_a_group_is_closed_to_its_member() -> None:
    assert of("read: ['group:team']", pattern="{{.UserEmail}}/**", path=f"{EVE}/f") == ("closed", {EVE})
    assert of("read: ['group:team']", pattern="{{.UserEmail}}/**", path=f"{BOB}/f") == ("closed", set())


def test_two_people_may_stand_in_one_path() -> None:
    answer = of("read: [USER]", pattern="**/{{.UserEmail}}/**", path=f"{BOB}/{EVE}/f")
    assert answer == ("closed", {BOB, EVE})


def test_a_hash_names_nobody_who_is_not_listed() -> None:
    path = f"{user_hash(BOB)}/f"
    assert of("read: [USER]", pattern="{{.UserHash}}/**", path=path) == ("open", set())
    assert of("read: ['*']", pattern="{{.UserHash}}/**", path=path) == ("open", set())
    assert of(f"read: [{BOB}, {EVE}]", pattern="{{.UserHash}}/**", path=path) == ("closed", {BOB})
    assert of(f"read: [USER, {BOB}]", ", deny: [USER]", "{{.UserHash}}/**", path) == ("closed", set())


def test_a_person_who_cannot_be_read_off_leaves_it_open() -> None:
    assert of("read: [USER]", pattern="*{{.UserEmail}}", path=f"x{BOB}") == ("open", set())
    assert of(f"read: [{BOB}]", pattern="*{{.UserEmail}}", path=f"x{BOB}") == ("closed", {BOB})
