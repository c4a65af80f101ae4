"""The HTTP face over handlers in memory, long polls, and how runs are written and paged."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_core.errors import IntegrityFailure, InvalidInput, Unauthenticated, Unavailable
from syftmesh_kit.caller import Caller
from syftmesh_kit.testing import FakeClock, FakeRandom
from syftmesh_superlink import convert
from syftmesh_superlink.adapters import codec
from syftmesh_superlink.adapters.state_files import BundleFiles, MemberFiles, NodeBook, prepare
from syftmesh_superlink.domain.page import page_of
from syftmesh_superlink.domain.run import Artifact, Phase, RoundReport, RunState, SiteReply, SiteState
from syftmesh_superlink.domain.wake import Wakes
from syftmesh_superlink.servicer.front import MAX_OPEN, Front
from syftmesh_superlink.servicer.holding import Hold, held
from syftmesh_superlink.servicer.push_session import PushSessions
from syftmesh_superlink.servicer.upstream import Answer

APPROVED = SiteState.APPROVED
CALLERS = {
    "good": Caller("bob@y.example", "d", "t"),
    "other": Caller("carl@z.example", "d", "t"),
    "service": Caller("router", "d", "t", kind="service"),
}


class Handler:
    """Remembers what it got, and answers when it may."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        self.may = asyncio.Event()
        self.may.set()
        self.answer = Answer(200, "application/protobuf", b"yes")

    async def answer_to(self, principal: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        self.got.append((principal, route, dict(headers), body))
        await self.may.wait()
        if route == "broken":
            raise RuntimeError("a secret detail")
        return self.answer


class Tokens:
    """Verifies tokens by a table; `fault` is raised instead."""

    def __init__(self) -> None:
        self.fault: Exception | None = None

    def __call__(self, token: str) -> Caller:
        if self.fault is not None:
            raise self.fault
        if token not in CALLERS:
            raise Unauthenticated("no", reason="TOKEN_INVALID")
        return CALLERS[token]


@pytest.fixture
def parts() -> tuple[Handler, Tokens, httpx.AsyncClient]:
    """A handler, a verifier and a client of the face before them."""
    handler, tokens = Handler(), Tokens()
    front = Front({"/v1/fleet/": handler}, tokens, FakeClock(), FakeRandom())
    client = httpx.AsyncClient(transport=httpx.ASGITransport(front), base_url="http://front")
    return handler, tokens, client


def bearer(name: str = "good") -> dict[str, str]:
    return {"authorization": f"Bearer {name}"}


async def test_a_request_reaches_its_handler_without_the_token(parts: Any) -> None:
    handler, _, client = parts
    headers = {
        **bearer(),
        "flwr-task-token": "t",
        "content-type": "application/protobuf",
        "x-other": "1",
        "cookie": "c",
    }
    answer = await client.post("/v1/fleet/pull-messages", content=b"body", headers=headers)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (
        200, b"yes", "application/protobuf",
    )  # fmt: skip
    principal, route, passed, body = handler.got[0]
    assert (principal, route, body) == ("bob@y.example", "pull-messages", b"body")
    assert passed["flwr-task-token"] == "t"
    assert not passed.keys() & {"authorization", "x-other", "host"}


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({}, 401, "TOKEN_MISSING"),
        ({"authorization": "Bearer"}, 401, "TOKEN_MISSING"),
        ({"authorization": "Basic good"}, 401, "TOKEN_MISSING"),
        (bearer("wrong"), 401, "TOKEN_INVALID"),
        (bearer("service"), 401, "TOKEN_INVALID"),
    ],
)
async def test_who_proves_nothing_is_refused(parts: Any, headers: Any, status: int, reason: str) -> None:
    handler, _, client = parts
    answer = await client.post("/v1/fleet/pull-messages", headers=headers)
    assert (answer.status_code, answer.json()["reason"], answer.headers["www-authenticate"]) == (
        status, reason, "Bearer",
    )  # fmt: skip
    assert handler.got == []


async def test_while_keys_are_unknown_flowers_clients_are_told_to_come_back(parts: Any) -> None:
    _, tokens, client = parts
    tokens.fault = Unavailable("not yet", reason="KEY_SET_PENDING")
    answer = await client.post("/v1/fleet/pull-messages", headers=bearer())
    assert (answer.status_code, answer.json()["reason"]) == (503, "KEY_SET_PENDING")


async def test_a_failure_tells_nothing_of_itself(parts: Any) -> None:
    _, _, client = parts
    answer = await client.post("/v1/fleet/broken", headers=bearer())
    assert answer.status_code == 500
    assert "secret" not in answer.text


@pytest.mark.parametrize("path", ["/", "/docs", "/v1/fleet", "/v1/other/x", "/V1/fleet/x"])
async def test_other_paths_do_not_exist(parts: Any, path: str) -> None:
    assert (await parts[2].post(path, headers=bearer())).status_code == 404
    assert (await parts[2].get("/v1/fleet/pull-messages", headers=bearer())).status_code == 404


