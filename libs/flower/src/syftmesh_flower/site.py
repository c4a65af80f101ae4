"""The site's executor of Flower tasks: each is checked against the owner's approval, run, gated, sealed.

It takes the tasks of the site's own SuperNode, which runs in process isolation and never sees data, code or keys.
One process per run stays between its rounds. Whatever goes wrong is answered with a reason constant alone: what an
app raises or prints stays at the site.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import httpx
import structlog
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.serde import recorddict_to_proto
from flwr.proto.runtime_pb2 import AcquireTaskResponse, PullTaskInputResponse
from syftmesh_core.errors import MeshError
from syftmesh_executor.port import Executor, Limits, RunSpec

from syftmesh_flower.app_process import CLIENT_LAUNCHER, AppFailure, AppProcess, add_launchers
from syftmesh_flower.bundle import Bundle, extract_bundle, fused_config, read_bundle
from syftmesh_flower.envelope import (
    InnerHeader,
    open_message,
    pack_plain,
    parse_content,
    sealed_contents,
    sealed_parts,
    unreadable,
)
from syftmesh_flower.gate import Kind, check_update
from syftmesh_flower.grant import Approvals, Grant
from syftmesh_flower.heap import give_back
from syftmesh_flower.launch.syftmesh_channel import READY, REPLY, TASK
from syftmesh_flower.seal import TO_AGGREGATOR, TO_SITE, seal_content
from syftmesh_flower.transfer import Headers, RuntimeLink, executor_headers

SITE_ERROR_CODE: Final = 200
"""Code of every error reply of ours; the reason is the constant."""

_IDLE_S: Final = 0.15
_AWAY_S: Final = 0.5
_HEARTBEAT_S: Final = 15.0
_START_S: Final = 120.0
_KINDS: Final = ("train", "evaluate", "query")
_FRAME_SLACK_BYTES: Final = 1 << 20

_WORDS: Final[Mapping[bytes, str]] = {
    b"APP_NOT_LOADED": "APP_NOT_LOADED",
    b"APP_RAISED": "APP_RAISED",
    b"APP_ANSWERED_ERROR": "APP_ANSWERED_ERROR",
}
"""The launcher's words. The app may have written them itself, so only known ones go on."""

T = TypeVar("T")
_log: Any = structlog.get_logger("syftmesh.flower.site")


