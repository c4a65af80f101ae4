"""The federated run of the demo, as its steps share it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syftmesh.run import AsyncRun
    from syftmesh.run_status import RunSnapshot


@dataclass(slots=True)
class Training:
    """What the federated steps share.

    Attributes:
        run: The run, as the scientist sees it; None before it was created.
        snapshot: As it was at last.
        sent: Sealed bytes of updates by site.
        accuracy: Of the trained model on the rows held out at the sites.
        pooled: Of a model trained on all rows in one place, on the same rows.
        model: Digest of the model.
        rounds: Rounds that the scientist saw.
    """

    run: AsyncRun | None = None
    snapshot: RunSnapshot | None = None
    sent: dict[str, int] = field(default_factory=dict)
    accuracy: float = 0.0
    pooled: float = 0.0
    model: str = ""
    rounds: int = 0

    def document(self) -> dict[str, Any]:
        """Return what programs are told of it."""
        return {
            "run_id": self.run.id if self.run is not None else "",
            "state": str(self.snapshot.state) if self.snapshot is not None else "",
            "rounds": self.rounds,
            "accuracy": self.accuracy,
            "pooled_accuracy": self.pooled,
            "model_sha256": self.model,
            "sent_bytes": self.sent,
        }
