"""The aggregator of federated runs: creates a run, asks the sites, runs the ServerApp, keeps what comes of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import structlog
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from mesh.federated.v1 import proposal_pb2
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.node import Node
from syftmesh_core.enc import canonical_json
from syftmesh_core.errors import (
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    Unavailable,
    WrongState,
)
from syftmesh_executor.port import Executor

from syftmesh_flower.artifact import load_result
from syftmesh_flower.bundle import Bundle, build_bundle, fused_config, read_bundle
from syftmesh_flower.run_folder import RunFolder, safe_name
from syftmesh_flower.run_follower import FINAL_STATES, RunFollower, RunListener
from syftmesh_flower.seal import RunKey

__all__ = ["FINAL_STATES", "Aggregator", "RunOrigin", "RunPlan"]

ROUNDS_KEY: Final = "num-server-rounds"
"""The name that Flower's own templates give the number of rounds."""

CONTENT_TYPE: Final = "application/x-protobuf"
KEY_BYTES: Final = 32
NO_PURPOSE: Final = "No purpose was given."
"""Sites take no proposal without one, so that owners see that nothing was said."""

_FIRST_ANSWER_S: Final = 20.0
_DAY_S: Final = 86_400.0
_MAX_LIFE_S: Final = 30 * _DAY_S
_ASK_AGAIN_S: Final = 1.0

