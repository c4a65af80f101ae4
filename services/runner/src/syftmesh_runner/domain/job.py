"""Jobs as the site keeps them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.errors import InvalidInput
from syftmesh_core.job import JobState

from syftmesh_runner.domain.finding import Finding, is_blocking

LOG_FOLDER = "logs/"
STDOUT = "logs/stdout.txt"
STDERR = "logs/stderr.txt"

_JOB_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Output:
    """A file that a run left, or a log of it.

    Attributes:
        name: Path inside the output folder; logs are `STDOUT` and `STDERR`.
        size_bytes: Exact size.
        sha256: Digest, hex.
        findings: What the gate found.
        released: Whether it has left the site.
    """

    name: str
    size_bytes: int
    sha256: str
    findings: tuple[Finding, ...] = ()
    released: bool = False

    @property
    def is_log(self) -> bool:
        """Whether this is a log of the run and no file of the program."""
        return self.name in (STDOUT, STDERR)

    @property
    def is_blocked(self) -> bool:
        """Whether it leaves only with a reason."""
        return is_blocking(self.findings)


@dataclass(frozen=True, slots=True)
class Job:
    """One submission and all that became of it; see `mesh.rds.v1.Job`.

    Attributes:
        job_id: UUIDv7 of the submitter's making.
        project: Label.
        submitter: Authenticated principal.
        submitter_root: The submitter's account root at submission, 64 hex digits.
        datasets: Versions it is bound to.
        code_digest: SHA-256 of the code archive, hex.
        entrypoint: Script inside the archive.
        parameters_json: RFC 8785 JSON.
        runtime_digest: Digest of the runtime at arrival, hex.
        purpose: What for.
        recipients: Who gets what is released.
        created_ms: Unix milliseconds of arrival.
        expires_ms: Unix milliseconds at which it expires undecided.
        approval_expires_ms: Unix milliseconds from which an approval counts no more.
        state: Where it is.
        updated_ms: Unix milliseconds of the last change of state.
        end_reason: Constant of `syftmesh_core.job.JobEnd` or of an error; empty while there is none.
        message: Explains the state to people; the submitter reads it, so nothing private is in it.
        findings: Of static review, and what of the output was left behind.
        outputs: As the gate saw them.
        approvals: Signed approvals, hex of ``ENC('statement-signed', …)``.
        exit_code: Of the program, once it ended by itself.
        run_started_ms: Unix milliseconds, 0 before.
        run_ended_ms: Unix milliseconds, 0 before.
    """

    job_id: str
    project: str
    submitter: str
    submitter_root: str
    datasets: tuple[DatasetVersion, ...]
    code_digest: str
    entrypoint: str
    parameters_json: str
    runtime_digest: str
    purpose: str
    recipients: tuple[Recipient, ...]
    created_ms: int
    expires_ms: int
    approval_expires_ms: int
    state: JobState = JobState.SUBMITTED
    updated_ms: int = 0
    end_reason: str = ""
    message: str = ""
    findings: tuple[Finding, ...] = ()
    outputs: tuple[Output, ...] = ()
    approvals: tuple[str, ...] = field(default=(), repr=False)
    exit_code: int | None = None
    run_started_ms: int = 0
    run_ended_ms: int = 0

    def output(self, name: str) -> Output | None:
        """Return the output of that name, None when there is none."""
        return next((output for output in self.outputs if output.name == name), None)


def check_job_id(job_id: str) -> str:
    """Return `job_id` when it is a UUID version 7 in lower case (RFC 9562, section 5.7).

    Raises:
        InvalidInput: JOB_INVALID.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise InvalidInput("The job id is no UUID version 7 in lower case.", reason="JOB_INVALID")
    return job_id
