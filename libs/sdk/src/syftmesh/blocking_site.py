"""The blocking form of one's own site; each method is that of the asynchronous class of its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from syftmesh_core.job import JobState

from syftmesh.blocking_data import Dataset
from syftmesh.blocking_run import SiteRuns
from syftmesh.card import DatasetCard, DatasetPolicy
from syftmesh.portal import Portal
from syftmesh.review import ReviewJob
from syftmesh.site import AsyncSite, ProbeReport, SiteStatus
from syftmesh.site_audit import AsyncAudit, AuditEntry, AuditState
from syftmesh.site_dataset import GENERATE, AsyncSiteDatasets
from syftmesh.site_job import AsyncSiteJobs, Release


class SiteDatasets:
    """The owner's datasets."""

    def __init__(self, portal: Portal, datasets: AsyncSiteDatasets) -> None:
        self._portal = portal
        self._datasets = datasets

    def create(
        self,
        name: str,
        private: Path | str,
        *,
        mock: Path | str = GENERATE,
        summary: str = "",
        readme: str = "",
        tags: Sequence[str] = (),
        audience: Sequence[str] = (),
        policy: DatasetPolicy | Mapping[str, Any] | None = None,
    ) -> Dataset:
        """See `AsyncSiteDatasets.create`."""
        creating = self._datasets.create(
            name,
            private,
            mock=mock,
            summary=summary,
            readme=readme,
            tags=tags,
            audience=audience,
            policy=policy,
        )
        return Dataset.of(self._portal, self._portal.run(creating))

    def list(self) -> list[DatasetCard]:
        """See `AsyncSiteDatasets.list`."""
        return self._portal.run(self._datasets.list())

    def get(self, name: str) -> Dataset:
        """See `AsyncSiteDatasets.get`."""
        return Dataset.of(self._portal, self._portal.run(self._datasets.get(name)))

    def delete(self, name: str) -> None:
        """See `AsyncSiteDatasets.delete`."""
        self._portal.run(self._datasets.delete(name))


class SiteJobs:
    """The owner's decisions."""

    def __init__(self, portal: Portal, jobs: AsyncSiteJobs) -> None:
        self._portal = portal
        self._jobs = jobs

    def list(self, states: Sequence[JobState | str] = ()) -> list[ReviewJob]:
        """See `AsyncSiteJobs.list`."""
        return self._portal.run(self._jobs.list(states))

    def get(self, job_id: str) -> ReviewJob:
        """See `AsyncSiteJobs.get`."""
        return self._portal.run(self._jobs.get(job_id))

    def code(self, job_id: str) -> dict[str, bytes]:
        """See `AsyncSiteJobs.code`."""
        return self._portal.run(self._jobs.code(job_id))

    def approve(self, job: ReviewJob | str) -> ReviewJob:
        """See `AsyncSiteJobs.approve`."""
        return self._portal.run(self._jobs.approve(job))

    def reject(self, job_id: str, reason: str) -> ReviewJob:
        """See `AsyncSiteJobs.reject`."""
        return self._portal.run(self._jobs.reject(job_id, reason))

    def cancel(self, job_id: str) -> ReviewJob:
        """See `AsyncSiteJobs.cancel`."""
        return self._portal.run(self._jobs.cancel(job_id))

    def release(
        self,
        job_id: str,
        files: Sequence[str] | None = None,
        *,
        to: Sequence[str] | str | None = None,
        expires: datetime | None = None,
        override: str = "",
    ) -> Release:
        """See `AsyncSiteJobs.release`."""
        return self._portal.run(self._jobs.release(job_id, files, to=to, expires=expires, override=override))

    def withhold(self, job_id: str, reason: str = "") -> ReviewJob:
        """See `AsyncSiteJobs.withhold`."""
        return self._portal.run(self._jobs.withhold(job_id, reason))

    def logs(self, job_id: str) -> str:
        """See `AsyncSiteJobs.logs`."""
        return self._portal.run(self._jobs.logs(job_id))


class Audit:
    """The site's audit chain."""

    def __init__(self, portal: Portal, audit: AsyncAudit) -> None:
        self._portal = portal
        self._audit = audit

    def verify(self) -> AuditState:
        """See `AsyncAudit.verify`."""
        return self._portal.run(self._audit.verify())

    def query(
        self, *, dataset: str | None = None, job_id: str | None = None, kind: str | None = None
    ) -> list[AuditEntry]:
        """See `AsyncAudit.query`."""
        return self._portal.run(self._audit.query(dataset=dataset, job_id=job_id, kind=kind))

    def export(self) -> list[AuditEntry]:
        """See `AsyncAudit.export`."""
        return self._portal.run(self._audit.export())


class Site:
    """The owner's side.

    Attributes:
        datasets: Registers and removes datasets.
        jobs: The queue of jobs and the decisions about them.
        fl: Federated runs that were proposed, and the decisions about them.
        audit: The site's audit chain.
    """

    def __init__(self, portal: Portal, site: AsyncSite) -> None:
        self._portal = portal
        self._site = site
        self.datasets = SiteDatasets(portal, site.datasets)
        self.jobs = SiteJobs(portal, site.jobs)
        self.fl = SiteRuns(portal, site.fl)
        self.audit = Audit(portal, site.audit)

    def status(self) -> SiteStatus:
        """See `AsyncSite.status`."""
        return self._portal.run(self._site.status())

    def probe(self) -> ProbeReport:
        """See `AsyncSite.probe`."""
        return self._portal.run(self._site.probe())

    def traffic(self) -> dict[str, int]:
        """See `AsyncSite.traffic`."""
        return self._portal.run(self._site.traffic())
