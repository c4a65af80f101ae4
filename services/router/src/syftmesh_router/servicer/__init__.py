"""The router's gRPC API: unary methods and the two streams."""

from syftmesh_router.servicer.api import SERVICE, RpcServicer

__all__ = ["SERVICE", "RpcServicer"]
