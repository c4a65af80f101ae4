"""A job as its reviewer sees it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mesh.rds.v1 import rds_pb2
from syftmesh_core.approval import DatasetVersion
from syftmesh_core.job import JobState

from syftmesh.convert import state_of


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that review or gate found.

    Attributes:
        severity: info, warning or block.
        rule: Constant such as IMPORT_NETWORK or SMALL_CELL.
        file: Where.
        line: Line or row from 1; 0 for the whole file.
        cell: Column, for tables.
        text: What, without private values.
    """

    severity: str
    rule: str
    file: str
    line: int
    cell: str
    text: str


@dataclass(frozen=True, slots=True)
class Output:
    """One file that a run left: name, size, SHA-256 (hex), what the gate found, whether it has left."""

    name: str
    size_bytes: int
    sha256: str
    findings: tuple[Finding, ...]
    released: bool


@dataclass(frozen=True, slots=True)
class ReviewJob:
    """A job as its reviewer sees it.

    Attributes:
        id: UUIDv7 that the submitter made.
        site: The own site.
        state: Where it is.
        end_reason: Why it is over; empty while there is none.
        message: The state in words.
        submitter: Who asks.
        submitter_root: The submitter's account root when it arrived, 32 bytes.
        project: Label.
        purpose: What for.
        datasets: Versions that it is bound to.
        code_digest: SHA-256 of the code archive, hex.
        entrypoint: Script.
        parameters: For the code.
        runtime_digest: Runtime that will run it, hex.
        recipients: Who gets results.
        findings: Of the static review of the code.
        outputs: What the run left.
        exit_code: Of the program, None before it ended by itself.
        created_ms: When it arrived, Unix milliseconds.
        updated_ms: When the state changed last.
        expires_ms: When it expires undecided.
        approval_terms_json: Exactly what an approval of it signs.
    """

    id: str
    site: str
    state: JobState
    end_reason: str
    message: str
    submitter: str
    submitter_root: bytes = field(repr=False)
    project: str
    purpose: str
    datasets: tuple[DatasetVersion, ...]
    code_digest: str
    entrypoint: str
    parameters: Mapping[str, Any]
    runtime_digest: str
    recipients: tuple[str, ...]
    findings: tuple[Finding, ...]
    outputs: tuple[Output, ...]
    exit_code: int | None
    created_ms: int
    updated_ms: int
    expires_ms: int
    approval_terms_json: str = field(default="", repr=False)

    @property
    def released(self) -> tuple[str, ...]:
        """Names of the outputs that have left the site."""
        return tuple(output.name for output in self.outputs if output.released)


def review_job(message: rds_pb2.Job, site: str, terms: str = "") -> ReviewJob:
    """Return a job of the runner of `site`, with the terms that an approval of it would sign.

    Raises:
        IntegrityFailure: STATUS_INVALID: its state is none that this version knows.
    """
    return ReviewJob(
        id=message.job_id,
        site=site,
        state=state_of(message.state),
        end_reason=message.end_reason,
        message=message.message,
        submitter=message.submitter,
        submitter_root=message.submitter_root,
        project=message.project,
        purpose=message.purpose,
        datasets=tuple(DatasetVersion(d.name, d.digest) for d in message.datasets),
        code_digest=message.code_digest,
        entrypoint=message.entrypoint,
        parameters=json.loads(message.parameters_json or "{}"),
        runtime_digest=message.runtime_digest,
        recipients=tuple(message.recipients),
        findings=tuple(_finding(finding) for finding in message.findings),
        outputs=tuple(_output(output) for output in message.outputs),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        created_ms=message.created_unix_ms,
        updated_ms=message.updated_unix_ms,
        expires_ms=message.expires_unix_ms,
        approval_terms_json=terms,
    )


def _finding(message: rds_pb2.Finding) -> Finding:
    return Finding(message.severity, message.rule, message.file, message.line, message.cell, message.text)


def _output(message: rds_pb2.Output) -> Output:
    findings = tuple(_finding(finding) for finding in message.findings)
    return Output(message.name, message.size_bytes, message.sha256, findings, message.released)