_log: Any = structlog.get_logger("syftmesh.flower.aggregate")


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What somebody wants to run.

    Attributes:
        app: Folder of the Flower app.
        sites: E-mails of the sites, in the order of their partitions.
        dataset: Name of the dataset at every site.
        rounds: Number of rounds; None takes the app's own.
        minimum_sites: Fewest sites that may finish; None is all.
        config: Overrides of the app's run configuration.
        purpose: What for, for the owners; empty is `NO_PURPOSE`.
        deadline_s: Seconds after which the run ends; None is seven days.
    """

    app: Path
    sites: tuple[str, ...]
    dataset: str
    rounds: int | None = None
    minimum_sites: int | None = None
    config: Mapping[str, object] = field(default_factory=dict)
    purpose: str = ""
    deadline_s: float | None = None


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """Where Flower's runtime routes are.

    Attributes:
        address: ``host:port``.
        insecure: Whether they are plaintext, for loopback.
        tls_root: Certificates (PEM) that the hub's must come from; None: the well-known authorities.
    """

    address: str
    insecure: bool = True
    tls_root: bytes | None = None


class Aggregator:
    """Runs of one device of the principal who starts and aggregates them.

    Args:
        node: The device at work.
        executor: Runs the ServerApp.
        folder: Private folder for keys and results.
        origin: Flower's routes of the hub.
    """

    def __init__(self, node: Node, executor: Executor, folder: Path, origin: RunOrigin) -> None:
        self.node = node
        self.executor = executor
        self.origin = origin
        self._folder = folder
        self._stub = node.session.federated
        self._asking: set[asyncio.Task[None]] = set()

    async def create(self, plan: RunPlan) -> pb.Run:
        """Create a run, ask every site, and return it once each has answered or some seconds are over.

        Raises:
            InvalidInput: BUNDLE_INVALID, CONFIG_INVALID, RUN_INVALID.
            LimitExceeded: BUNDLE_TOO_LARGE.
            Unavailable: The hub or its SuperLink is away.
        """
        data = await asyncio.to_thread(build_bundle, plan.app)
        bundle = read_bundle(data)
        overrides = _overrides(bundle, plan)
        wanted = pb.Run(
            sites=plan.sites,
            dataset=plan.dataset,
            rounds=_rounds(fused_config(bundle, overrides), plan),
            minimum_sites=plan.minimum_sites or len(plan.sites),
            run_config_json=canonical_json(overrides).decode(),
            purpose=plan.purpose.strip() or NO_PURPOSE,
            deadline_unix_ms=_deadline_ms(self.node.clock.now_ms(), plan.deadline_s),
        )
        answer = await self._stub.CreateRun(rpc.CreateRunRequest(run=wanted, bundle=data))
        run = answer.run
        if run.app_digest != bundle.digest:
            raise IntegrityFailure("The hub keeps another bundle than was sent.", reason="RUN_CHANGED")
        return await self._ask_sites(run, data)

    async def adopt(self, run_id: str) -> pb.Run:
        """Ask the sites of a run of one's own that a stock Flower client started; return it.

        Raises:
            MeshError: As `create`.
        """
        run = await self.get(run_id)
        data = (await self._stub.GetRunBundle(rpc.GetRunBundleRequest(run_id=run_id))).bundle
        if read_bundle(data).digest != run.app_digest:
            raise IntegrityFailure("The hub gives another bundle than it names.", reason="RUN_CHANGED")
        return await self._ask_sites(run, data)

    async def aggregate(self, run_id: str, on_change: RunListener | None = None) -> pb.Run:
        """Wait for the approvals, run the ServerApp and return the run when it is final.

        Args:
            run_id: A run that `create` or `adopt` was called for, on this machine.
            on_change: Told the run whenever it changes.

        Raises:
            NotFound: RUN_UNKNOWN, RUN_KEYS_MISSING.
            MeshError: The hub refuses, or is away for long.
        """
        from syftmesh_flower.server_run import ServerRun  # it brings Flower's client, which takes a second

        folder = RunFolder.of(self._folder, run_id)
        keys = folder.keys()
        follower = RunFollower(self.node, run_id, on_change)
        async with follower.following():
            token = await self._acquire(follower)
            if token is not None:
                await ServerRun(self, folder, keys, follower, token).run()
            return await follower.final()

    async def results(self, run_id: str, target: Path) -> list[Path]:
        """Write the run's artifacts below `target` and return their paths; checked against their digests.

        Raises:
            NotFound: RUN_UNKNOWN; ARTIFACTS_MISSING: the run has left none.
            IntegrityFailure: ARTIFACT_CHANGED; FILE_NAME_UNSAFE.
        """
        answer = await self._stub.GetArtifacts(rpc.GetArtifactsRequest(run_id=run_id))
        if not answer.artifacts:
            raise NotFound("The run has left no results (yet).", reason="ARTIFACTS_MISSING")
        written = []
        for artifact in answer.artifacts:
            data = await self._artifact(run_id, artifact)
            path = target / artifact.name
            await asyncio.to_thread(_write_result, path, data)
            written.append(path)
        return written

    async def get(self, run_id: str) -> pb.Run:
        """Return a run; raises NotFound (RUN_UNKNOWN)."""
        return (await self._stub.GetRun(rpc.GetRunRequest(run_id=run_id))).run

    async def report(self, request: rpc.ReportRoundRequest) -> None:
        """Report to the hub; what it refuses is logged in passing, for the run's own state tells more."""
        try:
            await self._stub.ReportRound(request)
        except MeshError as error:
            _log.info("flower.report_refused", run_id=request.run_id, reason=error.reason)

    async def close(self) -> None:
        """Stop waiting for the answers of sites that are away; the hub keeps the proposals for them."""
        asking = list(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _artifact(self, run_id: str, artifact: pb.Artifact) -> bytes:
        if not safe_name(artifact.name):
            raise IntegrityFailure("The name of a result leads elsewhere.", reason="FILE_NAME_UNSAFE")
        with suppress(NotFound):
            data = RunFolder.of(self._folder, run_id).result(artifact.name)
            if data is not None and hashlib.sha256(data).hexdigest() == artifact.sha256:
                return data
        return await load_result(self.node.files, artifact)

    async def _ask_sites(self, run: pb.Run, bundle: bytes) -> pb.Run:
        folder = RunFolder.of(self._folder, run.run_id)
        if not folder.is_known:
            keys = {site: RunKey(self.node.random(KEY_BYTES)) for site in run.sites}
            await asyncio.to_thread(folder.create, keys, bundle)
        keys = folder.keys()
        asking = [
            asyncio.create_task(self._ask(run, site, keys[site], index))
            for index, site in enumerate(run.sites)
        ]
        for task in asking:
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        await asyncio.wait(asking, timeout=_FIRST_ANSWER_S)
        return await self.get(run.run_id)

    async def _ask(self, run: pb.Run, site: str, key: RunKey, index: int) -> None:
        """Send the proposal to one site and report what became of it; a site that is away gets it later."""
        proposal = proposal_pb2.RunProposal(
            run_id=run.run_id,
            app_digest=run.app_digest,
            dataset=run.dataset,
            run_config_json=run.run_config_json,
            recipients=[
                proposal_pb2.RunRecipient(email=self.node.principal, root=self.node.keystore.own_root.hex())
            ],
            train_tasks=run.rounds,
            evaluate_tasks=2 * run.rounds,
            purpose=run.purpose,
            deadline_unix_ms=run.deadline_unix_ms,
            run_key=key.secret,
            partition=index,
            partitions=len(run.sites),
        )
        request = RequestContent(content_type=CONTENT_TYPE, body=proposal.SerializeToString())
        state, reason = pb.SITE_STATE_AWAITING_APPROVAL, ""
        try:
            life_s = (run.deadline_unix_ms - self.node.clock.now_ms()) / 1000
            url = f"syft://{site}/app_data/fl/rpc/propose"
            call_id = await self.node.calls.send(url, request, expires_s=min(max(life_s, 1.0), _DAY_S))
            await self.node.calls.wait(call_id, max(life_s, 1.0), site=site)
        except MeshError as error:
            _log.info("flower.proposal_refused", run_id=run.run_id, site=site, reason=error.reason)
            state, reason = pb.SITE_STATE_FAILED, error.reason
        proposed = [pb.SiteRun(site=site, state=state, reason=reason)]
        await self.report(rpc.ReportRoundRequest(run_id=run.run_id, proposed=proposed))

    async def _acquire(self, follower: RunFollower) -> str | None:
        """Return the task token once the hub gives it; None when the run is final before."""
        while not follower.is_final:
            try:
                answer = await self._stub.AcquireServerTask(
                    rpc.AcquireServerTaskRequest(run_id=follower.run_id)
                )
                return answer.task_token
            except Unavailable as error:
                _log.info("flower.task_awaited", run_id=follower.run_id, reason=error.reason)
            except WrongState as error:
                if error.reason not in ("APPROVAL_MISSING", "WRONG_STATE"):
                    raise
            await follower.changed(_ASK_AGAIN_S)
        return None


def _overrides(bundle: Bundle, plan: RunPlan) -> dict[str, object]:
    overrides = dict(plan.config)
    if plan.rounds is not None:
        if ROUNDS_KEY not in bundle.config:
            raise InvalidInput(
                f"The app has no setting {ROUNDS_KEY}, so the number of rounds cannot be given: "
                "leave it away, or set what the app calls it.",
                reason="CONFIG_INVALID",
                metadata={"field": ROUNDS_KEY},
            )
        overrides[ROUNDS_KEY] = plan.rounds
    return overrides


def _rounds(config: Mapping[str, object], plan: RunPlan) -> int:
    value = config.get(ROUNDS_KEY)
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    return plan.rounds or 1


def _deadline_ms(now_ms: int, deadline_s: float | None) -> int:
    return now_ms + int(1000 * min(deadline_s, _MAX_LIFE_S)) if deadline_s is not None else 0


def _write_result(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
