"""A task group whose end cannot be missed: that of the core."""

from __future__ import annotations

from syftmesh_core.ending import AGAIN_S, EndingGroup

__all__ = ["AGAIN_S", "EndingGroup"]
