"""The errors of SyftMesh, as every part raises them; `MeshError` is their base."""

from syftmesh_core.errors import (
    AlreadyExists,
    Cancelled,
    Conflict,
    DeadlineExceeded,
    IntegrityFailure,
    Internal,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    WrongState,
)

__all__ = [
    "AlreadyExists",
    "Cancelled",
    "Conflict",
    "DeadlineExceeded",
    "IntegrityFailure",
    "Internal",
    "InvalidInput",
    "LimitExceeded",
    "MeshError",
    "NotFound",
    "PermissionDenied",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "WrongState",
]
