"""`mesh.permissions.v1.PermissionService`: decode, one use case, encode."""

# ruff: noqa: N802, ARG002 - names and arguments are those of gRPC

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

from mesh.permissions.v1 import permissions_pb2
from mesh.permissions.v1 import permissions_service_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2_grpc as pb_grpc
from syftmesh_core.errors import Unimplemented
from syftmesh_kit.caller import current_caller

from syftmesh_permissions import convert
from syftmesh_permissions.domain.consistency import Model, Token, require_at_least
from syftmesh_permissions.domain.inquiry import Answer, Ask


class PermissionServicer(pb_grpc.PermissionServiceServicer):
    """The handlers.

    Args:
        ask: Use case.
        model: How fresh answers are.
    """

    def __init__(self, ask: Ask, model: Model) -> None:
        self._ask = ask
        self._model = model

    async def CheckPermission(
        self, request: pb.CheckPermissionRequest, context: Any
    ) -> pb.CheckPermissionResponse:
        """Decide one question."""
        answer, at = await self._answer(request.question, convert.token(request))
        return pb.CheckPermissionResponse(decision=convert.decision_message(answer, at))

    async def ExplainPermission(
        self, request: pb.ExplainPermissionRequest, context: Any
    ) -> pb.ExplainPermissionResponse:
        """Decide one question and say why."""
        answer, at = await self._answer(request.question, convert.token(request))
        return pb.ExplainPermissionResponse(
            decision=convert.decision_message(answer, at),
            needed=answer.needed,
            governing_file=answer.governing_file,
        )

    async def BatchCheckPermissions(
        self, request: pb.BatchCheckPermissionsRequest, context: Any
    ) -> pb.BatchCheckPermissionsResponse:
        """Not built yet."""
        _unimplemented("BatchCheckPermissions")

    async def ListReaders(self, request: pb.ListReadersRequest, context: Any) -> pb.ListReadersResponse:
        """Not built yet."""
        _unimplemented("ListReaders")

    async def ListAccessible(
        self, request: pb.ListAccessibleRequest, context: Any
    ) -> AsyncIterator[pb.ListAccessibleResponse]:
        """Not built yet."""
        _unimplemented("ListAccessible")
        yield

    async def WatchPermissions(
        self, request: pb.WatchPermissionsRequest, context: Any
    ) -> AsyncIterator[pb.WatchPermissionsResponse]:
        """Not built yet."""
        _unimplemented("WatchPermissions")
        yield

    async def _answer(self, question: permissions_pb2.Question, wanted: Token | None) -> tuple[Answer, Token]:
        caller = convert.asker(current_caller())
        inquiry = convert.inquiry(question)
        await require_at_least(self._model, wanted)
        # No await between the decision and its token: they belong to one point of the log.
        return self._ask.run(caller, inquiry), self._model.token()


def _unimplemented(name: str) -> NoReturn:
    raise Unimplemented(f"{name} comes with the complete permission service.", metadata={"method": name})
