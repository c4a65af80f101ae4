"""Handlers of calls at the agent: what it answers for apps that nobody hosts."""

from __future__ import annotations

from mesh.rpc.v1.content_pb2 import ReplyContent
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_core.errors import NotFound


class UnknownApp:
    """The handler of ``*``: every call ends as NOT_FOUND, after its seal and right were checked."""

    idempotent = True

    async def handle(self, request: IncomingCall, tx: Transaction) -> ReplyContent:
        """Refuse the call.

        Raises:
            NotFound: APP_UNKNOWN.
        """
        del tx
        raise NotFound(
            f"The datasite serves no app {request.app}.",
            reason="APP_UNKNOWN",
            metadata={"app": request.app},
        )
