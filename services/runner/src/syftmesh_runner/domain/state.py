"""What one site keeps, as one value that the use cases share."""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_core.clock import Clock

from syftmesh_runner.domain.audit import AuditTrail
from syftmesh_runner.domain.dataset import Policy, strictest
from syftmesh_runner.domain.federated_port import ProposalStore
from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.ports import DatasetStore, Folder, JobStore, ReleaseStore, SealStore, Unit
from syftmesh_runner.domain.proposal import Proposal


@dataclass(frozen=True, slots=True)
class SiteState:
    """The stores of one site; all but the folder are one database and share its transactions.

    Attributes:
        unit: Transactions.
        jobs: Jobs.
        datasets: Datasets.
        releases: Releases.
        seals: Who the published files are sealed for.
        proposals: Proposals of federated runs.
        audit: The audit chain.
        folder: Files.
        clock: Source of times.
    """

    unit: Unit
    jobs: JobStore
    datasets: DatasetStore
    releases: ReleaseStore
    seals: SealStore
    proposals: ProposalStore
    audit: AuditTrail
    folder: Folder
    clock: Clock

    @property
    def owner(self) -> str:
        """The principal whose site this is."""
        return self.audit.owner

    def policy_of(self, job: Job) -> Policy:
        """Return the strictest policy of the datasets of `job`."""
        found = [self.datasets.get(version.name) for version in job.datasets]
        return strictest(dataset.policy for dataset in found if dataset is not None)

    def reviewers_of(self, proposal: Proposal) -> int:
        """Return how many approvals by different reviewers `proposal` needs."""
        dataset = self.datasets.get(proposal.dataset.name)
        return strictest([dataset.policy] if dataset is not None else []).required_reviewers
