"""One change of a rule file: the text before to the text after, which says exactly what was asked, or nothing does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Literal

from syftmesh_core.errors import InvalidInput, NotFound
from syftmesh_core.permission.entry import EntryList, parse_entries
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.pattern import parse_pattern
from syftmesh_core.permission.ruleset import Access, Limits, Rule, RuleSet
from syftmesh_core.quote import quoted

from syftmesh.yaml_edit import (
    append_item,
    fill,
    flow_list,
    quote,
    remove_key,
    set_list,
    set_value,
)
from syftmesh.yaml_place import Leaf, document_of, not_editable

LEVELS: Final = ("admin", "write", "create", "read")
LISTS: Final = (*LEVELS, "deny")
TAKEN_AWAY: Final = "none"
"""Takes an expiry or a limit out of a rule."""

Amount = int | Literal["none"]

_WILD: Final = frozenset("*?[]{}\\")
_UNITS: Final = {"GiB": 2**30, "GB": 10**9, "MiB": 2**20, "MB": 10**6, "KiB": 2**10, "KB": 10**3}
_FIELDS: Final = {"maxFileSize": "max_file_size_bytes", "maxFiles": "max_files"}


@dataclass(frozen=True, slots=True)
class RuleEdit:
    """What is to change in one rule file.

    Attributes:
        pattern: Of the rule; it is made when no rule has this pattern.
        lists: admin, write, create, read and deny to their entries; a list that is not named stays.
        add: Whether `lists` are added to what is there, not put in its place.
        remove: Entries that leave all lists but deny.
        expires: Unix milliseconds from which on it grants nothing, or ``none``; None leaves it.
        limits: maxFileSize (bytes) and maxFiles, or ``none``; one that is not named stays.
        terminal: Whether rule files further down are ignored; None leaves it.
    """

    pattern: str
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    add: bool = False
    remove: tuple[str, ...] = ()
    expires: Amount | None = None
    limits: Mapping[str, Amount] = field(default_factory=dict)
    terminal: bool | None = None

    @property
    def changes_rule(self) -> bool:
        """Whether a rule is meant, not only the file as a whole."""
        return bool(self.lists or self.remove or self.expires is not None or self.limits)

    @property
    def changes_anything(self) -> bool:
        """Whether something is asked for at all."""
        return self.changes_rule or self.terminal is not None


def entry_text(text: str) -> str:
    """Return the canonical form of one entry of a list.

    Raises:
        InvalidInput: ENTRY_INVALID.
    """
    return next(iter(texts_of(parse_entries((text,)))))


def texts_of(entries: EntryList) -> set[str]:
    """Return the entries of a list in canonical form."""
    found = set(entries.principals) | {glob.text for glob in entries.globs}
    found |= {f"group:{name}" for name in entries.groups}
    return found | ({"*"} if entries.everyone else set()) | ({"USER"} if entries.authenticated else set())


def literal_pattern(name: str) -> str:
    """Return the pattern that matches the file `name` and nothing else."""
    return "".join(f"\\{character}" if character in _WILD else character for character in name)


def rule_with(rules: RuleSet, pattern: str) -> Rule | None:
    """Return the rule that has `pattern`: of several the first one, which alone ever decides."""
    text = parse_pattern(pattern).text
    return next((rule for rule in rules.rules if rule.pattern.text == text), None)


def edited_rules(data: bytes, edit: RuleEdit) -> bytes:
    """Return the rule file with content `data` after `edit`; what it does not touch stays byte for byte.

    Raises:
        InvalidInput: RULES_INVALID, PATTERN_INVALID, ENTRY_INVALID; CHANGE_MISSING when nothing is asked for.
        NotFound: (RULE_UNKNOWN) entries shall be removed from a rule that is not there.
        WrongState: (RULES_NOT_EDITABLE) the file is written in a way that this program cannot change.
    """
    if not edit.changes_anything:
        raise InvalidInput("Nothing was named that should change.", reason="CHANGE_MISSING")
    before = parse_ruleset(data)
    text = data.decode()
    if edit.terminal is not None and edit.terminal is not before.terminal:
        text = set_value(text, (), "terminal", "true" if edit.terminal else "false")
    if edit.changes_rule:
        rule = rule_with(before, edit.pattern)
        text = _with_new(text, before, edit) if rule is None else _with_changed(text, rule, edit)
    changed = text.encode()
    if _meaning(parse_ruleset(changed)) != _wanted(before, edit):
        raise not_editable("it would not say then what was asked for")
    return changed


def _with_changed(text: str, rule: Rule, edit: RuleEdit) -> str:
    where = ("rules", rule.index)
    for name, entries in _lists_after(rule, edit).items():
        held = _list_of(rule, name)
        if set(entries) != texts_of(held):
            path = where if name == "deny" else (*where, "access")
            text = set_list(text, path, name, entries, entry_text)
    if edit.expires == TAKEN_AWAY:
        text = remove_key(text, where, "expires")
    elif edit.expires is not None and edit.expires != rule.expires_ms:
        text = set_value(text, where, "expires", _moment_text(int(edit.expires)))
    for name, amount in edit.limits.items():
        if amount != _limit(rule.limits, name):
            text = _with_limit(text, where, name, amount)
    return text


def _with_limit(text: str, where: tuple[str, int], name: str, amount: Amount) -> str:
    limits = document_of(text).at((*where, "limits"))
    if amount == TAKEN_AWAY:
        return (
            text if limits is None or isinstance(limits, Leaf) else remove_key(text, (*where, "limits"), name)
        )
    written = _limit_text(name, int(amount))
    if limits is None or isinstance(limits, Leaf):
        return set_value(text, where, "limits", f"{{{name}: {written}}}")
    return set_value(text, (*where, "limits"), name, written)


def _with_new(text: str, before: RuleSet, edit: RuleEdit) -> str:
    if edit.remove and not edit.lists:
        raise NotFound(
            f"There is no rule with the pattern {quoted(edit.pattern)} to take somebody out of.",
            reason="RULE_UNKNOWN",
            metadata={"pattern": quoted(edit.pattern)},
            hint="syftmesh acl show PATH lists the rules; --pattern names one.",
        )
    after = _lists_after(Rule(parse_pattern(edit.pattern), Access()), edit)
    lists = {name: flow_list(entries) for name, entries in after.items() if entries}
    access = {name: lists[name] for name in LEVELS if name in lists}
    rest = {"deny": lists["deny"]} if "deny" in lists else {}
    if edit.expires is not None and edit.expires != TAKEN_AWAY:
        rest["expires"] = _moment_text(int(edit.expires))
    limits = {n: _limit_text(n, int(a)) for n, a in edit.limits.items() if a != TAKEN_AWAY}
    if limits:
        rest["limits"] = _flow(limits)
    pattern = quote(parse_pattern(edit.pattern).text)
    flow = _flow({"pattern": pattern, "access": _flow(access), **rest})
    lines = [f"pattern: {pattern}", "access:" if access else "access: {}"]
    lines += [f"  {name}: {entries}" for name, entries in access.items()]
    lines += [f"{name}: {value}" for name, value in rest.items()]
    if before.rules:
        return append_item(text, ("rules",), lines, flow)
    return fill(text, "rules", [f"- {lines[0]}", *(f"  {line}" for line in lines[1:])], f"[{flow}]")


def _flow(pairs: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name}: {value}" for name, value in pairs.items()) + "}"


def _lists_after(rule: Rule, edit: RuleEdit) -> dict[str, list[str]]:
    """Return the lists that `edit` touches with their entries after it, those that were there first."""
    found = {}
    for name in LISTS:
        held = sorted(texts_of(_list_of(rule, name)))
        entries: Iterable[str] = held
        if name in edit.lists:
            entries = (*held, *edit.lists[name]) if edit.add else edit.lists[name]
        if name != "deny":
            entries = (entry for entry in entries if entry not in edit.remove)
        found[name] = list(dict.fromkeys(entries))
    return found


def _list_of(rule: Rule, name: str) -> EntryList:
    found: EntryList = rule.deny if name == "deny" else getattr(rule.access, name)
    return found


Meaning = tuple[bool, list[tuple[str, dict[str, set[str]], int | None, tuple[int | None, int | None, bool]]]]


def _meaning(rules: RuleSet) -> Meaning:
    """Return what a rule file says, without how it is written."""
    return rules.terminal, [
        (
            rule.pattern.text,
            {name: texts_of(_list_of(rule, name)) for name in LISTS},
            rule.expires_ms,
            _limits_of(rule.limits),
        )
        for rule in rules.rules
    ]


def _wanted(before: RuleSet, edit: RuleEdit) -> Meaning:
    """Return what the file has to say after `edit`, worked out without its text."""
    terminal, rules = _meaning(before)
    if edit.terminal is not None:
        terminal = edit.terminal
    if not edit.changes_rule:
        return terminal, rules
    rule = rule_with(before, edit.pattern)
    if rule is None:
        rule = Rule(parse_pattern(edit.pattern), access=Access(), index=len(rules))
        rules.append(("", {}, None, (None, None, True)))
    lists = {name: set(entries) for name, entries in _lists_after(rule, edit).items()}
    expires = rule.expires_ms if edit.expires is None else edit.expires
    size, count, dirs = _limits_of(rule.limits)
    size, count = (
        _after(edit.limits.get(name), held) for name, held in (("maxFileSize", size), ("maxFiles", count))
    )
    rules[rule.index] = (rule.pattern.text, lists, _after(expires, None), (size, count, dirs))
    return terminal, rules


def _after(asked: Amount | None, held: int | None) -> int | None:
    if asked is None:
        return held
    return None if asked == TAKEN_AWAY else int(asked)


def _limits_of(limits: Limits | None) -> tuple[int | None, int | None, bool]:
    held = limits or Limits()
    return held.max_file_size_bytes, held.max_files, held.allow_dirs


def _limit(limits: Limits | None, name: str) -> Amount:
    held: int | None = getattr(limits, _FIELDS[name], None)
    return TAKEN_AWAY if held is None else held


def _limit_text(name: str, amount: int) -> str:
    if name == "maxFileSize" and amount:
        for unit, size_bytes in _UNITS.items():
            if amount % size_bytes == 0:
                return f"{amount // size_bytes}{unit}"
    return str(amount)


def _moment_text(unix_ms: int) -> str:
    moment = datetime.fromtimestamp(unix_ms // 1000, tz=UTC)
    fraction = f".{unix_ms % 1000:03}" if unix_ms % 1000 else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
