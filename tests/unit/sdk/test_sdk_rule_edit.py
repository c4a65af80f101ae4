"""Changes of a rule file touch what they change: comments, other rules, quotes and line ends stay as they are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rule_text import LEVELS, PATTERNS, WHO, Written, rule_files
from syftmesh.rule_edit import RuleEdit, edited_rules, entry_text, literal_pattern, rule_with, texts_of
from syftmesh_core.errors import InvalidInput, NotFound, WrongState
from syftmesh_core.path import parse_path
from syftmesh_core.permission import parse_pattern, parse_ruleset
from syftmesh_core.permission.subject import Subject

BOB, CAROL = "bob@x.example", "carol@lab.example"

EDITS = st.builds(
    RuleEdit,
    pattern=st.sampled_from((*PATTERNS, "new/**")),
    lists=st.dictionaries(
        st.sampled_from((*LEVELS, "deny")),
        st.lists(st.sampled_from(WHO), max_size=3, unique=True).map(lambda who: tuple(map(entry_text, who))),
        min_size=1,
    ),
    add=st.booleans(),
    remove=st.lists(st.sampled_from(WHO), max_size=2, unique=True).map(
        lambda who: tuple(map(entry_text, who))
    ),
    expires=st.sampled_from((None, "none", 1_900_000_000_123)),
    limits=st.dictionaries(
        st.sampled_from(("maxFileSize", "maxFiles")), st.sampled_from(("none", 0, 3 * 2**20))
    ),
    terminal=st.sampled_from((None, True, False)),
)


@settings(max_examples=150, deadline=None)
@given(written=rule_files(), edit=EDITS)
def test_every_comment_and_every_other_rule_stays_byte_for_byte(written: Written, edit: RuleEdit) -> None:
    after = edited_rules(written.text.encode(), edit).decode()
    at = 0
    for comment in written.comments:
        at = after.index(comment, at) + len(comment)
    assert after.count("# note ") == len(written.comments)
    for pattern, rule in zip(written.patterns, written.rules, strict=True):
        if pattern != edit.pattern:
            assert rule in after
    if "\r\n" in written.text:
        assert after.count("\n") == after.count("\r\n")


@settings(max_examples=150, deadline=None)
@given(written=rule_files(), edit=EDITS)
def test_the_file_says_afterwards_what_was_asked_and_nothing_else(written: Written, edit: RuleEdit) -> None:
    before = parse_ruleset(written.text.encode())
    changed = edited_rules(written.text.encode(), edit)
    after = parse_ruleset(changed)
    assert after.terminal is (before.terminal if edit.terminal is None else edit.terminal)
    rule = rule_with(after, edit.pattern)
    assert rule is not None
    for name, entries in edit.lists.items():
        held = texts_of(rule.deny if name == "deny" else getattr(rule.access, name))
        gone = set() if name == "deny" else set(edit.remove)
        assert held >= set(entries) - gone
        assert edit.add or held == set(entries) - gone
    for level in LEVELS:
        assert not texts_of(getattr(rule.access, level)) & set(edit.remove)
    others = [each.pattern.text for each in after.rules if each.pattern.text != edit.pattern]
    assert others == [p for p in written.patterns if p != edit.pattern]
    assert edited_rules(changed, edit) == changed


TOKENS = (
    *"[]{}:,-?|>#'\"~ \t\n",
    "\r\n",
    "- ",
    "? ",
    ": ",
    " #",
    "---\n",
    "...\n",
    "|\n",
    "rules",
    "access",
    "\u2028",
)


@settings(max_examples=150, deadline=None)
@given(
    written=rule_files(),
    edit=EDITS,
    places=st.lists(st.tuples(st.integers(0, 400), st.sampled_from(TOKENS), st.integers(0, 2)), max_size=3),
)
def test_a_mangled_file_is_edited_rightly_or_refused_by_a_typed_error(
    written: Written, edit: RuleEdit, places: list[tuple[int, str, int]]
) -> None:
    text = written.text
    for at, token, cut in places:
        text = text[:at] + token + text[at + cut :]
    try:
        before = parse_ruleset(text.encode())
        after = parse_ruleset(edited_rules(text.encode(), edit))
    except (InvalidInput, WrongState):
        return  # not a rule file any more, or none that can be changed in place
    assert {r.pattern.text for r in after.rules} == {r.pattern.text for r in before.rules} | {edit.pattern}


def edited(text: str, pattern: str = "**", **lists: Any) -> str:
    more = {name: lists.pop(name) for name in tuple(lists) if name in RuleEdit.__dataclass_fields__}
    return edited_rules(text.encode(), RuleEdit(pattern, lists, **more)).decode()


def test_a_new_file_is_written_as_people_write_it() -> None:
    limits = {"maxFileSize": 100 * 2**20, "maxFiles": 5}
    made = edited(
        "", read=(BOB, "*"), deny=(CAROL,), limits=limits, expires=1_900_000_000_000, terminal=False
    )
    assert made == (
        'rules:\n  - pattern: "**"\n    access:\n      read: ["bob@x.example", "*"]\n'
        '    deny: ["carol@lab.example"]\n    expires: 2030-03-17T17:46:40Z\n'
        "    limits: {maxFileSize: 100MiB, maxFiles: 5}\n"
    )
    assert edited("# mine", read=()) == '# mine\nrules:\n  - pattern: "**"\n    access: {}\n'


def test_json_stays_json_like() -> None:
    text = '{"terminal": false, "rules": [{"pattern": "a", "access": {"read": ["*"]}}]}'
    assert edited(text, "a", write=(BOB,)) == (
        '{"terminal": false, "rules": [{"pattern": "a", "access": {"read": ["*"], write: ["bob@x.example"]}}]}'
    )
    grown = parse_ruleset(edited(text, "b", read=(BOB,)).encode())
    assert [rule.pattern.text for rule in grown.rules] == ["a", "b"]
    assert len(parse_ruleset(edited("{}", "b", read=(BOB,)).encode()).rules) == 1
    assert len(parse_ruleset(edited("{rules: []}", "b", read=(BOB,)).encode()).rules) == 1


def test_the_comment_of_an_entry_that_goes_stays() -> None:
    text = "rules:\n- pattern: '**'\n  access:\n    read:\n    - bob@x.example # until May\n    - '*'"
    assert edited(text, remove=(BOB,)) == (
        "rules:\n- pattern: '**'\n  access:\n    read:\n    # until May\n    - '*'"
    )
    assert edited(text, read=(CAROL,)) == (
        "rules:\n- pattern: '**'\n  access:\n    read:\n    # until May\n    - \"carol@lab.example\""
    )
    assert edited(text, read=()) == "rules:\n- pattern: '**'\n  access:\n    read: []\n    # until May"


def test_an_entry_written_otherwise_is_the_same_entry() -> None:
    text = 'rules:\n- {pattern: "**", access: {read: [Bob@X.example, "*"]}}\n'
    assert edited(text, read=(BOB, "*")) == text
    assert edited(text, remove=(BOB,)) == 'rules:\n- {pattern: "**", access: {read: ["*"]}}\n'


def test_of_two_rules_with_one_pattern_the_one_that_decides_changes() -> None:
    text = 'rules:\n- {pattern: "**", access: {}}\n- {pattern: "**", access: {read: ["*"]}}\n'
    first, second = parse_ruleset(edited(text, read=(BOB,)).encode()).rules
    assert (texts_of(first.access.read), texts_of(second.access.read)) == ({BOB}, {"*"})


@pytest.mark.parametrize(
    "style",
    [
        "expires: 2030-01-01T00:00:00Z",
        "expires: '2030-01-01T00:00:00Z' # why",
        "limits: {}",
        "limits:",
        "deny:",
    ],
)
def test_parts_of_a_rule_are_set_and_taken_away_however_they_stand(style: str) -> None:
    text = f"rules:\n  - pattern: '**'\n    access: {{}}\n    {style}\n"
    limits = {"maxFileSize": 10**6, "maxFiles": 0}
    grown = edited(text, expires=1_900_000_000_000, limits=limits, deny=(BOB,))
    rule = parse_ruleset(grown.encode()).rules[0]
    assert rule.limits is not None
    assert (rule.expires_ms, rule.limits.max_file_size_bytes, rule.limits.max_files) == (
        1_900_000_000_000,
        10**6,
        0,
    )
    shrunk = edited(grown, expires="none", limits=dict.fromkeys(limits, "none"), deny=())
    rule = parse_ruleset(shrunk.encode()).rules[0]
    assert (rule.expires_ms, rule.deny.principals) == (None, frozenset())
    assert rule.limits is not None
    assert (rule.limits.max_file_size_bytes, rule.limits.max_files) == (None, None)
    assert ("# why" in style) == ("# why" in shrunk)


@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))
def test_the_pattern_of_a_name_matches_this_name_alone(name: str) -> None:
    try:
        path = parse_path(f"{BOB}/{name}")
    except InvalidInput:
        return
    if len(path.segments) != 1:
        return
    pattern = parse_pattern(literal_pattern(path.name))
    changed = edited_rules(b"", RuleEdit(literal_pattern(path.name), {"read": ("*",)}))
    assert parse_ruleset(changed).rules[0].pattern.text == pattern.text
    for other in (path.name, f"{path.name}x", f"x{path.name}", "x"):
        assert pattern.could_match(Subject(other), 0) == (other == path.name)


@pytest.mark.parametrize(
    ("text", "edit", "kind", "reason"),
    [
        ("", RuleEdit("**"), InvalidInput, "CHANGE_MISSING"),
        ("", RuleEdit("[", {"read": ()}), InvalidInput, "PATTERN_INVALID"),
        ("rules: 1", RuleEdit("**", {"read": ()}), InvalidInput, "RULES_INVALID"),
        ("rules: &a []", RuleEdit("**", {"read": ()}), InvalidInput, "RULES_INVALID"),
        ("rules: []", RuleEdit("**", remove=(BOB,)), NotFound, "RULE_UNKNOWN"),
        ("? rules\n: \n  - {pattern: a, access: {}}\n", RuleEdit("b", terminal=True), None, ""),
        ("--- \nrules: []\n...\n", RuleEdit("b", {"read": ()}), None, ""),
        ("---\n...\n", RuleEdit("b", {"read": ()}), InvalidInput, "RULES_INVALID"),
        ("#" + "x" * 65_500, RuleEdit("**", {"read": ("*",)}), InvalidInput, "RULES_INVALID"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_sent(
    text: str, edit: RuleEdit, kind: type[Exception] | None, reason: str
) -> None:
    if kind is None:
        assert edited_rules(text.encode(), edit)
        return
    with pytest.raises(kind) as caught:
        edited_rules(text.encode(), edit)
    assert getattr(caught.value, "reason", "") == reason


def test_an_entry_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cannot stand in a list"):
        entry_text("bob")
