"""One run on the cluster, from the order to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Executor as Threads
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import structlog
from syftmesh_core.errors import MeshError, Unavailable

from syftmesh_executor.kubernetes.api import Api
from syftmesh_executor.kubernetes.event import job_event
from syftmesh_executor.kubernetes.evidence import (
    Judgement,
    job_image_id,
    judge_pod,
    judge_report,
    not_started,
    start_problem,
    takes_no_session,
)
from syftmesh_executor.kubernetes.manifest import CARRIER, PYTHON, job_manifest
from syftmesh_executor.kubernetes.session import Ended, Pipes, Session, SessionFault
from syftmesh_executor.kubernetes.setting import ClusterSettings
from syftmesh_executor.kubernetes.stream import ExecStream, StreamBroken
from syftmesh_executor.port import EndReason, RunSpec

POLL_S: Final = 0.04
FIRST_TRY_S: Final = 0.25
"""No node brings a container up in less; each try costs API server and node more than it can win here."""
TRY_S: Final = 0.08
STATUS_S: Final = 1.0
LAST_WORDS_S: Final = 3.0
"""How long a container that ended may take to bring its report over."""
LOST_S: Final = 120.0
"""How long a pod whose node does not answer may stay away."""
GUARD_S: Final = 60.0

T = TypeVar("T")
_log: Any = structlog.get_logger("syftmesh.executor.kubernetes")


def carrier_command(verb: str) -> list[str]:
    """Return the command that does `verb` in the carrier."""
    return [PYTHON, "-E", "-s", "-S", "-m", "pod.carrier", verb]


@dataclass(slots=True)
class ClusterRun:
    """One run.

    Attributes:
        api: The cluster.
        settings: What the executor is told.
        threads: Where calls that block happen.
        spec: The run.
        order: What the launcher is told.
        image_id: Digest that the image must have, hex; empty to take any.
        job: The Job, once it is there.
        is_adopted: Whether the Job was there before this process.
        learns_image: Whether to wait until the cluster tells which image ran.
        pod: The pod as seen last.
        staged: Set once the code may be running.
    """

    api: Api
    settings: ClusterSettings
    threads: Threads
    spec: RunSpec
    order: Mapping[str, Any]
    image_id: str
    job: dict[str, Any] | None = None
    learns_image: bool = False
    is_adopted: bool = False
    pod: dict[str, Any] | None = None
    staged: asyncio.Event = field(default_factory=asyncio.Event)
    _stream: ExecStream | None = None
    _pipes: Pipes | None = None
    _feeding: asyncio.Future[None] | None = None

    async def to_end(self) -> tuple[Judgement, Ended]:
        """Make the Job unless it is there, and return how it ended and what came out.

        Raises:
            Unavailable: JOB_NOT_STARTED, or the cluster does not do what is asked of it.
            AlreadyExists: RUN_EXISTS.
            InvalidInput: RUN_SPEC_INVALID: it cannot be staged.
        """
        if self.job is None:
            await self._create()
        try:
            if self.spec.channel is not None:
                self._pipes = Pipes(self.spec)
            return await self._through_sessions()
        finally:
            await self._end_pipes()

    @property
    def seen_image_id(self) -> str:
        """Digest of the image that the pod was seen to run, hex; empty when that was not told."""
        return job_image_id(self.pod or {})

    async def ask_to_end(self) -> None:
        """Ask the launcher to end the job, politely first; the report follows as ever."""
        if self.pod is None:
            return
        name = self.pod["metadata"]["name"]

        def ask() -> None:
            stream = self.api.execute(name, CARRIER, carrier_command("cancel"))
            try:
                stream.wait()
            finally:
                stream.close()

        with suppress(MeshError, StreamBroken):
            await self.call(ask)

    def let_go(self) -> None:
        """End the connection; the pod goes on."""
        if self._pipes is not None:
            self._pipes.stop()
        if self._stream is not None:
            self._stream.close()

    async def delete(self, *, wait_s: float = 0.0) -> None:
        """Delete the Job with its pod, and wait until the pod is gone, as long as that is allowed to take."""
        if self.job is None:
            return
        name = self.job["metadata"]["name"]
        await self.call(lambda: self.api.delete_job(name))
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + wait_s
        while loop.time() < ends_s:
            if not await self._look():
                return
            await asyncio.sleep(0.1)

    async def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell people with kubectl; a cluster that refuses events is no reason to fail."""
        if self.job is None:
            return
        event = job_event(self.job, reason, message, warning=warning)
        try:
            await self.call(lambda: self.api.create_event(event))
        except MeshError as error:
            _log.info("event.refused", reason=error.reason)

    async def call(self, work: Callable[[], T]) -> T:
        """Do something that blocks in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, work)

    async def _create(self) -> None:
        """Make the Job; one that is made while this is cancelled is known, so that it can be deleted."""
        manifest = job_manifest(self.settings, self.spec, self.image_id)
        making = asyncio.ensure_future(self.call(lambda: self.api.create_job(manifest)))
        try:
            self.job = await asyncio.shield(making)
        except asyncio.CancelledError:
            await asyncio.wait({making})
            if making.exception() is None:
                self.job = making.result()
            raise

    async def _through_sessions(self) -> tuple[Judgement, Ended]:
        """Hold a session until one brings the end; a new one goes on where a connection broke."""
        while True:
            stream = await self._connect()
            if isinstance(stream, Judgement):
                return stream, Ended()
            self._stream = stream
            try:
                ended = await self._follow(stream)
            except StreamBroken:
                if self.staged.is_set() and self.spec.channel is not None:
                    detail = "the connection to the pod broke, and with it its pipes"
                    return Judgement(EndReason.RUNNER_LOST, detail=detail), Ended()
                continue
            except SessionFault as error:
                reason = EndReason.RUNNER_LOST if self.staged.is_set() else EndReason.ISOLATION_FAILED
                return Judgement(reason, detail=f"the pod cannot go on: {error}"), Ended()
            finally:
                stream.close()
            if isinstance(ended, Judgement):
                return ended, Ended()
            judgement = judge_report(ended)
            return await self._check_image(judgement), ended

    async def _connect(self) -> ExecStream | Judgement:
        """Return the streams of a new session once the carrier takes one, or why there is no pod any more."""
        loop = asyncio.get_running_loop()
        began_s, look_s = loop.time(), 0.0
        away_s, try_s, bound_s = began_s, 0.0, 0.0
        while True:
            now_s = loop.time()
            if now_s >= look_s:
                try:
                    await self._look()
                except Unavailable as error:
                    if error.reason != "CLUSTER_UNREACHABLE" or not self.staged.is_set():
                        raise
                    # Not its pod is away but everything: that tells nothing about the run.
                    away_s = now_s
                look_s = now_s + (STATUS_S if self._is_bound() else POLL_S)
                expected = self.pod is not None or self.staged.is_set() or self.is_adopted
                verdict = judge_pod(self.pod) if expected and takes_no_session(self.pod) else None
                if verdict is not None:
                    return verdict
            if self._is_bound() and now_s >= try_s:
                bound_s = bound_s or now_s
                try_s = now_s + TRY_S
                if self.staged.is_set() or now_s >= bound_s + FIRST_TRY_S:
                    with suppress(_NotReady):
                        return await self._try_connect()
            if self.staged.is_set():
                if now_s - away_s > LOST_S:
                    return Judgement(EndReason.RUNNER_LOST, detail="the pod's node does not answer")
            elif now_s - began_s > 2.0:
                await self._check_start(given_up=now_s - began_s > self.settings.start_s)
            await asyncio.sleep(POLL_S)

    async def _try_connect(self) -> ExecStream:
        assert self.pod is not None  # noqa: S101 - `_is_bound` says so
        name = self.pod["metadata"]["name"]
        try:
            return await self.call(lambda: self.api.execute(name, CARRIER, carrier_command("session")))
        except Unavailable as error:
            if error.reason == "POD_NOT_READY" or self.staged.is_set():
                raise _NotReady from error
            raise

    async def _check_start(self, *, given_up: bool) -> None:
        """Raise when waiting for the pod to start is of no use, or has been long enough."""
        names = [found["metadata"]["name"] for found in (self.job, self.pod) if found]
        events: list[dict[str, Any]] = []
        try:
            for name in names:
                events += await self.call(lambda name=name: self.api.events_of(name))  # type: ignore[misc]
        except Unavailable as error:
            # Events only explain; a runner that may not read them says less.
            _log.info("event.unreadable", reason=error.reason)
        problem, hopeless = start_problem(self.pod, events)
        if hopeless or given_up:
            raise not_started(problem)
        await asyncio.sleep(0.5 if problem else 0.0)

    def _is_bound(self) -> bool:
        return bool(self.pod and self.pod.get("spec", {}).get("nodeName"))

    async def _look(self) -> bool:
        """Look at the pod; return whether there is one."""
        assert self.job is not None  # noqa: S101 - made or found before anything is looked at
        uid = self.job["metadata"]["uid"]
        pods = await self.call(lambda: self.api.pods_of(uid))
        self.pod = pods[0] if pods else None
        return bool(pods)

    async def _follow(self, stream: ExecStream) -> Ended | Judgement:
        """Follow a session; a pod that ends without a word ends it too."""
        loop = asyncio.get_running_loop()

        def on_go() -> None:
            loop.call_soon_threadsafe(self._started)

        session = Session(self.spec, self.order, stream, self._pipes, on_go, may_stage=not self.is_adopted)
        following = asyncio.ensure_future(self.call(session.follow))
        watching = asyncio.ensure_future(self._watch())
        try:
            await asyncio.wait({following, watching}, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                return following.result()
            return watching.result()
        finally:
            watching.cancel()
            stream.close()
            if self._pipes is not None and not following.done():
                self._pipes.stop()
            await asyncio.wait({following, watching})
            if not following.cancelled():
                following.exception()

    def _started(self) -> None:
        if self.staged.is_set():
            return
        self.staged.set()
        if self._pipes is not None:
            self._feeding = asyncio.ensure_future(self._feed(self._pipes))

    async def _feed(self, pipes: Pipes) -> None:
        """Carry what our side writes, over a connection of its own: two threads must not share one TLS session."""
        assert self.pod is not None  # noqa: S101 - the session runs in it
        name = self.pod["metadata"]["name"]

        def work() -> None:
            stream = self.api.execute(name, CARRIER, carrier_command("feed"))
            try:
                pipes.feed(stream)
            finally:
                stream.close()

        try:
            await self.call(work)
        except MeshError as error:
            _log.warning("channel.not_fed", reason=error.reason)
            self.let_go()

    async def _watch(self) -> Judgement:
        """Return why the run is over where the session will not say it."""
        loop = asyncio.get_running_loop()
        ended_s = 0.0
        while True:
            await asyncio.sleep(STATUS_S)
            with suppress(Unavailable):
                await self._look()
            verdict = judge_pod(self.pod)
            if verdict is None:
                ended_s = 0.0
            elif not ended_s:
                ended_s = loop.time() + LAST_WORDS_S
            elif loop.time() > ended_s:
                return verdict

    async def _check_image(self, judgement: Judgement) -> Judgement:
        """Refuse what another image than the expected one did."""
        if not (self.image_id or self.learns_image):
            return judgement
        for _ in range(50):
            if self.pod is not None and job_image_id(self.pod):
                break
            await asyncio.sleep(0.1)
            with suppress(Unavailable):
                await self._look()
        found = job_image_id(self.pod or {})
        if found == self.image_id or (found and not self.image_id):
            return judgement
        detail = "the image that ran is not the one that was approved" if found else "the image is not known"
        return Judgement(EndReason.ISOLATION_FAILED, judgement.exit_code, detail=detail)

    async def _end_pipes(self) -> None:
        if self._pipes is None:
            return
        self._pipes.stop()
        if self._feeding is not None:
            await asyncio.wait({self._feeding})
        self._pipes.close()


class _NotReady(Exception):
    """The carrier takes no session yet."""
