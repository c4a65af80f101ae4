"""Blocking jobs; each method is that of the asynchronous class of its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from syftmesh_core.job import JobState

from syftmesh.blocking_data import Dataset
from syftmesh.card import DatasetCard
from syftmesh.job import AsyncJob
from syftmesh.job_desk import AsyncJobs, Parameters
from syftmesh.mock_run import MockRun
from syftmesh.portal import Portal
from syftmesh.result import AsyncResults

if TYPE_CHECKING:
    import pandas as pd


class Results:
    """What the owner released of a job."""

    def __init__(self, portal: Portal, results: AsyncResults) -> None:
        self._portal = portal
        self._results = results

    def files(self) -> list[str]:
        """See `AsyncResults.files`."""
        return self._portal.run(self._results.files())

    def read(self, name: str) -> bytes:
        """See `AsyncResults.read`."""
        return self._portal.run(self._results.read(name))

    def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """See `AsyncResults.dataframe`."""
        return self._portal.run(self._results.dataframe(name))

    def lineage(self) -> dict[str, Any]:
        """See `AsyncResults.lineage`."""
        return self._portal.run(self._results.lineage())

    def download(self, folder: Path | str) -> Path:
        """See `AsyncResults.download`."""
        return self._portal.run(self._results.download(folder))


class Job:
    """A job that was submitted to a site; see `AsyncJob`.

    Attributes:
        results: What was released.
    """

    def __init__(self, portal: Portal, job: AsyncJob) -> None:
        self._portal = portal
        self._job = job
        self.results = Results(portal, job.results)

    @property
    def id(self) -> str:
        """Its id, a UUIDv7."""
        return self._job.id

    @property
    def site(self) -> str:
        """E-mail of the site's owner."""
        return self._job.site

    @property
    def state(self) -> JobState:
        """Where it was when it was looked at last."""
        return self._job.state

    @property
    def end_reason(self) -> str:
        """Why it is over; empty while there is none."""
        return self._job.end_reason

    @property
    def message(self) -> str:
        """The state in the site's words."""
        return self._job.message

    @property
    def released(self) -> tuple[str, ...]:
        """Names of released files."""
        return self._job.released

    @property
    def is_settled(self) -> bool:
        """See `AsyncJob.is_settled`."""
        return self._job.is_settled

    def refresh(self) -> Job:
        """See `AsyncJob.refresh`."""
        self._portal.run(self._job.refresh())
        return self

    def wait(self, timeout_s: float | None = None) -> Job:
        """See `AsyncJob.wait`."""
        self._portal.run(self._job.wait(timeout_s))
        return self

    def cancel(self) -> Job:
        """See `AsyncJob.cancel`."""
        self._portal.run(self._job.cancel())
        return self

    def __repr__(self) -> str:
        return repr(self._job)

    def _repr_html_(self) -> str:
        return self._job._repr_html_()


class Jobs:
    """The submitter's desk."""

    def __init__(self, portal: Portal, jobs: AsyncJobs) -> None:
        self._portal = portal
        self._jobs = jobs

    def submit(
        self,
        code: Path | str,
        entrypoint: str | None = None,
        *,
        datasets: Sequence[DatasetCard | str],
        parameters: Parameters | None = None,
        purpose: str = "",
        project: str = "",
        job_id: str | None = None,
    ) -> Job:
        """See `AsyncJobs.submit`."""
        submitting = self._jobs.submit(
            code,
            entrypoint=entrypoint,
            datasets=datasets,
            parameters=parameters,
            purpose=purpose,
            project=project,
            job_id=job_id,
        )
        return Job(self._portal, self._portal.run(submitting))

    def run_mock(
        self,
        code: Path | str,
        entrypoint: str | None = None,
        *,
        dataset: Dataset | str,
        parameters: Parameters | None = None,
        output: Path | str | None = None,
    ) -> MockRun:
        """See `AsyncJobs.run_mock`."""
        chosen = dataset if isinstance(dataset, str) else dataset.inner
        return self._portal.run(
            self._jobs.run_mock(code, entrypoint, dataset=chosen, parameters=parameters, output=output)
        )

    def get(self, job_id: str, site: str | None = None) -> Job:
        """See `AsyncJobs.get`."""
        return Job(self._portal, self._portal.run(self._jobs.get(job_id, site)))

    def list(self, site: str | None = None) -> list[Job]:
        """See `AsyncJobs.list`."""
        return [Job(self._portal, job) for job in self._portal.run(self._jobs.list(site))]
