"""Jobs as their submitter sees them: submitted, waited for, opened."""

from __future__ import annotations

import asyncio
import html
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf import json_format
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.files import ChangeKind
from syftmesh_client.node import Node
from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, NotFound, Unavailable
from syftmesh_core.job import JobState
from syftmesh_core.layout import RESULTS_FOLDER
from syftmesh_core.quote import quoted

from syftmesh.folder import write_files
from syftmesh.table import dataframe, one_of

if TYPE_CHECKING:
    import pandas as pd

STATUS_FILE: Final = "status.json"
ASK_S: Final = 2.0
"""How long a site that may be offline is asked, in seconds."""

SETTLED: Final = frozenset(
    {
        JobState.RELEASED,
        JobState.WITHHELD,
        JobState.CANCELLED,
        JobState.REJECTED,
        JobState.EXPIRED,
        JobState.WITHDRAWN,
    }
)
"""States at which waiting ends."""

_MAX_STATUS_BYTES: Final = 1 << 20
_PREFIX: Final = "JOB_STATE_"


class AsyncResults:
    """What the owner released of a job."""

    def __init__(self, node: Node, base: str) -> None:
        self._node = node
        self._base = base

    async def files(self) -> list[str]:
        """Return the names of the released files; none before the release."""
        found = await self._node.files.list(self._base)
        names = [view.path.removeprefix(f"{self._base}/") for view in found if not view.unverified]
        return [name for name in names if name != STATUS_FILE]

    async def read(self, name: str) -> bytes:
        """Return the bytes of a file.

        Raises:
            NotFound: FILE_MISSING.
            MeshError: As `FileClient.read`.
        """
        return (await self._node.files.read(f"{self._base}/{name}")).data

    async def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Return a file as a table; the only one when no name is given; raises as `table.dataframe`."""
        chosen = name if name is not None else one_of(await self.files(), None)
        return await asyncio.to_thread(dataframe, chosen, await self.read(chosen))

    async def download(self, folder: Path | str) -> Path:
        """Write all files below `folder` and return it; raises as `folder.write_files` and `read`."""
        files = {name: await self.read(name) for name in await self.files()}
        return await asyncio.to_thread(write_files, Path(folder), files)


class AsyncJob:
    """A job that was submitted to a site.

    Attributes:
        id: Its id, a UUIDv7.
        site: E-mail of the site's owner.
        results: What was released.
    """

    def __init__(self, node: Node, job_id: str, site: str, status: rds_pb2.JobStatus) -> None:
        self._node = node
        self._base = f"{site}/{RESULTS_FOLDER}/{node.principal}/{job_id}"
        self._status = checked(status, job_id)
        self.id = job_id
        self.site = site
        self.results = AsyncResults(node, self._base)

    @property
    def state(self) -> JobState:
        """Where it was when it was looked at last."""
        return state_of(self._status)

    @property
    def end_reason(self) -> str:
        """Why it is over, a constant such as TIMEOUT; empty while there is none."""
        return self._status.end_reason

    @property
    def message(self) -> str:
        """The state in the site's words."""
        return self._status.message

    @property
    def released(self) -> tuple[str, ...]:
        """Names of released files."""
        return tuple(self._status.released)

    @property
    def is_settled(self) -> bool:
        """Whether nothing follows that its submitter would wait for."""
        return self.state in SETTLED

    async def refresh(self) -> AsyncJob:
        """Look again: at what the site wrote, and where that is no end, ask the site while it is online.

        Raises:
            NotFound: The site does not know it (JOB_UNKNOWN).
            IntegrityFailure: The status does not hold (STATUS_INVALID).
            Unavailable: The hub does not answer.
        """
        written = await read_status(self._node, self._base, self.id)
        if written is not None:
            self._status = written
            if self.is_settled:
                return self
        try:
            self._status = await ask(self._node, self.site, "status", self.id)
        except (DeadlineExceeded, Unavailable):
            return self  # offline: what it wrote last stands
        except NotFound as error:
            # A submission that still waits in the router is not known at the site.
            if error.reason != "JOB_UNKNOWN" or self.state != JobState.SUBMITTED:
                raise
        return self

    async def wait(self, timeout_s: float | None = None) -> AsyncJob:
        """Return when the job is released, withheld or over, woken by the site's change; nothing polls.

        Args:
            timeout_s: Longest wait in seconds; None: without end.

        Raises:
            DeadlineExceeded: JOB_NOT_SETTLED.
            MeshError: As `refresh`.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self.refresh()
                if not self.is_settled:
                    await self._follow()
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The job {self.id} is {self.state} after {timeout_s:g} s.",
                reason="JOB_NOT_SETTLED",
                metadata={"job_id": self.id, "state": str(self.state)},
                hint=f"syftmesh job show {self.id}",
            ) from error
        return self

    async def cancel(self) -> AsyncJob:
        """Take the job back: withdrawn before it runs, cancelled while it runs.

        Raises:
            WrongState: It is over (WRONG_STATE).
            NotFound: JOB_UNKNOWN.
            DeadlineExceeded: The site is offline (CALL_EXPIRED); nothing was changed.
        """
        self._status = await ask(self._node, self.site, "withdraw", self.id, timeout_s=15.0)
        return self

    async def _follow(self) -> None:
        status_path = f"{self._base}/{STATUS_FILE}"
        async for change in self._node.files.watch([self._base]):
            if change.kind is ChangeKind.UPDATED and change.path == status_path:
                found = await read_status(self._node, self._base, self.id)
                if found is not None:
                    self._status = found
                if self.is_settled:
                    return

    def __repr__(self) -> str:
        return f"<Job {self.id} at {self.site}: {self.state}>"

    def _repr_html_(self) -> str:
        return html.escape(repr(self))


async def ask(
    node: Node, site: str, endpoint: str, job_id: str, *, timeout_s: float = ASK_S
) -> rds_pb2.JobStatus:
    """Call an endpoint of a site's app `rds` that takes a job's id.

    Raises:
        MeshError: As `CallClient.call`; IntegrityFailure (STATUS_INVALID).
    """
    body = rds_pb2.JobReference(job_id=job_id).SerializeToString()
    url = f"syft://{site}/app_data/rds/rpc/{endpoint}"
    reply = await node.calls.call(url, RequestContent(body=body), timeout_s=timeout_s)
    return parse_status(reply.body, job_id)


async def read_status(node: Node, base: str, job_id: str) -> rds_pb2.JobStatus | None:
    """Return what the site wrote of a job last, None before it wrote anything.

    Raises:
        IntegrityFailure: STATUS_INVALID, or as `FileClient.read`.
    """
    try:
        data = (await node.files.read(f"{base}/{STATUS_FILE}")).data
    except NotFound:
        return None
    try:
        if len(data) > _MAX_STATUS_BYTES:
            raise ValueError
        return checked(json_format.Parse(data, rds_pb2.JobStatus()), job_id)
    except (json_format.ParseError, ValueError) as error:
        raise _invalid(job_id) from error


def parse_status(data: bytes, job_id: str) -> rds_pb2.JobStatus:
    """Return the status that a site answered with.

    Raises:
        IntegrityFailure: STATUS_INVALID.
    """
    try:
        return checked(rds_pb2.JobStatus.FromString(data), job_id)
    except ValueError as error:  # DecodeError is one
        raise _invalid(job_id) from error


def checked(status: rds_pb2.JobStatus, job_id: str) -> rds_pb2.JobStatus:
    """Return `status` when it is of `job_id` and its state is a known one.

    Raises:
        IntegrityFailure: STATUS_INVALID.
    """
    if status.job_id != job_id or status.state not in rds_pb2.JobState.values()[1:]:
        raise _invalid(job_id)
    return status


def state_of(status: rds_pb2.JobStatus) -> JobState:
    """Return the state of a checked status."""
    return JobState(rds_pb2.JobState.Name(status.state).removeprefix(_PREFIX).lower())


def _invalid(job_id: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"What the site says of the job {quoted(job_id)} is damaged.",
        reason="STATUS_INVALID",
        metadata={"job_id": quoted(job_id)},
    )