async def test_one_principal_does_not_take_all_there_is(parts: Any) -> None:
    handler, _, client = parts
    handler.may.clear()
    waiting = [asyncio.ensure_future(client.post("/v1/fleet/x", headers=bearer())) for _ in range(MAX_OPEN)]
    while len(handler.got) < MAX_OPEN:
        await asyncio.sleep(0)
    answer = await client.post("/v1/fleet/x", headers=bearer())
    assert (answer.status_code, answer.json()["reason"]) == (503, "BUSY")
    other = asyncio.ensure_future(client.post("/v1/fleet/x", headers=bearer("other")))
    handler.may.set()
    assert {found.status_code for found in await asyncio.gather(*waiting, other)} == {200}
    assert (await client.post("/v1/fleet/x", headers=bearer())).status_code == 200


@pytest.mark.parametrize(("reason", "passed"), [("TOKEN_EXPIRED", b"123"), ("TOKEN_REVOKED", b"1")])
async def test_a_stream_outlives_its_token_and_not_a_revocation(
    parts: Any, reason: str, passed: bytes
) -> None:
    handler, tokens, client = parts

    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"
        tokens.fault = Unauthenticated("over", reason=reason)
        yield b"2"
        yield b"3"

    handler.answer = Answer(200, "application/flower-protobuf-stream", b"", chunks())
    assert (await client.post("/v1/fleet/x", headers=bearer())).content == passed


# long polls


async def test_a_poll_without_messages_waits_for_its_own_wake_only() -> None:
    wakes, asked = Wakes(), 0

    async def ask() -> Answer:
        nonlocal asked
        asked += 1
        return Answer(200, "", b"" if asked == 1 else b"m")

    polling = asyncio.ensure_future(held(wakes, "a", Hold(60, 60), ask, lambda answer: not answer.body))
    await asyncio.sleep(0)
    wakes.wake("b")
    await asyncio.sleep(0)
    assert (asked, polling.done()) == (1, False)
    wakes.wake("a")
    assert (await polling).body == b"m"


async def test_a_poll_ends_with_its_time_or_with_the_service() -> None:
    wakes = Wakes()

    async def ask() -> Answer:
        return Answer(200, "", b"")

    assert (await held(wakes, "a", Hold(0.0, 1.0), ask, lambda _: True)).body == b""
    polling = asyncio.ensure_future(held(wakes, "a", Hold(60, 60), ask, lambda _: True))
    await asyncio.sleep(0)
    wakes.close()
    assert (await polling).body == b""
    assert (await held(wakes, "a", Hold(60, 60), ask, lambda _: True)).body == b""


async def test_a_push_between_asking_and_waiting_is_not_missed() -> None:
    wakes, asked = Wakes(), 0

    async def ask() -> Answer:
        nonlocal asked
        asked += 1
        if asked == 1:
            wakes.wake("a")
        return Answer(200, "", b"" if asked == 1 else b"m")

    assert (await held(wakes, "a", Hold(60, 60), ask, lambda answer: not answer.body)).body == b"m"


async def test_nobody_is_woken_before_the_last_object_came() -> None:
    wakes = Wakes()
    sessions = PushSessions(wakes)
    first = wakes.expect("n")
    sessions.await_objects("s", ["x", "y"], ["n"])
    sessions.arrived("s", "x")
    sessions.arrived("other", "y")
    assert not first.done()
    sessions.arrived("s", "y")
    assert first.done()
    second = wakes.expect("n")
    sessions.await_objects("t", [], ["n"])
    assert second.done()


# records, messages, files


def full_run(make: Any) -> Any:
    report = RoundReport(
        1, Phase.TRAIN, (SiteReply(make.BOB, True, "", 5), SiteReply(make.CARL, False, "X")), 1, 2
    )
    artifact = Artifact("m", "a@x.example/m", "b" * 64, 3)
    return make.run(
        APPROVED, SiteState.DENIED, reports=(report,), artifacts=(artifact,), task_digest="d", stock=True
    )


def test_a_record_leads_back_to_its_run(make: Any) -> None:
    run = full_run(make)
    assert codec.decode(codec.encode(run)) == run
    whole = codec.encode(run)
    document = json.loads(whole)
    del document["sites"]
    for damaged in (
        b"",
        b"[]",
        whole[:-1],
        json.dumps(document).encode(),
        whole.replace(b"approved", b"other"),
    ):
        with pytest.raises(IntegrityFailure):
            codec.decode(damaged)


def test_the_largest_record_fits_into_one_message(make: Any) -> None:
    reports = tuple(
        RoundReport(
            n,
            Phase.TRAIN,
            (SiteReply(make.BOB, False, "R" * 20, 10**7), SiteReply(make.CARL, True, "", 10**7)),
        )
        for n in range(1, 5001)
    )
    assert len(codec.encode(make.run(APPROVED, APPROVED, reports=reports))) < 900_000


