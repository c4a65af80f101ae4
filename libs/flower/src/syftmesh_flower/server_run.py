"""One ServerApp at work: its process, its desk, its checkpoints and results."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import structlog
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_core.clock import uuid7
from syftmesh_core.errors import MeshError
from syftmesh_executor.port import MIB, Limits, RunOutcome, RunSpec

from syftmesh_flower.app_process import SERVER_LAUNCHER, AppFailure, AppProcess, add_launchers
from syftmesh_flower.artifact import store_result
from syftmesh_flower.bundle import Bundle, extract_bundle, fused_config, read_bundle
from syftmesh_flower.checkpoint import write_checkpoint
from syftmesh_flower.envelope import parse_content
from syftmesh_flower.grid_desk import GridDesk, RunAborted
from syftmesh_flower.launch.syftmesh_channel import CHECKPOINT, DONE, NODES, PULL, PUSH, RESULT
from syftmesh_flower.run_folder import RunFolder, safe_name
from syftmesh_flower.seal import RunKey
from syftmesh_flower.transfer import Headers, RuntimeLink
from syftmesh_flower.update import read_update

if TYPE_CHECKING:
    from syftmesh_flower.aggregate import Aggregator
    from syftmesh_flower.run_follower import RunFollower

_NODES_S: Final = 45.0
_HEARTBEAT_S: Final = 10.0
_TOKEN_S: Final = 20.0
_END_S: Final = 20.0
_SAY_S: Final = 5.0
_FRAME_BYTES: Final = 2048 * MIB
_MAX_MESSAGE: Final = 1000
_LIMITS: Final = Limits(
    wall_s=30 * 86_400.0, memory_bytes=8192 * MIB, disk_bytes=1024 * MIB, output_bytes=1024 * MIB
)

T = TypeVar("T")
_log: Any = structlog.get_logger("syftmesh.flower.server")

_APP_WORDS: Final[Mapping[str, str]] = {
    "APP_NOT_LOADED": "The ServerApp could not be loaded; its log says why.",
    "APP_RAISED": "The ServerApp raised an error; its log says which.",
    "APP_ENDED": "The process of the ServerApp ended by itself.",
    "OUT_OF_MEMORY": "The ServerApp needed more memory than it may have.",
}


class ServerRun:
    """Runs the ServerApp of one run, whose task was acquired.

    Args:
        aggregator: Whose run it is.
        folder: The run's folder.
        keys: Keys by site.
        follower: Knows the run's newest state.
        token: Task token.
    """

    def __init__(
        self,
        aggregator: Aggregator,
        folder: RunFolder,
        keys: Mapping[str, RunKey],
        follower: RunFollower,
        token: str,
    ) -> None:
        self._aggregator = aggregator
        self._node = aggregator.node
        self._folder = folder
        self._keys = keys
        self._follower = follower
        self._token = token
        self._access_token = ""
        self._parent = ""
        self._saving: set[asyncio.Task[None]] = set()
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="flower-aggregator")

    @property
    def run_id(self) -> str:
        """The run."""
        return self._follower.run_id

    async def run(self) -> None:
        """Run the ServerApp to its end and report the outcome; errors of the app are outcomes.

        Cancelling this ends the ServerApp and reports nothing: whether the run is over is for who cancels it to say,
        and otherwise the hub finds that its aggregator is gone.
        """
        self._access_token = await self._node.session.access_token()
        link = RuntimeLink(
            self._aggregator.origin.address,
            Headers(self._token, lambda: self._access_token),
            run_id=int(self.run_id),
            tls_root=self._aggregator.origin.tls_root,
            insecure=self._aggregator.origin.insecure,
        )
        outcome: rpc.RunOutcome | None = pb_outcome("INTERNAL", "The aggregator failed.")
        try:
            async with asyncio.TaskGroup() as tasks:
                helpers = [tasks.create_task(self._refresh()), tasks.create_task(self._beat(link))]
                try:
                    outcome = await self._serve(link)
                finally:
                    for helper in helpers:
                        helper.cancel()
        except asyncio.CancelledError:
            outcome = None
            raise
        finally:
            await asyncio.shield(self._finish(link, outcome))
            link.close()
            self._threads.shutdown(wait=False)

    async def _serve(self, link: RuntimeLink) -> rpc.RunOutcome:
        try:
            await self._off(link.pull_input)
            await self._wait_for_nodes()
            await self._say(link, f"{len(self._follower.nodes())} sites take part; the ServerApp starts")
            app = await self._start()
            try:
                await self._converse(app, link)
                await self._keep_output(await app.wait())
            finally:
                await asyncio.shield(app.end())
                await self._keep_log(app.outcome)
        except AppFailure as failure:
            return pb_outcome(failure.reason, _APP_WORDS.get(failure.reason, "The ServerApp failed."))
        except RunAborted as error:
            return pb_outcome(error.reason, error.message)
        except httpx.HTTPError as error:
            _log.warning("flower.hub_failed", run_id=self.run_id, kind=type(error).__name__)
            return pb_outcome("SUPERLINK_AWAY", "The hub's Flower service failed.")
        return rpc.RunOutcome(ok=True)

    async def _converse(self, app: AppProcess, link: RuntimeLink) -> None:
        run = self._follower.run or pb.Run()
        desk = GridDesk(
            link,
            self.run_id,
            self._keys,
            self._follower.nodes,
            minimum_sites=run.minimum_sites,
            now_ms=self._node.clock.now_ms,
            report=partial(self._report_phase, link),
            off=self._off,
        )
        answers: dict[int, Callable[[list[bytes]], Awaitable[list[bytes]]]] = {
            PUSH: desk.push,
            PULL: desk.pull,
        }
        while True:
            kind, parts = await self._next(app)
            if kind == NODES:
                with suppress(MeshError):
                    await self._follower.look()
                await app.send(NODES, await desk.nodes())
            elif kind in answers:
                await app.send(kind, await answers[kind](parts))
            elif kind == CHECKPOINT:
                await self._checkpoint(int(json.loads(parts[0])["round"]), parts[1])
            elif kind == RESULT:
                await self._result(parts[0], parts[1])
            elif kind == DONE:
                await desk.close_phase()
                return
            else:
                word = parts[0].decode("ascii", "replace")[:64] if parts else ""
                raise AppFailure(word if word in _APP_WORDS else "APP_GARBLED", is_over=True)

    async def _next(self, app: AppProcess) -> tuple[int, list[bytes]]:
        """Return the app's next frame, unless the run ends before."""
        frame = asyncio.create_task(app.receive(timeout_s=None))
        over = asyncio.create_task(self._until_over())
        try:
            await asyncio.wait({frame, over}, return_when=asyncio.FIRST_COMPLETED)
            if not frame.done():
                run = self._follower.run or pb.Run()
                raise RunAborted(run.reason or "CANCELLED", run.message or "The run has ended.")
            return frame.result()
        finally:
            over.cancel()
            frame.cancel()

    async def _until_over(self) -> None:
        while not self._follower.is_final:
            await self._follower.changed(5.0)

    async def _wait_for_nodes(self) -> None:
        """Wait until every approved site is there, or, after a while, as many as the run needs."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _NODES_S
        while not self._follower.is_final:
            with suppress(MeshError):
                await self._follower.look()
            run = self._follower.run or pb.Run()
            approved = [site for site in run.site_runs if site.state == pb.SITE_STATE_APPROVED]
            there = [site for site in approved if site.connected and site.node_id]
            if approved and len(there) == len(approved):
                return
            if loop.time() > end and len(there) >= run.minimum_sites:
                return
            await self._follower.changed(0.5)
        raise RunAborted("CANCELLED", "The run has ended.")

    async def _start(self) -> AppProcess:
        bundle = read_bundle(await asyncio.to_thread(self._folder.bundle))
        run = self._follower.run or pb.Run()
        config = fused_config(bundle, json.loads(run.run_config_json or "{}"))
        code, output = self._folder.scratch("code"), self._folder.scratch("output")
        await asyncio.to_thread(_unpack, bundle, code, output)
        spec = RunSpec(
            run_id=uuid7(self._node.clock, self._node.random),
            code_dir=code,
            entrypoint=SERVER_LAUNCHER,
            datasets={},
            output_dir=output,
            limits=_LIMITS,
        )
        setup = {
            "run_id": int(self.run_id),
            "component": bundle.server_app,
            "run_config": config,
            "app_digest": bundle.digest,
        }
        return await AppProcess.start(self._aggregator.executor, spec, setup, limit_bytes=_FRAME_BYTES)

    async def _report_phase(self, link: RuntimeLink, report: pb.RoundReport) -> None:
        await self._aggregator.report(rpc.ReportRoundRequest(run_id=self.run_id, report=report))
        await self._say(link, phase_line(report))

    async def _say(self, link: RuntimeLink, line: str) -> None:
        """Add a line to Flower's own log, which its command line shows; what the app prints is never added."""
        with suppress(httpx.HTTPError, TimeoutError):
            async with asyncio.timeout(_SAY_S):
                await self._off(lambda: link.log([f"INFO :      {line}\n"]))

    async def _checkpoint(self, number: int, packed: bytes) -> None:
        data = await self._off(lambda: self._arrays(number, packed))
        if data:
            self._parent = hashlib.sha256(data).hexdigest()
            self._save(f"checkpoints/round-{number}.safetensors", data)

    async def _result(self, metrics: bytes, packed: bytes) -> None:
        self._save("metrics.json", metrics)
        data = await self._off(lambda: self._arrays(0, packed))
        if data:
            self._save("model.safetensors", data)

    def _arrays(self, number: int, packed: bytes) -> bytes:
        arrays = read_update(parse_content(packed)).arrays
        if not arrays:
            return b""
        run = self._follower.run or pb.Run()
        lineage = {"run_id": self.run_id, "app_digest": run.app_digest, "parent": self._parent}
        return write_checkpoint(_plain_names(arrays), {**lineage, "round": str(number)})

    def _save(self, name: str, data: bytes) -> None:
        """Keep a result here at once, and sealed in the datasite without holding up the app."""
        self._folder.keep_result(name, data)
        task = asyncio.create_task(self._upload(name, data), name=f"flower-upload {name}")
        self._saving.add(task)
        task.add_done_callback(self._saving.discard)

    async def _upload(self, name: str, data: bytes) -> None:
        path = f"{self._node.principal}/app_data/fl/runs/{self.run_id}/{name}"
        try:
            artifact = await store_result(self._node.files, name, path, data)
        except MeshError as error:
            _log.warning("flower.result_not_uploaded", run_id=self.run_id, name=name, reason=error.reason)
            return
        await self._aggregator.report(rpc.ReportRoundRequest(run_id=self.run_id, artifacts=[artifact]))

    async def _keep_output(self, outcome: RunOutcome | None) -> None:
        if outcome is None:
            return
        folder = self._folder.scratch("output")
        for file in outcome.output_files:
            name = f"output/{file.path}"
            if safe_name(name):
                self._save(name, await asyncio.to_thread((folder / file.path).read_bytes))

    async def _keep_log(self, outcome: RunOutcome | None) -> None:
        if outcome is not None:
            self._save("logs/server.txt", outcome.stdout + outcome.stderr)

    async def _finish(self, link: RuntimeLink, outcome: rpc.RunOutcome | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                if self._saving:
                    await asyncio.wait(set(self._saving))
                if outcome is None:
                    return
                await self._aggregator.report(rpc.ReportRoundRequest(run_id=self.run_id, outcome=outcome))
                await self._say(link, outcome_line(self.run_id, outcome))
                with suppress(httpx.HTTPError):
                    await self._off(
                        lambda: link.finish("completed" if outcome.ok else "failed", outcome.reason)
                    )

    async def _beat(self, link: RuntimeLink) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_S)
            with suppress(httpx.HTTPError):
                await self._off(link.heartbeat)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(_TOKEN_S)
            with suppress(MeshError):
                self._access_token = await self._node.session.access_token()

    def _off(self, work: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)


