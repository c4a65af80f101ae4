"""Who can read a path, as far as that is a closed set: what decides to whom a file is sealed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import Deciding, find_deciding, is_own
from syftmesh_core.permission.entry import EntryList, Groups
from syftmesh_core.permission.pattern import EmailSlot
from syftmesh_core.permission.ruleset import Level, Rule
from syftmesh_core.permission.tree import RuleTree
from syftmesh_core.principal import is_principal


class ReaderKind(StrEnum):
    """How far the readers of a path are known."""

    PUBLIC = "public"
    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class Readers:
    """Who can read a path.

    Attributes:
        kind: PUBLIC when anybody can, without a name; CLOSED when exactly `principals` can; else OPEN.
        principals: Those known by name, the owner always among them.
        why: What makes it so, one sentence.
    """

    kind: ReaderKind
    principals: frozenset[str]
    why: str


def readers_of(tree: RuleTree, path: MeshPath, now_ms: int) -> Readers:
    """Return who can read `path` at `now_ms` (Unix milliseconds), by the rules and groups of `tree`.

    OPEN is an answer that may grow without a change of rules or groups: by ``USER``, a glob, or a personal rule
    whose person cannot be read off the path.

    Raises:
        Internal: `tree` is of another datasite.
    """
    owner = frozenset({path.site})
    deciding = find_deciding(tree, path, now_ms)
    if deciding is None:
        return Readers(ReaderKind.CLOSED, owner, "No rule file governs the path, so only the owner reads it.")
    rule = deciding.rule
    if rule is None:
        return Readers(ReaderKind.CLOSED, owner, "No rule matches the path, so only the owner reads it.")
    where = f"the rule at line {rule.line} of {deciding.file.path}"
    if rule.expires_ms is not None and now_ms >= rule.expires_ms:
        return Readers(ReaderKind.CLOSED, owner, f"Only the owner: {where} has expired.")
    if rule.deny.everyone:
        return Readers(ReaderKind.CLOSED, owner, f"Only the owner: {where} denies everyone else.")
    readers, groups = rule.access.granted(Level.READ), tree.groups
    if rule.pattern.is_personal:
        return _personal(deciding, rule, readers, groups, now_ms, where)
    if readers.everyone:
        return Readers(ReaderKind.PUBLIC, owner | readers.principals, f"Everyone, by '*' in {where}.")
    if rule.deny.authenticated:
        return Readers(ReaderKind.CLOSED, owner, f"Only the owner: {where} denies every user.")
    known = owner | _granted(_named(readers, groups), rule, groups)
    if opening := _opening(readers):
        return Readers(ReaderKind.OPEN, known, f"{opening} in {where} is no closed set.")
    return Readers(ReaderKind.CLOSED, known, f"The owner and those whom {where} names.")


def _personal(
    deciding: Deciding, rule: Rule, readers: EntryList, groups: Groups, now_ms: int, where: str
) -> Readers:
    owner = frozenset({deciding.file.path.partition("/")[0]})
    slot = rule.pattern.email_slot
    candidates = _named(readers, groups) if slot is None else _read_off(deciding, slot)
    own = {principal for principal in candidates if is_own(deciding, principal, now_ms)}
    known = owner | {p for p in _granted(own, rule, groups) if readers.names(p, groups)}
    opening = "'*'" if readers.everyone else _opening(readers)
    if rule.deny.authenticated:
        opening = ""
    if opening and slot is None:
        why = f"{opening} in {where}, which is personal, and the person cannot be read off the path."
        return Readers(ReaderKind.OPEN, known, why)
    return Readers(ReaderKind.CLOSED, known, f"The owner and the person to whom {where} gives this path.")


def _read_off(deciding: Deciding, slot: EmailSlot) -> set[str]:
    """Return the principals whose e-mail stands in a segment of the path between the slot's texts."""
    found = set()
    for segment in deciding.subject.text.split("/"):
        if not (segment.startswith(slot.before) and segment.endswith(slot.after)):
            continue
        value = segment[len(slot.before) : len(segment) - len(slot.after)]
        principal = value.lower() if slot.upper else value
        if is_principal(principal):
            found.add(principal)
    return found


def _named(entries: EntryList, groups: Groups) -> set[str]:
    return set(entries.principals).union(*(groups.get(name, frozenset()) for name in entries.groups))


def _granted(principals: set[str], rule: Rule, groups: Groups) -> set[str]:
    return {principal for principal in principals if not rule.deny.names(principal, groups)}


def _opening(entries: EntryList) -> str:
    """Return what makes a list more than the e-mails and groups in it, empty when nothing does."""
    if entries.authenticated:
        return "USER"
    return f"The glob {entries.globs[0].text}" if entries.globs else ""
