"""The queue of one's own site: review, signed decisions, release."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mesh.common.v1 import common_pb2
from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from syftmesh_client.node import Node
from syftmesh_core.approval import APPROVAL_KIND, RELEASE_KIND, Recipient, ReleasedFile, ReleaseTerms
from syftmesh_core.enc import Reader
from syftmesh_core.errors import IntegrityFailure, NotFound, Unimplemented, WrongState
from syftmesh_core.job import JobState
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted
from syftmesh_core.statement import Statement, sign_statement

from syftmesh.convert import state_value
from syftmesh.review import Finding, Output, ReviewJob, review_job
from syftmesh.site_socket import TIMEOUT_S, SiteSockets

__all__ = ["AsyncSiteJobs", "Finding", "Output", "Release", "ReviewJob"]

LOGS: Final = "logs/"
_WITHHELD: Final = "The owner keeps the results."
_RELEASE_S: Final = 120.0
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Release:
    """A release that was done: the job after it, and the bytes that left, as stored."""

    job: ReviewJob
    bytes_out: int


class AsyncSiteJobs:
    """The owner's decisions, signed by this profile's device, which must be an admin device.

    Every method raises NotFound (SITE_NOT_RUNNING, JOB_UNKNOWN) and, where the job is not in a state for it,
    WrongState (WRONG_STATE).
    """

    def __init__(self, node: Node, sockets: SiteSockets) -> None:
        self._node = node
        self._sockets = sockets

    async def list(self, states: Sequence[JobState | str] = ()) -> list[ReviewJob]:
        """Return the jobs in `states` (all when empty), newest first.

        Raises:
            InvalidInput: STATE_INVALID.
        """
        wanted = [state_value(state) for state in states]
        found: list[ReviewJob] = []
        token = ""
        while True:
            request = pb.ListJobsRequest(states=wanted, page_size=_PAGE, page_token=token)
            page = await self._sockets.jobs.ListJobs(request, timeout=TIMEOUT_S)
            found += [self._job(message) for message in page.jobs]
            token = page.next_page_token
            if not token:
                return found

    async def get(self, job_id: str) -> ReviewJob:
        """Return one job with the terms that an approval would sign."""
        answer = await self._sockets.jobs.GetJob(pb.GetJobRequest(job_id=job_id), timeout=TIMEOUT_S)
        return self._job(answer.job, answer.approval_terms_json)

    async def code(self, job_id: str) -> dict[str, bytes]:
        """Return the submitted files by name."""
        answer = await self._sockets.jobs.GetJobCode(pb.GetJobCodeRequest(job_id=job_id), timeout=TIMEOUT_S)
        return {file.name: file.content for file in answer.files}

    async def approve(self, job: ReviewJob | str) -> ReviewJob:
        """Sign the approval of a job.

        Args:
            job: The job as it was reviewed, whose terms are signed; or its id: the terms as they are now.

        Raises:
            WrongState: APPROVAL_MISMATCH when a term is not the job's (any more).
            PermissionDenied: This device may not decide (NOT_A_REVIEWER).
        """
        seen = job if isinstance(job, ReviewJob) else await self.get(job)
        if not seen.approval_terms_json:
            seen = await self.get(seen.id)  # of a list, which brings no terms
        if not seen.approval_terms_json:
            raise WrongState(f"A job that is {seen.state} has no terms that could be approved.")
        signed = self._signed(APPROVAL_KIND, seen.approval_terms_json)
        request = pb.ApproveJobRequest(job_id=seen.id, approval=signed)
        answer = await self._sockets.jobs.ApproveJob(request, timeout=TIMEOUT_S)
        return self._job(answer.job)

    async def reject(self, job_id: str, reason: str) -> ReviewJob:
        """Refuse a job in review; the submitter reads the reason."""
        request = pb.RejectJobRequest(job_id=job_id, reason=reason)
        return self._job((await self._sockets.jobs.RejectJob(request, timeout=TIMEOUT_S)).job)

    async def cancel(self, job_id: str) -> ReviewJob:
        """End an approved, queued or running job; nothing of it runs any more when it returns."""
        request = pb.CancelJobRequest(job_id=job_id)
        return self._job((await self._sockets.jobs.CancelJob(request, timeout=2 * TIMEOUT_S)).job)

    async def release(
        self,
        job_id: str,
        files: Sequence[str] | None = None,
        *,
        to: Sequence[str] | str | None = None,
        expires: datetime | None = None,
        override: str = "",
    ) -> Release:
        """Let outputs leave, sealed for the recipients.

        Args:
            job_id: The job.
            files: Names; all outputs but the logs when None, the logs of a job that failed.
            to: E-mails; the submitter when None.
            expires: Not built.
            override: Why it may leave in spite of blocking findings.

        Raises:
            IntegrityFailure: The gate refuses (RELEASE_REFUSED), or the submitter's keys are other ones than at
                the submission (KEY_CHANGED).
            NotFound: OUTPUT_UNKNOWN, PRINCIPAL_UNKNOWN.
            Unimplemented: `expires` is given.
        """
        if expires is not None:
            raise Unimplemented("Releases that expire come with complete remote data science.")
        job = await self.get(job_id)
        names = [to] if isinstance(to, str) else list(to or [job.submitter])
        recipients = tuple([await self._recipient(job, normalise_principal(name)) for name in names])
        terms = ReleaseTerms(job_id, _chosen(job, files), recipients, override)
        request = pb.ReleaseJobRequest(job_id=job_id, release=self._signed(RELEASE_KIND, terms.to_json()))
        answer = await self._sockets.jobs.ReleaseJob(request, timeout=_RELEASE_S)
        return Release(self._job(answer.job), answer.bytes_out)

    async def withhold(self, job_id: str, reason: str = "") -> ReviewJob:
        """Keep the outputs at the site for good; the submitter reads the reason."""
        request = pb.WithholdJobRequest(job_id=job_id, reason=reason.strip() or _WITHHELD)
        return self._job((await self._sockets.jobs.WithholdJob(request, timeout=TIMEOUT_S)).job)

    async def logs(self, job_id: str) -> str:
        """Return what the job printed; empty before it ended."""
        stream = self._sockets.jobs.StreamLogs(pb.StreamLogsRequest(job_id=job_id), timeout=2 * TIMEOUT_S)
        data = b"".join([piece.data async for piece in stream])
        return data.decode("utf-8", "replace")

    async def _recipient(self, job: ReviewJob, email: str) -> Recipient:
        keys = await self._node.directory.devices_of(email, refresh=True)
        if email == job.submitter and keys.root != job.submitter_root:
            raise IntegrityFailure(
                f"The keys of {email} are other ones than when the job was submitted.",
                reason="KEY_CHANGED",
                metadata={"principal": email},
                hint=f"syftmesh keys verify {email}",
            )
        return Recipient(email, keys.root.hex())

    def _signed(self, kind: str, body_json: str) -> common_pb2.SignedStatement:
        device = self._node.keystore.device
        body = json.loads(body_json)
        now_ms = self._node.clock.now_ms()
        statement = Statement(kind, device.principal, device.device_id, now_ms, None, body)
        reader = Reader("statement-signed", sign_statement(statement, device))
        return common_pb2.SignedStatement(statement=reader.raw(), signature=reader.raw())

    def _job(self, message: rds_pb2.Job, terms: str = "") -> ReviewJob:
        return review_job(message, self._node.principal, terms)


def _chosen(job: ReviewJob, files: Sequence[str] | None) -> tuple[ReleasedFile, ...]:
    logs_only = job.state is JobState.FAILED
    by_name = {output.name: output for output in job.outputs}
    names = [name for name in by_name if name.startswith(LOGS) == logs_only] if files is None else files
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise NotFound(
            f"The job left no file {quoted(unknown[0])}.",
            reason="OUTPUT_UNKNOWN",
            metadata={"file": quoted(unknown[0])},
            hint=f"syftmesh job show {job.id}",
        )
    return tuple(ReleasedFile(name, by_name[name].sha256) for name in names)
