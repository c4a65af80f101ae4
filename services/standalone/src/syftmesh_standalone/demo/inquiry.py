"""A job's way from the scientist's wish to its end at the site, with a second try when its run was lost."""

from __future__ import annotations

from typing import Any, Final

from syftmesh_core.clock import uuid7
from syftmesh_core.errors import AlreadyExists, WrongState

from syftmesh_standalone.demo.opening import dataset
from syftmesh_standalone.demo.step import Checks, eventually
from syftmesh_standalone.demo.story import PROJECT, SCIENTIST, Inquiry, Story

REVIEW: Final = "in_review"
SUCCEEDED: Final = "succeeded"
_BEFORE_END: Final = frozenset({"approved", "queued", "running"})
_LOST: Final = frozenset({"RUNNER_LOST", "EXIT_NONZERO", "ISOLATION_FAILED"})
"""Ends of a run whose process was killed; the code is right, so asking once more is sensible."""
_RUN_S: Final = 60.0


async def submit(story: Story, inquiry: Inquiry) -> str:
    """Submit a job and return its id once it is in review at the site; again with the same id is the same job."""
    found = await dataset(story, inquiry.owner)

    async def send(client: Any) -> Any:
        try:
            return await client.jobs.submit(
                inquiry.code,
                datasets=[found],
                parameters=inquiry.parameters,
                purpose=inquiry.purpose,
                project=PROJECT,
                job_id=inquiry.job_id,
            )
        except AlreadyExists:
            return None

    await story.ask(SCIENTIST, send, within_s=45)
    await eventually(
        lambda: in_state(story, inquiry, lambda state: state != "submitted"),
        what="the job",
        also=("JOB_UNKNOWN",),
    )
    return inquiry.job_id


async def review(story: Story, inquiry: Inquiry) -> Any:
    """Return the job as its owner reviews it."""
    return await story.ask(inquiry.owner, lambda client: client.site.jobs.get(inquiry.job_id))


async def in_state(story: Story, inquiry: Inquiry, wanted: Any) -> Any:
    """Return the owner's view of the job when `wanted` says so of its state, else None."""
    job = await review(story, inquiry)
    return job if wanted(str(job.state)) else None


async def approve(story: Story, inquiry: Inquiry) -> None:
    """Let the owner sign the approval; an answer that was lost is no reason to fail."""

    async def sign(client: Any) -> None:
        try:
            await client.site.jobs.approve(inquiry.job_id)
        except WrongState:
            job = await client.site.jobs.get(inquiry.job_id)
            if str(job.state) == REVIEW:
                raise

    await story.ask(inquiry.owner, sign)


async def finish(story: Story, inquiry: Inquiry, checks: Checks, *, again: bool = True) -> Any:
    """Return the owner's view of the job once it succeeded.

    A run that was lost to a killed process is asked for once more, as a new job with the same code.

    Raises:
        WrongState: JOB_FAILED; metadata has the job's own reason.
    """
    job = await eventually(
        lambda: in_state(story, inquiry, lambda state: state not in _BEFORE_END),
        within_s=_RUN_S,
        what=f"the end of the run at {inquiry.owner}",
    )
    if str(job.state) == SUCCEEDED:
        return job
    end = str(job.end_reason)
    if again and end in _LOST:
        checks.note(f"the run at {inquiry.owner} was lost ({end}) and is asked for again")
        inquiry.job_id = uuid7(story.clock, story.random)
        return await run(story, inquiry, checks, again=False)
    raise WrongState(
        f"the job {inquiry.job_id} at {inquiry.owner} ended as {job.state}: {job.message or end}",
        reason="JOB_FAILED",
        metadata={"job_id": inquiry.job_id, "state": str(job.state), "end_reason": end},
    )


async def run(story: Story, inquiry: Inquiry, checks: Checks, *, again: bool = True) -> Any:
    """Submit a job, approve it and return it once it succeeded."""
    await submit(story, inquiry)
    await approve(story, inquiry)
    return await finish(story, inquiry, checks, again=again)


async def release(story: Story, inquiry: Inquiry, file: str) -> None:
    """Let the owner release one file of a job; an answer that was lost is no reason to fail."""

    async def let_go(client: Any) -> None:
        try:
            await client.site.jobs.release(inquiry.job_id, files=[file])
        except WrongState:
            job = await client.site.jobs.get(inquiry.job_id)
            if str(job.state) != "released":
                raise

    await story.ask(inquiry.owner, let_go)


async def result(story: Story, inquiry: Inquiry, file: str) -> Any:
    """Return a released table as the scientist opens it, waiting until it has left the site."""

    async def read(client: Any) -> Any:
        job = await client.jobs.get(inquiry.job_id, site=inquiry.owner)
        await job.wait(timeout_s=20)
        return await job.results.dataframe(file)

    return await story.ask(SCIENTIST, read, within_s=45, try_s=30)
