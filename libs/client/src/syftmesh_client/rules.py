"""Readers of a path, computed by the author from rules and groups that the owner's admin devices have signed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from blake3 import blake3
from mesh.sync.v1 import sync_pb2, sync_service_pb2, sync_service_pb2_grpc
from syftmesh_core.clock import Clock
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.parallel import in_parallel
from syftmesh_core.path import GROUPS_FILE, RULES_FILE, MeshPath
from syftmesh_core.permission.engine import Question, decide
from syftmesh_core.permission.entry import Groups
from syftmesh_core.permission.group import parse_groups
from syftmesh_core.permission.parse import parse_ruleset
from syftmesh_core.permission.reader import Readers, readers_of
from syftmesh_core.permission.ruleset import Level, RuleSet
from syftmesh_core.permission.tree import NO_GROUPS, RuleTree

from syftmesh_client.file_record import RecordVerifier, VerifiedRecord
from syftmesh_client.traffic import Traffic, TrafficKind
from syftmesh_client.transfer import PARALLEL, Transfer

MAX_RULES_BYTES: Final = 64 * 1024
_WINDOW: Final = 64
_MAX_CACHED: Final = 256

T = TypeVar("T")


class SiteRules:
    """Rules and groups of datasites as far as this principal may read them, each file verified.

    Args:
        sync: Stub of the sync service.
        verifier: Verifies records.
        transfer: Gets contents.
        clock: The moment of decisions.
        traffic: Where messages are counted.
        principal: Who asks.
    """

    def __init__(
        self,
        sync: sync_service_pb2_grpc.SyncServiceAsyncStub,
        verifier: RecordVerifier,
        transfer: Transfer,
        clock: Clock,
        traffic: Traffic,
        principal: str,
    ) -> None:
        self._sync = sync
        self._verifier = verifier
        self._transfer = transfer
        self._clock = clock
        self._traffic = traffic
        self._principal = principal
        self._rules: _Cache[RuleSet] = _Cache()
        self._groups: _Cache[Groups] = _Cache()

    async def readers(self, path: MeshPath) -> Readers:
        """Return who can read `path` now; raises as `tree`."""
        tree = await self.tree(path)
        return readers_of(tree, path, self._clock.now_ms())

    async def may_write(self, path: MeshPath, author: str) -> bool:
        """Return whether the rules let `author` have written the file at `path`; raises as `tree`."""
        if author == path.site:
            return True
        tree, now_ms = await self.tree(path), self._clock.now_ms()
        levels = (Level.CREATE, Level.WRITE)
        return any(decide(tree, Question(author, path, lv, now_ms)).allowed for lv in levels)

    async def tree(self, path: MeshPath) -> RuleTree:
        """Return the rules of the directories above `path`, those that can govern it, and the owner's groups.

        Raises:
            IntegrityFailure: RULES_UNTRUSTED for a file that no admin device of the owner has signed;
                RULES_WITHHELD when the hub leaves out one that this owner's profile knows; those of records
                and objects.
            Unavailable: Hub or store cannot be asked.
        """
        directories = [MeshPath(path.site, path.segments[:depth]) for depth in range(len(path.segments))]
        wanted = [MeshPath(path.site, (*d.segments, RULES_FILE)) for d in directories]
        groups_file = MeshPath(path.site, (GROUPS_FILE,))
        groups_target, *targets = await self._targets([groups_file, *wanted])
        files_read = [
            self._file(file, target, self._rules, parse_ruleset)
            for file, target in zip(wanted, targets, strict=True)
        ]
        found = await in_parallel(files_read, at_once=PARALLEL)
        files = [(file.parent.segments, *rules) for file, rules in zip(wanted, found, strict=True) if rules]
        groups = await self._file(groups_file, groups_target, self._groups, _resolved)
        return RuleTree.build(path.site, files, groups[0] if groups else NO_GROUPS)

    async def _targets(self, wanted: list[MeshPath]) -> list[sync_pb2.DownloadTarget]:
        targets: list[sync_pb2.DownloadTarget] = []
        for start in range(0, len(wanted), _WINDOW):
            names = [str(file) for file in wanted[start : start + _WINDOW]]
            request = sync_service_pb2.OpenDownloadRequest(paths=names)
            self._traffic.add_sent(TrafficKind.MESSAGE, request.ByteSize())
            answer = await self._sync.OpenDownload(request)
            self._traffic.add_received(TrafficKind.MESSAGE, answer.ByteSize())
            if len(answer.targets) != len(names):
                raise IntegrityFailure("The hub left out a part of its answer.", reason="ANSWER_INVALID")
            targets += answer.targets
        return targets

    async def _file(
        self,
        file: MeshPath,
        target: sync_pb2.DownloadTarget,
        cache: _Cache[T],
        parse: Callable[[bytes], T],
    ) -> tuple[T, int] | None:
        """Return what the rule or groups file says and its revision, None where there is none to be read."""
        if not target.HasField("entry"):
            if self._principal == file.site and self._verifier.was_live(str(file)):
                raise IntegrityFailure(
                    f"The hub does not give {file}, which this profile knows: the rules left decide nothing.",
                    reason="RULES_WITHHELD",
                    metadata={"path": str(file)},
                    hint="If it was deleted on another device, write it again here, then delete it here.",
                )
            return None
        verified = await self._verifier.verify(target.entry, file)
        if verified.record.author != file.site or not verified.device.admin:
            raise _untrusted(file, "no admin device of the owner has signed it")
        found = cache.find(verified.digest)
        if found is None:
            found = await self._fetched(verified, target.url, parse)
            cache.keep(verified.digest, found)
        return found, verified.record.revision

    async def _fetched(self, verified: VerifiedRecord, url: str, parse: Callable[[bytes], T]) -> T:
        content = verified.content
        if content is None or content.sealed or content.stored_size_bytes > MAX_RULES_BYTES:
            raise _untrusted(verified.path, "it is no plain file of at most 64 KiB")
        data = await self._transfer.get(
            url, object_id=content.object_id, size_bytes=content.stored_size_bytes
        )
        if blake3(data).digest() != content.plain_blake3:
            raise _untrusted(verified.path, "its content has another digest than was signed")
        try:
            return parse(data)
        except InvalidInput as error:
            raise _untrusted(verified.path, f"line {error.metadata.get('line', '')} is malformed") from error


class _Cache(Generic[T]):
    """What files said, by the digest of their records."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, T] = OrderedDict()

    def find(self, digest: bytes) -> T | None:
        return self._kept.get(digest)

    def keep(self, digest: bytes, value: T) -> None:
        self._kept[digest] = value
        if len(self._kept) > _MAX_CACHED:
            self._kept.popitem(last=False)


def _resolved(data: bytes) -> Groups:
    return parse_groups(data).resolved


def _untrusted(path: MeshPath, why: str) -> IntegrityFailure:
    kind = "groups file" if path.is_groups_file else "rule file"
    return IntegrityFailure(
        f"The {kind} {path} is not used: {why}.", reason="RULES_UNTRUSTED", metadata={"path": str(path)}
    )
