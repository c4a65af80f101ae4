"""Steps 6 and 7: the scientist asks both owners; each owner looks at exactly those bytes and signs them."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

from syftmesh_core.parallel import in_parallel
from syftmesh_executor.archive import code_digest, pack_code

from syftmesh_standalone.demo.inquiry import REVIEW, approve, finish, review, submit
from syftmesh_standalone.demo.step import Checks, steadily
from syftmesh_standalone.demo.story import OWNERS, PURPOSE, SCIENTIST, Inquiry, Story

MISMATCH: Final = "APPROVAL_MISMATCH"


async def submission(story: Story, checks: Checks) -> None:
    """Step 6: one submission per site, each with an id of its own."""
    inquiries = [story.inquiries[owner] for owner in OWNERS]
    await in_parallel([submit(story, inquiry) for inquiry in inquiries], at_once=2)
    for inquiry in inquiries:
        job = await story.ask(SCIENTIST, partial(_own_view, inquiry))
        checks.that(str(job.state) == REVIEW, f"{inquiry.owner} has job {inquiry.job_id} in review")
    waiting = await in_parallel([review(story, inquiry) for inquiry in inquiries], at_once=2)
    idle = all(job.exit_code is None and not job.outputs for job in waiting)
    checks.that(idle, "nothing has run: no owner has signed yet")


async def _own_view(inquiry: Inquiry, client: Any) -> Any:
    return await client.jobs.get(inquiry.job_id, site=inquiry.owner)


async def approval(story: Story, checks: Checks) -> None:
    """Step 7: review, a forged approval that is refused, the signature, the run."""
    for owner in OWNERS:
        await _look(story, story.inquiries[owner], checks)
    await _forgeries(story, story.inquiries[OWNERS[0]], checks)
    inquiries = [story.inquiries[owner] for owner in OWNERS]
    await in_parallel([approve(story, inquiry) for inquiry in inquiries], at_once=2)
    jobs = await in_parallel([finish(story, inquiry, checks) for inquiry in inquiries], at_once=2)
    for owner, job in zip(OWNERS, jobs, strict=True):
        names = ", ".join(str(output.name) for output in job.outputs)
        checks.that(str(job.state) == "succeeded", f"{owner} signed; the job ran there and left {names}")
        for line in await steadily(partial(story.venue.traces, owner, story.inquiries[owner].job_id)):
            checks.note(line)


async def _look(story: Story, inquiry: Inquiry, checks: Checks) -> None:
    job = await review(story, inquiry)
    files = await story.ask(inquiry.owner, lambda client: client.site.jobs.code(inquiry.job_id))
    ours = {inquiry.code.name: inquiry.code.read_bytes()}
    checks.that(dict(files) == ours, f"{inquiry.owner} reads the code, byte for byte as submitted")
    digest = code_digest(pack_code(inquiry.code))
    checks.that(job.code_digest == digest, f"its digest, computed anew, is {digest[:16]}...")
    rules = sorted({str(finding.rule) for finding in job.findings})
    checks.that(bool(rules), f"static review points at: {', '.join(rules)}")
    checks.that(job.purpose == PURPOSE, f"purpose: {job.purpose}")


async def _forgeries(story: Story, inquiry: Inquiry, checks: Checks) -> None:
    """Sign approvals of something else than what was submitted: each must be refused."""
    digest = str((await review(story, inquiry)).code_digest)
    forgeries: dict[str, dict[str, Any]] = {
        "another parameter": {"parameters": {"features": ["worst_area"]}},
        "one digit of the code's digest": {"code_digest": ("0" if digest[0] != "0" else "1") + digest[1:]},
    }
    for name, change in forgeries.items():
        reason = await steadily(partial(story.venue.forged, inquiry.owner, inquiry.job_id, change))
        checks.that(reason == MISMATCH, f"an approval with {name} is refused: {reason or 'it was taken'}")
    job = await review(story, inquiry)
    checks.that(str(job.state) == REVIEW, "the job still waits for an approval of its own bytes")
