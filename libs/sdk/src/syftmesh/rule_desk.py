"""Changing rule files: planned on what is signed now, shown as whom it adds and removes, written once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal

from syftmesh_client.node import Node
from syftmesh_core.errors import Conflict, InvalidInput, NotFound, PermissionDenied, WrongState
from syftmesh_core.path import RULES_FILE, MeshPath, parse_path
from syftmesh_core.permission.engine import find_deciding
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.pattern import parse_pattern
from syftmesh_core.permission.ruleset import Level, Rule
from syftmesh_core.permission.tree import RuleTree
from syftmesh_core.quote import quoted

from syftmesh.policy import Policy, load_policy, read_policy_file, unified_diff
from syftmesh.reach import Gain, Reach, reach, still_granted
from syftmesh.reseal import changed_files, check_sealable, decidings, reseal_notes
from syftmesh.reseal import reseal as seal_anew
from syftmesh.rule_edit import (
    TAKEN_AWAY,
    Amount,
    RuleEdit,
    edited_rules,
    entry_text,
    literal_pattern,
    rule_with,
)

EVERYTHING: Final = "**"
Nothing = Literal["none"]


@dataclass(frozen=True, slots=True)
class RuleChange:
    """A change of a rule file, planned or written.

    Attributes:
        path: What was named.
        file: The rule file.
        pattern: Pattern of the rule.
        diff: Of the file, unified; empty when it stays as it is.
        adds: Who gains what.
        removes: Who loses what.
        notes: What its author should know, each a sentence.
        resealed: Live files that were written again for their new readers.
        revision: Of the rule file: after the change, of one that was only planned before it; 0 for no file.
    """

    path: str
    file: str
    pattern: str
    diff: str = field(repr=False)
    adds: tuple[Gain, ...]
    removes: tuple[Gain, ...]
    notes: tuple[str, ...]
    resealed: tuple[str, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class _Plan:
    change: RuleChange
    data: bytes
    reach: Reach
    after: RuleTree
    files: tuple[MeshPath, ...]
    now_ms: int

    def to_reseal(self) -> list[str]:
        """Return the live files whose readers change; when the file said so before, all that the rule decides."""
        if self.change.diff:
            return changed_files(self.reach)
        meant = self.change.file, self.change.pattern
        return [
            str(path)
            for path, deciding in decidings(self.after, self.files, self.now_ms)
            if deciding is not None
            and deciding.rule is not None
            and (deciding.file.path, deciding.rule.pattern.text) == meant
        ]


class AsyncRuleDesk:
    """Changes rule files of the own datasite."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def set(  # noqa: PLR0913 - the parts of a rule, each named
        self,
        path: str,
        *,
        read: Iterable[str] | None = None,
        write: Iterable[str] | None = None,
        create: Iterable[str] | None = None,
        admin: Iterable[str] | None = None,
        deny: Iterable[str] | None = None,
        add: bool = False,
        remove: Iterable[str] = (),
        pattern: str | None = None,
        expires: datetime | Nothing | None = None,
        terminal: bool | None = None,
        max_file_size_bytes: int | Nothing | None = None,
        max_files: int | Nothing | None = None,
        reseal: bool = False,
        dry_run: bool = False,
        expected_revision: int | None = None,
    ) -> RuleChange:
        """Change one rule of the rule file that lies in a directory; comments and other rules stay as they are.

        The rule is the one with `pattern`; it is made when there is none. A list that is given takes the place of
        the one that is there.

        Args:
            path: A directory, or a file: then the rule is for this name in the file's directory. A directory in
                which nothing lies yet ends with ``/``.
            read: Who may read: e-mails, ``*``, ``USER``, globs, ``group:<name>``.
            write: Who may write, which contains read and create.
            create: Who may add files.
            admin: Who may do everything there.
            deny: Whom the rule grants nothing, whatever names them.
            add: Add to the lists instead.
            remove: Who leaves all lists but deny.
            pattern: Which paths below the directory; ``**`` for a directory.
            expires: From when on the rule grants nothing (with a zone); ``none`` takes the moment away.
            terminal: Whether rule files further down are ignored.
            max_file_size_bytes: Largest file that others write; ``none`` for no bound.
            max_files: Most files that others write; ``none`` for no bound.
            reseal: Write the live files whose readers change again, so that exactly the new readers open them; when
                the rule says so already, all files that it decides about.
            dry_run: Only tell what would be.
            expected_revision: Revision of the rule file that must be there, 0 for none.

        Raises:
            InvalidInput: PATH_INVALID, PATTERN_INVALID, ENTRY_INVALID, TIME_INVALID, COUNT_INVALID, RULES_INVALID;
                CHANGE_MISSING when nothing is to change.
            NotFound: FILE_MISSING when nothing lies at `path`; RULE_UNKNOWN.
            Conflict: (STALE_PREVIOUS) the rule file was changed meanwhile: nothing was written.
            Unimplemented: (OPEN_READERS) `reseal` for readers who are not known by name: nothing was written.
            WrongState: RULE_SHADOWED when another rule would decide; RULES_NOT_EDITABLE.
            PermissionDenied: PERMISSION_DENIED for a datasite of somebody else; ADMIN_DEVICE_REQUIRED.
            IntegrityFailure: RULES_UNTRUSTED, RULES_WITHHELD: nothing was written.
        """
        lists = {"admin": admin, "write": write, "create": create, "read": read, "deny": deny}
        limits = {"maxFileSize": max_file_size_bytes, "maxFiles": max_files}
        edit = RuleEdit(
            pattern=pattern or EVERYTHING,
            lists={n: tuple(map(entry_text, e)) for n, e in lists.items() if e is not None},
            add=add,
            remove=tuple(map(entry_text, remove)),
            expires=_moment(expires),
            limits={name: _amount(name, value) for name, value in limits.items() if value is not None},
            terminal=terminal,
        )
        plan = await self._plan(path, edit, named=pattern is not None)
        change = plan.change
        if expected_revision is not None and expected_revision != change.revision:
            raise Conflict(
                f"{change.file} is at revision {change.revision}, not {expected_revision}: look again, then decide.",
                reason="STALE_PREVIOUS",
                metadata={"path": change.file, "revision": str(change.revision)},
            )
        if dry_run:
            return change
        sealing = plan.to_reseal() if reseal else []
        check_sealable(plan.after, sealing, plan.now_ms)
        if change.diff:
            record = await self._node.files.write(change.file, plan.data, expected_revision=change.revision)
            change = replace(change, revision=record.revision)
        return replace(change, resealed=await seal_anew(self._node.files, sealing))

    async def _plan(self, path: str, edit: RuleEdit, *, named: bool) -> _Plan:
        directory, target = await self._place(path, named=named)
        if target is not None:
            edit = replace(edit, pattern=literal_pattern(target.name))
        file = directory.child(RULES_FILE)
        policy = await load_policy(self._node.files, directory)
        data, revision = await read_policy_file(self._node.files, file)
        changed = edited_rules(data, edit)
        rules = parse_ruleset(data), parse_ruleset(changed)
        before = (
            policy.tree if not revision else policy.tree.with_rules(directory.segments, rules[0], revision)
        )
        after = policy.tree.with_rules(directory.segments, rules[1], revision + 1)
        now_ms = self._node.clock.now_ms()
        if edit.changes_rule:
            _check_decides(after, directory, target, edit, now_ms)
        edited = rule_with(rules[0], edit.pattern), rule_with(rules[1], edit.pattern)
        found = reach(before, after, policy.files, now_ms, edited)
        change = RuleChange(
            path=path,
            file=str(file),
            pattern=parse_pattern(edit.pattern).text,
            diff=unified_diff(data, changed, file),
            adds=found.adds,
            removes=found.removes,
            notes=tuple(_notes(edited[1], edit, policy, found)),
            resealed=(),
            revision=revision,
        )
        return _Plan(change, changed, found, after, policy.files, now_ms)

    async def _place(self, path: str, *, named: bool) -> tuple[MeshPath, MeshPath | None]:
        """Return the directory whose rule file is meant, and the file that the rule is for, None for a pattern."""
        place = parse_path(path, drop_trailing_slash=True)
        if place.site != self._node.principal:
            # Whoever seals and reads believes rule files that the owner has signed, and no others.
            raise PermissionDenied(
                f"Rules of {place.site} are changed by {place.site}: others' signatures under them count nothing.",
                metadata={"path": str(place)},
            )
        if named or place.is_root or path.endswith("/"):
            return place, None
        if await self._node.files.stat(str(place)) is not None:
            return place.parent, place
        if not await self._node.files.list(str(place)):
            raise NotFound(
                f"Nothing lies at {place}, so it could be a folder or a file.",
                reason="FILE_MISSING",
                metadata={"path": str(place)},
                hint=f"For a folder that is still to come write {place}/ with a slash at its end.",
            )
        return place, None


