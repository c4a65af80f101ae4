"""Use case: where to put the objects of an operation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.parallel import in_parallel
from syftmesh_core.permission.right import may_read, may_write_somewhere
from syftmesh_core.principal import normalise_principal
from syftmesh_core.sealed_container import MAX_BLOB_BYTES

from syftmesh_sync.domain.operation import (
    Holding,
    Operation,
    Uploader,
    foreign_operation,
    parse_operation_id,
)
from syftmesh_sync.domain.ports import AT_ONCE, Grant, Ledger, Log, Objects

MAX_OBJECT_BYTES: Final = MAX_BLOB_BYTES
"""16 MiB of content, with its padding and the keys of its readers when sealed."""

MAX_OBJECTS_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """Bytes to be stored.

    Attributes:
        sha256: Their digest, 32 bytes.
        size_bytes: Their exact number.
    """

    sha256: bytes
    size_bytes: int

    @property
    def object_id(self) -> str:
        """The digest in hex."""
        return self.sha256.hex()


@dataclass(frozen=True, slots=True)
class Target:
    """Where to put one object; without a grant it is there already."""

    spec: ObjectSpec
    grant: Grant | None = field(repr=False)


class OpenUpload:
    """Registers objects under an operation and gives the right to put each one that is not there.

    A digest proves no possession: an object that is stored already is called present only when a file names
    it that the caller may read now. Else the caller has to put the bytes aside, which the commit asks for.
    """

    def __init__(self, log: Log, ledger: Ledger, objects: Objects, clock: Clock) -> None:
        self._log = log
        self._ledger = ledger
        self._objects = objects
        self._clock = clock

    async def run(
        self, caller: Uploader, operation_id: str, site: str, specs: Sequence[ObjectSpec]
    ) -> list[Target]:
        """Return the targets in the order of `specs`. Idempotent; call again for fresh URLs.

        Raises:
            InvalidInput: OPERATION_INVALID, PRINCIPAL_INVALID, OBJECT_INVALID.
            LimitExceeded: TOO_MANY_OBJECTS, FILE_TOO_LARGE.
            PermissionDenied: (PERMISSION_DENIED) the operation is another caller's, or this one could write
                nothing in the datasite.
            Unavailable: The log, the ledger or the store cannot be asked.
        """
        operation_id, site = parse_operation_id(operation_id), normalise_principal(site)
        _check(specs)
        self._log.check()
        if not may_write_somewhere(self._log.site(site).tree, caller.principal, self._clock.now_ms()):
            raise PermissionDenied(f"You have no right to add files to {site}.", metadata={"site": site})
        known = await self._ledger.find(operation_id) or Operation(operation_id, caller, site)
        if (known.owner, known.site) != (caller, site):
            raise foreign_operation(operation_id)
        sizes = await in_parallel(
            (self._objects.size(site, spec.object_id) for spec in specs), at_once=AT_ONCE
        )
        stored = {spec.object_id: size for spec, size in zip(specs, sizes, strict=True)}
        fresh: dict[str, Holding] = {}
        for spec in specs:
            size = stored[spec.object_id]
            if size is not None and size != spec.size_bytes:
                raise InvalidInput(
                    f"The object {spec.object_id} has another size than {spec.size_bytes} bytes.",
                    reason="OBJECT_INVALID",
                    metadata={"sha256": spec.object_id},
                )
            if spec.object_id not in known.objects and not (
                size is not None and self._reads(caller, site, spec)
            ):
                fresh[spec.object_id] = Holding.PUT if size is None else Holding.PROOF
        if fresh:
            known = await self._ledger.save(Operation(operation_id, caller, site, fresh))
        return [await self._target(known, spec, stored[spec.object_id]) for spec in specs]

    def _reads(self, caller: Uploader, site: str, spec: ObjectSpec) -> bool:
        view, now_ms = self._log.site(site), self._clock.now_ms()
        return any(
            may_read(view.tree, caller.principal, entry.path, now_ms)
            for entry in view.named_by(spec.object_id)
        )

    async def _target(self, operation: Operation, spec: ObjectSpec, stored: int | None) -> Target:
        holding = operation.objects.get(spec.object_id)
        if holding is Holding.PROOF:
            if await self._objects.proof_size(operation.operation_id, spec.object_id) is not None:
                return Target(spec, None)
            grant = self._objects.grant_proof(operation.operation_id, spec.object_id, spec.size_bytes)
            return Target(spec, grant)
        if stored is not None:
            return Target(spec, None)
        return Target(spec, self._objects.grant_put(operation.site, spec.object_id, spec.size_bytes))


def _check(specs: Sequence[ObjectSpec]) -> None:
    if len(specs) > MAX_OBJECTS_AT_ONCE:
        raise LimitExceeded(
            f"At most {MAX_OBJECTS_AT_ONCE} objects at once, not {len(specs)}: ask in windows.",
            reason="TOO_MANY_OBJECTS",
            metadata={"limit": str(MAX_OBJECTS_AT_ONCE)},
        )
    for spec in specs:
        if len(spec.sha256) != 32:
            raise InvalidInput("An object is named by a SHA-256 digest of 32 bytes.", reason="OBJECT_INVALID")
        if spec.size_bytes > MAX_OBJECT_BYTES:
            raise LimitExceeded(
                f"An object has at most {MAX_OBJECT_BYTES} bytes, not {spec.size_bytes}.",
                reason="FILE_TOO_LARGE",
                metadata={"limit_bytes": str(MAX_OBJECT_BYTES), "size_bytes": str(spec.size_bytes)},
            )
    if len({spec.sha256 for spec in specs}) != len(specs):
        raise InvalidInput("An object is named twice.", reason="OBJECT_INVALID")
