"""The one error taxonomy of SyftMesh.

```
MeshError
 ├─ InvalidInput        INVALID_ARGUMENT      exit 2
 ├─ Unauthenticated     UNAUTHENTICATED       exit 3
 ├─ PermissionDenied    PERMISSION_DENIED     exit 3
 ├─ NotFound            NOT_FOUND             exit 4
 ├─ AlreadyExists       ALREADY_EXISTS        exit 5
 ├─ WrongState          FAILED_PRECONDITION   exit 5
 ├─ Conflict            ABORTED               exit 5
 ├─ LimitExceeded       RESOURCE_EXHAUSTED    exit 6
 ├─ Unavailable         UNAVAILABLE           exit 6
 ├─ DeadlineExceeded    DEADLINE_EXCEEDED     exit 6
 ├─ IntegrityFailure    DATA_LOSS             exit 7
 ├─ Cancelled           CANCELLED             exit 130
 ├─ Unimplemented       UNIMPLEMENTED         exit 1
 └─ Internal            INTERNAL              exit 1
```

The transport mapping lives in `syftmesh_kit.errors`; the reasons are documented in
`mesh.common.v1.ErrorReason`, and a test holds both sides equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class MeshError(Exception):
    """Base of every error a caller may see.

    Attributes:
        message: What is wrong, with which value, and what to do; never driver text, local paths or keys.
        reason: Constant of `mesh.common.v1.ErrorReason` without its prefix, e.g. ``PATH_INVALID``.
        metadata: Every variable part of the message again, as text, for programs.
        hint: The next command or step, where there is one.
    """

    code: ClassVar[str] = "INTERNAL"
    exit_code: ClassVar[int] = 1
    default_reason: ClassVar[str] = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.hint = hint

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason}: {self.message})"


class InvalidInput(MeshError):
    """The request can never succeed as it stands."""

    code = "INVALID_ARGUMENT"
    exit_code = 2
    default_reason = "INVALID_INPUT"


class Unauthenticated(MeshError):
    """Who asks is not known: no token, or one that does not hold."""

    code = "UNAUTHENTICATED"
    exit_code = 3
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(MeshError):
    """The caller is known and has no right to this."""

    code = "PERMISSION_DENIED"
    exit_code = 3
    default_reason = "PERMISSION_DENIED"


class NotFound(MeshError):
    """It does not exist, or the caller may not know that it does."""

    code = "NOT_FOUND"
    exit_code = 4
    default_reason = "NOT_FOUND"


class AlreadyExists(MeshError):
    """Something of that name is there already."""

    code = "ALREADY_EXISTS"
    exit_code = 5
    default_reason = "ALREADY_EXISTS"


class WrongState(MeshError):
    """The caller must change something else first."""

    code = "FAILED_PRECONDITION"
    exit_code = 5
    default_reason = "WRONG_STATE"


class Conflict(MeshError):
    """A race was lost: read again, then decide."""

    code = "ABORTED"
    exit_code = 5
    default_reason = "CONFLICT"


class LimitExceeded(MeshError):
    """A size, count or rate limit; `metadata["retry_after_ms"]` says when a rate allows more."""

    code = "RESOURCE_EXHAUSTED"
    exit_code = 6
    default_reason = "LIMIT_EXCEEDED"


class Unavailable(MeshError):
    """Something needed is not there now; the same request may succeed later."""

    code = "UNAVAILABLE"
    exit_code = 6
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(MeshError):
    """The time allowed ran out before an answer was there."""

    code = "DEADLINE_EXCEEDED"
    exit_code = 6
    default_reason = "DEADLINE_EXCEEDED"


class IntegrityFailure(MeshError):
    """A digest, signature or seal does not hold, or a safety gate refused."""

    code = "DATA_LOSS"
    exit_code = 7
    default_reason = "INTEGRITY_FAILURE"


class Cancelled(MeshError):
    """The caller or the owner ended it."""

    code = "CANCELLED"
    exit_code = 130
    default_reason = "CANCELLED"


class Unimplemented(MeshError):
    """Named in the contract and not built yet; the message says what it waits for."""

    code = "UNIMPLEMENTED"
    exit_code = 1
    default_reason = "UNIMPLEMENTED"


class Internal(MeshError):
    """A defect of ours; the text outside is fixed and carries an error id only."""


BY_CODE: Mapping[str, type[MeshError]] = {
    c.code: c
    for c in (
        InvalidInput,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        WrongState,
        Conflict,
        LimitExceeded,
        Unavailable,
        DeadlineExceeded,
        IntegrityFailure,
        Cancelled,
        Unimplemented,
        Internal,
    )
}


def mesh_error(error: BaseException) -> MeshError | None:
    """Return the error of the taxonomy that `error` is, or the first that the group `error` holds."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := mesh_error(inner))), None)
    return error if isinstance(error, MeshError) else None
