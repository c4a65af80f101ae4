"""Between `mesh.rds.v1`, `mesh.federated.v1` and the domain; pure."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf import json_format
from mesh.common.v1 import common_pb2
from mesh.federated.v1 import proposal_pb2
from mesh.rds.v1 import rds_pb2, rds_service_pb2
from syftmesh_core.approval import DatasetVersion, Recipient, terms_of
from syftmesh_core.audit_chain import Entry, entry_digest
from syftmesh_core.enc import Reader, canonical_json, encode
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.federated import ProposalState, UpdateLimits
from syftmesh_core.job import JobState

from syftmesh_runner.domain.arrival import Submission
from syftmesh_runner.domain.catalogue import NewDataset
from syftmesh_runner.domain.dataset import (
    DEFAULT_MAX_RESULT_BYTES,
    DEFAULT_MIN_CELL,
    DEFAULT_WALL_S,
    Dataset,
    Policy,
)
from syftmesh_runner.domain.finding import Finding
from syftmesh_runner.domain.job import Job, Output
from syftmesh_runner.domain.proposal import Proposal
from syftmesh_runner.domain.proposal_arrival import RunRequest

MAX_PAGE = 1000
DEFAULT_PAGE = 100
_DIGEST_BYTES = 32


def policy_of(message: rds_pb2.DatasetPolicy) -> Policy:
    """Return the policy with its defaults filled in."""
    return Policy(
        min_cell=message.min_cell or DEFAULT_MIN_CELL,
        max_result_bytes=message.max_result_bytes or DEFAULT_MAX_RESULT_BYTES,
        required_reviewers=message.required_reviewers or 1,
        identifier_columns=tuple(message.identifier_columns),
        wall_s=message.wall_seconds or DEFAULT_WALL_S,
    )


def new_dataset(message: rds_service_pb2.CreateDatasetRequest) -> NewDataset:
    """Return what the owner asks for."""
    return NewDataset(
        name=message.name,
        private_path=message.private_path,
        mock_path=message.mock_path,
        generate_mock=message.generate_mock,
        summary=message.summary,
        readme=message.readme,
        tags=tuple(message.tags),
        audience=tuple(message.audience),
        policy=policy_of(message.policy),
    )


def dataset_message(dataset: Dataset, site: str) -> rds_pb2.Dataset:
    """Return a dataset as the API shows it."""
    policy = dataset.policy
    return rds_pb2.Dataset(
        name=dataset.name,
        site=site,
        summary=dataset.summary,
        readme=dataset.readme,
        tags=dataset.tags,
        audience=dataset.audience,
        private_digest=dataset.private_digest,
        mock_digest=dataset.mock_digest,
        tables=[
            rds_pb2.Table(
                file=table.file,
                columns=[rds_pb2.Column(name=column.name, type=column.type) for column in table.columns],
                mock_rows=table.mock_rows,
            )
            for table in dataset.tables
        ],
        policy=rds_pb2.DatasetPolicy(
            min_cell=policy.min_cell,
            max_result_bytes=policy.max_result_bytes,
            required_reviewers=policy.required_reviewers,
            identifier_columns=policy.identifier_columns,
            wall_seconds=policy.wall_s,
        ),
        created_unix_ms=dataset.created_ms,
        mock_generated=dataset.mock_generated,
    )


def card_json(dataset: Dataset, site: str) -> bytes:
    """Return ``card.json``: the dataset in protobuf's JSON form (proto3, "JSON Mapping")."""
    return json_format.MessageToJson(dataset_message(dataset, site), sort_keys=True).encode()


def state_message(state: JobState) -> rds_pb2.JobState.ValueType:
    """Return the enum of a state."""
    return rds_pb2.JobState.Value(f"JOB_STATE_{state.value.upper()}")


