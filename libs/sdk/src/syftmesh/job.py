"""Jobs as their submitter sees them: submitted, waited for, opened."""

from __future__ import annotations

import asyncio
import html
from typing import Final

from syftmesh_client.files import ChangeKind
from syftmesh_client.node import Node
from syftmesh_core.errors import DeadlineExceeded, MeshError, NotFound, Unavailable
from syftmesh_core.job import SETTLED, JobState

from syftmesh.job_status import STATUS_FILE, SUBMITTED, JobStatus, arrival, ask, read_status, results_folder
from syftmesh.result import AsyncResults
from syftmesh.submission import Submission

_WITHDRAW_S: Final = 15.0
_ANSWER_S: Final = 3600.0
_PAUSE_S: Final = 1.0


class AsyncJob:
    """A job that was submitted to a site.

    Attributes:
        id: Its id, a UUIDv7.
        site: E-mail of the site's owner.
        results: What was released.
    """

    def __init__(self, node: Node, submission: Submission, status: JobStatus = SUBMITTED) -> None:
        self._node = node
        self._submission = submission
        self._status = status
        self._folder = results_folder(submission.site, node.principal, submission.id)
        self.id = submission.id
        self.site = submission.site
        self.results = AsyncResults(node, self._folder)

    @property
    def state(self) -> JobState:
        """Where it was when it was looked at last."""
        return self._status.state

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
        return self._status.released

    @property
    def is_settled(self) -> bool:
        """Whether nothing follows that its submitter would wait for."""
        return self.state in SETTLED

    @property
    def is_unseen(self) -> bool:
        """Whether nothing was seen of it yet, neither at the hub nor of its site."""
        return self._status is SUBMITTED

    async def look(self) -> AsyncJob:
        """Look at what the hub has of it: what the site wrote, else what became of the submission.

        Raises:
            IntegrityFailure: The status does not hold (STATUS_INVALID).
            Unavailable: The hub does not answer.
        """
        written = await read_status(self._node, self.site, self.id)
        if written is None and self._submission.call_id:
            written = await arrival(self._node, self._submission)
        if written is not None:
            self._status = written
        return self

    async def refresh(self) -> AsyncJob:
        """Look again, and where that shows no end, ask the site while it is online.

        Raises:
            NotFound: The site does not know it (JOB_UNKNOWN).
            MeshError: As `look`.
        """
        await self.look()
        if self.is_settled or (self.state is JobState.SUBMITTED and self._submission.call_id):
            return self
        try:
            self._status = await ask(self._node, self.site, "status", self.id)
        except (DeadlineExceeded, Unavailable):
            return self  # offline: what it wrote last stands
        except NotFound as error:
            # A submission that still waits in the router is not known at the site.
            if error.reason != "JOB_UNKNOWN" or self.state is not JobState.SUBMITTED:
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
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                await self.refresh()
                if not self.is_settled:
                    await self._follow()
        except TimeoutError as error:
            if not limit.expired():
                raise
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
        self._status = await ask(self._node, self.site, "withdraw", self.id, timeout_s=_WITHDRAW_S)
        return self

    async def _follow(self) -> None:
        """Follow the site's file and, while the submission is on its way, the answer to it."""
        tasks = {asyncio.create_task(self._watch())}
        if self.state is JobState.SUBMITTED and self._submission.call_id:
            tasks.add(asyncio.create_task(self._await_answer()))
        waiting = set(tasks)
        try:
            while waiting and not self.is_settled:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self) -> None:
        path = f"{self._folder}/{STATUS_FILE}"
        async for change in self._node.files.watch([self._folder]):
            if change.kind is ChangeKind.UPDATED and change.path == path:
                self._status = await self._read_steadily() or self._status
                if self.is_settled:
                    return

    async def _read_steadily(self) -> JobStatus | None:
        # The feed tells of a change once: a hub that goes away right then must not make it missed.
        while True:
            try:
                return await read_status(self._node, self.site, self.id)
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)

    async def _await_answer(self) -> None:
        while True:
            try:
                await self._node.calls.wait(self._submission.call_id, _ANSWER_S, site=self.site)
            except Unavailable:
                await asyncio.sleep(_PAUSE_S)  # the hub may be away
            except MeshError:
                pass  # a refusal, or no answer yet: looking tells which
            answered = await self._answer()
            # The file may have told of later states already.
            if answered is not None and self.state is JobState.SUBMITTED:
                self._status = answered
            if answered is not None:
                return

    async def _answer(self) -> JobStatus | None:
        try:
            found = await arrival(self._node, self._submission)
        except Unavailable:
            return None
        return None if found is SUBMITTED else found

    def __repr__(self) -> str:
        return f"<Job {self.id} at {self.site}: {self.state}>"

    def _repr_html_(self) -> str:
        # All but the state is a stranger's text.
        rows = {
            "job": self.id,
            "site": self.site,
            "state": str(self.state),
            "reason": self.end_reason,
            "message": self.message,
            "released": ", ".join(self.released),
        }
        cells = (
            f"<tr><th>{name}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items() if value
        )
        return f"<table>{''.join(cells)}</table>"
