"""What a site says of a job: `status.json` and the replies of its endpoints, read strictly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1 import rpc_pb2
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.node import Node
from syftmesh_client.problem import problem_error
from syftmesh_core.errors import IntegrityFailure, NotFound
from syftmesh_core.job import JobState
from syftmesh_core.layout import RESULTS_FOLDER
from syftmesh_core.quote import quoted

from syftmesh.convert import state_of
from syftmesh.provenance import MAX_DOCUMENT_BYTES, read_of_owner
from syftmesh.submission import Submission

STATUS_FILE: Final = "status.json"
ASK_S: Final = 2.0
"""How long a site that may be offline is asked, in seconds."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Where a job is.

    Attributes:
        state: Its state.
        end_reason: Why it is over, a constant; empty while there is none.
        message: The state in the site's words.
        released: Names of released files.
    """

    state: JobState
    end_reason: str = ""
    message: str = ""
    released: tuple[str, ...] = ()


SUBMITTED: Final = JobStatus(JobState.SUBMITTED, message="Waits for the site.")


def results_folder(site: str, recipient: str, job_id: str) -> str:
    """Return where a site writes what `recipient` gets of a job."""
    return f"{site}/{RESULTS_FOLDER}/{recipient}/{job_id}"


async def read_status(node: Node, site: str, job_id: str) -> JobStatus | None:
    """Return what the site wrote of a job last, None before it wrote anything.

    Raises:
        IntegrityFailure: STATUS_INVALID, or as `read_of_owner`.
    """
    path = f"{results_folder(site, node.principal, job_id)}/{STATUS_FILE}"
    try:
        data = await read_of_owner(node.files, path)
    except NotFound:
        return None
    return parse_status_file(data, job_id)


async def ask(node: Node, site: str, endpoint: str, job_id: str, *, timeout_s: float = ASK_S) -> JobStatus:
    """Call an endpoint of a site's app `rds` that takes a job's id.

    Raises:
        MeshError: As `CallClient.call`; IntegrityFailure (STATUS_INVALID).
    """
    body = rds_pb2.JobReference(job_id=job_id).SerializeToString()
    url = f"syft://{site}/app_data/rds/rpc/{endpoint}"
    reply = await node.calls.call(url, RequestContent(body=body), timeout_s=timeout_s)
    return parse_status(reply.body, job_id)


async def arrival(node: Node, submission: Submission) -> JobStatus:
    """Return what became of the call that carried a submission; asks the hub, not the site.

    What the site refused is a rejected job: it keeps nothing of it, so the refusal is told here alone.

    Raises:
        IntegrityFailure: The reply is forged (SEAL_INVALID) or damaged (STATUS_INVALID).
        Unavailable: The hub does not answer.
    """
    try:
        result = await node.calls.reply(submission.call_id, site=submission.site)
    except NotFound:
        return JobStatus(JobState.EXPIRED, message="The router does not keep the submission any more.")
    if result.content is not None:
        refusal = problem_error(result.content)
        if refusal is None:
            return parse_status(result.content.body, submission.id)
        return JobStatus(JobState.REJECTED, refusal.reason, refusal.message)
    if not result.is_final:
        return SUBMITTED
    if result.state == rpc_pb2.CALL_STATE_EXPIRED:
        return JobStatus(JobState.EXPIRED, message="The site was not online in time.")
    reason = result.failure_reason or "CALL_FAILED"
    return JobStatus(JobState.REJECTED, reason, "The site could not take the submission.")


def parse_status_file(data: bytes, job_id: str) -> JobStatus:
    """Return the status in a `status.json`.

    Raises:
        IntegrityFailure: STATUS_INVALID.
    """
    try:
        if len(data) > MAX_DOCUMENT_BYTES:
            raise ValueError
        message = json_format.Parse(data, rds_pb2.JobStatus())
    except (json_format.ParseError, ValueError, RecursionError) as error:
        raise _invalid(job_id) from error
    return _checked(message, job_id)


def parse_status(data: bytes, job_id: str) -> JobStatus:
    """Return the status that a site answered with.

    Raises:
        IntegrityFailure: STATUS_INVALID.
    """
    try:
        message = rds_pb2.JobStatus.FromString(data)
    except DecodeError as error:
        raise _invalid(job_id) from error
    return _checked(message, job_id)


def _checked(message: rds_pb2.JobStatus, job_id: str) -> JobStatus:
    if message.job_id != job_id:
        raise _invalid(job_id)
    return JobStatus(state_of(message.state), message.end_reason, message.message, tuple(message.released))


def _invalid(job_id: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"What the site says of the job {quoted(job_id)} is damaged.",
        reason="STATUS_INVALID",
        metadata={"job_id": quoted(job_id)},
    )