def states_of(values: Iterable[int]) -> list[JobState]:
    """Return the states that a filter names.

    Raises:
        InvalidInput: STATE_INVALID for an unspecified or unknown one.
    """
    found = []
    for value in values:
        name = rds_pb2.JobState.Name(value) if value in rds_pb2.JobState.values() else ""  # type: ignore[arg-type]
        short = name.removeprefix("JOB_STATE_").lower()
        if short not in {state.value for state in JobState}:
            raise InvalidInput("A state of the filter is unknown.", reason="STATE_INVALID")
        found.append(JobState(short))
    return found


def finding_message(finding: Finding) -> rds_pb2.Finding:
    """Return a finding as the API shows it."""
    return rds_pb2.Finding(
        severity=finding.severity.value,
        rule=finding.rule,
        file=finding.file,
        line=finding.line,
        cell=finding.cell,
        text=finding.text,
    )


def output_message(output: Output) -> rds_pb2.Output:
    """Return an output as the API shows it."""
    return rds_pb2.Output(
        name=output.name,
        size_bytes=output.size_bytes,
        sha256=output.sha256,
        findings=[finding_message(finding) for finding in output.findings],
        released=output.released,
    )


def job_message(job: Job) -> rds_pb2.Job:
    """Return a job as the owner's API shows it."""
    return rds_pb2.Job(
        job_id=job.job_id,
        project=job.project,
        submitter=job.submitter,
        submitter_root=bytes.fromhex(job.submitter_root),
        datasets=[rds_pb2.DatasetVersion(name=d.name, digest=d.digest) for d in job.datasets],
        code_digest=job.code_digest,
        entrypoint=job.entrypoint,
        parameters_json=job.parameters_json,
        runtime_digest=job.runtime_digest,
        purpose=job.purpose,
        state=state_message(job.state),
        end_reason=job.end_reason,
        message=job.message,
        findings=[finding_message(finding) for finding in job.findings],
        outputs=[output_message(output) for output in job.outputs],
        created_unix_ms=job.created_ms,
        updated_unix_ms=job.updated_ms,
        approvals=[statement_message(bytes.fromhex(text)) for text in job.approvals],
        recipients=[recipient.email for recipient in job.recipients],
        exit_code=job.exit_code,
        expires_unix_ms=job.expires_ms,
    )


def terms_json(job: Job) -> str:
    """Return the approval terms of a job, empty where its parameters can never be approved."""
    try:
        return terms_of(job).to_json()
    except IntegrityFailure:
        return ""


def status_message(job: Job) -> rds_pb2.JobStatus:
    """Return what the submitter may know of a job."""
    return rds_pb2.JobStatus(
        job_id=job.job_id,
        state=state_message(job.state),
        end_reason=job.end_reason,
        message=job.message,
        released=[output.name for output in job.outputs if output.released],
    )


def status_json(job: Job) -> bytes:
    """Return ``status.json``: the status in protobuf's JSON form."""
    return json_format.MessageToJson(status_message(job), sort_keys=True).encode()


def submission(message: rds_pb2.JobSubmission) -> Submission:
    """Return what a submitter sends."""
    return Submission(
        job_id=message.job_id,
        datasets=tuple(DatasetVersion(version.name, version.digest) for version in message.datasets),
        code_archive=message.code_archive,
        entrypoint=message.entrypoint,
        parameters_json=message.parameters_json or "{}",
        purpose=message.purpose,
        project=message.project,
    )


def run_request(message: proposal_pb2.RunProposal) -> RunRequest:
    """Return what an aggregator sends."""
    return RunRequest(
        run_id=message.run_id,
        app_digest=message.app_digest,
        dataset=message.dataset,
        run_config_json=message.run_config_json or "{}",
        recipients=tuple(Recipient(recipient.email, recipient.root) for recipient in message.recipients),
        train_tasks=message.train_tasks,
        evaluate_tasks=message.evaluate_tasks,
        limits=UpdateLimits(
            max_update_bytes=message.limits.max_update_bytes,
            max_norm=message.limits.max_norm,
            min_rows=message.limits.min_rows,
            max_metrics=message.limits.max_metrics,
        ),
        purpose=message.purpose,
        deadline_ms=message.deadline_unix_ms,
        partition=message.partition,
        partitions=message.partitions,
        run_key=message.run_key,
    )


