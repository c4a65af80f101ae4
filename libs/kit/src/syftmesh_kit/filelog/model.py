"""The read model: every datasite's index, kept current from the stream FILES by an ordered consumer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog
from mesh.sync.v1 import sync_pb2
from syftmesh_core.errors import MeshError, Unavailable
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.ruleset import RuleSet
from syftmesh_core.permission.tree import NO_GROUPS, Directory
from syftmesh_core.principal import normalise_principal

from syftmesh_kit import subject
from syftmesh_kit.filelog.entry import LogEntry, entry_of_message, fence_subject
from syftmesh_kit.filelog.position import LogPosition, LogTimes
from syftmesh_kit.filelog.rule_source import RuleSource
from syftmesh_kit.filelog.site import SiteIndex
from syftmesh_kit.message import StreamMessage
from syftmesh_kit.stream import StreamState
from syftmesh_kit.waiting import Waiting

_RETRY_S: Final = 0.25
_STALLED_S: Final = 2.0
_PARALLEL: Final = 16

T = TypeVar("T")

_log: Any = structlog.get_logger("syftmesh.filelog")


class LogSource(Protocol):
    """The part of the bus that is needed here; `syftmesh_kit.bus.Bus` has it."""

    async def stream_state(self, stream: str) -> StreamState:
        """Return what the stream holds."""
        ...

    def ordered_consumer(
        self, stream: str, *, from_sequence: int = 1, subjects: Sequence[str] = (), newest_only: bool = False
    ) -> AsyncIterator[StreamMessage]:
        """Iterate over the stream in order, for ever."""
        ...


class FileLog:
    """All datasites of the hub. Run `run` in a task; before `is_caught_up` nothing may be answered from it.

    Args:
        source: The bus.
        rules: Where the content of rule files and groups files comes from.
    """

    def __init__(self, source: LogSource, rules: RuleSource) -> None:
        self._source = source
        self._rules = rules
        self._sites: dict[str, SiteIndex] = {}
        self._by_sequence: dict[str, LogEntry] = {}
        self._rule_sites: dict[str, None] = {}
        self._turning: dict[str, SiteIndex] = {}
        self._times = LogTimes()
        self._epoch = 0
        self._sequence = 0
        self._caught_up = False
        self._stalled_since: float | None = None
        self._changed = asyncio.Event()

    @property
    def position(self) -> LogPosition:
        """The place up to which the model has seen the log."""
        return LogPosition(self._epoch, self._sequence)

    @property
    def is_caught_up(self) -> bool:
        """Whether what the log held at start is in the model."""
        return self._caught_up

    def site(self, site: str) -> SiteIndex:
        """Return the index of the datasite of `site`, an empty one when nothing of it is known."""
        return self._sites.get(site) or SiteIndex(site)

    def sites(self) -> list[SiteIndex]:
        """Return the indexes of all datasites that hold a record."""
        return list(self._sites.values())

    def check(self) -> None:
        """Check that the model may be answered from.

        Raises:
            Unavailable: (LOG_LOADING) it is still being built; (LOG_BEHIND) it cannot go on, because a rule
                file's content cannot be had: answers might grant what was revoked.
        """
        if not self._caught_up:
            raise Unavailable("The file log is being read: ask again in a moment.", reason="LOG_LOADING")
        if self._stalled_since is not None and self._now() - self._stalled_since > _STALLED_S:
            raise Unavailable(
                "A rule file cannot be read from the object store, so nothing is decided. Ask again later.",
                reason="LOG_BEHIND",
            )

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        """Return whether the model has seen `sequence`, waiting at most `timeout_s` for it."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._sequence < sequence or not self._caught_up:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def newer_than(self, sequence: int) -> list[LogEntry]:
        """Return the newest records of paths changed behind `sequence` in log order, at their cost."""
        return _behind(self._by_sequence, sequence)

    def sites_with_rules_newer_than(self, sequence: int) -> list[SiteIndex]:
        """Return the datasites whose rules changed behind `sequence`."""
        found = []
        for name in reversed(self._rule_sites):
            site = self._sites[name]
            if site.rules_changed_at <= sequence:
                break
            found.append(site)
        return found

    def turning_sites(self) -> list[SiteIndex]:
        """Return the datasites in which rights change by the clock alone; few have any."""
        return list(self._turning.values())

    def earliest_ms(self, sequence: int) -> int:
        """Return a moment (Unix milliseconds) that whoever has seen `sequence` has reached; 0 when unknown."""
        return self._times.earliest_ms(sequence)

    async def run(self) -> None:
        """Keep the model current, for ever; what is not a record is skipped and logged."""
        target = await self._begin()
        loading: list[LogEntry] = []
        if target == 0:
            await self._finish_loading(loading, 0)
        async for message in self._source.ordered_consumer(subject.FILES, newest_only=True):
            self._times.note(message.sequence, message.time_ms)
            entry = self._read(message)
            if self._caught_up:
                await self._take(entry, message.sequence)
                continue
            if entry is not None:
                loading.append(self._put(entry))
            if message.sequence >= target or message.pending == 0:
                await self._finish_loading(loading, message.sequence)
                loading.clear()

    async def _begin(self) -> int:
        waiting = Waiting("filelog.waiting")
        while True:
            try:
                state = await self._source.stream_state(subject.FILES)
            except MeshError as error:
                waiting.note(error)
                await asyncio.sleep(_RETRY_S)
                continue
            self._epoch = state.epoch
            return state.last_sequence if state.messages else 0

    async def _take(self, entry: LogEntry | None, sequence: int) -> None:
        if entry is not None and entry.path.is_rules_file:
            rules = await self._fetch(self._rules.rules, entry) if entry.is_live else None
            entry = self._put(entry)
            self._sites[entry.path.site].change_rules(entry, rules)
            self._note_policy(entry.path.site)
        elif entry is not None and entry.path.is_groups_file:
            groups = await self._fetch(self._rules.groups, entry) if entry.is_live else NO_GROUPS
            entry = self._put(entry)
            self._sites[entry.path.site].change_groups(entry, groups)
            self._note_policy(entry.path.site)
        elif entry is not None:
            self._put(entry)
        self._advance(sequence)

    def _read(self, message: StreamMessage) -> LogEntry | None:
        """Return the record in `message`; a policy fence is taken in here, the change before it is in the model."""
        try:
            if message.type_name != sync_pb2.PolicyFence.DESCRIPTOR.full_name:
                record = message.decode(sync_pb2.FileEntry)
                return entry_of_message(record, message.sequence, message.time_ms)
            site = normalise_principal(message.decode(sync_pb2.PolicyFence).site)
        except MeshError as error:
            _log.error("filelog.message_refused", sequence=message.sequence, reason=error.reason)
            return None
        if message.subject == fence_subject(site):
            self._index(site).policy.fence = message.sequence
        return None

    def _note_policy(self, name: str) -> None:
        """Remember that the policy of a datasite has changed just now."""
        self._rule_sites.pop(name, None)
        self._rule_sites[name] = None
        if self._sites[name].policy.turns:
            self._turning[name] = self._sites[name]
        else:
            self._turning.pop(name, None)

    def _index(self, name: str) -> SiteIndex:
        return self._sites.setdefault(name, SiteIndex(name))

    def _put(self, entry: LogEntry) -> LogEntry:
        kept = self._index(entry.path.site).put(entry)
        self._by_sequence.pop(kept.text, None)
        self._by_sequence[kept.text] = kept
        return kept

    async def _finish_loading(self, loaded: list[LogEntry], sequence: int) -> None:
        files: dict[str, list[LogEntry]] = {}
        for entry in loaded:
            # A path that changed while it was loaded came more than once; its newest record counts.
            if entry.path.is_policy_file and self._by_sequence[entry.text] is entry:
                files.setdefault(entry.path.site, []).append(entry)
        permits = asyncio.Semaphore(_PARALLEL)
        for name, entries in sorted(files.items(), key=lambda item: item[1][-1].sequence):
            live = [entry for entry in entries if entry.is_live]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._loaded(e, permits)) for e in live if e.path.is_rules_file]
            groups: Groups | None = NO_GROUPS
            for entry in (e for e in live if e.path.is_groups_file):
                groups = await self._fetch(self._rules.groups, entry)
            self._sites[name].load_policy([task.result() for task in tasks], groups, entries[-1].sequence)
            self._note_policy(name)
        self._caught_up = True
        self._advance(sequence)
        _log.info("filelog.loaded", epoch=self._epoch, sequence=sequence, sites=len(self._sites))

    async def _loaded(self, entry: LogEntry, permits: asyncio.Semaphore) -> tuple[Directory, RuleSet, int]:
        async with permits:
            rules = await self._fetch(self._rules.rules, entry)
        return entry.path.parent.segments, rules, entry.revision

    async def _fetch(self, read: Callable[[LogEntry], Awaitable[T]], entry: LogEntry) -> T:
        """Return what `entry` says; as long as it cannot be had the model stands still."""
        while True:
            try:
                found = await read(entry)
            except MeshError as error:
                if self._stalled_since is None:
                    self._stalled_since = self._now()
                    _log.warning("filelog.stalled", sequence=entry.sequence, reason=error.reason)
                await asyncio.sleep(_RETRY_S)
                continue
            self._stalled_since = None
            return found

    def _advance(self, sequence: int) -> None:
        self._sequence = max(sequence, self._sequence)
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


def _behind(entries: dict[str, LogEntry], sequence: int) -> list[LogEntry]:
    found: list[LogEntry] = []
    newest_first: Iterator[LogEntry] = reversed(entries.values())
    for entry in newest_first:
        if entry.sequence <= sequence:
            break
        found.append(entry)
    found.reverse()
    return found
