"""Answers that are no older than what the caller has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from syftmesh_core.errors import Unavailable, WrongState

WAIT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Token:
    """A point of the file log: epoch and sequence."""

    epoch: int
    sequence: int


class Model(Protocol):
    """The read model's progress."""

    def token(self) -> Token:
        """Return the point that answers are as fresh as."""
        ...

    async def wait_for(self, sequence: int, timeout_s: float) -> bool:
        """Return whether the model has seen `sequence`, waiting at most `timeout_s`."""
        ...


async def require_at_least(model: Model, wanted: Token | None) -> None:
    """Return once answers are at least as fresh as `wanted`.

    Raises:
        WrongState: (TOKEN_EXPIRED) the token is of another epoch of the log.
        Unavailable: (BEHIND) the point is not reached within two seconds.
    """
    if wanted is None or (wanted.epoch, wanted.sequence) == (0, 0):
        return
    now = model.token()
    if wanted.epoch != now.epoch:
        raise WrongState(
            "The consistency token is of another epoch of the log: ask without it, and keep the new one.",
            reason="TOKEN_EXPIRED",
            metadata={"epoch": str(now.epoch)},
        )
    if not await model.wait_for(wanted.sequence, WAIT_S):
        raise Unavailable(
            "This replica has not seen what the token names yet: ask again.",
            reason="BEHIND",
            metadata={"sequence": str(wanted.sequence)},
        )
