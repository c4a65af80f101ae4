"""Calls by the SDK: what travels, what comes back, and how an app's errors are raised."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from syftmesh.rpc import AsyncRpc
from syftmesh.submission import CALLS_FILE, Submission, SubmissionLog
from syftmesh.value import decode, encode
from syftmesh_core.errors import (
    Conflict,
    IntegrityFailure,
    Internal,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
    WrongState,
)
from syftmesh_kit.testing import FakeClock

SITE = "bob@x.example"
URL = f"syft://{SITE}/app_data/pingpong/rpc/ping"


class Colour(Enum):
    RED = "red"


@dataclass
class Inner:
    numbers: list[float] = field(default_factory=list)


@dataclass
class Everything:
    big: int
    exact: Decimal
    when: datetime
    which: UUID
    where: Path
    colour: Colour
    either: int | str | None
    inner: Inner
    raw: bytes


@dataclass
class Calls:
    reply: ReplyContent
    requests: list[RequestContent] = field(default_factory=list)
    sites: list[str | None] = field(default_factory=list)

    async def call(self, url: str, request: RequestContent, *, timeout_s: float) -> ReplyContent:
        self.requests.append(request)
        return self.reply

    async def send(self, url: str, request: RequestContent, *, expires_s: float) -> str:
        self.requests.append(request)
        return "c1"

    async def wait(self, call_id: str, timeout_s: float, *, site: str | None) -> ReplyContent:
        self.sites.append(site)
        return self.reply


def rpc(folder: Path, **reply: Any) -> tuple[AsyncRpc, Calls]:
    calls = Calls(ReplyContent(**reply))
    node: Any = SimpleNamespace(calls=calls, clock=FakeClock())
    return AsyncRpc(node, SubmissionLog(folder, CALLS_FILE)), calls


def test_types_come_back_exactly() -> None:
    value = Everything(
        big=2**80,
        exact=Decimal("0.1000"),
        when=datetime(2026, 1, 1, 12, tzinfo=UTC),
        which=UUID(int=7),
        where=Path("a/b"),
        colour=Colour.RED,
        either="7",
        inner=Inner([0.1, 1e300]),
        raw="ü".encode(),
    )
    data, kind = encode(value)
    assert kind == "application/json"
    assert decode(data, kind, Everything) == value
    assert decode(b"[1, 2]", kind, list[int]) == [1, 2]


@pytest.mark.parametrize(
    ("value", "field_name"),
    [
        (Inner([1.0, math.nan]), "numbers.1"),
        ({"a": [{"b": math.inf}]}, "a.0.b"),
        ({"a": {"b": {1}}}, "a.b"),
        ({"a": {7: 1}}, "a"),
        ([1, UUID(int=1)], "1"),
        ({"a": "\ud800"}, ""),
    ],
)
def test_what_cannot_be_sent_exactly_names_its_field(value: object, field_name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        encode(value)
    assert refused.value.reason == "VALUE_UNENCODABLE"
    assert refused.value.metadata["field"] == repr(field_name)


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(InvalidInput):
        encode(value)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [(b"[" * 100_000, list[int]), (b"", dict), (b'{"numbers": 1}', Inner), (b"\xff", str)],
)
def test_a_reply_that_does_not_fit_is_a_typed_error(data: bytes, wanted: Any) -> None:
    with pytest.raises(IntegrityFailure) as refused:
        decode(data, "application/json", wanted)
    assert refused.value.reason == "DECODE_FAILED"


async def test_a_call_carries_its_value_and_gives_the_reply_by_its_type(tmp_path: Path) -> None:
    asking, calls = rpc(tmp_path, status=200, content_type="application/json; charset=utf-8", body=b'{"n":2}')
    assert await asking.call(URL, {"n": 1}) == {"n": 2}
    assert (calls.requests[0].content_type, calls.requests[0].body) == ("application/json", b'{"n":1}')
    assert await asking.call(URL, b"\x00", content_type="image/png", reply_type=dict[str, int]) == {"n": 2}
    assert calls.requests[1].content_type == "image/png"
    empty, _ = rpc(tmp_path)
    assert await empty.call(URL) is None
    with pytest.raises(IntegrityFailure) as lying:
        await rpc(tmp_path, content_type="application/json", body=b"NaN")[0].call(URL)
    assert lying.value.reason == "DECODE_FAILED"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (403, PermissionDenied),
        (404, NotFound),
        (409, Conflict),
        (412, WrongState),
        (418, InvalidInput),
        (429, LimitExceeded),
        (500, Internal),
        (503, Unavailable),
        (302, Internal),
    ],
)
async def test_an_apps_status_is_raised_as_the_error_of_its_kind(
    tmp_path: Path, status: int, kind: type[MeshError]
) -> None:
    asking, _ = rpc(tmp_path, status=status, body=b"\x1b[31mno such ball" * 100)
    with pytest.raises(kind) as raised:
        await asking.call(URL)
    assert type(raised.value) is kind
    assert (raised.value.reason, raised.value.metadata["status"]) == ("APP_ERROR", str(status))
    assert "no such ball" in raised.value.message
    assert "\x1b" not in raised.value.message
    assert len(raised.value.message) < 300


async def test_the_site_of_a_call_is_remembered_for_other_processes(tmp_path: Path) -> None:
    asking, _ = rpc(tmp_path)
    assert await asking.send(URL, {"n": 1}) == "c1"
    later, calls = rpc(tmp_path, content_type="text/plain", body=b"pong")
    assert await later.result("c1") == "pong"
    assert await later.result("c2", site="carol@x.example", reply_type=bytes) == b"pong"
    await later.result("c3")
    assert calls.sites == [SITE, "carol@x.example", None]
    assert SubmissionLog(tmp_path, CALLS_FILE).list() == [Submission("c1", SITE, FakeClock().now_ms())]
