from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from syftmesh_kit.telemetry import configure_telemetry
from syftmesh_kit.trace import (
    current_traceparent,
    end_span,
    format_traceparent,
    parse_traceparent,
    start_span,
)

SECRET = "hunter2"
JWT = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize("json_lines", [True, False])
def test_marked_secret_is_in_no_line(json_lines: bool) -> None:  # noqa: FBT001
    out = io.StringIO()
    configure_telemetry("test", json_lines=json_lines, stream=out)
    log = structlog.get_logger("t")
    log.info(
        "thing.done",
        access_token=SECRET,
        Authorization=SECRET,
        nested={"password": SECRET, "list": [{"api-secret": SECRET}]},
        recovery_phrase=SECRET,
        url=f"https://h/x?X-Amz-Signature={'ab' * 32}",
        text=f"Bearer {SECRET} {JWT} nats://user:{SECRET}@host",
        raw=SECRET.encode(),
    )
    try:
        raise ValueError(f"got {JWT}")
    except ValueError:
        log.exception("thing.failed")
    logging.getLogger("library").warning("password in text: %s", JWT)
    written = out.getvalue()
    assert SECRET not in written
    assert JWT not in written
    assert "abab" not in written
    assert "thing.done" in written
    assert "ValueError" in written
    assert "library" in written or "password in text" in written


def test_json_lines_are_json_with_service_time_and_bound_ids() -> None:
    out = io.StringIO()
    configure_telemetry("sync", json_lines=True, stream=out)
    structlog.contextvars.bind_contextvars(trace_id="t1")
    structlog.get_logger("t").info("a.b", token_id="not-a-secret", count=3)
    structlog.get_logger("t").debug("not.written")
    logging.getLogger("library").info("not written")
    (line,) = out.getvalue().splitlines()
    event = json.loads(line)
    assert event.pop("timestamp").endswith("Z")
    assert event == {
        "event": "a.b",
        "level": "info",
        "service": "sync",
        "trace_id": "t1",
        "token_id": "not-a-secret",
        "count": 3,
    }


VALID = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"


def test_traceparent_round_trip() -> None:
    context = parse_traceparent(VALID)
    assert context is not None
    assert format_traceparent(context) == VALID
    assert parse_traceparent(VALID.replace("00-", "cc-") + "-future") is not None


@pytest.mark.parametrize(
    "value",
    [
        "",
        VALID.upper(),
        VALID + "-x",
        VALID[:-1],
        "ff" + VALID[2:],
        "00-" + "0" * 32 + VALID[35:],
        VALID[:36] + "0" * 16 + "-01",
        "a" * 1000,
    ],
)
def test_traceparent_that_does_not_hold_is_ignored(value: str) -> None:
    assert parse_traceparent(value) is None


def test_span_goes_on_with_the_trace_and_ends() -> None:
    span, token = start_span("x", VALID)
    assert current_traceparent().split("-")[1] == "ab" * 16
    assert current_traceparent().split("-")[2] != "cd" * 8
    end_span(span, token)
    assert current_traceparent() == ""