def proposal_state(state: ProposalState) -> proposal_pb2.ProposalState.ValueType:
    """Return the enum of a proposal's state."""
    return proposal_pb2.ProposalState.Value(f"PROPOSAL_STATE_{state.value.upper()}")


def proposal_status(proposal: Proposal) -> proposal_pb2.ProposalStatus:
    """Return what the aggregator may know of a proposal."""
    status = proposal_pb2.ProposalStatus(run_id=proposal.run_id, state=proposal_state(proposal.state))
    status.reason = proposal.end_reason
    return status


def proposal_message(proposal: Proposal) -> proposal_pb2.Proposal:
    """Return a proposal as the owner's API shows it; the secret of the run is never in it."""
    limits = proposal.limits
    message = proposal_pb2.Proposal(
        run_id=proposal.run_id,
        state=proposal_state(proposal.state),
        message=proposal.message,
        aggregator=proposal.aggregator,
        app_digest=proposal.app_digest,
        app_name=proposal.app_name,
        dataset=proposal.dataset.name,
        dataset_digest=proposal.dataset.digest,
        run_config_json=proposal.run_config_json,
        recipients=[proposal_pb2.RunRecipient(email=r.email, root=r.root) for r in proposal.recipients],
        train_tasks=proposal.train_tasks,
        evaluate_tasks=proposal.evaluate_tasks,
        limits=proposal_pb2.UpdateLimits(
            max_update_bytes=limits.max_update_bytes,
            max_norm=limits.max_norm,
            min_rows=limits.min_rows,
            max_metrics=limits.max_metrics,
        ),
        purpose=proposal.purpose,
        created_unix_ms=proposal.created_ms,
        updated_unix_ms=proposal.updated_ms,
        expires_unix_ms=proposal.expires_ms,
        runtime_digest=proposal.runtime_digest,
        train_tasks_done=proposal.train_done,
        evaluate_tasks_done=proposal.evaluate_done,
        refused_tasks=proposal.refused,
        sent_bytes=proposal.sent_bytes,
        partition=proposal.partition,
        partitions=proposal.partitions,
    )
    message.reason = proposal.end_reason
    return message


def signed_bytes(message: common_pb2.SignedStatement) -> bytes:
    """Return ``ENC('statement-signed', …)`` of a statement as it travels."""
    return encode("statement-signed", [message.statement, message.signature])


def statement_message(signed: bytes) -> common_pb2.SignedStatement:
    """Return a statement as it travels."""
    reader = Reader("statement-signed", signed)
    return common_pb2.SignedStatement(statement=reader.raw(), signature=reader.raw())


def entry_message(entry: Entry) -> rds_pb2.AuditEntry:
    """Return an entry of the audit as the API shows it."""
    return rds_pb2.AuditEntry(
        sequence=entry.sequence,
        at_unix_ms=entry.at_ms,
        kind=entry.kind,
        actor=entry.actor,
        fields_json=canonical_json(entry.fields).decode(),
        previous_digest=entry.previous_digest or bytes(_DIGEST_BYTES),
        digest=entry_digest(entry),
    )


def page_size(asked: int) -> int:
    """Return the size of a page.

    Raises:
        InvalidInput: PAGE_INVALID for a negative one.
    """
    if asked < 0:
        raise page_invalid()
    return min(asked, MAX_PAGE) or DEFAULT_PAGE


def page_invalid() -> InvalidInput:
    """Return the error for a page that cannot be given."""
    return InvalidInput(
        "The page size is negative, or the page token is not one that was given out.", reason="PAGE_INVALID"
    )
