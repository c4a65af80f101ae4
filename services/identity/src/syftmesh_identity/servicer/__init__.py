"""The gRPC face of identity."""

from syftmesh_identity.servicer.service import (
    ADMIN_CALLER,
    ADMIN_METHODS,
    PUBLIC_METHODS,
    SERVICE,
    IdentityServicer,
    UseCases,
    admin_servicer,
)

__all__ = [
    "ADMIN_CALLER",
    "ADMIN_METHODS",
    "PUBLIC_METHODS",
    "SERVICE",
    "IdentityServicer",
    "UseCases",
    "admin_servicer",
]
