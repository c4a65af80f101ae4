"""Steps 8 to 10: what a job cannot do, what may not leave, and what the scientist gets."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import Any, Final

from syftmesh_core.errors import IntegrityFailure, MeshError
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo.data import DIAGNOSIS, FEATURES, IDENTIFIER, agrees, pooled
from syftmesh_standalone.demo.inquiry import release, result, review, run
from syftmesh_standalone.demo.opening import CODE_FOLDER, SUMMARY_FILE
from syftmesh_standalone.demo.step import Checks, steadily
from syftmesh_standalone.demo.story import OWNERS, SCIENTIST, Inquiry, Story

ESCAPE_FILE: Final = "attempts.csv"
LEAK_FILE: Final = "extremes.csv"
REFUSED: Final = "RELEASE_REFUSED"
_WIDTH: Final = 96
_EVIDENCE: Final = "read the private rows"
_PROBE_S: Final = 60.0


async def isolation(story: Story, checks: Checks) -> None:
    """Step 8: the sandbox is attacked, by the site's own probe and by a job of the scientist."""
    reports = await in_parallel(
        [story.ask(owner, lambda c: c.site.probe(), within_s=_PROBE_S, try_s=_PROBE_S) for owner in OWNERS],
        at_once=2,
    )
    for owner, report in zip(OWNERS, reports, strict=True):
        failed = [check.name for check in report.checks if not check.passed]
        held = len(report.checks) - len(failed)
        checks.that(
            bool(report.passed) and held > 0 and not failed,
            f"{owner}: {held} of {len(report.checks)} attempts of the probe were stopped or seen as they should",
        )
    names = ", ".join(str(check.name) for check in reports[0].checks)
    for line in textwrap.wrap(names, _WIDTH):
        checks.note(line)
    await _escape(story, checks)


async def _escape(story: Story, checks: Checks) -> None:
    owner = OWNERS[0]
    inquiry = story.inquiry(
        owner, CODE_FOLDER / "escape.py", {"targets": _targets(story)}, "what a job can reach"
    )
    await run(story, inquiry, checks)
    for line in await steadily(partial(story.venue.traces, owner, inquiry.job_id)):
        checks.note(line)
    await release(story, inquiry, ESCAPE_FILE)
    frame = await result(story, inquiry, ESCAPE_FILE)
    seen = dict(zip(frame["attempt"], frame["outcome"], strict=True))
    rows = len(story.tables[owner].frame)
    checks.that(
        seen.pop(_EVIDENCE, "") == f"{rows} rows", f"a job of the scientist saw {rows} private rows, and"
    )
    checks.that(len(seen) > 0, f"tried {len(seen)} ways out:")
    for attempt, outcome in seen.items():
        checks.that(outcome != "OPEN", f"{attempt}: {outcome}")


def _targets(story: Story) -> dict[str, list[Any]]:
    return {name: [host, port] for name, (host, port) in story.venue.targets.items()}


async def gate(story: Story, checks: Checks) -> None:
    """Step 9: a job that carries rows out is stopped at the gate; the honest one is released by both owners."""
    owner = OWNERS[1]
    inquiry = story.inquiry(owner, CODE_FOLDER / "leak.py", {}, "extreme values")
    job = await run(story, inquiry, checks)
    findings = [finding for output in job.outputs if output.name == LEAK_FILE for finding in output.findings]
    rules = sorted({str(finding.rule) for finding in findings if str(finding.severity) == "block"})
    named = any(str(finding.cell) == IDENTIFIER for finding in findings)
    checks.that("PRIVATE_VALUE" in rules and named, f"the gate sees in {LEAK_FILE}: {', '.join(rules)}")
    reason = await _refusal(story, inquiry)
    checks.that(reason == REFUSED, f"releasing it is refused: {reason or 'it was released'}")
    await _withhold(story, inquiry)
    lost = await story.ask(SCIENTIST, lambda client: client.jobs.get(inquiry.job_id, site=owner))
    await lost.wait(timeout_s=20)
    checks.that(str(lost.state) == "withheld", f"{owner} withholds it, and the scientist is told so")
    checks.that(not list(await lost.results.files()), "the scientist has nothing of it")
    inquiries = [story.inquiries[name] for name in OWNERS]
    await in_parallel([release(story, honest, SUMMARY_FILE) for honest in inquiries], at_once=2)
    for honest in inquiries:
        done = await review(story, honest)
        left = [str(output.name) for output in done.outputs if output.released]
        checks.that(left == [SUMMARY_FILE], f"{honest.owner} releases {SUMMARY_FILE}, and nothing else")


async def _refusal(story: Story, inquiry: Inquiry) -> str:
    async def let_go(client: Any) -> str:
        try:
            await client.site.jobs.release(inquiry.job_id, files=[LEAK_FILE])
        except IntegrityFailure as error:
            return error.reason
        return ""

    return await story.ask(inquiry.owner, let_go)


async def _withhold(story: Story, inquiry: Inquiry) -> None:
    async def keep(client: Any) -> None:
        try:
            await client.site.jobs.withhold(inquiry.job_id, reason="rows of patients are no statistic")
        except MeshError:
            job = await client.site.jobs.get(inquiry.job_id)
            if str(job.state) != "withheld":
                raise

    await story.ask(inquiry.owner, keep)


async def answer(story: Story, checks: Checks) -> None:
    """Step 10: the scientist opens the tables, and they are what the private rows say."""
    for owner in OWNERS:
        frame = await result(story, story.inquiries[owner], SUMMARY_FILE)
        found = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
        expected = story.tables[owner].summary(FEATURES)
        checks.that(
            agrees(found, expected), f"{owner}: the table equals the statistic computed from the private rows"
        )
        story.answers[owner] = [_plain(row) for row in found]
    story.pooled = pooled(list(story.answers.values()), FEATURES)
    total = sum(row["n"] for row in story.pooled)
    checks.that(total == 569, f"together {total} records, pooled by the scientist from the two tables alone")


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if name == DIAGNOSIS else int(value) if name == "n" else float(value)
        for name, value in row.items()
    }
