"""Proposals, their secrets and the reports that the hub is owed, in SQLite."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from syftmesh_core.federated import ProposalState

from syftmesh_runner.adapters.database import Database
from syftmesh_runner.domain.federated_port import HubReport, SitePart
from syftmesh_runner.domain.proposal import Proposal

_PROPOSAL = TypeAdapter(Proposal)


class SqliteProposals:
    """See `syftmesh_runner.domain.federated_port.ProposalStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, run_id: str) -> Proposal | None:
        """Return a proposal, None when there is none."""
        row = self._database.row("SELECT document FROM proposals WHERE run_id = ?", (run_id,))
        return _PROPOSAL.validate_json(row[0]) if row else None

    def add(self, proposal: Proposal, run_key: bytes) -> None:
        """Store a new proposal and its secret."""
        document = _PROPOSAL.dump_json(proposal).decode()
        self._database.write(
            "INSERT INTO proposals (run_id, state, created_ms, document, run_key) VALUES (?, ?, ?, ?, ?)",
            (proposal.run_id, proposal.state.value, proposal.created_ms, document, run_key),
        )

    def save(self, proposal: Proposal) -> None:
        """Store a changed proposal."""
        document = _PROPOSAL.dump_json(proposal).decode()
        self._database.write(
            "UPDATE proposals SET state = ?, document = ? WHERE run_id = ?",
            (proposal.state.value, document, proposal.run_id),
        )

    def run_key(self, run_id: str) -> bytes:
        """Return the secret of a run; empty once it is forgotten."""
        row = self._database.row("SELECT run_key FROM proposals WHERE run_id = ?", (run_id,))
        return bytes(row[0]) if row else b""

    def forget_key(self, run_id: str) -> None:
        """Remove the secret of a run that is over."""
        self._database.write("UPDATE proposals SET run_key = x'' WHERE run_id = ?", (run_id,))

    def newest(self, limit: int) -> Sequence[Proposal]:
        """Return at most `limit` proposals, newest first."""
        rows = self._database.rows(
            "SELECT document FROM proposals ORDER BY created_ms DESC, run_id DESC LIMIT ?", (limit,)
        )
        return [_PROPOSAL.validate_json(row[0]) for row in rows]

    def in_state(self, *states: ProposalState) -> Sequence[Proposal]:
        """Return the proposals in these states, oldest first."""
        marks = ",".join("?" * len(states))
        rows = self._database.rows(
            f"SELECT document FROM proposals WHERE state IN ({marks}) "  # noqa: S608 - only marks
            "ORDER BY created_ms, run_id",
            [state.value for state in states],
        )
        return [_PROPOSAL.validate_json(row[0]) for row in rows]

    def owe(self, run_id: str, part: SitePart, end_reason: str) -> None:
        """Remember that the hub is to be told."""
        self._database.write(
            "INSERT INTO hub_reports (run_id, part, end_reason) VALUES (?, ?, ?)",
            (run_id, part.value, end_reason),
        )

    def owed(self) -> Sequence[HubReport]:
        """Return what the hub is to be told, in order."""
        rows = self._database.rows(
            "SELECT sequence, run_id, part, end_reason FROM hub_reports ORDER BY sequence"
        )
        return [HubReport(sequence, run_id, SitePart(part), end) for sequence, run_id, part, end in rows]

    def settle(self, sequence: int) -> None:
        """Forget a report."""
        self._database.write("DELETE FROM hub_reports WHERE sequence = ?", (sequence,))

    def settle_run(self, run_id: str) -> None:
        """Forget all reports on a run."""
        self._database.write("DELETE FROM hub_reports WHERE run_id = ?", (run_id,))
