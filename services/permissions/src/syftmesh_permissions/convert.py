"""Messages of `mesh.permissions.v1` to the domain's values and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2
from mesh.permissions.v1 import permissions_service_pb2 as pb
from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.reader import ReaderKind, Readers
from syftmesh_core.permission.ruleset import Level
from syftmesh_kit.caller import Caller

from syftmesh_permissions.domain.accessible import Page
from syftmesh_permissions.domain.batch import Decided, blamed
from syftmesh_permissions.domain.consistency import Token
from syftmesh_permissions.domain.inquiry import Inquiry
from syftmesh_permissions.domain.ruling import Asked
from syftmesh_permissions.domain.sight import Verdict
from syftmesh_permissions.domain.watch import Told

_LEVELS: Final = {
    permissions_pb2.LEVEL_READ: Level.READ,
    permissions_pb2.LEVEL_CREATE: Level.CREATE,
    permissions_pb2.LEVEL_WRITE: Level.WRITE,
    permissions_pb2.LEVEL_ADMIN: Level.ADMIN,
}
_KINDS: Final = {
    ReaderKind.PUBLIC: permissions_pb2.READER_KIND_PUBLIC,
    ReaderKind.CLOSED: permissions_pb2.READER_KIND_CLOSED,
    ReaderKind.OPEN: permissions_pb2.READER_KIND_OPEN,
}
_YEAR_10000_MS: Final = 253_402_300_800_000


class Demanding(Protocol):
    """A request that may name a token."""

    @property
    def at_least(self) -> common_pb2.ConsistencyToken:
        """The token that the answer must not be older than."""
        ...


def asker(caller: Caller) -> str:
    """Return who asks; a service has no rights of its own."""
    return caller.requester


def asked(question: permissions_pb2.Question) -> Asked:
    """Return the fields of a question.

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
    has = question.HasField
    return (
        question.path,
        level,
        question.requester if has("requester") else None,
        question.size_bytes if has("size_bytes") else None,
        moment_ms(question.at_unix_ms) if has("at_unix_ms") else None,
    )


def inquiry(question: permissions_pb2.Question) -> Inquiry:
    """Return the question asked; raises as `asked`."""
    return Inquiry(*asked(question))


def batch(questions: Iterable[permissions_pb2.Question]) -> Iterator[Asked]:
    """Iterate over the questions of a batch.

    Raises:
        InvalidInput: As `asked`; metadata `index` says which, from 0.
    """
    for index, question in enumerate(questions):
        try:
            yield asked(question)
        except InvalidInput as error:
            raise blamed(error, index) from error


def moment_ms(at_unix_ms: int) -> int:
    """Return the moment asked for.

    Raises:
        InvalidInput: (TIME_INVALID) it is none that a rule could name.
    """
    if not 0 <= at_unix_ms < _YEAR_10000_MS:
        raise InvalidInput(
            f"The moment {at_unix_ms} lies outside the years 1970 to 9999.",
            reason="TIME_INVALID",
            metadata={"at_unix_ms": str(at_unix_ms)},
        )
    return at_unix_ms


def token(demanded: Demanding) -> Token:
    """Return the token that the answer must not be older than, zeros for none."""
    return Token(demanded.at_least.epoch, demanded.at_least.sequence)


def token_message(at: Token) -> common_pb2.ConsistencyToken:
    """Return a point of the log."""
    return common_pb2.ConsistencyToken(epoch=at.epoch, sequence=at.sequence)


def decision_message(verdict: Verdict, at: Token | None) -> permissions_pb2.Decision:
    """Return the decision with the point of the log it was made at, unless that is said elsewhere."""
    rule = verdict.rule
    shown = (
        permissions_pb2.RuleReference(file=rule.file, line=rule.line, pattern=rule.pattern) if rule else None
    )
    return permissions_pb2.Decision(
        allowed=verdict.allowed,
        reason=verdict.reason,
        rule=shown,
        token=None if at is None else token_message(at),
    )


def batch_entry(verdict: Verdict) -> bytes:
    """Return the encoded field `decisions` of a batch with one answer.

    Fields of one message may be concatenated (encoding of Protocol Buffers, "Last One Wins"): a whole response is
    its entries one after the other, and what many questions share is encoded once.
    """
    return pb.BatchCheckPermissionsResponse(decisions=[decision_message(verdict, None)]).SerializeToString()


def batch_response(decided: Decided[bytes]) -> bytes:
    """Return the encoded `BatchCheckPermissionsResponse`."""
    last = pb.BatchCheckPermissionsResponse(token=token_message(decided.token)).SerializeToString()
    return b"".join((*decided.answers, last))


def told_message(told: Told[bytes]) -> pb.WatchPermissionsResponse:
    """Return one answer of a watch."""
    decision = pb.BatchCheckPermissionsResponse.FromString(told.answer).decisions[0]
    decision.token.CopyFrom(token_message(told.token))
    return pb.WatchPermissionsResponse(index=told.index, decision=decision)


def readers_message(readers: Readers, at: Token) -> pb.ListReadersResponse:
    """Return who reads."""
    return pb.ListReadersResponse(
        principals=sorted(readers.principals),
        kind=_KINDS[readers.kind],
        why=readers.why,
        token=token_message(at),
    )


def page_message(page: Page) -> pb.ListAccessibleResponse:
    """Return a page of a walk."""
    return pb.ListAccessibleResponse(
        paths=page.paths, after_cursor=page.cursor, token=token_message(page.token)
    )
