"""Who may do what with a path, as the hub's permission service decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog
from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2 as rpc
from syftmesh_client.node import Node
from syftmesh_core.errors import InvalidInput, Unavailable
from syftmesh_core.permission.reader import ReaderKind
from syftmesh_core.quote import quoted

from syftmesh.rule_desk import AsyncRuleDesk

LEVELS: Final = {
    "read": pb.LEVEL_READ,
    "create": pb.LEVEL_CREATE,
    "write": pb.LEVEL_WRITE,
    "admin": pb.LEVEL_ADMIN,
}
ANONYMOUS: Final = "anonymous"
_KINDS: Final = {
    pb.READER_KIND_PUBLIC: ReaderKind.PUBLIC,
    pb.READER_KIND_CLOSED: ReaderKind.CLOSED,
    pb.READER_KIND_OPEN: ReaderKind.OPEN,
}
_TIMEOUT_S: Final = 15.0
_log: Any = structlog.get_logger("syftmesh.sdk")

_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 5.0

Token = Mapping[str, int]
"""Point of the hub's file log, as `Decision.token` gives it."""


@dataclass(frozen=True, slots=True)
class Question:
    """One of many questions; the fields are the parameters of `AsyncPermissions.check`."""

    path: str
    level: str = "read"
    as_: str | None = None
    size_bytes: int | None = None
    at: datetime | None = None


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
        matched: For admins of the path the entry that names who was asked about; empty where none decided.
    """

    needed: str
    governing_file: str
    matched: str = ""


@dataclass(frozen=True, slots=True)
class Readers:
    """Who can read a path, as far as the caller may know it.

    Attributes:
        path: What was asked about.
        kind: PUBLIC for anybody, CLOSED for exactly `principals`, OPEN when there may be others.
        principals: Those known by name, sorted; the owner is one of them.
        why: What makes it so, one sentence.
        token: Point of the hub's file log that the answer was made at.
    """

    path: str
    kind: ReaderKind
    principals: tuple[str, ...]
    why: str
    token: dict[str, int]


class AsyncPermissions(AsyncRuleDesk):
    """Asks the permission service, and changes rules.

    Args:
        node: The device that asks.
        sleep: Waits before a stream is opened again.
    """

    def __init__(self, node: Node, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        super().__init__(node)
        self._node = node
        self._sleep = sleep

    async def check(
        self,
        path: str,
        level: str = "read",
        *,
        as_: str | None = None,
        size_bytes: int | None = None,
        at: datetime | None = None,
        at_least: Token | None = None,
    ) -> Decision:
        """Return whether somebody may do something.

        Args:
            path: ``<e-mail>/<segments>``.
            level: read, create, write or admin.
            as_: E-mail, ``guest`` or ``anonymous``; None: the own principal.
            size_bytes: Size of the version to be written, for limits.
            at: Moment of the decision; None: now.
            at_least: Token that the answer must not be older than: after a revocation was acknowledged.

        Raises:
            InvalidInput: PATH_INVALID, PRINCIPAL_INVALID, LEVEL_INVALID.
            PermissionDenied: About somebody else without admin on the path.
            WrongState: (TOKEN_EXPIRED) `at_least` is of a log that was rebuilt since: ask without it.
        """
        request = rpc.CheckPermissionRequest(
            question=_question(path, level, as_, size_bytes, at), at_least=_token(at_least)
        )
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
        at_least: Token | None = None,
    ) -> Explanation:
        """Return a decision, and what would be needed for the other answer; as `check`."""
        request = rpc.ExplainPermissionRequest(
            question=_question(path, level, as_, size_bytes, at), at_least=_token(at_least)
        )
        answer = await self._node.session.permissions.ExplainPermission(request, timeout=_TIMEOUT_S)
        return Explanation(
            *self._parts(answer.decision, path, level, as_),
            needed=answer.needed,
            governing_file=answer.governing_file,
            matched=answer.matched,
        )

    async def batch_check(
        self, questions: Sequence[Question], *, at_least: Token | None = None
    ) -> list[Decision]:
        """Return the answers to at most 10,000 questions, in their order, all at one point of the log.

        Raises:
            InvalidInput: As `check`; metadata `index` says which question, from 0.
            PermissionDenied: Likewise.
            LimitExceeded: (BATCH_SIZE) too many questions.
        """
        request = rpc.BatchCheckPermissionsRequest(
            questions=[_message(question) for question in questions], at_least=_token(at_least)
        )
        answer = await self._node.session.permissions.BatchCheckPermissions(request, timeout=_TIMEOUT_S)
        return [
            self._decision(question, found, answer.token)
            for question, found in zip(questions, answer.decisions, strict=True)
        ]

    async def readers(
        self, path: str, *, at: datetime | None = None, at_least: Token | None = None
    ) -> Readers:
        """Return who can read a path (at a moment; None: now), as far as you may know it.

        Raises:
            InvalidInput: PATH_INVALID.
        """
        request = rpc.ListReadersRequest(path=path, at_least=_token(at_least))
        if at is not None:
            request.at_unix_ms = _unix_ms(at)
        answer = await self._node.session.permissions.ListReaders(request, timeout=_TIMEOUT_S)
        kind = _KINDS.get(answer.kind, ReaderKind.OPEN)  # of a kind not known here only this is certain
        return Readers(path, kind, tuple(answer.principals), answer.why, _token_of(answer.token))

    async def accessible(self, prefix: str = "", *, at_least: Token | None = None) -> AsyncIterator[str]:
        """Iterate over the paths of the live files below `prefix` (empty: everywhere) that you may read.

        Connects again by itself and goes on where it was.

        Raises:
            InvalidInput: PATH_INVALID.
        """
        request = rpc.ListAccessibleRequest(prefix=prefix, at_least=_token(at_least))
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async for page in self._node.session.permissions.ListAccessible(request):
                    request.cursor, pause_s = page.after_cursor, _FIRST_PAUSE_S
                    for path in page.paths:
                        yield path
                return
            except Unavailable:
                if pause_s > _LONGEST_PAUSE_S:
                    raise
            await self._sleep(pause_s)
            pause_s *= 2

    async def watch(
        self, questions: Sequence[Question], *, at_least: Token | None = None
    ) -> AsyncIterator[Decision]:
        """Iterate over the answers to at most 1,000 questions, then over each that has changed, for ever.

        Connects again by itself; what did not change meanwhile is not told again.

        Raises:
            InvalidInput: As `check`; metadata `index` says which question, from 0.
            PermissionDenied: Likewise, also when the right to ask about somebody else is lost.
            LimitExceeded: (BATCH_SIZE) too many questions.
        """
        request = rpc.WatchPermissionsRequest(
            questions=[_message(question) for question in questions], at_least=_token(at_least)
        )
        told: dict[int, tuple[object, ...]] = {}
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                async for answer in self._node.session.permissions.WatchPermissions(request):
                    pause_s, found = _FIRST_PAUSE_S, answer.decision
                    decision = self._decision(questions[answer.index], found, found.token)
                    said = (decision.allowed, decision.reason, decision.rule)
                    if told.get(answer.index) != said:
                        told[answer.index] = said
                        yield decision
            except Unavailable as error:  # it is away for a moment, or restarts
                _log.debug("permission.watch_interrupted", reason=error.reason, pause_s=pause_s)
            await self._sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    def _decision(
        self, question: Question, found: pb.Decision, token: common_pb2.ConsistencyToken
    ) -> Decision:
        found.token.CopyFrom(token)
        return Decision(*self._parts(found, question.path, question.level, question.as_))

    def _parts(
        self, found: pb.Decision, path: str, level: str, as_: str | None
    ) -> tuple[bool, str, str, str, str, Rule | None, dict[str, int]]:
        rule = None
        if found.HasField("rule"):
            rule = Rule(found.rule.file, found.rule.line, found.rule.pattern)
        principal = self._node.principal if as_ is None else as_
        return found.allowed, path, principal, level, found.reason, rule, _token_of(found.token)


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
        question.at_unix_ms = _unix_ms(at)
    return question


def _message(question: Question) -> pb.Question:
    return _question(question.path, question.level, question.as_, question.size_bytes, question.at)


def _unix_ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _token(token: Token | None) -> common_pb2.ConsistencyToken | None:
    return None if token is None else common_pb2.ConsistencyToken(**token)


def _token_of(token: common_pb2.ConsistencyToken) -> dict[str, int]:
    return {"epoch": token.epoch, "sequence": token.sequence}
