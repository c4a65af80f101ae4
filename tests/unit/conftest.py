"""What every unit test leaves as it found it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Take back what a program that ran in this process did to logging."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
