"""Messages of `mesh.permissions.v1` to the domain's values and back."""

from __future__ import annotations

from typing import Final

from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2, permissions_service_pb2
from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.ruleset import Level
from syftmesh_kit.caller import Caller

from syftmesh_permissions.domain.consistency import Token
from syftmesh_permissions.domain.inquiry import Answer, Inquiry

_LEVELS: Final = {
    permissions_pb2.LEVEL_READ: Level.READ,
    permissions_pb2.LEVEL_CREATE: Level.CREATE,
    permissions_pb2.LEVEL_WRITE: Level.WRITE,
    permissions_pb2.LEVEL_ADMIN: Level.ADMIN,
}


def asker(caller: Caller) -> str:
    """Return who asks; a service has no rights of its own."""
    return caller.requester


def inquiry(question: permissions_pb2.Question) -> Inquiry:
    """Return the question asked.

    Raises:
        InvalidInput: (LEVEL_INVALID) the level is unset or unknown; (TIME_INVALID) the moment is none.
    """
    level = _LEVELS.get(question.level)
    if level is None:
        raise InvalidInput(
            "The level asked for is not set: ask for read, create, write or admin.",
            reason="LEVEL_INVALID",
            metadata={"level": str(question.level)},
        )
    at_ms = question.at_unix_ms if question.HasField("at_unix_ms") else None
    if at_ms is not None and not 0 <= at_ms < 253_402_300_800_000:  # the year 10,000
        raise InvalidInput(
            f"The moment {at_ms} lies outside the years 1970 to 9999.",
            reason="TIME_INVALID",
            metadata={"at_unix_ms": str(at_ms)},
        )
    return Inquiry(
        path=question.path,
        level=level,
        requester=question.requester if question.HasField("requester") else None,
        size_bytes=question.size_bytes if question.HasField("size_bytes") else None,
        at_ms=at_ms,
    )


def token(
    request: permissions_service_pb2.CheckPermissionRequest
    | permissions_service_pb2.ExplainPermissionRequest,
) -> Token | None:
    """Return the token that the answer must not be older than."""
    if not request.HasField("at_least"):
        return None
    return Token(request.at_least.epoch, request.at_least.sequence)


def decision_message(answer: Answer, at: Token) -> permissions_pb2.Decision:
    """Return the decision with the point of the log it was made at."""
    rule = answer.rule
    shown = (
        permissions_pb2.RuleReference(file=rule.file, line=rule.line, pattern=rule.pattern) if rule else None
    )
    return permissions_pb2.Decision(
        allowed=answer.allowed,
        reason=answer.reason,
        rule=shown,
        token=common_pb2.ConsistencyToken(epoch=at.epoch, sequence=at.sequence),
    )
