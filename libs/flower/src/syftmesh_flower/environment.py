"""What Flower is told wherever a process of ours starts or imports it."""

from __future__ import annotations

import os
from typing import Final

FLOWER_ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Nobody is told, nothing is looked for, nothing is downloaded."""


def quieten_flower() -> None:
    """Set `FLOWER_ENVIRONMENT` in this process; before Flower is imported."""
    os.environ.update(FLOWER_ENVIRONMENT)
