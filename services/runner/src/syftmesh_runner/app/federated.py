"""The federated part of a site, composed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from syftmesh_executor.port import Limits

from syftmesh_runner.adapters.federation import NoFederation
from syftmesh_runner.adapters.flower_tasks import RUN_S, FlowerTasks
from syftmesh_runner.adapters.loopback import free_port
from syftmesh_runner.adapters.state_folder import StateFolder
from syftmesh_runner.app.surroundings import Surroundings
from syftmesh_runner.consumers import FlEndpoints
from syftmesh_runner.domain.approved_run import ApprovedRuns
from syftmesh_runner.domain.hub_word import HubFollower, HubReporter
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.domain.proposal import UpdatePolicy
from syftmesh_runner.domain.proposal_arrival import ProposalArrival
from syftmesh_runner.domain.proposal_decision import ProposalDecision
from syftmesh_runner.domain.proposal_ledger import ProposalLedger
from syftmesh_runner.domain.signature import ReviewerCheck
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.super_node import RuntimeApi, SuperNodeNeed
from syftmesh_runner.servicer import SiteRunServicer
from syftmesh_runner.settings import RunnerSettings

SUPERNODE_FILE: Final = "supernode.secret"
SECRET_BYTES: Final = 32
FLOWER_FOLDER: Final = "flower"


@dataclass(frozen=True, slots=True)
class FederatedSite:
    """The federated part of a site.

    Attributes:
        endpoints: Answers the calls of the app `fl`.
        servicer: The owner's API.
        decision: Decides on proposals.
        reporter: Tells the hub.
        follower: Asks the hub.
        need: Whether a SuperNode is needed.
        runtime_api: Where its Runtime API is to be.
        tasks: Executes tasks.
    """

    endpoints: FlEndpoints
    servicer: SiteRunServicer
    decision: ProposalDecision
    reporter: HubReporter
    follower: HubFollower
    need: SuperNodeNeed
    runtime_api: RuntimeApi
    tasks: FlowerTasks


def federated_site(
    settings: RunnerSettings,
    around: Surroundings,
    state: SiteState,
    folder: StateFolder,
    reviewers: ReviewerCheck,
    runtime: RuntimeIdentity,
) -> FederatedSite:
    """Return the federated part over the stores of a site."""
    hub = around.runs or NoFederation()
    policy = UpdatePolicy(settings.max_update_bytes, settings.max_norm, settings.max_metrics)
    runtime_api = RuntimeApi(
        free_port(), folder.renew_secret(SUPERNODE_FILE, SECRET_BYTES, settings.local_dir)
    )
    reporter, need = HubReporter(state, hub), SuperNodeNeed(state.proposals)
    wakes: list[Callable[[], None]] = [reporter.wake, need.changed]
    ledger = ProposalLedger(state, wakes)
    follower = HubFollower(state, ledger, hub)
    wakes.append(follower.wake)
    decision = ProposalDecision(state, ledger, reviewers)
    tasks = FlowerTasks(
        state.owner,
        ApprovedRuns(state, ledger, reviewers, runtime, policy),
        need,
        runtime_api,
        around.executor,
        folder.root / FLOWER_FOLDER,
        Limits(
            wall_s=RUN_S,
            memory_bytes=settings.memory_bytes,
            processes=settings.processes,
            disk_bytes=settings.disk_bytes,
            output_bytes=settings.output_bytes,
            log_bytes=settings.log_bytes,
        ),
        around.clock,
        around.random,
    )
    return FederatedSite(
        endpoints=FlEndpoints(ProposalArrival(state, runtime, ledger, hub, policy)),
        servicer=SiteRunServicer(state, ledger, decision, need, runtime_api),
        decision=decision,
        reporter=reporter,
        follower=follower,
        need=need,
        runtime_api=runtime_api,
        tasks=tasks,
    )