def test_a_message_tells_of_the_run(make: Any) -> None:
    message = convert.run(full_run(make), lambda site: site == make.BOB, {make.BOB: 5, make.CARL: 6}.get)
    assert list(message.sites) == [make.BOB, make.CARL]
    assert [(site.state, site.connected) for site in message.site_runs] == [
        (pb.SITE_STATE_APPROVED, True),
        (pb.SITE_STATE_DENIED, False),
    ]
    assert [site.node_id for site in message.site_runs] == [5, 0]
    assert message.round_reports[0].replies[1].reason == "X"
    assert message.artifacts[0].sha256 == "b" * 64
    over = make.replace(full_run(make), state=RunState.SUCCEEDED)
    assert not convert.run(over, lambda _: True, lambda _: None).site_runs[0].connected


def test_every_state_has_its_word(make: Any) -> None:
    for state in RunState:
        assert convert.run(make.run(APPROVED, state=state), lambda _: False, lambda _: None).state == (
            pb.RunState.Value(f"RUN_STATE_{state.name}")
        )
    for value in pb.SiteState.values():
        if value == pb.SITE_STATE_UNSPECIFIED:
            with pytest.raises(InvalidInput):
                convert.site_state(value)
        else:
            assert convert.site_state(value).name in pb.SiteState.Name(value)
    with pytest.raises(InvalidInput):
        convert.site_state(99)


def test_a_report_is_read_and_a_foreign_phase_refused() -> None:
    request = rpc.ReportRoundRequest(
        report=pb.RoundReport(
            round=1, phase="query", replies=[pb.SiteReply(site="b", ok=True, reason="GONE")]
        ),
        outcome=rpc.RunOutcome(ok=False, reason="R", message="m"),
    )
    found = convert.report(request)
    assert found.round is not None
    assert (found.round.phase, found.round.replies[0].reason) == (Phase.QUERY, "")
    assert found.outcome is not None
    assert (found.outcome.reason, convert.report(rpc.ReportRoundRequest()).outcome) == ("R", None)
    with pytest.raises(InvalidInput) as caught:
        convert.report(rpc.ReportRoundRequest(report=pb.RoundReport(phase="other")))
    assert caught.value.reason == "REPORT_INVALID"


def test_pages_lead_through_all_runs_once(make: Any) -> None:
    runs = [make.run(APPROVED, run_id=str(n), created_ms=1000 - n // 2) for n in range(9, 0, -1)]
    runs.sort(key=lambda run: (run.created_ms, run.run_id), reverse=True)
    found, token = [], ""
    while True:
        page, token = page_of(runs, 2, token, lambda _: 1)
        found += page
        if not token:
            break
    assert found == runs
    page, token = page_of(runs, 0, "", lambda _: 1024 * 1024)
    assert len(page) == 2, "a page fits into one message"
    assert token
    for wrong in ("x", "!!", "eDp4", "MQ=="):
        with pytest.raises(InvalidInput) as caught:
            page_of(runs, 0, wrong, lambda _: 1)
        assert caught.value.reason == "PAGE_TOKEN_INVALID"
    with pytest.raises(InvalidInput):
        page_of(runs, -1, "", lambda _: 1)


async def test_files_lead_back_and_are_private(tmp_path: Any) -> None:
    prepare(tmp_path)
    book = NodeBook(tmp_path)
    await book.set("bob@y.example", 2**64 - 1, b"key")
    (tmp_path / "nodes" / "bad.json").write_text("{")
    again = NodeBook(tmp_path)
    again.load()
    assert again.of("bob@y.example") == 2**64 - 1
    assert again.has_key("bob@y.example", b"key")
    assert not again.has_key("bob@y.example", b"other")
    assert not again.has_key("carl@z.example", b"key")
    await MemberFiles(tmp_path).write("f", "anna@x.example", (3, 1))
    assert json.loads((tmp_path / "members" / "f.json").read_text()) == {
        "account": "anna@x.example",
        "nodes": [1, 3],
    }
    for path in tmp_path.rglob("*.json"):
        assert path.stat().st_mode & 0o077 == 0 or path.name == "bad.json"
    bundles = BundleFiles(tmp_path)
    import hashlib

    digest = hashlib.sha256(b"fab").hexdigest()
    await bundles.put(digest, b"fab")
    assert await bundles.get(digest) == b"fab"
    (tmp_path / "bundles" / f"{digest}.fab").write_bytes(b"changed")
    for wanted in (digest, "0" * 64):
        with pytest.raises(IntegrityFailure):
            await bundles.get(wanted)


def test_flower_is_not_imported_before_it_is_needed() -> None:
    code = "import syftmesh_superlink.app, sys; print('flwr' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert found.stdout.strip() == "False"
