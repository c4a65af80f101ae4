"""Questions about rights by the SDK: what is asked, what comes back, how streams go on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.common.v1 import common_pb2
from mesh.permissions.v1 import permissions_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2 as rpc
from syftmesh.permission import AsyncPermissions, Question, Rule
from syftmesh_core.errors import InvalidInput, PermissionDenied, Unavailable
from syftmesh_core.permission.reader import ReaderKind

ALICE, BOB = "alice@site.example", "bob@x.example"
X, Y = f"{ALICE}/x", f"{ALICE}/y"
TOKEN = common_pb2.ConsistencyToken(epoch=3, sequence=7)
AWAY = Unavailable("", reason="SERVER_UNREACHABLE")


class Service:
    """A stub that gives what a test has laid out: an answer, or for each stream messages and its end."""

    def __init__(self, answer: Any = None, streams: Iterable[list[Any]] = ()) -> None:
        self.answer = answer
        self.streams = list(streams)
        self.requests: list[Any] = []
        self.pauses_s: list[float] = []

    async def _unary(self, request: Any, **_options: Any) -> Any:
        self.requests.append(request)
        return self.answer

    BatchCheckPermissions = ListReaders = ExplainPermission = CheckPermission = _unary

    async def _stream(self, request: Any) -> AsyncIterator[Any]:
        self.requests.append(type(request).FromString(request.SerializeToString()))
        for item in self.streams.pop(0):
            if isinstance(item, Exception):
                raise item
            yield item

    ListAccessible = WatchPermissions = _stream

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)

    @property
    def permissions(self) -> AsyncPermissions:
        node: Any = SimpleNamespace(session=SimpleNamespace(permissions=self), principal=BOB)
        return AsyncPermissions(node, self.sleep)


def decision(
    *, allowed: bool, line: int = 0, token: common_pb2.ConsistencyToken | None = None
) -> pb.Decision:
    rule = pb.RuleReference(file=f"{ALICE}/syft.pub.yaml", line=line, pattern="**") if line else None
    return pb.Decision(allowed=allowed, reason="R", rule=rule, token=token)


async def test_a_batch_asks_in_order_and_gives_each_answer_the_one_token() -> None:
    service = Service(
        rpc.BatchCheckPermissionsResponse(
            decisions=[decision(allowed=True, line=3), decision(allowed=False)], token=TOKEN
        )
    )
    at = datetime(2026, 1, 1, tzinfo=UTC)
    found = await service.permissions.batch_check(
        [Question(X), Question(Y, "write", as_="anonymous", size_bytes=0, at=at)],
        at_least={"epoch": 3, "sequence": 5},
    )
    assert [(d.path, d.principal, d.level, d.allowed) for d in found] == [
        (X, BOB, "read", True),
        (Y, "anonymous", "write", False),
    ]
    assert found[0].rule == Rule(f"{ALICE}/syft.pub.yaml", 3, "**")
    assert {tuple(d.token.items()) for d in found} == {(("epoch", 3), ("sequence", 7))}
    asked = service.requests[0]
    assert asked.at_least.sequence == 5
    assert not asked.questions[0].HasField("requester")
    assert (asked.questions[1].requester, asked.questions[1].at_unix_ms) == ("", 1_767_225_600_000)
    assert asked.questions[1].HasField("size_bytes")


async def test_an_unknown_level_is_refused_before_anything_is_asked() -> None:
    service = Service()
    with pytest.raises(InvalidInput):
        await service.permissions.batch_check([Question(X, "own")])
    assert service.requests == []


async def test_readers_come_with_kind_and_reason() -> None:
    service = Service(
        rpc.ListReadersResponse(
            principals=[ALICE, BOB], kind=pb.READER_KIND_CLOSED, why="So it is.", token=TOKEN
        )
    )
    found = await service.permissions.readers(X, at=datetime(2026, 1, 1, tzinfo=UTC))
    assert (found.kind, found.principals, found.why) == (ReaderKind.CLOSED, (ALICE, BOB), "So it is.")
    assert service.requests[0].at_unix_ms == 1_767_225_600_000
    service.answer.kind = 99
    assert (await service.permissions.readers(X)).kind is ReaderKind.OPEN
    assert not service.requests[1].HasField("at_unix_ms")


async def test_a_walk_goes_on_behind_the_last_page() -> None:
    service = Service(
        streams=[
            [rpc.ListAccessibleResponse(paths=[X], after_cursor="c1"), AWAY],
            [AWAY],
            [rpc.ListAccessibleResponse(paths=[Y], after_cursor="c2")],
        ]
    )
    assert [path async for path in service.permissions.accessible(ALICE)] == [X, Y]
    assert [request.cursor for request in service.requests] == ["", "c1", "c1"]
    assert [request.prefix for request in service.requests] == [ALICE] * 3
    assert service.pauses_s == sorted(service.pauses_s)


async def test_a_walk_gives_up_on_a_hub_that_stays_away() -> None:
    service = Service(streams=[[AWAY]] * 20)
    with pytest.raises(Unavailable):
        await anext(service.permissions.accessible())
    assert len(service.requests) < 20


def told(index: int, *, allowed: bool, line: int = 1) -> rpc.WatchPermissionsResponse:
    return rpc.WatchPermissionsResponse(
        index=index, decision=decision(allowed=allowed, line=line, token=TOKEN)
    )


async def test_a_watch_goes_on_and_tells_only_what_has_changed() -> None:
    denied = PermissionDenied("")
    service = Service(
        streams=[
            [told(0, allowed=False), told(1, allowed=True), AWAY],
            [told(0, allowed=False), told(1, allowed=False), told(0, allowed=False, line=2), denied],
        ]
    )
    found = []
    watch = service.permissions.watch([Question(X), Question(Y)])
    for _ in range(4):
        found.append(await anext(watch))
    assert [(d.path, d.allowed) for d in found] == [(X, False), (Y, True), (Y, False), (X, False)]
    assert found[0].token == {"epoch": 3, "sequence": 7}
    with pytest.raises(PermissionDenied):
        await anext(watch)


async def test_an_explanation_names_the_entry_that_matched() -> None:
    service = Service(
        rpc.ExplainPermissionResponse(decision=decision(allowed=True, line=1, token=TOKEN), matched="USER")
    )
    assert (await service.permissions.explain(X)).matched == "USER"
