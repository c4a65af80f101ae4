"""What the domain needs of the world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.path import MeshPath
from syftmesh_core.permission.engine import RuleKey
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.ruleset import RuleSet
from syftmesh_core.permission.tree import RuleTree
from syftmesh_core.record import ContentHeader, SignedRecord

from syftmesh_sync.domain.operation import Operation

AT_ONCE: Final = 32
"""Waits on store, keys or log under way for one request."""

MAX_APPEND: Final = 499
"""Records appended at once: the bus takes 500 messages, and one may be needed for the policy fence."""


class Place(Protocol):
    """A place in the log."""

    @property
    def epoch(self) -> int:
        """Counts rebuilds of the log."""
        ...

    @property
    def sequence(self) -> int:
        """Place within the epoch."""
        ...


class Entry(Protocol):
    """The newest record of one path."""

    @property
    def path(self) -> MeshPath:
        """Where it is."""
        ...

    @property
    def text(self) -> str:
        """The path as text."""
        ...

    @property
    def sequence(self) -> int:
        """Place in the log."""
        ...

    @property
    def revision(self) -> int:
        """The signed revision."""
        ...

    @property
    def digest(self) -> bytes:
        """The record's digest."""
        ...

    @property
    def is_live(self) -> bool:
        """Whether there is a file, not a tombstone."""
        ...

    @property
    def content(self) -> ContentHeader | None:
        """The content header, None for a tombstone."""
        ...

    @property
    def signed(self) -> SignedRecord:
        """The signed bytes."""
        ...

    @property
    def checked_at(self) -> Place | None:
        """Place of the newest change of rules or groups when the write was decided, None where unknown."""
        ...


class SiteView(Protocol):
    """The index of one datasite; `syftmesh_kit.filelog.SiteIndex` is it."""

    @property
    def tree(self) -> RuleTree:
        """Rules and groups of now."""
        ...

    @property
    def rules_changed_at(self) -> int:
        """Sequence of the newest change of rules or groups, 0 when there was none."""
        ...

    @property
    def fence(self) -> int:
        """Sequence of the newest policy fence, 0 when there is none."""
        ...

    def find(self, path: str) -> Entry | None:
        """Return the newest record of `path`, a tombstone too."""
        ...

    def live(self, path: str) -> Entry | None:
        """Return the live file at `path`."""
        ...

    def below(self, prefix: str, *, after: str = "") -> Iterator[Entry]:
        """Iterate over the live files below `prefix` in path order, those behind `after` only."""
        ...

    def named_by(self, object_id: str) -> Sequence[Entry]:
        """Return the live files whose content is the object `object_id`."""
        ...

    def collision(self, path: MeshPath) -> str:
        """Return a live file above or below `path`, empty when there is none."""
        ...

    def count(self, key: RuleKey, now_ms: int, *, excluding: str = "") -> int:
        """Return how many live files but `excluding` count under `key`."""
        ...


class Log(Protocol):
    """The read model of the file log."""

    def site(self, site: str) -> SiteView:
        """Return the index of a datasite, an empty one when nothing of it is known."""
        ...

    def check(self) -> None:
        """Raise Unavailable when the model may not be answered from."""
        ...

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        """Return whether the model has seen `sequence`, waiting at most `timeout_s`."""
        ...


@dataclass(frozen=True, slots=True)
class NewRecord:
    """A record that may be appended.

    Attributes:
        path: Where it is.
        signed: The signed bytes.
        digest: The record's digest, which makes appending it twice one and the same.
        expected_last: Sequence of the path's newest record, 0 when there is none.
        checked_at: Sequence of the newest change of rules or groups that the record was checked at.
        fence: Policy fence that must still be the newest one; None where rules and groups had no say.
    """

    path: MeshPath
    signed: SignedRecord = field(repr=False)
    digest: bytes = field(repr=False)
    expected_last: int
    checked_at: int
    fence: int | None


class Appended(NamedTuple):
    """What was appended: the sequence of each record, and that of the last message of all."""

    sequences: list[int]
    last: int


class RecordWriter(Protocol):
    """Appends to the file log."""

    async def append(self, records: Sequence[NewRecord]) -> Appended:
        """Append all `records`, of one datasite, or none, durably.

        Raises:
            Conflict: A path or the policy was changed since; metadata ``actual`` has the newest sequence where
                known.
            Unavailable: It is not known whether they are stored; appending them again is safe.
        """
        ...


class DeviceKeys(Protocol):
    """Device lists that the key directory's log holds, verified."""

    async def device(self, principal: str, device_id: str) -> DevicePublic | None:
        """Return the device in the newest list of `principal`, None where it is not in it."""
        ...


class RuleMemory(Protocol):
    """Remembers what an object says, so that the read model need not fetch it again."""

    def remember(self, object_id: str, rules: RuleSet) -> None:
        """Keep `rules`, which the object `object_id` (hex) says."""
        ...

    def remember_groups(self, object_id: str, groups: Groups) -> None:
        """Keep `groups`, which the object `object_id` (hex) says."""
        ...


class Ledger(Protocol):
    """What operations have registered; survives this process."""

    async def find(self, operation_id: str) -> Operation | None:
        """Return the operation, None when it is unknown or forgotten."""
        ...

    async def save(self, operation: Operation) -> Operation:
        """Store `operation` joined with what is stored of it and return the result.

        Raises:
            PermissionDenied: (PERMISSION_DENIED) the id belongs to another caller or datasite.
            LimitExceeded: (TOO_MANY_OBJECTS) it would hold too many objects.
        """
        ...


class Grant(Protocol):
    """A pre-signed request."""

    @property
    def url(self) -> str:
        """The URL, a secret."""
        ...

    @property
    def headers(self) -> dict[str, str]:
        """Headers to be sent exactly so."""
        ...

    @property
    def expires_at_ms(self) -> int:
        """End of its life, Unix milliseconds."""
        ...


class Objects(Protocol):
    """The object store, by site and object id; keys are the adapter's."""

    async def size(self, site: str, object_id: str) -> int | None:
        """Return the size of a stored object, None when there is none."""
        ...

    async def proof_size(self, operation_id: str, object_id: str) -> int | None:
        """Return the size of what was put as proof of possession, None when nothing was."""
        ...

    async def read(self, site: str, object_id: str) -> bytes:
        """Return the bytes; raises NotFound when there are none."""
        ...

    def grant_put(self, site: str, object_id: str, size_bytes: int) -> Grant:
        """Return the right to put the object once."""
        ...

    def grant_proof(self, operation_id: str, object_id: str, size_bytes: int) -> Grant:
        """Return the right to put the same bytes aside, as proof of possession."""
        ...

    def grant_get(self, site: str, object_id: str) -> Grant:
        """Return the right to get the object."""
        ...
