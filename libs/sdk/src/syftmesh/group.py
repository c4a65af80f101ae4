"""The owner's groups: one signed file of the datasite, changed by its owner alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from syftmesh_client.node import Node
from syftmesh_core.errors import Conflict, InvalidInput, WrongState
from syftmesh_core.path import GROUPS_FILE, MeshPath
from syftmesh_core.permission.group import GroupList, parse_groups
from syftmesh_core.permission.tree import RuleTree

from syftmesh.group_edit import members_of, with_group, with_members, without_group
from syftmesh.group_use import GroupUse, groups_holding, lists_naming, uses_of
from syftmesh.policy import Policy, load_policy, read_policy_file, unified_diff
from syftmesh.reach import Gain, reach
from syftmesh.reseal import changed_files, check_sealable, decidings, reseal_notes
from syftmesh.reseal import reseal as seal_anew

RACES: Final = 5
"""Lost races after which a change gives up."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the own datasite.

    Attributes:
        name: Without ``group:``.
        members: As its owner wrote them: e-mails and ``group:<name>``.
        principals: E-mails, nested groups resolved.
    """

    name: str
    members: tuple[str, ...]
    principals: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupDetail(Group):
    """A group and where it counts.

    Attributes:
        rules: Rules that name it.
        groups: Groups that hold it as a member.
    """

    rules: tuple[GroupUse, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A change of the file of groups, planned or written.

    Attributes:
        name: The group.
        file: The file of groups.
        members: Of the group as it is then; empty for one that was deleted.
        diff: Of the file, unified; empty when it stays as it is.
        adds: Who gains what on the live files.
        removes: Who loses what on the live files.
        rules: Rule files that name the group.
        notes: What its author should know, each a sentence.
        resealed: Live files that were written again for their new readers.
        revision: Of the file: after the change, of one that was only planned before it.
    """

    name: str
    file: str
    members: tuple[str, ...]
    diff: str = field(repr=False)
    adds: tuple[Gain, ...]
    removes: tuple[Gain, ...]
    rules: tuple[str, ...]
    notes: tuple[str, ...]
    resealed: tuple[str, ...]
    revision: int


@dataclass(frozen=True, slots=True)
class _Plan:
    change: GroupChange
    data: bytes
    after: RuleTree
    to_reseal: list[str]
    now_ms: int


