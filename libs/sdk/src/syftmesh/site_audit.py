"""The audit chain of one's own site."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb

from syftmesh.site_socket import TIMEOUT_S, SiteSockets

_WHOLE_S: Final = 120.0
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class AuditState:
    """A chain that holds: entries, digest of the last one (32 bytes), signed checkpoints."""

    entries: int
    root: bytes
    checkpoints: int


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link.

    Attributes:
        sequence: From 1, without gaps.
        at_ms: When, Unix milliseconds.
        kind: What, such as job.approved.
        actor: Who.
        fields: The facts; never private values.
        previous_digest: Digest of the entry before, 32 bytes.
        digest: Digest of this one, 32 bytes.
    """

    sequence: int
    at_ms: int
    kind: str
    actor: str
    fields: Mapping[str, Any]
    previous_digest: bytes
    digest: bytes


class AsyncAudit:
    """Reads the chain."""

    def __init__(self, sockets: SiteSockets) -> None:
        self._sockets = sockets

    async def verify(self) -> AuditState:
        """Check the whole chain and its signed checkpoints.

        Raises:
            IntegrityFailure: The first bad entry is named (AUDIT_BROKEN).
            NotFound: SITE_NOT_RUNNING.
        """
        found = await self._sockets.audit.VerifyAudit(pb.VerifyAuditRequest(), timeout=_WHOLE_S)
        return AuditState(found.entries, found.root, found.checkpoints)

    async def query(
        self, *, dataset: str | None = None, job_id: str | None = None, kind: str | None = None
    ) -> list[AuditEntry]:
        """Return the entries that name a dataset, a job, a kind, oldest first; raises as `verify`."""
        entries: list[AuditEntry] = []
        token = ""
        while True:
            request = pb.QueryAuditRequest(
                dataset=dataset or "", job_id=job_id or "", kind=kind or "", page_size=_PAGE, page_token=token
            )
            page = await self._sockets.audit.QueryAudit(request, timeout=TIMEOUT_S)
            entries += [_entry(message) for message in page.entries]
            token = page.next_page_token
            if not token:
                return entries

    async def export(self) -> list[AuditEntry]:
        """Return the whole chain; raises as `verify`."""
        stream = self._sockets.audit.ExportAudit(pb.ExportAuditRequest(), timeout=_WHOLE_S)
        return [_entry(answer.entry) async for answer in stream]


def _entry(message: rds_pb2.AuditEntry) -> AuditEntry:
    return AuditEntry(
        sequence=message.sequence,
        at_ms=message.at_unix_ms,
        kind=message.kind,
        actor=message.actor,
        fields=json.loads(message.fields_json or "{}"),
        previous_digest=message.previous_digest,
        digest=message.digest,
    )
