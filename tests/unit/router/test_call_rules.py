"""Envelopes, rates, records, devices and expiries: the pure rules of the router."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import Conflict, InvalidInput, LimitExceeded, PermissionDenied, WrongState
from syftmesh_core.layout import call_path, standard_layout
from syftmesh_core.path import parse_path
from syftmesh_core.permission import Level, Question, RuleTree, decide, parse_ruleset
from syftmesh_kit.testing import FakeClock
from syftmesh_router import convert
from syftmesh_router.adapters.call_records import decode, encode
from syftmesh_router.domain.board import Expiries
from syftmesh_router.domain.device_book import Absence, DeviceBook
from syftmesh_router.domain.envelope import (
    CallMessage,
    Envelope,
    check_envelope,
    check_sender,
    check_size,
)
from syftmesh_router.domain.link import StreamLink
from syftmesh_router.domain.rate import CallRates, Rate, TokenBuckets
from syftmesh_router.domain.record import FOLLOWERS, CallRecord, CallState, Reply
from syftmesh_router.settings import RouterSettings

NOW = 1_767_225_600_000
ID = "0197b3c0-0000-7000-8000-000000000001"
GOOD = Envelope(ID, "bob@y.example", "chat", "a/b", "alice@x.example", "dev", NOW, NOW + 60_000)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"call_id": ""}, "ENVELOPE_INVALID"),
        ({"call_id": ID.upper()}, "ENVELOPE_INVALID"),
        ({"call_id": "0197b3c0-0000-4000-8000-000000000001"}, "ENVELOPE_INVALID"),
        ({"call_id": ID + "\n"}, "ENVELOPE_INVALID"),
        ({"site": "Bob@y.example"}, "INVALID_URL"),
        ({"site": "bob@y.example/../eve@z.example"}, "INVALID_URL"),
        ({"site": "*"}, "INVALID_URL"),
        ({"site": ""}, "INVALID_URL"),
        ({"app": ""}, "INVALID_URL"),
        ({"app": "a/b"}, "INVALID_URL"),
        ({"app": "\ud800"}, "INVALID_URL"),
        ({"app": "a\x00b"}, "INVALID_URL"),
        ({"endpoint": ""}, "INVALID_URL"),
        ({"endpoint": "/a"}, "INVALID_URL"),
        ({"endpoint": "a/"}, "INVALID_URL"),
        ({"endpoint": "../x"}, "INVALID_URL"),
        ({"endpoint": "a?b=c/.."}, "INVALID_URL"),
        ({"endpoint": "e\u0301"}, "INVALID_URL"),
        ({"endpoint": "x" * 2048}, "INVALID_URL"),
        ({"version": 2}, "ENVELOPE_INVALID"),
        ({"suite": 0}, "ENVELOPE_INVALID"),
        ({"created_ms": 0}, "ENVELOPE_INVALID"),
        ({"created_ms": NOW + 400_000}, "ENVELOPE_INVALID"),
        ({"expires_ms": NOW}, "ENVELOPE_INVALID"),
        ({"expires_ms": NOW + 30 * 86_400_000 + 1}, "ENVELOPE_INVALID"),
    ],
)
def test_malformed_envelope_is_refused(change, reason):
    with pytest.raises(InvalidInput) as caught:
        check_envelope(dataclasses.replace(GOOD, **change), NOW)
    assert caught.value.reason == reason


@pytest.mark.parametrize("change", [{}, {"endpoint": "50% off?"}, {"app": "größe"}, {"endpoint": "a b/c#d"}])
def test_canonical_envelope_is_taken(change):
    check_envelope(dataclasses.replace(GOOD, **change), NOW)


def test_envelope_must_name_the_authenticated_caller():
    check_sender(GOOD, "alice@x.example", "dev")
    for principal, device in (("bob@y.example", "dev"), ("alice@x.example", "other")):
        with pytest.raises(PermissionDenied) as caught:
            check_sender(GOOD, principal, device)
        assert caught.value.reason == "SENDER_MISMATCH"


def test_body_has_at_most_256_kib():
    check_size(b"x" * 262_144)
    with pytest.raises(LimitExceeded) as caught:
        check_size(b"x" * 262_145)
    assert caught.value.reason == "BODY_TOO_LARGE"


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_digest_tells_calls_apart(one, two):
    first, second = CallMessage(GOOD, one), CallMessage(GOOD, two)
    assert (first.digest == second.digest) == (one == two)
    moved = CallMessage(dataclasses.replace(GOOD, app="chata", endpoint="/b"), one)
    assert moved.digest != first.digest


def test_bucket_gives_its_burst_then_its_rate():
    clock = FakeClock()
    buckets = TokenBuckets(Rate(50, 200), clock)
    for _ in range(200):
        assert buckets.wait_s("a") == 0
        buckets.take("a")
    assert buckets.wait_s("a") == pytest.approx(0.02)
    assert buckets.wait_s("b") == 0
    clock.advance(0.02)
    assert buckets.wait_s("a") == pytest.approx(0)
    clock.advance(3600)
    for _ in range(200):
        buckets.take("a")
    assert buckets.wait_s("a") > 0


@given(st.lists(st.floats(0, 2), max_size=60))
def test_no_schedule_passes_more_than_burst_and_rate(pauses):
    clock, rate = FakeClock(), Rate(5, 10)
    buckets = TokenBuckets(rate, clock)
    passed = 0
    for pause_s in pauses:
        clock.advance(pause_s)
        if buckets.wait_s("a") < 1e-9:
            buckets.take("a")
            passed += 1
    assert passed <= rate.burst + rate.per_s * sum(pauses) + 1e-6


def test_refused_call_takes_no_token_and_says_when():
    clock = FakeClock()
    rates = CallRates(clock, sender=Rate(1, 2), app=Rate(1, 3))
    rates.take("a@x.example", "s", "chat")
    rates.take("a@x.example", "s", "chat")
    with pytest.raises(LimitExceeded) as caught:
        rates.take("a@x.example", "s", "chat")
    assert caught.value.metadata == {"retry_after_ms": "1000", "scope": "sender"}
    rates.take("b@x.example", "s", "chat")
    with pytest.raises(LimitExceeded) as caught:
        rates.take("b@x.example", "s", "chat")
    assert caught.value.metadata["scope"] == "app"
    rates.take("b@x.example", "s", "other")


def test_forgotten_bucket_never_lowers_a_limit_of_one_that_is_used():
    buckets = TokenBuckets(Rate(1, 1), FakeClock(), max_keys=2)
    buckets.take("a")
    buckets.take("b")
    buckets.take("c")
    assert buckets.wait_s("c") > 0
    assert buckets.wait_s("a") == 0


def test_final_states_are_final():
    record = CallRecord.of(CallMessage(GOOD, b"x"))
    for state in CallState:
        for follower in CallState:
            moved = dataclasses.replace(record, state=state)
            if follower in FOLLOWERS[state]:
                assert moved.moved(follower).state is follower
            else:
                with pytest.raises(WrongState):
                    moved.moved(follower)
    assert {s for s in CallState if not s.is_final} == {CallState.PENDING, CallState.DELIVERED}


def test_record_is_of_one_caller_address_and_body():
    message = CallMessage(GOOD, b"x")
    record = CallRecord.of(message)
    record.check_same(message)
    for other in (
        CallMessage(GOOD, b"y"),
        CallMessage(dataclasses.replace(GOOD, endpoint="c"), b"x"),
        CallMessage(dataclasses.replace(GOOD, sender="eve@z.example"), b"x"),
    ):
        with pytest.raises(Conflict) as caught:
            record.check_same(other)
        assert caught.value.reason == "CALL_ID_REUSED"


def test_record_survives_its_encoding():
    record = CallRecord.of(CallMessage(GOOD, b"x")).moved(
        CallState.FAILED, failure_reason="WHY", has_reply=True
    )
    assert decode(encode(record)) == record


def test_messages_and_replies_survive_conversion():
    message = CallMessage(GOOD, b"x")
    assert convert.call_of(convert.message_of(message)) == message
    for state in (CallState.COMPLETED, CallState.FAILED, CallState.EXPIRED):
        reply = Reply(ID, state, b"b", "WHY", "bob@y.example", "d")
        assert (
            convert.reply_of(convert.reply_message(reply), replier="bob@y.example", replier_device="d")
            == reply
        )
    forged = convert.reply_message(Reply(ID, CallState.COMPLETED, replier="eve@z.example"))
    assert convert.reply_of(forged, replier="bob@y.example", replier_device="d").replier == "bob@y.example"
    with pytest.raises(InvalidInput):
        convert.state_of(0)


def test_apps_go_to_who_names_them_and_star_takes_the_unnamed():
    book = DeviceBook()
    assert book.for_app("chat") is Absence.AWAY
    agent, runner = StreamLink("agent", frozenset({"*"})), StreamLink("runner", frozenset({"rds"}))
    book.put(runner)
    assert book.for_app("chat") is Absence.NOT_SERVED
    book.put(agent)
    assert book.for_app("chat") is agent
    assert book.for_app("rds") is runner
    book.drop(runner)
    assert book.for_app("rds") is Absence.AWAY
    second = StreamLink("agent", frozenset({"*"}))
    book.put(second)
    book.drop(agent)  # the older stream's end must not take the newer one away
    assert book.for_app("chat") is second
    assert book.links() == [second]


def test_calls_of_an_app_are_shared_by_the_devices_that_name_it():
    book = DeviceBook()
    links = [StreamLink(f"d{n}", frozenset({"chat"})) for n in range(3)]
    for link in links:
        book.put(link)
    assert {book.for_app("chat", call_number=n) for n in range(3)} == set(links)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20), st.booleans()), max_size=40))
def test_expiries_give_each_open_call_once_when_it_is_due(notes):
    expiries, open_calls = Expiries(), {}
    for number, at_ms, final in notes:
        record = dataclasses.replace(
            CallRecord.of(CallMessage(GOOD, b"")), call_id=str(number), expires_ms=at_ms
        )
        if final:
            record = record.moved(CallState.EXPIRED)
            open_calls.pop(str(number), None)
        else:
            open_calls[str(number)] = at_ms
        expiries.note(record)
    assert expiries.next_ms() == (min(open_calls.values()) if open_calls else None)
    due = expiries.due(10)
    assert sorted(due) == sorted(c for c, at in open_calls.items() if at <= 10)
    assert len(expiries) == len(open_calls) - len(due)
    assert expiries.due(10) == []


def test_rates_and_times_are_the_documented_ones():
    found = RouterSettings()
    assert (found.sender_per_s, found.sender_burst, found.app_per_s, found.app_burst) == (50, 200, 500, 2000)
    assert (found.lease_s, found.direct_ms, found.attempts) == (10, 200, 5)


SITE = "bob@y.example"


def _tree() -> RuleTree:
    files = standard_layout(SITE)
    parsed = [(parse_path(path).parent.segments, parse_ruleset(data), 1) for path, data in files.items()]
    return RuleTree.build(SITE, parsed)


@pytest.mark.parametrize(
    ("requester", "path", "level", "allowed"),
    [
        ("", "public/index.html", Level.READ, True),
        ("alice@x.example", "public/index.html", Level.WRITE, False),
        ("alice@x.example", "private/x", Level.READ, False),
        ("alice@x.example", "app_data/rds/rpc/submit/call", Level.WRITE, True),
        ("alice@x.example", "app_data/rds/rpc/status/call", Level.WRITE, True),
        ("alice@x.example", "app_data/rds/rpc/other/call", Level.WRITE, False),
        ("alice@x.example", "app_data/rds/rpc/submit/call", Level.READ, True),
        ("guest", "app_data/rds/rpc/submit/call", Level.WRITE, False),
        ("alice@x.example", "app_data/fl/rpc/propose/call", Level.WRITE, True),
        ("alice@x.example", "app_data/fl/rpc/status/call", Level.WRITE, True),
        ("alice@x.example", "app_data/fl/rpc/approve/call", Level.WRITE, False),
        ("guest", "app_data/fl/rpc/propose/call", Level.WRITE, False),
        ("", "app_data/fl/rpc/propose/call", Level.WRITE, False),
        ("", "app_data/rds/rpc/submit/call", Level.WRITE, False),
        ("alice@x.example", "app_data/rds/results/alice@x.example/1/status.json", Level.READ, True),
        ("eve@z.example", "app_data/rds/results/alice@x.example/1/status.json", Level.READ, False),
        ("alice@x.example", "app_data/rds/results/alice@x.example/1/status.json", Level.WRITE, False),
        (SITE, "private/x", Level.WRITE, True),
    ],
)
def test_standard_layout_opens_what_it_says_and_nothing_else(requester, path, level, allowed):
    question = Question(requester, parse_path(f"{SITE}/{path}"), level, NOW)
    assert decide(_tree(), question).allowed is allowed


def test_standard_layout_is_the_owners():
    assert set(standard_layout("Bob@Y.example")) == {
        f"{SITE}/syft.pub.yaml",
        f"{SITE}/public/syft.pub.yaml",
        f"{SITE}/app_data/rds/rpc/syft.pub.yaml",
        f"{SITE}/app_data/rds/results/syft.pub.yaml",
        f"{SITE}/app_data/fl/rpc/syft.pub.yaml",
    }
    assert str(call_path(GOOD.directory)) == f"{SITE}/app_data/chat/rpc/a/b/call"
