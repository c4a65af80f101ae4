"""Logs: JSON in pods, readable on a terminal, secrets removed before anything is written."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from typing import Any, Final, TextIO

import structlog

_SECRET_WORDS: Final = frozenset(
    {"token", "authorization", "password", "secret", "phrase", "signature", "cookie"}
)
_REDACTED: Final = "[redacted]"
# What is recognisable as a credential inside any text: JSON Web Tokens, bearer headers, pre-signed URLs,
# URL logins.
_SECRET_TEXT: Final = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]+\.[\w-]*|(?<=Bearer )[^\s\"']+"
    r"|(?<=X-Amz-Signature=)[0-9a-f]+|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)


def configure_telemetry(
    service: str, *, json_lines: bool | None = None, level: str = "info", stream: TextIO | None = None
) -> None:
    """Set up logging of this process, for structlog and the standard library; called by ``__main__`` only.

    Args:
        service: Bound to every line.
        json_lines: One JSON object per line; None: unless the stream is a terminal.
        level: Lowest level written: debug, info, warning or error.
        stream: Where to; standard error when None.
    """
    out = stream or sys.stderr
    as_json = not out.isatty() if json_lines is None else json_lines
    renderer: Any = (
        structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _ServiceName(service),
        redact,
    ]
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared[:-1],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, redact, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    # Libraries speak of their own affairs: what matters of it is logged by our code under our names.
    root.setLevel(max(number, logging.WARNING))


class _ServiceName:
    """Names the service on every line that does not name one."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(
        self, _logger: object, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event.setdefault("service", self._service)
        return event


def redact(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values of secret keys, and texts that look like credentials, anywhere in an event."""
    for key, value in event.items():
        event[key] = _REDACTED if _is_secret(key) else _clean(value)
    return event


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    words = key.lower().replace("-", "_").split("_")
    return words[-1] != "id" and not _SECRET_WORDS.isdisjoint(words)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _SECRET_TEXT.sub(_REDACTED, value)
    if isinstance(value, Mapping):
        return {k: _REDACTED if _is_secret(str(k)) else _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return f"[{len(value)} bytes]"
    return value
