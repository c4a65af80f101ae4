"""Messages of `mesh.permissions.v1` to the domain's values and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import compress, count, repeat
from operator import attrgetter
from typing import Final, Protocol, cast

from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2
from mesh.permissions.v1 import permissions_service_pb2 as pb
from syftmesh_core.errors import InvalidInput
from syftmesh_core.permission.reader import ReaderKind, Readers
from syftmesh_core.permission.ruleset import Level
from syftmesh_kit.caller import Caller

from syftmesh_permissions.domain.accessible import Page
from syftmesh_permissions.domain.batch import Decided, blaming
from syftmesh_permissions.domain.consistency import Token
from syftmesh_permissions.domain.inquiry import Inquiry
from syftmesh_permissions.domain.question import LEVELS, Questions
from syftmesh_permissions.domain.sight import Verdict
from syftmesh_permissions.domain.watch import Told

_PLACES: Final[Mapping[int, int]] = {
    permissions_pb2.LEVEL_READ: LEVELS.index(Level.READ),
    permissions_pb2.LEVEL_CREATE: LEVELS.index(Level.CREATE),
    permissions_pb2.LEVEL_WRITE: LEVELS.index(Level.WRITE),
    permissions_pb2.LEVEL_ADMIN: LEVELS.index(Level.ADMIN),
}
_KINDS: Final = {
    ReaderKind.PUBLIC: permissions_pb2.READER_KIND_PUBLIC,
    ReaderKind.CLOSED: permissions_pb2.READER_KIND_CLOSED,
    ReaderKind.OPEN: permissions_pb2.READER_KIND_OPEN,
}
_HAS: Final = cast("Callable[[permissions_pb2.Question, str], bool]", permissions_pb2.Question.HasField)
_GET_PATH: Final = attrgetter("path")
_GET_LEVEL: Final = attrgetter("level")
_GET_REQUESTER: Final = attrgetter("requester")
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


def inquiry(question: permissions_pb2.Question) -> Inquiry:
    """Return the question asked.

    Raises:
        InvalidInput: (LEVEL_INVALID) the level is unset or unknown; (TIME_INVALID) the moment is none.
    """
    return Inquiry(
        path=question.path,
        level=LEVELS[_place(question.level)],
        requester=_requester(question),
        size_bytes=_size_bytes(question),
        at_ms=moment_ms(question.at_unix_ms) if question.HasField("at_unix_ms") else None,
    )


def question(message: permissions_pb2.Question) -> Questions:
    """Return the one question asked; raises as `inquiry`."""
    moments_ms = {0: moment_ms(message.at_unix_ms)} if message.HasField("at_unix_ms") else {}
    place, requester = _place(message.level), _requester(message)
    return Questions([message.path], [place], [requester], moments_ms, lambda _index: _size_bytes(message))


def questions(messages: Sequence[permissions_pb2.Question]) -> Questions:
    """Return the questions of a batch or a watch; column by column, which takes a third of the time.

    Raises:
        InvalidInput: As `inquiry`; metadata `index` says which, from 0.
    """
    asked = list(messages)
    places = list(map(_PLACES.get, map(_GET_LEVEL, asked)))
    with blaming(lambda: places.index(None)):
        levels = _complete(places, asked)
    requesters: list[str | None] = list(map(_GET_REQUESTER, asked))
    if "" in requesters:
        requesters = [_requester(question) for question in asked]
    timed = list(compress(count(), map(_HAS, asked, repeat("at_unix_ms"))))
    moments_ms: dict[int, int] = {}
    with blaming(lambda: timed[len(moments_ms)]):
        for index in timed:
            moments_ms[index] = moment_ms(asked[index].at_unix_ms)
    texts = list(map(_GET_PATH, asked))
    return Questions(texts, levels, requesters, moments_ms, lambda index: _size_bytes(asked[index]))


def _size_bytes(question: permissions_pb2.Question) -> int | None:
    return question.size_bytes if question.HasField("size_bytes") else None


def _requester(question: permissions_pb2.Question) -> str | None:
    return question.requester if question.HasField("requester") else None


def _complete(places: list[int | None], asked: Sequence[permissions_pb2.Question]) -> list[int]:
    if None in places:
        _place(asked[places.index(None)].level)
    return cast("list[int]", places)


def _place(level: int) -> int:
    place = _PLACES.get(level)
    if place is None:
        raise InvalidInput(
            "The level asked for is not set: ask for read, create, write or admin.",
            reason="LEVEL_INVALID",
            metadata={"level": str(level)},
        )
    return place


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


def entry(verdict: Verdict) -> bytes:
    """Return the encoded field `decisions` of a batch with one answer: also `decision` of a check, but for its token.

    Fields of one message may be concatenated, and a message that comes twice is merged (encoding of Protocol
    Buffers, "Last One Wins"): so a response is made of pieces, and what many questions share is encoded once.
    """
    return pb.BatchCheckPermissionsResponse(decisions=[decision_message(verdict, None)]).SerializeToString()


def check_response(answer: bytes, at: Token) -> bytes:
    """Return the encoded `CheckPermissionResponse`; `answer` is from `entry`."""
    return answer + _check_token(at.epoch, at.sequence)


@lru_cache(maxsize=16)
def _check_token(epoch: int, sequence: int) -> bytes:
    decision = permissions_pb2.Decision(token=token_message(Token(epoch, sequence)))
    return pb.CheckPermissionResponse(decision=decision).SerializeToString()


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
