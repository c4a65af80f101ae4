"""The owner's decisions on federated runs: exactly what is signed, and what is asked of the runner."""

# ruff: noqa: N802, ASYNC109 - names and arguments are those of gRPC

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.federated.v1 import proposal_pb2
from mesh.federated.v1 import site_service_pb2 as pb
from syftmesh.site_run import AsyncSiteRuns
from syftmesh.site_socket import SiteSockets
from syftmesh_client.site import SiteFolders
from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.clock import uuid7
from syftmesh_core.errors import IntegrityFailure, MeshError, NotFound, WrongState
from syftmesh_core.federated import (
    FEDERATED_APPROVAL_KIND,
    TERM_ORDER,
    ProposalState,
    UpdateLimits,
    first_difference,
    parse_run_terms,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.statement import Statement, verify_statement
from syftmesh_kit.testing import FakeClock, FakeRandom

OWNER, CAROL = "alice@hospital.example", "carol@lab.example"
RUN = "17446744073709551615"
CLOCK = FakeClock()
DEVICE = DeviceSecret.generate(OWNER, uuid7(CLOCK, FakeRandom(3)), admin=True, random=FakeRandom(1))


def proposal(state: str = "AWAITING_APPROVAL", **more: Any) -> proposal_pb2.Proposal:
    fields: dict[str, Any] = {
        "run_id": RUN,
        "state": proposal_pb2.ProposalState.Value(f"PROPOSAL_STATE_{state}"),
        "aggregator": CAROL,
        "app_digest": "a" * 64,
        "app_name": "lab/app 1.0.0",
        "dataset": "people",
        "dataset_digest": "d" * 64,
        "run_config_json": '{"rate":0.5}',
        "recipients": [proposal_pb2.RunRecipient(email=CAROL, root="c" * 64)],
        "train_tasks": 3,
        "evaluate_tasks": 6,
        "limits": proposal_pb2.UpdateLimits(
            max_update_bytes=1 << 20, max_norm=2.5, min_rows=20, max_metrics=8
        ),
        "purpose": "a classifier",
        "runtime_digest": "e" * 64,
        "partition": 1,
        "partitions": 2,
        "expires_unix_ms": CLOCK.now_ms() + 1000,
    }
    return proposal_pb2.Proposal(**{**fields, **more})


@dataclass
class Runner:
    """The runner's service; keeps what it was asked."""

    proposal: proposal_pb2.Proposal = field(default_factory=proposal)
    error: MeshError | None = None
    asked: list[Any] = field(default_factory=list)

    async def ListProposals(self, request: Any, *, timeout: float) -> Any:
        return pb.ListProposalsResponse(proposals=[self.proposal, proposal("DENIED", run_id="5")])

    async def GetProposal(self, request: Any, *, timeout: float) -> Any:
        if request.run_id != RUN:
            raise NotFound("no", reason="RUN_UNKNOWN")
        return pb.GetProposalResponse(proposal=self.proposal)

    async def GetProposalCode(self, request: Any, *, timeout: float) -> Any:
        assert request.run_id == RUN
        return pb.GetProposalCodeResponse(files=[pb.BundleFile(path="app/task.py", content=b"1")])

    async def ApproveProposal(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return pb.ApproveProposalResponse(proposal=proposal("APPROVED"))

    async def DenyProposal(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        return pb.DenyProposalResponse(proposal=proposal("DENIED", reason="DENIED_BY_OWNER"))

    async def WithdrawApproval(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        return pb.WithdrawApprovalResponse(proposal=proposal("WITHDRAWN", reason="LEFT_BY_OWNER"))


def signed(request: pb.ApproveProposalRequest) -> Statement:
    """Return the statement of an approval, whose signature holds."""
    kind, now_ms = FEDERATED_APPROVAL_KIND, CLOCK.now_ms()
    return verify_statement(request.signed_approval, DEVICE.public(), kind=kind, now_ms=now_ms)


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def runs(runner: Runner) -> AsyncSiteRuns:
    keystore = SimpleNamespace(device=DEVICE)
    node: Any = SimpleNamespace(principal=OWNER, keystore=keystore, clock=CLOCK)
    sockets: Any = SimpleNamespace(runs=runner)
    return AsyncSiteRuns(node, sockets)


async def test_proposal_says_all_that_the_runner_says(runs: AsyncSiteRuns) -> None:
    found = await runs.get(RUN)
    assert (found.run_id, found.site, found.state) == (RUN, OWNER, ProposalState.AWAITING_APPROVAL)
    assert found.dataset == DatasetVersion("people", "d" * 64)
    assert found.recipients == (Recipient(CAROL, "c" * 64),)
    assert found.limits == UpdateLimits(1 << 20, 2.5, 20, 8)
    assert (found.run_config, found.partition, found.partitions) == ({"rate": 0.5}, 1, 2)


@pytest.mark.parametrize("state", ProposalState)
async def test_every_state_of_the_protocol_has_a_name(
    runs: AsyncSiteRuns, runner: Runner, state: ProposalState
) -> None:
    runner.proposal = proposal(state.name)
    assert (await runs.get(RUN)).state is state


def test_no_state_of_the_protocol_is_missing() -> None:
    names = {name.removeprefix("PROPOSAL_STATE_") for name in proposal_pb2.ProposalState.keys()}  # noqa: SIM118
    assert names - {"UNSPECIFIED"} == {state.name for state in ProposalState}


async def test_unknown_state_is_refused(runs: AsyncSiteRuns, runner: Runner) -> None:
    runner.proposal = proposal("UNSPECIFIED")
    with pytest.raises(IntegrityFailure) as caught:
        await runs.get(RUN)
    assert caught.value.reason == "STATUS_INVALID"


async def test_proposals_come_as_the_runner_orders_them(runs: AsyncSiteRuns) -> None:
    assert [(p.run_id, str(p.state)) for p in await runs.proposals()] == [
        (RUN, "awaiting_approval"),
        ("5", "denied"),
    ]


async def test_code_is_the_bundle_by_path(runs: AsyncSiteRuns) -> None:
    assert await runs.code(RUN) == {"app/task.py": b"1"}


async def test_approval_signs_every_term_of_the_proposal(runs: AsyncSiteRuns, runner: Runner) -> None:
    seen = await runs.get(RUN)
    after = await runs.approve(seen)
    assert after.state is ProposalState.APPROVED
    (request,) = runner.asked
    assert request.run_id == RUN
    statement = signed(request)
    assert (statement.kind, statement.issuer) == (FEDERATED_APPROVAL_KIND, OWNER)
    assert first_difference(seen.terms, statement.body) is None
    terms = parse_run_terms(json.dumps(statement.body, sort_keys=True, separators=(",", ":")))
    assert {name: getattr(terms, name) for name in TERM_ORDER} == {
        "run_id": RUN,
        "app_digest": "a" * 64,
        "run_config": {"rate": 0.5},
        "dataset": DatasetVersion("people", "d" * 64),
        "aggregator": CAROL,
        "recipients": (Recipient(CAROL, "c" * 64),),
        "runtime_digest": "e" * 64,
        "train_tasks": 3,
        "evaluate_tasks": 6,
        "limits": UpdateLimits(1 << 20, 2.5, 20, 8),
        "purpose": "a classifier",
        "expires_ms": CLOCK.now_ms() + 1000,
    }


async def test_approval_of_what_was_seen_signs_that_and_not_what_is_there_now(
    runs: AsyncSiteRuns, runner: Runner
) -> None:
    seen = await runs.get(RUN)
    runner.proposal = proposal(app_digest="b" * 64)
    await runs.approve(seen)
    assert signed(runner.asked[0]).body["app_digest"] == "a" * 64


async def test_approval_by_id_signs_the_terms_as_they_are(runs: AsyncSiteRuns, runner: Runner) -> None:
    runner.proposal = proposal(app_digest="b" * 64)
    await runs.approve(RUN)
    assert signed(runner.asked[0]).body["app_digest"] == "b" * 64


async def test_approval_that_the_runner_refuses_is_an_error(runs: AsyncSiteRuns, runner: Runner) -> None:
    runner.error = WrongState("changed", reason="APPROVAL_MISMATCH", metadata={"term": "dataset"})
    with pytest.raises(WrongState):
        await runs.approve(RUN)


async def test_approval_of_an_unknown_run_signs_nothing(runs: AsyncSiteRuns, runner: Runner) -> None:
    with pytest.raises(NotFound):
        await runs.approve("5")
    assert runner.asked == []


async def test_deny_and_leave_give_their_reasons_to_the_site(runs: AsyncSiteRuns, runner: Runner) -> None:
    assert (await runs.deny(RUN, "not ours")).reason == "DENIED_BY_OWNER"
    assert (await runs.leave(RUN, "patients ask")).state is ProposalState.WITHDRAWN
    assert runner.asked == [
        pb.DenyProposalRequest(run_id=RUN, reason="not ours"),
        pb.WithdrawApprovalRequest(run_id=RUN, reason="patients ask"),
    ]


async def test_without_a_site_on_this_machine_the_next_step_is_named(tmp_path: Path) -> None:
    node: Any = SimpleNamespace(principal=OWNER)
    runs = AsyncSiteRuns(node, SiteSockets(SiteFolders.of(tmp_path, OWNER), OWNER))
    with pytest.raises(NotFound) as caught:
        await runs.proposals()
    assert caught.value.reason == "SITE_NOT_RUNNING"
