"""Composition root of the permission service: the only place that builds adapters."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import Unavailable
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.filelog import FileLog, ObjectReader, StoredRules

from syftmesh_permissions import convert
from syftmesh_permissions.adapters.rule_log import RuleLog
from syftmesh_permissions.domain.accessible import ListAccessible
from syftmesh_permissions.domain.batch import AskMany
from syftmesh_permissions.domain.inquiry import Ask
from syftmesh_permissions.domain.reader import ListReaders
from syftmesh_permissions.domain.ruling import Rulings
from syftmesh_permissions.domain.watch import WatchMany
from syftmesh_permissions.servicer import PermissionServicer, register
from syftmesh_permissions.settings import PermissionsSettings

_MAX_LAG: Final = 10_000


class PermissionsModule:
    """The service as its host sees it (`syftmesh_kit.server.ServiceModule`)."""

    public_methods: frozenset[str] = frozenset()
    """Methods that need no token."""

    def __init__(self, bus: Bus, log: FileLog, servicer: PermissionServicer) -> None:
        self._bus = bus
        self._log = log
        self._servicer = servicer

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "permissions"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        return (register(self._servicer, server),)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to read the file log; `ready` says when it is read. The stream is the sync service's."""
        tasks.create_task(self._log.run())

    async def ready(self) -> None:
        """Return when the log was read, the model keeps up and the bus answers.

        Raises:
            Unavailable: Not yet, or not now.
        """
        self._log.check()
        state = await self._bus.stream_state(subject.FILES)
        if state.last_sequence - self._log.position.sequence > _MAX_LAG:
            raise Unavailable("The read model is behind the log.", reason="LOG_BEHIND")

    async def drain(self) -> None:
        """Do nothing: the service only answers."""


async def build(
    settings: PermissionsSettings,
    *,
    bus: Bus,
    object_store: ObjectReader,
    clock: Clock,
    random: Random = system_random,
) -> PermissionsModule:
    """Return the service with its adapters; nothing is asked of bus or store before it is started.

    Args:
        settings: Settings; those of connections have been used by the caller already.
        bus: The message bus.
        object_store: The object store, for the content of rule files.
        clock: Time.
        random: Randomness; nothing here needs any.
    """
    del settings, random
    log = FileLog(bus, StoredRules(object_store))
    rules = RuleLog(log)
    ask_many = AskMany(Rulings(rules, clock, convert.entry), rules, clock)
    servicer = PermissionServicer(
        rules,
        ask=Ask(rules, clock),
        ask_many=ask_many,
        readers=ListReaders(rules, clock),
        accessible=ListAccessible(rules, rules, rules, clock),
        watch=WatchMany(ask_many, rules, rules, clock),
    )
    return PermissionsModule(bus, log, servicer)
