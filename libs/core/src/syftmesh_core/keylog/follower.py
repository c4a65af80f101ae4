"""What a client knows of the log: the pinned key and the newest head it saw, which only ever grows.

Two clients that see different logs notice as soon as one learns of the other's head: heads travel within
encrypted messages and stand in the audit chains of sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.checkpoint import LogKey, open_checkpoint
from syftmesh_core.keylog.entry import LogEntry
from syftmesh_core.keylog.merkle import EMPTY_HEAD, TreeHead
from syftmesh_core.keylog.proof import verify_consistency, verify_inclusion


@dataclass(frozen=True, slots=True)
class Follower:
    """One client's view of one log; a new one replaces it at each step, and is stored before it is used.

    Attributes:
        log: The log and its key, pinned at login or join.
        seen: The newest head that was verified; the empty one before the first.
    """

    log: LogKey
    seen: TreeHead = EMPTY_HEAD

    def advance(self, checkpoint: bytes, proof: Sequence[bytes]) -> Follower:
        """Return the view after a newer head. After a refusal, the old view stands.

        Args:
            checkpoint: The signed head as received.
            proof: That it continues `seen`; none for the first head, and for the same head again.

        Raises:
            IntegrityFailure: LOG_HEAD_INVALID when it is not signed by the pinned key; LOG_ROLLBACK when it is
                smaller than the one seen; LOG_PROOF_INVALID for a proof of another form; LOG_FORKED when it
                does not continue the one seen, or is another one of the same size.
        """
        head = open_checkpoint(checkpoint, self.log)
        if head.size < self.seen.size:
            raise IntegrityFailure(
                f"The key log went back from {self.seen.size} to {head.size} entries: the hub shows an older state "
                f"than it did before.",
                reason="LOG_ROLLBACK",
                metadata={"known_size": str(self.seen.size), "shown_size": str(head.size)},
            )
        verify_consistency(self.seen, head, proof)
        return replace(self, seen=head)

    def compare(self, other: TreeHead, proof: Sequence[bytes]) -> None:
        """Check that what another client saw is of the same history. The view stays as it is.

        Args:
            other: The head the other saw; not signed by the log, as it came from the other.
            proof: From the smaller to the larger of `other` and `seen`.

        Raises:
            IntegrityFailure: LOG_PROOF_INVALID for a proof of another form; LOG_FORKED for two histories.
        """
        old, new = sorted((other, self.seen), key=lambda head: head.size)
        verify_consistency(old, new, proof)

    def check_entry(self, entry: LogEntry, index: int, proof: Sequence[bytes]) -> None:
        """Check that `entry` stands at `index` under the head seen.

        Raises:
            IntegrityFailure: LOG_PROOF_INVALID.
        """
        verify_inclusion(merkle.leaf_hash(entry.leaf()), index, proof, self.seen)
