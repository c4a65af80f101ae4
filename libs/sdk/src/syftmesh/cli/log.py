"""Logs of the libraries below: on stderr, and only what went wrong unless more is asked for."""

from __future__ import annotations

import logging
from typing import TextIO

import structlog


def quiet_logs(stream: TextIO, *, verbose: bool, least: int = logging.WARNING) -> None:
    """Send log lines to `stream`, from `least` up, with `verbose` from info up; stdout is for data alone."""
    level = logging.INFO if verbose else least
    logging.getLogger("asyncio").setLevel(level)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(level),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(stream),
    )
