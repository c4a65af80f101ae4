"""The targets are modules beside the tests; the slow reading of the contract lies with the engine's unit tests."""

from __future__ import annotations

import sys
from pathlib import Path

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE.parent / "unit" / "core_permission")]
