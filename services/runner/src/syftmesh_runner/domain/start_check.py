"""The last check before a job starts: nothing is believed but the disk and what reviewers signed."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from syftmesh_core.approval import APPROVAL_KIND, DatasetVersion, first_difference, terms_of
from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, MeshError, Unavailable
from syftmesh_core.job import JobEnd

from syftmesh_runner.domain.dataset import version_digest
from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.signature import ReviewerCheck
from syftmesh_runner.domain.state import SiteState


class StartRefused(Exception):
    """A job must not start.

    Attributes:
        end: The reason.
        detail: What differs, for owner and submitter.
    """

    def __init__(self, end: JobEnd, detail: str) -> None:
        super().__init__(detail)
        self.end = end
        self.detail = detail


class StartCheck:
    """Compares a job with its approvals.

    Args:
        state: What the site keeps.
        runtime: The runtime that jobs run in.
        reviewers: Verifies approvals once more.
    """

    def __init__(self, state: SiteState, runtime: RuntimeIdentity, reviewers: ReviewerCheck) -> None:
        self._state = state
        self._runtime = runtime
        self._reviewers = reviewers

    def held(self, job: Job, archive: bytes) -> Job:
        """Return `job` with every digest computed from what lies on disk now.

        Raises:
            StartRefused: A dataset is not as approved.
            Unavailable: RUNTIME_UNKNOWN: the runtime is not known now.
        """
        versions = []
        for version in job.datasets:
            try:
                found = version_digest(
                    self._state.folder.digests(self._state.folder.private_part(version.name, version.digest))
                )
            except IntegrityFailure:
                found = ""
            if found != version.digest:
                raise StartRefused(
                    JobEnd.DATASET_CHANGED, f"the dataset {version.name} is not as approved any more"
                )
            versions.append(DatasetVersion(version.name, found))
        return replace(
            job,
            code_digest=hashlib.sha256(archive).hexdigest(),
            runtime_digest=self._runtime.digest(),
            datasets=tuple(versions),
        )

    async def approvals(self, job: Job, held: Job) -> None:
        """Return when enough approvals fit what lies on disk.

        Raises:
            StartRefused: They do not.
            Unavailable: Whether they do is not known now.
        """
        if self._state.clock.now_ms() >= job.approval_expires_ms:
            raise StartRefused(JobEnd.APPROVAL_EXPIRED, "its approval has ended")
        issuers = set()
        for text in job.approvals:
            try:
                statement = await self._reviewers.verify(
                    bytes.fromhex(text), kind=APPROVAL_KIND, submitter=job.submitter
                )
            except (Unavailable, DeadlineExceeded):
                raise
            except MeshError as error:
                if error.reason == "APPROVAL_EXPIRED":
                    raise StartRefused(JobEnd.APPROVAL_EXPIRED, "its approval has ended") from error
                raise StartRefused(JobEnd.APPROVAL_MISMATCH, "its approval does not hold any more") from error
            term = first_difference(terms_of(held), statement.body)
            if term is not None:
                raise StartRefused(JobEnd.APPROVAL_MISMATCH, f"{term} differs from what was approved")
            issuers.add(statement.issuer)
        if not issuers or len(issuers) < self._state.policy_of(job).required_reviewers:
            raise StartRefused(JobEnd.APPROVAL_MISMATCH, "it has too few approvals")
