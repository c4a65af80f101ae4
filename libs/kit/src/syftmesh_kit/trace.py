"""W3C trace context (https://www.w3.org/TR/trace-context/, level 1) over gRPC metadata and NATS headers.

The OpenTelemetry API is the carrier: with an SDK installed its spans are recorded, without one the ids still
travel and stand in every log line.
"""

from __future__ import annotations

import re
from contextvars import Token
from typing import Final

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, TraceFlags
from syftmesh_core.clock import Random, system_random

TRACEPARENT: Final = "traceparent"
_PATTERN: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


def parse_traceparent(value: str) -> SpanContext | None:
    """Return the context that a traceparent header names, or None when it does not hold (section 3.2)."""
    match = _PATTERN.fullmatch(value) if len(value) <= 256 else None
    if match is None or match[1] == "ff" or (match[1] == "00" and match[5]):
        return None
    context = SpanContext(int(match[2], 16), int(match[3], 16), is_remote=True, trace_flags=_flags(match[4]))
    return context if context.is_valid else None


def _flags(text: str) -> TraceFlags:
    return TraceFlags(int(text, 16) & TraceFlags.SAMPLED)


def format_traceparent(context: SpanContext) -> str:
    """Return the traceparent header (version 00) of `context`."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 1:02x}"


def current_traceparent() -> str:
    """Return the traceparent of the current span, or an empty text outside of any."""
    context = trace.get_current_span().get_span_context()
    return format_traceparent(context) if context.is_valid else ""


def start_span(name: str, traceparent: str, random: Random = system_random) -> tuple[Span, Token[Context]]:
    """Start a span below the caller's `traceparent` (or a new trace) and make it current in this task.

    Its trace id is bound to the log context as ``trace_id``. End with `end_span`.
    """
    remote = parse_traceparent(traceparent) if traceparent else None
    parent = None if remote is None else trace.set_span_in_context(NonRecordingSpan(remote))
    span: Span = trace.get_tracer("syftmesh").start_span(name, context=parent or Context())
    context = span.get_span_context()
    if not context.is_valid or (remote is not None and context.span_id == remote.span_id):
        # No SDK: the API hands back the parent (or nothing), so the ids are ours to make.
        trace_id = remote.trace_id if remote is not None else _random_id(random, 16)
        flags = remote.trace_flags if remote is not None else TraceFlags(TraceFlags.DEFAULT)
        context = SpanContext(trace_id, _random_id(random, 8), is_remote=False, trace_flags=flags)
        span = NonRecordingSpan(context)
    token = otel_context.attach(trace.set_span_in_context(span))
    structlog.contextvars.bind_contextvars(trace_id=f"{context.trace_id:032x}")
    return span, token


def end_span(span: Span, token: Token[Context]) -> None:
    """End what `start_span` started."""
    span.end()
    otel_context.detach(token)


def _random_id(random: Random, size_bytes: int) -> int:
    return int.from_bytes(random(size_bytes), "big") or 1
