"""gRPC interceptors: one for servers (errors, tokens, traces, metrics, sizes, log) and those of a channel."""

from syftmesh_kit.interceptor.client import TokenProvider, client_interceptors
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.interceptor.server import MAX_MESSAGE_BYTES, PUBLIC_METHODS, ServerInterceptor

__all__ = [
    "MAX_MESSAGE_BYTES",
    "PUBLIC_METHODS",
    "RpcMetrics",
    "ServerInterceptor",
    "TokenProvider",
    "client_interceptors",
]
