"""Submitting jobs and finding them again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.node import Node
from syftmesh_core.clock import uuid7
from syftmesh_core.enc import canonical_json
from syftmesh_core.errors import (
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    Unavailable,
)
from syftmesh_core.layout import RESULTS_FOLDER
from syftmesh_core.parallel import in_parallel
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh.card import DatasetCard
from syftmesh.code import MAX_CODE_BYTES, code_too_large, packed
from syftmesh.dataset import AsyncDataset, AsyncDatasets, resolved
from syftmesh.job import AsyncJob
from syftmesh.job_status import STATUS_FILE, parse_status, results_folder
from syftmesh.mock_run import MockRun, run_on_mock
from syftmesh.submission import Submission, SubmissionLog

_ANSWER_S: Final = 3.0
"""How long a site that is online has to say what is wrong, in seconds."""
_WAITS_S: Final = 14 * 86_400.0
"""How long a submission waits for a site that is offline, in seconds."""
_AT_ONCE: Final = 8
_JOB_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)

Parameters = Mapping[str, Any]

_log: Any = structlog.get_logger("syftmesh.sdk")


class AsyncJobs:
    """The submitter's desk.

    Args:
        node: The submitter's device.
        datasets: Finds datasets that are named by text.
        log: What was submitted from here.
    """

    def __init__(self, node: Node, datasets: AsyncDatasets, log: SubmissionLog) -> None:
        self._node = node
        self._datasets = datasets
        self._log = log

    async def submit(
        self,
        code: Path | str,
        entrypoint: str | None = None,
        *,
        datasets: Sequence[DatasetCard | str],
        parameters: Parameters | None = None,
        purpose: str = "",
        project: str = "",
        job_id: str | None = None,
    ) -> AsyncJob:
        """Send code to the owner of datasets and return the job; an owner who is offline finds it later.

        Args:
            code: File or folder.
            entrypoint: Script inside a folder; ``main.py`` when not given.
            datasets: Datasets of one site, as objects or ``<site>/<name>``.
            parameters: JSON object for the code.
            purpose: What for; the reviewer reads it.
            project: Label that budgets and audit group by.
            job_id: A UUIDv7 of one's own, with which asking again is the same job.

        Raises:
            InvalidInput: JOB_INVALID, ARCHIVE_INVALID, ENTRYPOINT_MISSING, ENCODING_INVALID, ...
            NotFound: LOCAL_FILE_MISSING, DATASET_UNKNOWN.
            LimitExceeded: CODE_TOO_LARGE.
            MeshError: What the site finds wrong, when it is online.
        """
        if not purpose.strip():
            raise InvalidInput("A job says what it is for: give a purpose.", reason="JOB_INVALID")
        if job_id is not None and not _JOB_ID.fullmatch(job_id):
            raise InvalidInput("The id of a job is a UUIDv7 in lower case.", reason="JOB_INVALID")
        archive, script = await asyncio.to_thread(packed, Path(code), entrypoint)
        if len(archive) > MAX_CODE_BYTES:
            raise code_too_large(len(archive))
        cards = await resolved(self._datasets, datasets)
        message = rds_pb2.JobSubmission(
            job_id=job_id or uuid7(self._node.clock, self._node.random),
            datasets=[rds_pb2.DatasetVersion(name=c.name, digest=c.private_digest) for c in cards],
            code_archive=archive,
            entrypoint=script,
            parameters_json=canonical_json(dict(parameters or {})).decode(),
            purpose=purpose,
            project=project,
        )
        submission = await self._send(message, cards[0].site)
        return await self._answered(submission)

    async def run_mock(
        self,
        code: Path | str,
        entrypoint: str | None = None,
        *,
        dataset: AsyncDataset | str,
        parameters: Parameters | None = None,
        output: Path | str | None = None,
    ) -> MockRun:
        """Run the same code, unchanged, on the mock of a dataset, on this machine.

        Args:
            code: As `submit`.
            entrypoint: As `submit`.
            dataset: Whose mock.
            parameters: As `submit`.
            output: Folder for the files that it writes, beside returning them.

        Raises:
            MeshError: As `submit` and `run_on_mock`.
        """
        archive, script = await asyncio.to_thread(packed, Path(code), entrypoint)
        found = await self._datasets.get(dataset) if isinstance(dataset, str) else dataset
        clock, random = self._node.clock, self._node.random
        run = await run_on_mock(archive, script, found, parameters or {}, clock=clock, random=random)
        if output is not None:
            await asyncio.to_thread(run.write, Path(output))
        return run

    async def get(self, job_id: str, site: str | None = None) -> AsyncJob:
        """Return a job that was submitted.

        Args:
            job_id: Its id.
            site: The site it went to; without it the job is looked for among what was submitted from here, and
                at all sites known here.

        Raises:
            NotFound: JOB_UNKNOWN.
            MeshError: As `AsyncJob.refresh`.
        """
        submission = await asyncio.to_thread(self._log.find, job_id) if _JOB_ID.fullmatch(job_id) else None
        owner = None if site is None else normalise_principal(site)
        if submission is None or owner not in (None, submission.site):
            where = owner or await self._site_of(job_id)
            if where is None or not _JOB_ID.fullmatch(job_id):
                raise _unknown(job_id)
            return await self._foreign(Submission(job_id, where, 0))
        return await AsyncJob(self._node, submission).refresh()

    async def list(self, site: str | None = None) -> list[AsyncJob]:
        """Return the jobs submitted from this profile and those that sites wrote of, newest first.

        A job whose status does not hold is logged and left out: it must not hide the others.

        Args:
            site: Of this site only.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            Unavailable: The hub does not answer.
        """
        wanted = None if site is None else normalise_principal(site)
        submissions = await asyncio.to_thread(self._log.list)
        known = {found.id: found for found in submissions if wanted in (None, found.site)}
        sites = [wanted] if wanted is not None else sorted(self._node.keystore.pinned_roots)
        for page in await in_parallel([self._written_by(owner) for owner in sites], at_once=_AT_ONCE):
            for found in page:
                known.setdefault(found.id, found)
        ordered = [known[job_id] for job_id in sorted(known, reverse=True)]
        jobs = await in_parallel([self._looked_at(found) for found in ordered], at_once=_AT_ONCE)
        return [job for job in jobs if job is not None]

    async def _send(self, message: rds_pb2.JobSubmission, site: str) -> Submission:
        # Noted before it is sent: an id that a crash takes from its sender is found by `list`.
        submission = Submission(message.job_id, site, self._node.clock.now_ms())
        await asyncio.to_thread(self._log.add, submission)
        request = RequestContent(body=message.SerializeToString())
        url = f"syft://{site}/app_data/rds/rpc/submit"
        try:
            call_id = await self._node.calls.send(url, request, expires_s=_WAITS_S)
        except MeshError as error:
            if not isinstance(error, Unavailable | DeadlineExceeded):
                await asyncio.to_thread(self._log.forget, submission.id)
            if isinstance(error, LimitExceeded) and error.reason == "BODY_TOO_LARGE":
                raise code_too_large(message.ByteSize()) from error
            raise
        sent = Submission(submission.id, site, submission.created_ms, call_id)
        await asyncio.to_thread(self._log.add, sent)
        return sent

    async def _answered(self, sent: Submission) -> AsyncJob:
        try:
            reply = await self._node.calls.wait(sent.call_id, _ANSWER_S, site=sent.site)
            return AsyncJob(self._node, sent, parse_status(reply.body, sent.id))
        except (DeadlineExceeded, Unavailable) as error:
            if not await self._is_final(sent):
                return AsyncJob(self._node, sent)
            refusal: MeshError = error
        except MeshError as error:
            refusal = error
        await asyncio.to_thread(self._log.forget, sent.id)
        raise refusal

    async def _is_final(self, sent: Submission) -> bool:
        """Return whether the call is over; of a hub that is away nothing is known, and the call is stored there."""
        try:
            return (await self._node.calls.reply(sent.call_id, site=sent.site)).is_final
        except Unavailable:
            return False

    async def _foreign(self, submission: Submission) -> AsyncJob:
        """Return a job that was not submitted from here: only what its site says counts."""
        job = await AsyncJob(self._node, submission).refresh()
        if job.is_unseen:
            raise _unknown(submission.id)
        return job

    async def _site_of(self, job_id: str) -> str | None:
        if not _JOB_ID.fullmatch(job_id):
            return None
        sites = sorted(self._node.keystore.pinned_roots)
        paths = [f"{results_folder(site, self._node.principal, job_id)}/{STATUS_FILE}" for site in sites]
        found = await in_parallel([self._node.files.stat(path) for path in paths], at_once=_AT_ONCE)
        return next((site for site, view in zip(sites, found, strict=True) if view is not None), None)

    async def _written_by(self, site: str) -> Sequence[Submission]:
        base = f"{site}/{RESULTS_FOLDER}/{self._node.principal}"
        try:
            views = await self._node.files.list(base)
        except (IntegrityFailure, NotFound) as error:
            _log.warning("job.site_refused", site=site, reason=error.reason)
            return []
        places = [view.path.removeprefix(f"{base}/").partition("/") for view in views]
        return [
            Submission(job_id, site, 0)
            for job_id, _, rest in places
            if rest == STATUS_FILE and _JOB_ID.fullmatch(job_id)
        ]

    async def _looked_at(self, submission: Submission) -> AsyncJob | None:
        try:
            return await AsyncJob(self._node, submission).look()
        except (IntegrityFailure, NotFound) as error:
            _log.warning("job.status_refused", site=submission.site, reason=error.reason)
            return None


def _unknown(job_id: str) -> NotFound:
    return NotFound(
        f"There is no job {quoted(job_id)} of yours at a site that is known here.",
        reason="JOB_UNKNOWN",
        metadata={"job_id": quoted(job_id)},
        hint="syftmesh job ls",
    )
