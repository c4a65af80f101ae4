"""`mesh.permissions.v1.PermissionService`: decode, one use case, encode."""

# ruff: noqa: N802, ARG002 - names and arguments are those of gRPC

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
from mesh.permissions.v1 import permissions_service_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2_grpc as pb_grpc
from syftmesh_kit.caller import current_caller

from syftmesh_permissions import convert
from syftmesh_permissions.domain.accessible import ListAccessible
from syftmesh_permissions.domain.batch import MAX_BATCH, AskMany, check_count
from syftmesh_permissions.domain.consistency import Model, require_at_least
from syftmesh_permissions.domain.inquiry import Ask
from syftmesh_permissions.domain.reader import ListReaders
from syftmesh_permissions.domain.watch import MAX_WATCHED, WatchMany


class PermissionServicer(pb_grpc.PermissionServiceServicer):
    """The handlers.

    Args:
        model: How fresh answers are.
        ask: Use case, for explanations.
        ask_many: Use case, for decisions; its answers are encoded by `convert.entry`.
        readers: Use case.
        accessible: Use case.
        watch: Use case; its answers are encoded likewise.
    """

    def __init__(
        self,
        model: Model,
        *,
        ask: Ask,
        ask_many: AskMany[bytes],
        readers: ListReaders,
        accessible: ListAccessible,
        watch: WatchMany[bytes],
    ) -> None:
        self._model = model
        self._ask = ask
        self._ask_many = ask_many
        self._readers = readers
        self._accessible = accessible
        self._watch = watch

    async def CheckPermission(  # type: ignore[override]  # encoded already; see `register`
        self, request: pb.CheckPermissionRequest, context: Any
    ) -> bytes:
        """Decide one question."""
        caller = convert.asker(current_caller())
        question = convert.question(request.question)
        if request.HasField("at_least"):
            await require_at_least(self._model, convert.token(request))
        return convert.check_response(*self._ask_many.one(caller, question))

    async def ExplainPermission(
        self, request: pb.ExplainPermissionRequest, context: Any
    ) -> pb.ExplainPermissionResponse:
        """Decide one question and say why."""
        caller = convert.asker(current_caller())
        inquiry = convert.inquiry(request.question)
        await require_at_least(self._model, convert.token(request))
        # No await between the decision and its token: they belong to one point of the log.
        answer, at = self._ask.run(caller, inquiry), self._model.token()
        return pb.ExplainPermissionResponse(
            decision=convert.decision_message(answer.verdict, at),
            needed=answer.needed,
            governing_file=answer.governing_file,
            matched=answer.matched,
        )

    async def BatchCheckPermissions(  # type: ignore[override]  # encoded already; see `register`
        self, request: pb.BatchCheckPermissionsRequest, context: Any
    ) -> bytes:
        """Decide many questions at one point of the log."""
        caller = convert.asker(current_caller())
        check_count(len(request.questions), MAX_BATCH)
        await require_at_least(self._model, convert.token(request))
        return convert.batch_response(await self._ask_many.run(caller, convert.questions(request.questions)))

    async def ListReaders(self, request: pb.ListReadersRequest, context: Any) -> pb.ListReadersResponse:
        """Say who can read a path."""
        caller = convert.asker(current_caller())
        at_ms = convert.moment_ms(request.at_unix_ms) if request.HasField("at_unix_ms") else None
        await require_at_least(self._model, convert.token(request))
        return convert.readers_message(self._readers.run(caller, request.path, at_ms), self._model.token())

    async def ListAccessible(
        self, request: pb.ListAccessibleRequest, context: Any
    ) -> AsyncIterator[pb.ListAccessibleResponse]:
        """Stream the files that the caller may read."""
        caller = convert.asker(current_caller())
        await require_at_least(self._model, convert.token(request))
        async for page in self._accessible.run(caller, request.prefix, request.cursor):
            yield convert.page_message(page)

    async def WatchPermissions(
        self, request: pb.WatchPermissionsRequest, context: Any
    ) -> AsyncIterator[pb.WatchPermissionsResponse]:
        """Stream answers as they change."""
        caller = convert.asker(current_caller())
        check_count(len(request.questions), MAX_WATCHED)
        questions = convert.questions(request.questions)
        await require_at_least(self._model, convert.token(request))
        async for told in self._watch.run(caller, questions):
            yield convert.told_message(told)


def register(servicer: PermissionServicer, server: grpc.aio.Server) -> str:
    """Add the handlers to `server` and return the service's full name.

    Checks are answered with encoded responses: the messages would cost more than the decisions.
    """
    service: str = pb.DESCRIPTOR.services_by_name["PermissionService"].full_name
    pb_grpc.add_PermissionServiceServicer_to_server(servicer, server)
    encoded: Any = {
        "CheckPermission": grpc.unary_unary_rpc_method_handler(
            servicer.CheckPermission, request_deserializer=pb.CheckPermissionRequest.FromString
        ),
        "BatchCheckPermissions": grpc.unary_unary_rpc_method_handler(
            servicer.BatchCheckPermissions, request_deserializer=pb.BatchCheckPermissionsRequest.FromString
        ),
    }
    # What is registered last for a method is what is called.
    server.add_registered_method_handlers(service, encoded)
    return service
