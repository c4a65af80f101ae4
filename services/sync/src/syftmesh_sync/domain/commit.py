"""Use case: make new versions and tombstones visible, each of them atomically, durably and once."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import (
    Conflict,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    PermissionDenied,
    Unavailable,
)
from syftmesh_core.parallel import in_parallel
from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import find_deciding
from syftmesh_core.permission.right import may_read
from syftmesh_core.record import SignedRecord, parse_record

from syftmesh_sync.domain.admission import Admitted, admit
from syftmesh_sync.domain.candidate import Candidate, Examine
from syftmesh_sync.domain.operation import Operation, Uploader, foreign_operation, parse_operation_id
from syftmesh_sync.domain.ports import AT_ONCE, MAX_APPEND, Entry, Ledger, Log, NewRecord, RecordWriter

MAX_FILES: Final = 500
_VISIBLE_S: Final = 5.0
_TRIES: Final = 16
_PAUSE_S: Final = 0.02


class Status(Enum):
    """Outcome of one file."""

    OK = "ok"
    CONFLICT = "conflict"
    DENIED = "denied"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record.

    Attributes:
        path: Its path as far as it could be read.
        status: The outcome.
        reason: Constant, empty when OK.
        message: What is wrong and what to do, empty when OK.
        sequence: Place in the log when OK.
        current: What is there, of a conflict, when the caller may read it.
    """

    path: str
    status: Status
    reason: str = ""
    message: str = ""
    sequence: int = 0
    current: Entry | None = field(default=None, repr=False)


