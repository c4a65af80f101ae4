"""Blocking rule changes and groups; each method is that of the asynchronous class of its name."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from syftmesh.group import AsyncGroups, Group, GroupChange, GroupDetail
from syftmesh.portal import Portal
from syftmesh.rule_desk import AsyncRuleDesk, Nothing, RuleChange


class RuleDesk:
    """Changes rule files of the own datasite."""

    def __init__(self, portal: Portal, desk: AsyncRuleDesk) -> None:
        self._portal = portal
        self._desk = desk

    def set(  # noqa: PLR0913 - the parts of a rule, each named
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
        """See `AsyncRuleDesk.set`."""
        asked = self._desk.set(
            path,
            read=read,
            write=write,
            create=create,
            admin=admin,
            deny=deny,
            add=add,
            remove=remove,
            pattern=pattern,
            expires=expires,
            terminal=terminal,
            max_file_size_bytes=max_file_size_bytes,
            max_files=max_files,
            reseal=reseal,
            dry_run=dry_run,
            expected_revision=expected_revision,
        )
        return self._portal.run(asked)


class Groups:
    """Groups of the own datasite."""

    def __init__(self, portal: Portal, groups: AsyncGroups) -> None:
        self._portal = portal
        self._groups = groups

    def list(self) -> list[Group]:
        """See `AsyncGroups.list`."""
        return self._portal.run(self._groups.list())

    def show(self, name: str) -> GroupDetail:
        """See `AsyncGroups.show`."""
        return self._portal.run(self._groups.show(name))

    def create(
        self, name: str, members: Iterable[str] = (), *, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """See `AsyncGroups.create`."""
        return self._portal.run(self._groups.create(name, members, reseal=reseal, dry_run=dry_run))

    def add(
        self, name: str, members: Iterable[str], *, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """See `AsyncGroups.add`."""
        return self._portal.run(self._groups.add(name, members, reseal=reseal, dry_run=dry_run))

    def remove(
        self, name: str, members: Iterable[str], *, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """See `AsyncGroups.remove`."""
        return self._portal.run(self._groups.remove(name, members, reseal=reseal, dry_run=dry_run))

    def delete(
        self, name: str, *, force: bool = False, reseal: bool = False, dry_run: bool = False
    ) -> GroupChange:
        """See `AsyncGroups.delete`."""
        return self._portal.run(self._groups.delete(name, force=force, reseal=reseal, dry_run=dry_run))