def _check_decides(
    after: RuleTree, directory: MeshPath, target: MeshPath | None, edit: RuleEdit, now_ms: int
) -> None:
    """Refuse a rule that would decide nothing, because a terminal file or a more specific rule does.

    Raises:
        WrongState: RULE_SHADOWED.
    """
    governing = after.governing((*directory.segments, "file"))
    if governing is None or governing.directory != directory.segments:
        above = governing.path if governing else str(directory)
        raise WrongState(
            f"{above} is terminal: no rule file further down decides anything.",
            reason="RULE_SHADOWED",
            metadata={"file": above},
            hint=f"Change the rule there, or: syftmesh acl set {above.rpartition('/')[0]}/ --no-terminal",
        )
    deciding = None if target is None else find_deciding(after, target, now_ms)
    rule = deciding.rule if deciding else None
    if rule is not None and rule.pattern.text != edit.pattern:
        raise WrongState(
            f"A more specific rule decides about {target}: {quoted(rule.pattern.text)} at line {rule.line}.",
            reason="RULE_SHADOWED",
            metadata={"file": governing.path, "line": str(rule.line), "pattern": quoted(rule.pattern.text)},
            hint=f"syftmesh acl set {directory}/ --pattern {quoted(rule.pattern.text)} changes that one.",
        )