class AsyncGroups:
    """Groups of the own datasite, for ``group:<name>`` in its rule files."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._file = MeshPath(node.principal, (GROUPS_FILE,))

    async def list(self) -> list[Group]:
        """Return all groups by name.

        Raises:
            MeshError: As `AsyncFiles.read`.
        """
        groups = parse_groups((await self._read())[0])
        return [_group(groups, name) for name in sorted(groups.members)]

    async def show(self, name: str) -> GroupDetail:
        """Return a group, and which rules name it.

        Raises:
            NotFound: GROUP_UNKNOWN.
            IntegrityFailure: RULES_UNTRUSTED, RULES_WITHHELD.
        """
        groups = parse_groups((await self._read())[0])
        found = _group(groups, name)
        policy = await self._policy()
        holding = groups_holding(groups, name)
        return GroupDetail(
            found.name,
            found.members,
            found.principals,
            tuple(uses_of(policy.tree, holding)),
            tuple(holding[1:]),
        )

    async def create(
        self, name: str, members: Iterable[str] = (), *, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """Make a group.

        Args:
            name: a-z, 0-9, ``_`` and ``-``, at most 63 characters.
            members: E-mails and ``group:<name>``.
            reseal: Write the live files whose readers change again, so that exactly the new readers open them; when
                the group is so already, all files about which a rule that names it decides.
            dry_run: Only tell what would be.

        Raises:
            AlreadyExists: GROUP_EXISTS.
            NotFound: (GROUP_UNKNOWN) a member is a group that is not there.
            InvalidInput: (RULES_INVALID) a name, a member or a circle, in the words of the parser.
            Conflict: (STALE_PREVIOUS) the file is being changed from many places.
            Unimplemented: (OPEN_READERS) `reseal` for readers who are not known by name: nothing was written.
            PermissionDenied: ADMIN_DEVICE_REQUIRED.
        """
        wanted = tuple(members)
        return await self._change(
            name, lambda data: with_group(data, name, wanted), reseal=reseal, dry_run=dry_run
        )

    async def add(
        self, name: str, members: Iterable[str], *, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """Put members into a group; raises as `create`, and NotFound (GROUP_UNKNOWN)."""
        wanted = _some(members)
        return await self._change(
            name, lambda data: with_members(data, name, add=wanted), reseal=reseal, dry_run=dry_run
        )

    async def remove(
        self, name: str, members: Iterable[str], *, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """Take members out of a group.

        Raises:
            NotFound: GROUP_UNKNOWN; MEMBER_UNKNOWN when one of them is not in the group itself.
            MeshError: As `create`.
        """
        leaving = _some(members)
        return await self._change(
            name, lambda data: with_members(data, name, remove=leaving), reseal=reseal, dry_run=dry_run
        )

    async def delete(
        self, name: str, *, force: bool = False, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """Delete a group.

        Args:
            name: Which.
            force: Also when rules or groups name it, which then name nobody.
            reseal: As `create`.
            dry_run: Only tell what would be.

        Raises:
            NotFound: GROUP_UNKNOWN.
            WrongState: GROUP_IN_USE without `force`.
            MeshError: As `create`.
        """
        if not force and not dry_run:
            found = await self.show(name)
            if found.rules or found.groups:
                raise in_use(found)
        return await self._change(
            name, lambda data: without_group(data, name), reseal=reseal, dry_run=dry_run
        )

    async def _read(self) -> tuple[bytes, int]:
        return await read_policy_file(self._node.files, self._file)

    async def _policy(self) -> Policy:
        return await load_policy(self._node.files, self._file.parent)

    async def _change(
        self, name: str, edit: Callable[[bytes], bytes], *, reseal: bool, dry_run: bool
    ) -> GroupChange:
        """Write what `edit` makes of the file; after a lost race of what is there then."""
        for _ in range(RACES):
            data, revision = await self._read()
            plan = await self._plan(name, data, edit(data), revision)
            if dry_run:
                return plan.change
            sealing = plan.to_reseal if reseal else []
            check_sealable(plan.after, sealing, plan.now_ms)
            change = await self._written(plan)
            if change is not None:
                return replace(change, resealed=await seal_anew(self._node.files, sealing))
        raise Conflict(
            "The groups are being changed from many places: look again, then decide.",
            reason="STALE_PREVIOUS",
            metadata={"path": str(self._file)},
        )

    async def _written(self, plan: _Plan) -> GroupChange | None:
        """Write what is planned and return it, None after a lost race."""
        change = plan.change
        if not change.diff:
            return change
        try:
            record = await self._node.files.write(
                str(self._file), plan.data, expected_revision=change.revision
            )
        except Conflict as error:
            if error.reason != "STALE_PREVIOUS":
                raise
            return None
        return replace(change, revision=record.revision)

    async def _plan(self, name: str, data: bytes, changed: bytes, revision: int) -> _Plan:
        before, after = parse_groups(data), parse_groups(changed)
        policy = await self._policy()
        now_ms = self._node.clock.now_ms()
        old, new = (policy.tree.with_groups(groups.resolved) for groups in (before, after))
        found = reach(old, new, policy.files, now_ms)
        names = groups_holding(before if name in before.members else after, name)
        change = GroupChange(
            name=name,
            file=str(self._file),
            members=tuple(members_of(after, name)) if name in after.members else (),
            diff=unified_diff(data, changed, self._file),
            adds=found.adds,
            removes=found.removes,
            rules=tuple(dict.fromkeys(use.file for use in uses_of(policy.tree, names))),
            notes=tuple(reseal_notes(found, policy.left_out)),
            resealed=(),
            revision=revision,
        )
        to_reseal = changed_files(found) if change.diff else _named_files(new, policy.files, names, now_ms)
        return _Plan(change, changed, new, to_reseal, now_ms)


def _named_files(tree: RuleTree, files: Iterable[MeshPath], names: Collection[str], now_ms: int) -> list[str]:
    """Return the live files about which a rule decides that names any of `names`."""
    return [
        str(path)
        for path, deciding in decidings(tree, files, now_ms)
        if deciding is not None and deciding.rule is not None and any(lists_naming(deciding.rule, names))
    ]


def in_use(found: GroupDetail) -> WrongState:
    """Return the error for a group that cannot go yet."""
    first = (
        f"line {found.rules[0].line} of {found.rules[0].file}" if found.rules else f"group {found.groups[0]}"
    )
    more = len(found.rules) + len(found.groups) - 1
    others = f" and {more} more" if more else ""
    return WrongState(
        f"The group {found.name} is named by {first}{others}, which would mean nobody then.",
        reason="GROUP_IN_USE",
        metadata={"group": found.name},
        hint=f"syftmesh group show {found.name}",
    )


def _group(groups: GroupList, name: str) -> Group:
    members = members_of(groups, name)
    return Group(name, tuple(members), tuple(sorted(groups.resolved[name])))


def _some(members: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(members)
    if not wanted:
        raise InvalidInput("No member was named.", reason="CHANGE_MISSING")
    return wanted
