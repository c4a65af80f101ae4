"""The faces of the service: gRPC for federated runs, HTTP for Flower's own clients."""

from syftmesh_superlink.servicer.api import SERVICE, FederationServicer
from syftmesh_superlink.servicer.front import Front

__all__ = ["SERVICE", "FederationServicer", "Front"]