class SiteExecutor:
    """Executes the tasks of one site's SuperNode.

    Args:
        site: The owner, whose key opens what comes.
        approvals: The owner's decisions.
        executor: Isolates the apps.
        folder: Where code is unpacked; emptied at the start.
        limits: What one app process may use; its wall time is that of the whole run.
        identify: Gives a name for a process, unique at this executor.
    """

    def __init__(
        self,
        site: str,
        approvals: Approvals,
        executor: Executor,
        folder: Path,
        *,
        limits: Limits,
        identify: Callable[[], str],
    ) -> None:
        self._site = site
        self._approvals = approvals
        self._executor = executor
        self._folder = folder
        self._limits = limits
        self._identify = identify
        self._apps: dict[str, AppProcess] = {}
        self._sequences: dict[str, int] = {}
        self._current: tuple[str, asyncio.Task[Any]] | None = None
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="flower-site")

    async def serve(self, port: int, secret: bytes) -> None:
        """Take tasks of the SuperNode at `port` until cancelled; one that is away is waited for."""
        link = RuntimeLink(f"127.0.0.1:{port}", executor_headers(secret))
        try:
            while True:  # noqa: ASYNC110 - Flower's API is asked, it does not tell
                await asyncio.sleep(await self._step(link, port))
        finally:
            link.close()
            await self.close()

    async def end_run(self, run_id: str) -> None:
        """End the app process of a run that is over, or not approved any more."""
        if self._current is not None and self._current[0] == run_id:
            self._current[1].cancel()
        await self._end_app(run_id)
        self._sequences.pop(run_id, None)

    async def close(self) -> None:
        """End every app process."""
        for run_id in list(self._apps):
            await self._end_app(run_id)

    async def _step(self, link: RuntimeLink, port: int) -> float:
        """Do one task when there is one; return how long to wait before the next look."""
        try:
            task = await self._off(link.acquire)
            if task is None:
                return _IDLE_S
            await self._serve_task(task, port)
        except httpx.HTTPError as error:
            _log.info("flower.supernode_away", kind=type(error).__name__)
            return _AWAY_S
        return 0.0

    async def _serve_task(self, task: AcquireTaskResponse, port: int) -> None:
        link = RuntimeLink(f"127.0.0.1:{port}", Headers(task.token), run_id=task.task.run_id)
        try:
            given = await self._off(link.pull_input)
            link.node.node_id = given.context.node_id
            (message,) = await self._off(link.pull)
            beating = asyncio.create_task(self._beat(link))
            try:
                reply, failure = await self._interruptible(str(task.task.run_id), given, message)
            finally:
                beating.cancel()
            await self._off(lambda: link.push([reply]))
            await self._off(lambda: link.finish("failed" if failure else "completed", failure))
        finally:
            link.close()

    async def _interruptible(
        self, run_id: str, given: PullTaskInputResponse, message: Message
    ) -> tuple[Message, str]:
        """Answer a task; a run that ends meanwhile is answered with WITHDRAWN, at once."""
        work = asyncio.create_task(self._answer(run_id, given, message))
        self._current = (run_id, work)
        try:
            return await work
        except asyncio.CancelledError:
            if not work.cancelled() or (current := asyncio.current_task()) is None or current.cancelling():
                raise
            return _error_reply(message, "WITHDRAWN"), "WITHDRAWN"
        finally:
            self._current = None
            work.cancel()

    async def _answer(
        self, run_id: str, given: PullTaskInputResponse, message: Message
    ) -> tuple[Message, str]:
        kind = message.metadata.message_type.partition(".")[0]
        sent_bytes, reason = 0, ""
        try:
            if kind not in _KINDS:
                raise AppFailure("TASK_KIND_UNKNOWN", is_over=False)
            grant = await self._approvals.authorise(run_id, given.run.fab_hash, kind)
            reply = await self._perform(grant, kind, given, message)
            sent_bytes = len(sealed_parts(reply.content)[0])
        except (MeshError, AppFailure) as error:
            reason = error.reason
            reply = _error_reply(message, reason)
            _log.warning("flower.task_refused", run_id=run_id, task=kind, reason=reason)
        except asyncio.CancelledError:
            # The owner left, the run is over, or this program ends; what had begun is written down all the same.
            with suppress(MeshError):
                self._approvals.record_task(run_id, kind, "CANCELLED", 0)
            raise
        except Exception:  # noqa: BLE001 - an answer must go out: without one the SuperNode waits for ever
            _log.exception("flower.task_broken", run_id=run_id)
            reason = "INTERNAL"
            reply = _error_reply(message, reason)
        with suppress(MeshError):
            self._approvals.record_task(run_id, kind, reason, sent_bytes)
        return reply, reason

    async def _perform(
        self, grant: Grant, kind: str, given: PullTaskInputResponse, message: Message
    ) -> Message:
        content = await self._off(lambda: self._open(grant, message))
        app = await self._app(grant, given)
        head = json.dumps(_plain_metadata(message)).encode()
        try:
            answer, parts = await app.ask(TASK, [head, content], timeout_s=grant.task_s)
        except AppFailure:
            await self._end_app(grant.run_id)
            raise
        if answer != REPLY or len(parts) != 1:
            raise AppFailure(_WORDS.get(parts[0] if parts else b"", "APP_GARBLED"), is_over=False)
        return await self._off(lambda: self._gate_and_seal(grant, kind, message, content, parts[0]))

    def _open(self, grant: Grant, message: Message) -> bytes:
        header, content = open_message(
            message,
            grant.run_key,
            run_id=grant.run_id,
            direction=TO_SITE,
            site=self._site,
            context=b"",
        )
        if header.sequence <= self._sequences.get(grant.run_id, 0):
            raise unreadable()  # the hub shows an old message again
        self._sequences[grant.run_id] = header.sequence
        return content

    def _gate_and_seal(
        self, grant: Grant, kind: str, message: Message, sent: bytes, answer: bytes
    ) -> Message:
        if len(answer) > grant.limits.max_update_bytes:
            raise AppFailure("UPDATE_TOO_LARGE", is_over=False)
        result = check_update(
            parse_content(answer),
            parse_content(sent),
            kind=cast("Kind", kind),
            limits=grant.limits,
            rows=grant.rows,
        )
        if result.content is None:
            _log.warning("flower.update_refused", run_id=grant.run_id, reason=result.reason, text=result.text)
            raise AppFailure(result.reason, is_over=False)
        metadata = message.metadata
        header = InnerHeader(metadata.message_type, metadata.group_id, time.time_ns())
        plain = pack_plain(header, recorddict_to_proto(result.content).SerializeToString())
        sealed = seal_content(
            plain,
            {self._site: grant.run_key},
            run_id=grant.run_id,
            direction=TO_AGGREGATOR,
            context=metadata.message_id.encode(),
        )
        content = sealed_contents(sealed.ciphertext, sealed.wraps)[self._site]
        return make_message(metadata=_reply_metadata(message), content=content)

    async def _app(self, grant: Grant, given: PullTaskInputResponse) -> AppProcess:
        app = self._apps.get(grant.run_id)
        if app is not None and not app.is_over:
            return app
        if app is not None:
            await self._end_app(grant.run_id)
        name = self._identify()
        code = self._folder / name
        bundle = await self._off(lambda: read_bundle(grant.bundle.read_bytes()))
        config = fused_config(bundle, grant.run_config)
        await self._off(lambda: _unpack(bundle, code))
        spec = RunSpec(
            run_id=name,
            code_dir=code,
            entrypoint=CLIENT_LAUNCHER,
            datasets={grant.dataset: grant.data},
            output_dir=self._folder / f"{name}.out",
            limits=self._limits,
        )
        setup = {
            "run_id": int(grant.run_id),
            "node_id": given.context.node_id,
            "component": bundle.client_app,
            "run_config": config,
            "node_config": {
                "dataset": grant.dataset,
                "data-dir": "/data",
                "partition-id": grant.partition,
                "num-partitions": grant.partitions,
            },
        }
        limit = grant.limits.max_update_bytes + _FRAME_SLACK_BYTES
        app = await AppProcess.start(self._executor, spec, setup, limit_bytes=limit)
        self._apps[grant.run_id] = app
        try:
            answer, parts = await app.receive(timeout_s=_START_S)
        except AppFailure:
            await self._end_app(grant.run_id)
            raise
        if answer != READY:
            await self._end_app(grant.run_id)
            raise AppFailure(_WORDS.get(parts[0] if parts else b"", "APP_GARBLED"), is_over=True)
        return app

    async def _end_app(self, run_id: str) -> None:
        app = self._apps.pop(run_id, None)
        if app is None:
            return
        outcome = await asyncio.shield(app.end())
        if outcome is not None:
            with suppress(MeshError):
                self._approvals.keep_log(run_id, outcome)
        await self._off(give_back)

    async def _beat(self, link: RuntimeLink) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            with suppress(httpx.HTTPError):
                await self._off(link.heartbeat)

    def _off(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


def _unpack(bundle: Bundle, code: Path) -> None:
    code.mkdir(parents=True)
    extract_bundle(bundle, code)
    add_launchers(code)


def _plain_metadata(message: Message) -> dict[str, object]:
    metadata = message.metadata
    return {
        "run_id": metadata.run_id,
        "message_id": metadata.message_id,
        "src_node_id": metadata.src_node_id,
        "dst_node_id": metadata.dst_node_id,
        "reply_to_message_id": metadata.reply_to_message_id,
        "group_id": metadata.group_id,
        "created_at": metadata.created_at,
        "ttl": metadata.ttl,
        "message_type": metadata.message_type,
    }


def _reply_metadata(message: Message) -> Metadata:
    """Return the metadata of a reply as Flower makes them; its own way needs a process-wide identity."""
    metadata, now = message.metadata, time.time()
    return Metadata(
        run_id=metadata.run_id,
        message_id="",
        src_node_id=metadata.dst_node_id,
        dst_node_id=metadata.src_node_id,
        reply_to_message_id=metadata.message_id,
        group_id=metadata.group_id,
        created_at=now,
        ttl=max(1.0, metadata.ttl - (now - metadata.created_at)),
        message_type=metadata.message_type,
    )


def _error_reply(message: Message, reason: str) -> Message:
    return make_message(metadata=_reply_metadata(message), error=Error(code=SITE_ERROR_CODE, reason=reason))
