"""The runner as a host sees it, and its composition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import structlog
from mesh.federated.v1 import site_service_pb2, site_service_pb2_grpc
from mesh.rds.v1 import rds_service_pb2, rds_service_pb2_grpc
from syftmesh_client.inbox import SqliteInbox
from syftmesh_client.node import Node
from syftmesh_client.serving import Refusal
from syftmesh_client.traffic_ledger import TrafficLedger
from syftmesh_core.errors import MeshError
from syftmesh_executor.port import Executor

from syftmesh_runner import convert
from syftmesh_runner.adapters.audit_store import SqliteAudit
from syftmesh_runner.adapters.database import Database
from syftmesh_runner.adapters.dataset_store import SqliteDatasets
from syftmesh_runner.adapters.federation import FederationRuns
from syftmesh_runner.adapters.hub_file import DatasiteFiles
from syftmesh_runner.adapters.job_store import SqliteJobs, SqliteReleases, SqliteSeals
from syftmesh_runner.adapters.proposal_store import SqliteProposals
from syftmesh_runner.adapters.runtime_identity import RunningRuntime
from syftmesh_runner.adapters.state_folder import StateFolder
from syftmesh_runner.app.federated import FederatedSite, federated_site
from syftmesh_runner.app.surroundings import Surroundings
from syftmesh_runner.consumers import APP, FL_APP, RdsEndpoints
from syftmesh_runner.domain.arrival import Arrival
from syftmesh_runner.domain.audit import AuditTrail
from syftmesh_runner.domain.catalogue import Catalogue
from syftmesh_runner.domain.decision import Decision
from syftmesh_runner.domain.execution import Execution, RunLimits
from syftmesh_runner.domain.ledger import RUNNER, Ledger
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.publication import Publication
from syftmesh_runner.domain.release import Release
from syftmesh_runner.domain.signature import ReviewerCheck
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.servicer import AuditServicer, DatasetServicer, JobServicer
from syftmesh_runner.settings import RunnerSettings

DATABASE_FILE: Final = "rds.sqlite3"
SOCKET_FILE: Final = "runner.sock"
PROBE_RETRY_S: Final = 3600.0
CALLS_RETRY_S: Final = 30.0
TRAFFIC_KEEP_S: Final = 10.0
_SERVICES: Final = (
    *(
        rds_service_pb2.DESCRIPTOR.services_by_name[n]
        for n in ("DatasetService", "JobService", "AuditService")
    ),
    site_service_pb2.DESCRIPTOR.services_by_name["SiteRunService"],
)


class RunnerModule:
    """The runner as a host sees it; made by `assemble`.

    Attributes:
        endpoints: Answers the calls of the app `rds`.
        federated: The federated part.
        database: The site's database, which the inbox of the serving loop shares.
    """

    name = "runner"

    def __init__(
        self,
        settings: RunnerSettings,
        state: SiteState,
        database: Database,
        folder: StateFolder,
        servicers: tuple[DatasetServicer, JobServicer, AuditServicer],
        endpoints: RdsEndpoints,
        federated: FederatedSite,
        work: Workers,
    ) -> None:
        self._settings = settings
        self._state = state
        self._folder = folder
        self._servicers = servicers
        self._work = work
        self.database = database
        self.endpoints = endpoints
        self.federated = federated
        self._stop = asyncio.Event()
        self._log: Any = structlog.get_logger("syftmesh.runner")

    @property
    def public_methods(self) -> frozenset[str]:
        """Every method: who may open the socket, which is 0600, is the site's owner on this machine."""
        return frozenset(
            f"/{service.full_name}/{method.name}" for service in _SERVICES for method in service.methods
        )

    @property
    def address(self) -> str:
        """Where the local API listens: the site's own Unix socket."""
        return f"unix:{(self._settings.local_dir or self._folder.root) / SOCKET_FILE}"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the services."""
        datasets, jobs, audit = self._servicers
        rds_service_pb2_grpc.add_DatasetServiceServicer_to_server(datasets, server)
        rds_service_pb2_grpc.add_JobServiceServicer_to_server(jobs, server)
        rds_service_pb2_grpc.add_AuditServiceServicer_to_server(audit, server)
        site_service_pb2_grpc.add_SiteRunServiceServicer_to_server(self.federated.servicer, server)
        return tuple(service.full_name for service in _SERVICES)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Find the jobs of before again and start the background work."""
        self._work.execution.recover()
        tasks.create_task(self._work.execution.serve(), name="runner-execution")
        tasks.create_task(self._work.publication.serve(), name="runner-publication")
        tasks.create_task(self._work.publication.keep_sealed(), name="runner-seals")
        tasks.create_task(self._work.release.resume(), name="runner-release")
        tasks.create_task(self.federated.reporter.serve(), name="runner-hub-reports")
        tasks.create_task(self.federated.follower.serve(), name="runner-hub-runs")
        tasks.create_task(self.federated.tasks.serve(), name="runner-flower")
        tasks.create_task(self._every(self._settings.expire_every_s, self._expire), name="runner-expiry")
        tasks.create_task(self._every(PROBE_RETRY_S, self._probe), name="runner-probe")
        tasks.create_task(self._every(TRAFFIC_KEEP_S, self._keep_traffic), name="runner-traffic")
        if self._work.serve_calls is not None:
            tasks.create_task(self._serve_calls(self._work.serve_calls), name="runner-calls")

    async def ready(self) -> None:
        """Return when the database answers."""
        self.database.row("SELECT 1")

    async def drain(self) -> None:
        """Take no more calls, and end every run that could not be found again; none is begun again."""
        self._stop.set()
        self.federated.need.close()
        await self._work.execution.close()

    def close(self) -> None:
        """Close database and folder, after the host is gone."""
        self._work.traffic.save()
        self.database.close()
        self._folder.close()

    def serve_calls_by(self, serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        """Let `serve` take calls once the module starts, until the event it is given is set."""
        self._work.serve_calls = serve

    async def audit_refusal(self, refusal: Refusal) -> None:
        """Write down a call that was refused before any handler saw it; its sender is not proven."""
        facts = {"call_id": refusal.call_id, "claimed_sender": refusal.sender, "reason": refusal.reason}
        self._state.audit.append("call.refused", RUNNER, facts)

    async def _serve_calls(self, serve: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
        while not self._stop.is_set():
            try:
                await serve(self._stop)
            except MeshError as error:
                # The owner's API goes on without the hub; a device that was revoked may be listed anew.
                self._log.error("runner.calls_refused", reason=error.reason)
                await asyncio.sleep(CALLS_RETRY_S)

    async def _expire(self) -> None:
        self._work.decision.expire()
        self.federated.decision.expire()

    async def _probe(self) -> None:
        await self._work.execution.probe_if_due()

    async def _keep_traffic(self) -> None:
        await asyncio.to_thread(self._work.traffic.save)

    async def _every(self, pause_s: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await step()
            except MeshError as error:
                self._log.warning("runner.background_failed", reason=error.reason)
            await asyncio.sleep(pause_s)


@dataclass(slots=True)
class Workers:
    """The parts with work of their own in the background."""

    execution: Execution
    publication: Publication
    release: Release
    decision: Decision
    traffic: TrafficLedger
    serve_calls: Callable[[asyncio.Event], Coroutine[Any, Any, None]] | None = None


def build(
    settings: RunnerSettings, *, node: Node, executor: Executor, runtime: RuntimeIdentity | None = None
) -> RunnerModule:
    """Return the runner of a device at work, which serves the apps `rds` and `fl` of its owner's datasite.

    Args:
        settings: What the runner is told.
        node: The runner's own device; open for as long as the module is used.
        executor: Runs code in isolation.
        runtime: What it gives to jobs; the environment of this process when None.

    Raises:
        Unavailable: STATE_UNUSABLE, STATE_IN_USE, DATABASE_UNUSABLE.
    """
    module = assemble(
        settings,
        Surroundings(
            device=node.keystore.device,
            keys=node.directory,
            hub=DatasiteFiles(node.files),
            executor=executor,
            clock=node.clock,
            random=node.random,
            runtime=runtime,
            runs=FederationRuns(node.session.federated),
            traffic=node.traffic,
        ),
    )
    inbox = SqliteInbox(module.database.connection, lock=module.database.lock)
    loop = node.serving(
        inbox, {APP: module.endpoints, FL_APP: module.federated.endpoints}, audit=module.audit_refusal
    )
    module.serve_calls_by(loop.run)
    return module


def assemble(settings: RunnerSettings, around: Surroundings) -> RunnerModule:
    """Return a runner over the state folder of `settings`.

    Raises:
        Unavailable: STATE_UNUSABLE, STATE_IN_USE, DATABASE_UNUSABLE.
    """
    folder = StateFolder(Path(settings.state_dir), around.random)
    try:
        database = Database.open(folder.root / DATABASE_FILE)
    except MeshError:
        folder.close()
        raise
    store = SqliteAudit(database)
    audit = AuditTrail(
        database, store, around.device, around.clock, checkpoint_every=settings.checkpoint_every
    )
    state = SiteState(
        unit=database,
        jobs=SqliteJobs(database),
        datasets=SqliteDatasets(database),
        releases=SqliteReleases(database),
        seals=SqliteSeals(database),
        proposals=SqliteProposals(database),
        audit=audit,
        folder=folder,
        clock=around.clock,
    )
    return _compose(settings, around, state, database, folder, store)


def _compose(
    settings: RunnerSettings,
    around: Surroundings,
    state: SiteState,
    database: Database,
    folder: StateFolder,
    store: SqliteAudit,
) -> RunnerModule:
    site, runtime = state.owner, around.runtime or RunningRuntime()
    publication = Publication(
        state,
        around.hub,
        around.keys,
        lambda dataset: convert.card_json(dataset, site),
        convert.status_json,
        reseal_s=settings.reseal_every_s,
    )
    wakes: list[Callable[[], None]] = [publication.wake]
    ledger = Ledger(state.unit, state.jobs, state.audit, around.clock, wakes)
    reviewers = ReviewerCheck(around.keys, site, settings.reviewers, around.clock)
    limits = RunLimits(
        memory_bytes=settings.memory_bytes,
        processes=settings.processes,
        disk_bytes=settings.disk_bytes,
        output_bytes=settings.output_bytes,
        log_bytes=settings.log_bytes,
    )
    execution = Execution(
        state, ledger, runtime, reviewers, around.executor, limits=limits, parallel=settings.parallel
    )
    wakes.append(execution.wake)
    decision = Decision(state, ledger, reviewers, execution.wake)
    release = Release(state, ledger, reviewers, around.keys, publication)
    arrival = Arrival(state, runtime, ledger, review_s=settings.review_s, approval_s=settings.approval_s)
    traffic = TrafficLedger(database.connection, database.lock, around.traffic)
    catalogue = Catalogue(state, publication, around.random)
    servicers = (
        DatasetServicer(catalogue, publication, site),
        JobServicer(state, ledger, decision, execution, release, executor=settings.executor),
        AuditServicer(state, store, around.keys, traffic.totals),
    )
    endpoints = RdsEndpoints(arrival, decision, publication)
    federated = federated_site(settings, around, state, folder, reviewers, runtime)
    work = Workers(execution, publication, release, decision, traffic)
    return RunnerModule(settings, state, database, folder, servicers, endpoints, federated, work)