def pb_outcome(reason: str, message: str) -> rpc.RunOutcome:
    """Return the outcome of a run that failed."""
    return rpc.RunOutcome(ok=False, reason=reason, message=message[:_MAX_MESSAGE])


def phase_line(report: pb.RoundReport) -> str:
    """Return what is said of a phase: how many sites answered, how long it took, and why a site did not."""
    good = sum(reply.ok for reply in report.replies)
    seconds = (report.ended_unix_ms - report.started_unix_ms) / 1000
    lost = ", ".join(f"{reply.site}: {reply.reason}" for reply in report.replies if not reply.ok)
    line = f"round {report.round} {report.phase}: {good} of {len(report.replies)} sites, {seconds:.1f} s"
    return f"{line} ({lost})" if lost else line


def outcome_line(run_id: str, outcome: rpc.RunOutcome) -> str:
    """Return what is said of the end."""
    if outcome.ok:
        return f"the ServerApp has ended; next: syftmesh fl results {run_id} -o DIR"
    return f"the run failed: {outcome.reason}: {outcome.message}"


def _unpack(bundle: Bundle, code: Path, output: Path) -> None:
    # What a process that was killed has left behind is none of this one's.
    for folder in (code, output):
        shutil.rmtree(folder, ignore_errors=True)
    code.mkdir(parents=True, mode=0o700)
    extract_bundle(bundle, code)
    add_launchers(code)


def _plain_names(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays under their own names, without the record's that all of them have."""
    records = {name.partition(".")[0] for name in arrays}
    if len(records) != 1:
        return dict(arrays)
    return {name.partition(".")[2] or name: value for name, value in arrays.items()}