class Commit:
    """Commits batches. Commits of one datasite follow one another, so that rules and limits hold for each."""

    def __init__(
        self, log: Log, ledger: Ledger, examine: Examine, writer: RecordWriter, clock: Clock
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._examine = examine
        self._writer = writer
        self._clock = clock
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def run(
        self,
        caller: Uploader,
        operation_id: str,
        records: Sequence[SignedRecord],
        *,
        only_tombstones: bool = False,
    ) -> list[Outcome]:
        """Return the outcomes in the order of `records`. What is OK is durable and visible here.

        Raises:
            InvalidInput: OPERATION_INVALID.
            LimitExceeded: (TOO_MANY_FILES) more than 500 records.
            PermissionDenied: (PERMISSION_DENIED) the operation is another caller's.
            Unavailable: Some record may or may not be stored; the same commit again finds out. BUSY when rules or
                groups changed again and again while a record was decided.
        """
        operation_id = parse_operation_id(operation_id)
        if len(records) > MAX_FILES:
            raise LimitExceeded(
                f"At most {MAX_FILES} files at once, not {len(records)}.",
                reason="TOO_MANY_FILES",
                metadata={"limit": str(MAX_FILES)},
            )
        self._log.check()
        operation = await self._ledger.find(operation_id)
        if operation is not None and operation.owner != caller:
            raise foreign_operation(operation_id)
        results: dict[int, Outcome] = {}
        by_site: dict[str, list[tuple[int, Candidate]]] = {}
        examined = await self._examined(caller, operation, records, only_tombstones=only_tombstones)
        for index, found in enumerate(examined):
            if isinstance(found, Outcome):
                results[index] = found
            else:
                by_site.setdefault(found.path.site, []).append((index, found))
        for site, candidates in by_site.items():
            async with self._turns[site]:
                await _Turn(self._log, self._writer, self._clock, site, caller, results).run(candidates)
        return [results[index] for index in range(len(records))]

    async def _examined(
        self,
        caller: Uploader,
        operation: Operation | None,
        records: Sequence[SignedRecord],
        *,
        only_tombstones: bool,
    ) -> list[Candidate | Outcome]:
        async def examined(signed: SignedRecord) -> Candidate | Outcome:
            try:
                candidate = await self._examine.run(signed, caller, operation)
                if only_tombstones and not candidate.record.deleted:
                    raise IntegrityFailure("The record is no tombstone.", reason="RECORD_INVALID")
            except MeshError as error:
                return outcome_of(_path_of(signed), error)
            return candidate

        return await in_parallel((examined(signed) for signed in records), at_once=AT_ONCE)


class _Turn:
    """One datasite's part of a batch, in rounds: what depends on a record before it begins a new round.

    What is decided here is what the log holds: a record goes in only if its path is still where it was read, and,
    where rules or groups had a say, only behind the policy fence that the decision was made at. Every change of
    policy, by whichever replica, moves the fence in the same atomic batch; so there is no record in the log whose
    right had ended before it, however far behind this replica is. What lost is decided again on the newer state.
    """

    def __init__(
        self,
        log: Log,
        writer: RecordWriter,
        clock: Clock,
        site: str,
        caller: Uploader,
        results: dict[int, Outcome],
    ) -> None:
        self._log = log
        self._writer = writer
        self._clock = clock
        self._site = site
        self._caller = caller
        self._results = results
        self._round: list[tuple[int, Candidate, NewRecord]] = []
        self._places: set[str] = set()
        self._above: set[str] = set()

    async def run(self, candidates: Sequence[tuple[int, Candidate]]) -> None:
        """Settle all `candidates`, in order."""
        for index, candidate in candidates:
            alone = candidate.path.is_policy_file or self._is_counted(candidate)
            if alone or len(self._round) == MAX_APPEND or self._touches_round(candidate):
                await self._flush()
            if (admitted := self._admitted(index, candidate)) is not None:
                self._add(index, candidate, admitted)
            if alone:
                await self._flush()
        await self._flush()

    def _admitted(self, index: int, candidate: Candidate) -> NewRecord | None:
        """Return what to append; None when the outcome is settled already."""
        view = self._log.site(self._site)
        try:
            admitted: Admitted = admit(candidate, view, self._caller.principal, self._clock.now_ms())
        except MeshError as error:
            self._results[index] = outcome_of(candidate.text, error, self._readable(candidate, error))
            return None
        if admitted.new is None:
            self._results[index] = Outcome(candidate.text, Status.OK, sequence=admitted.sequence)
        return admitted.new

    def _readable(self, candidate: Candidate, error: MeshError) -> Entry | None:
        if not isinstance(error, Conflict):
            return None
        view = self._log.site(self._site)
        current = view.find(candidate.text)
        reads = may_read(view.tree, self._caller.principal, candidate.path, self._clock.now_ms())
        return current if reads else None

    def _is_counted(self, candidate: Candidate) -> bool:
        """Return whether a limit counts files where `candidate` goes: each write changes the next answer."""
        if candidate.content is None or self._caller.principal == self._site:
            return False
        tree = self._log.site(self._site).tree
        deciding = find_deciding(tree, candidate.path, self._clock.now_ms())
        limits = deciding.rule.limits if deciding and deciding.rule else None
        return limits is not None and limits.max_files is not None

    def _touches_round(self, candidate: Candidate) -> bool:
        text = candidate.text
        if text in self._places or text in self._above:
            return True
        return any(place in self._places for place in _directories(candidate.path))

    def _add(self, index: int, candidate: Candidate, new: NewRecord) -> None:
        self._round.append((index, candidate, new))
        self._places.add(candidate.text)
        self._above.update(_directories(candidate.path))

    async def _flush(self) -> None:
        """Append the round at once; when one of it lost a race, one by one."""
        pending, self._round = self._round, []
        self._places.clear()
        self._above.clear()
        if not pending:
            return
        try:
            appended = await self._writer.append([new for _, _, new in pending])
        except Conflict as lost:
            await self._catch_up(lost)
            for index, candidate, _ in pending:
                await self._append_alone(index, candidate)
            return
        for (index, candidate, _), sequence in zip(pending, appended.sequences, strict=True):
            self._results[index] = Outcome(candidate.text, Status.OK, sequence=sequence)
        await self._see(appended.last)

    async def _append_alone(self, index: int, candidate: Candidate) -> None:
        """Decide and append one record, again while something it was decided on changes in between."""
        for number in range(_TRIES):
            new = self._admitted(index, candidate)
            if new is None:
                return
            try:
                (sequence,), last = await self._writer.append([new])
            except Conflict as lost:
                await self._catch_up(lost)
                await asyncio.sleep(_PAUSE_S * number)
                continue
            self._results[index] = Outcome(candidate.text, Status.OK, sequence=sequence)
            await self._see(last)
            return
        raise Unavailable(
            "The rules of the datasite change all the time. Send the same commit again.",
            reason="BUSY",
            metadata={"path": candidate.text},
        )

    async def _catch_up(self, lost: Conflict) -> None:
        """Wait until what won is visible here."""
        actual = lost.metadata.get("actual", "")
        if actual.isdecimal():
            await self._log.wait_for(int(actual), _VISIBLE_S)

    async def _see(self, sequence: int) -> None:
        # Acknowledged rules must bind at once, and who committed must read what was written.
        if not await self._log.wait_for(sequence, _VISIBLE_S):
            raise Unavailable(
                "The commit is stored but not visible yet. Send the same commit again.",
                reason="LOG_BEHIND",
                metadata={"sequence": str(sequence)},
            )


def outcome_of(path: str, error: MeshError, current: Entry | None = None) -> Outcome:
    """Return `error` as the outcome of one file; what concerns more than the file is raised again."""
    if isinstance(error, Conflict):
        status = Status.CONFLICT
    elif isinstance(error, PermissionDenied | LimitExceeded):
        status = Status.DENIED
    elif isinstance(error, InvalidInput | IntegrityFailure):
        status = Status.INVALID
    else:
        raise error
    return Outcome(path, status, error.reason, error.message, current=current)


def _path_of(signed: SignedRecord) -> str:
    try:
        record, _ = parse_record(signed)
    except IntegrityFailure:
        return ""
    return f"{record.site}/{record.path}"


def _directories(path: MeshPath) -> list[str]:
    return [str(MeshPath(path.site, path.segments[:depth])) for depth in range(1, len(path.segments))]
