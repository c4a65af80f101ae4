"""Submitting jobs and finding them again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.node import Node
from syftmesh_core.clock import uuid7
from syftmesh_core.enc import canonical_json
from syftmesh_core.errors import DeadlineExceeded, InvalidInput, LimitExceeded, NotFound
from syftmesh_core.layout import RESULTS_FOLDER
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted
from syftmesh_executor.archive import pack_code

from syftmesh.dataset import AsyncDataset, AsyncDatasets, DatasetCard, resolved
from syftmesh.job import STATUS_FILE, AsyncJob, ask, parse_status, read_status
from syftmesh.mock_run import MockRun, run_on_mock
from syftmesh.submission import Submission, SubmissionLog

DEFAULT_ENTRYPOINT: Final = "main.py"
MAX_CODE_BYTES: Final = 250_000
"""Of packed code: a call carries 256 KiB, and the seal needs some of it."""

_ANSWER_S: Final = 3.0
_WAITS_S: Final = 14 * 86_400.0

Parameters = Mapping[str, Any]


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
        *,
        entrypoint: str | None = None,
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
            purpose: What for.
            project: Label that budgets and audit group by.
            job_id: A UUIDv7 of one's own, with which asking again is the same job.

        Raises:
            InvalidInput: ARCHIVE_INVALID, ENTRYPOINT_MISSING, ENCODING_INVALID, DATASET_MISSING, ...
            LimitExceeded: CODE_TOO_LARGE.
            MeshError: What the site finds wrong, when it is online.
        """
        archive, script = await asyncio.to_thread(_packed, Path(code), entrypoint)
        cards = await resolved(self._datasets, datasets)
        node, site = self._node, cards[0].site
        chosen = job_id or uuid7(node.clock, node.random)
        message = rds_pb2.JobSubmission(
            job_id=chosen,
            datasets=[rds_pb2.DatasetVersion(name=c.name, digest=c.private_digest) for c in cards],
            code_archive=archive,
            entrypoint=script,
            parameters_json=canonical_json(dict(parameters or {})).decode(),
            purpose=purpose,
            project=project,
        )
        now_ms = node.clock.now_ms()
        await asyncio.to_thread(self._log.add, Submission(chosen, site, now_ms))
        request = RequestContent(body=message.SerializeToString())
        call_id = await node.calls.send(f"syft://{site}/app_data/rds/rpc/submit", request, expires_s=_WAITS_S)
        try:
            reply = await node.calls.wait(call_id, _ANSWER_S)
        except DeadlineExceeded:
            return AsyncJob(node, chosen, site, _submitted(chosen))
        return AsyncJob(node, chosen, site, parse_status(reply.body, chosen))

    async def run_mock(
        self,
        code: Path | str,
        *,
        dataset: AsyncDataset | str,
        entrypoint: str | None = None,
        parameters: Parameters | None = None,
    ) -> MockRun:
        """Run the same code, unchanged, on the mock of a dataset, on this machine.

        Raises:
            MeshError: As `submit` and `run_on_mock`.
        """
        archive, script = await asyncio.to_thread(_packed, Path(code), entrypoint)
        found = await self._datasets.get(dataset) if isinstance(dataset, str) else dataset
        clock, random = self._node.clock, self._node.random
        return await run_on_mock(archive, script, found, parameters or {}, clock=clock, random=random)

    async def get(self, job_id: str, site: str | None = None) -> AsyncJob:
        """Return a job that was submitted.

        Args:
            job_id: Its id.
            site: The site it went to; needed when it was submitted from another profile.

        Raises:
            NotFound: JOB_UNKNOWN.
            MeshError: As `AsyncJob.refresh`.
        """
        remembered = await asyncio.to_thread(self._log.find, job_id)
        where = normalise_principal(site) if site is not None else remembered
        if where is None:
            raise _unknown(job_id)
        written = await read_status(self._node, self._base(where, job_id), job_id)
        if written is None and remembered is None:
            return AsyncJob(self._node, job_id, where, await ask(self._node, where, "status", job_id))
        return await AsyncJob(self._node, job_id, where, written or _submitted(job_id)).refresh()

    async def list(self, site: str | None = None) -> list[AsyncJob]:
        """Return the jobs submitted from this profile and those that sites wrote of, newest first.

        Args:
            site: Of this site only.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            MeshError: As `AsyncJob.refresh`, for a status that does not hold.
        """
        wanted = None if site is None else normalise_principal(site)
        submissions = await asyncio.to_thread(self._log.list)
        places = {s.job_id: s.site for s in submissions if wanted in (None, s.site)}
        sites = {wanted} if wanted is not None else set(self._node.keystore.pinned_roots)
        for owner in sorted(sites):
            base = f"{owner}/{RESULTS_FOLDER}/{self._node.principal}"
            for view in await self._node.files.list(base):
                job_id, _, rest = view.path.removeprefix(f"{base}/").partition("/")
                if rest == STATUS_FILE:
                    places.setdefault(job_id, owner)
        return [await self._written(job_id, places[job_id]) for job_id in sorted(places, reverse=True)]

    async def _written(self, job_id: str, site: str) -> AsyncJob:
        written = await read_status(self._node, self._base(site, job_id), job_id)
        return AsyncJob(self._node, job_id, site, written or _submitted(job_id))

    def _base(self, site: str, job_id: str) -> str:
        return f"{site}/{RESULTS_FOLDER}/{self._node.principal}/{job_id}"


def _packed(code: Path, entrypoint: str | None) -> tuple[bytes, str]:
    script = entrypoint or (code.name if code.is_file() else DEFAULT_ENTRYPOINT)
    if code.is_dir() and not (code / script).is_file():
        raise InvalidInput(
            f"There is no file {quoted(script)} in the folder of the code.",
            reason="ENTRYPOINT_MISSING",
            metadata={"entrypoint": quoted(script)},
            hint="Name the script with entrypoint.",
        )
    if code.is_file() and script != code.name:
        raise InvalidInput(
            f"The code is the one file {quoted(code.name)}, and {quoted(script)} is not in it.",
            reason="ENTRYPOINT_MISSING",
            metadata={"entrypoint": quoted(script)},
        )
    archive = pack_code(code)
    if len(archive) > MAX_CODE_BYTES:
        raise LimitExceeded(
            f"The packed code has {len(archive)} bytes; {MAX_CODE_BYTES} can be sent now.",
            reason="CODE_TOO_LARGE",
            metadata={"size_bytes": str(len(archive)), "limit_bytes": str(MAX_CODE_BYTES)},
            hint="Leave out data and environments: a job gets its data from the site.",
        )
    return archive, script


def _submitted(job_id: str) -> rds_pb2.JobStatus:
    return rds_pb2.JobStatus(
        job_id=job_id, state=rds_pb2.JOB_STATE_SUBMITTED, message="Waits for the site to be online."
    )


def _unknown(job_id: str) -> NotFound:
    return NotFound(
        f"There is no job {quoted(job_id)} that was submitted from this profile.",
        reason="JOB_UNKNOWN",
        metadata={"job_id": quoted(job_id)},
        hint="syftmesh job ls",
    )
