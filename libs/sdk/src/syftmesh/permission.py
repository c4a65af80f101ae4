"""Who may do what with a path, as the hub's permission service decides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mesh.permissions.v1 import permissions_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2 as rpc
from syftmesh_client.node import Node
from syftmesh_core.errors import InvalidInput
from syftmesh_core.quote import quoted

LEVELS: Final = {
    "read": pb.LEVEL_READ,
    "create": pb.LEVEL_CREATE,
    "write": pb.LEVEL_WRITE,
    "admin": pb.LEVEL_ADMIN,
}
ANONYMOUS: Final = "anonymous"
_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Rule:
    """The rule that decided: its file, the line of its pattern (from 1), the pattern as written."""

    file: str
    line: int
    pattern: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one question.

    Attributes:
        allowed: Yes or no.
        path: What was asked about.
        principal: Who.
        level: What.
        reason: Constant such as OWNER or RULE_ALLOWS.
        rule: The deciding rule; None for owners and where none decided.
        token: Point of the hub's file log that the decision was made at.
    """

    allowed: bool
    path: str
    principal: str
    level: str
    reason: str
    rule: Rule | None
    token: dict[str, int]


@dataclass(frozen=True, slots=True)
class Explanation(Decision):
    """A decision with its surroundings.

    Attributes:
        needed: What would have to change for the other answer.
        governing_file: The rule file that governs the path; empty without one.
    """

    needed: str
    governing_file: str


class AsyncPermissions:
    """Asks the permission service."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def check(
        self,
        path: str,
        level: str = "read",
        *,
        as_: str | None = None,
        size_bytes: int | None = None,
        at: datetime | None = None,
    ) -> Decision:
        """Return whether somebody may do something.

        Args:
            path: ``<e-mail>/<segments>``.
            level: read, create, write or admin.
            as_: E-mail, ``guest`` or ``anonymous``; None: the own principal.
            size_bytes: Size of the version to be written, for limits.
            at: Moment of the decision; None: now.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID, LEVEL_INVALID.
            PermissionDenied: About somebody else without admin on the path.
        """
        request = rpc.CheckPermissionRequest(question=_question(path, level, as_, size_bytes, at))
        answer = await self._node.session.permissions.CheckPermission(request, timeout=_TIMEOUT_S)
        return Decision(*self._parts(answer.decision, path, level, as_))

    async def explain(
        self,
        path: str,
        level: str = "read",
        *,
        as_: str | None = None,
        size_bytes: int | None = None,
        at: datetime | None = None,
    ) -> Explanation:
        """Return a decision, and what would be needed for the other answer; as `check`."""
        request = rpc.ExplainPermissionRequest(question=_question(path, level, as_, size_bytes, at))
        answer = await self._node.session.permissions.ExplainPermission(request, timeout=_TIMEOUT_S)
        parts = self._parts(answer.decision, path, level, as_)
        return Explanation(*parts, needed=answer.needed, governing_file=answer.governing_file)

    def _parts(
        self, found: pb.Decision, path: str, level: str, as_: str | None
    ) -> tuple[bool, str, str, str, str, Rule | None, dict[str, int]]:
        rule = None
        if found.HasField("rule"):
            rule = Rule(found.rule.file, found.rule.line, found.rule.pattern)
        token = {"epoch": found.token.epoch, "sequence": found.token.sequence}
        principal = self._node.principal if as_ is None else as_
        return found.allowed, path, principal, level, found.reason, rule, token


def _question(
    path: str, level: str, as_: str | None, size_bytes: int | None, at: datetime | None
) -> pb.Question:
    if level not in LEVELS:
        raise InvalidInput(
            f"{quoted(level)} is no level; there are {', '.join(LEVELS)}.",
            reason="LEVEL_INVALID",
            metadata={"level": quoted(level)},
        )
    question = pb.Question(path=path, level=LEVELS[level])
    if as_ is not None:
        question.requester = "" if as_ == ANONYMOUS else as_
    if size_bytes is not None:
        question.size_bytes = size_bytes
    if at is not None:
        question.at_unix_ms = int(at.timestamp() * 1000)
    return question
