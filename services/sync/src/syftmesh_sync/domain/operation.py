"""Operations: ids that a client chose, under which it puts objects and commits records."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from syftmesh_core.errors import InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.quote import quoted

MAX_OBJECTS: Final = 1000
"""Objects one operation may register: a commit takes 500 files, each with one."""


class Holding(StrEnum):
    """How an operation comes to have an object.

    PUT: it was not stored when the operation registered it, so a stored one was put since.
    PROOF: it was stored already; the operation shows that it has the bytes by putting them aside.
    """

    PUT = "put"
    PROOF = "proof"


@dataclass(frozen=True, slots=True)
class Uploader:
    """A verified caller: principal and device."""

    principal: str
    device_id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """What is known of one operation.

    Attributes:
        operation_id: A UUID as lower-case text.
        owner: The caller it is bound to.
        site: The datasite its objects are for.
        objects: How each registered object (SHA-256 in hex) is held.
    """

    operation_id: str
    owner: Uploader
    site: str
    objects: Mapping[str, Holding] = field(default_factory=dict)

    def joined(self, newer: Operation) -> Operation:
        """Return this operation with the objects of `newer`; what was registered first stays as it was.

        Raises:
            PermissionDenied: (PERMISSION_DENIED) `newer` is of another caller or datasite.
            LimitExceeded: (TOO_MANY_OBJECTS) more than 1,000 objects.
        """
        if (newer.owner, newer.site) != (self.owner, self.site):
            raise foreign_operation(self.operation_id)
        objects = {**newer.objects, **self.objects}
        if len(objects) > MAX_OBJECTS:
            raise LimitExceeded(
                f"An operation has at most {MAX_OBJECTS} objects: commit these, then begin another one.",
                reason="TOO_MANY_OBJECTS",
                metadata={"limit": str(MAX_OBJECTS)},
            )
        return Operation(self.operation_id, self.owner, self.site, objects)


def parse_operation_id(text: str) -> str:
    """Return the operation id that `text` writes: a UUID (RFC 9562) in its usual form, lower case.

    Raises:
        InvalidInput: (OPERATION_INVALID) it is none.
    """
    try:
        if str(uuid.UUID(text)) == text.lower() and len(text) == 36:
            return text.lower()
    except ValueError:
        pass
    raise InvalidInput(
        f"{quoted(text)} is not an operation id: choose a UUID for each operation.",
        reason="OPERATION_INVALID",
        metadata={"operation_id": quoted(text)},
    )


def foreign_operation(operation_id: str) -> PermissionDenied:
    """Return the error for an operation id that belongs to somebody else."""
    return PermissionDenied(
        f"The operation {operation_id} belongs to another caller or datasite: choose a new id.",
        metadata={"operation_id": operation_id},
    )