def _notes(rule: Rule | None, edit: RuleEdit, policy: Policy, found: Reach) -> Iterable[str]:
    if rule is not None and edit.changes_rule:
        yield from _open_notes(rule)
        yield from _group_notes(rule, policy.tree.groups)
        for who in still_granted(rule, edit.remove, policy.tree.groups):
            yield f"Another entry of this rule still means {who}; --deny {who} keeps them out."
    yield from reseal_notes(found, policy.left_out)


def _open_notes(rule: Rule) -> Iterable[str]:
    readers = rule.access.granted(Level.READ)
    if readers.everyone and not rule.pattern.is_personal:
        yield "'*' means everyone, without a name: what is written there lies at the hub in plain text."
    elif readers.authenticated or readers.globs:
        entry = "USER" if readers.authenticated else readers.globs[0].text
        yield (
            f"{entry} is no closed set: files there are sealed against outsiders, not against the hub, which decides"
            " who is registered. Writing them needs key grants, which are not built yet (OPEN_READERS)."
        )


def _group_notes(rule: Rule, groups: Groups) -> Iterable[str]:
    named = {
        name
        for entries in (*(rule.access.granted(level) for level in Level), rule.deny)
        for name in entries.groups
    }
    for name in sorted(named - set(groups)):
        yield f"There is no group {name}: until it is made, group:{name} is nobody."


def _moment(expires: datetime | Nothing | None) -> Amount | None:
    if expires is None:
        return None
    if expires == TAKEN_AWAY:
        return TAKEN_AWAY
    if not isinstance(expires, datetime) or expires.tzinfo is None:
        raise InvalidInput(
            "The expiry has no zone: which moment it means is not clear.",
            reason="TIME_INVALID",
            metadata={"time": quoted(str(expires))},
        )
    return int(expires.timestamp() * 1000)


def _amount(name: str, value: int | Nothing) -> Amount:
    if value == TAKEN_AWAY or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63):
        return value
    raise InvalidInput(
        f"{quoted(str(value))} is no {name}: it is a whole number from 0, or 'none'.",
        reason="COUNT_INVALID",
        metadata={name: quoted(str(value))},
    )
