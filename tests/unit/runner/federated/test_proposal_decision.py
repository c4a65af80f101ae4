"""The owner decides: an approval binds every term, and who leaves has left."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from mesh.federated.v1 import proposal_pb2, site_service_pb2
from syftmesh_core.approval import APPROVAL_KIND
from syftmesh_core.errors import IntegrityFailure, NotFound, PermissionDenied, WrongState
from syftmesh_core.federated import TERM_ORDER
from syftmesh_runner.domain.proposal import terms_of

CAROL, OWNER = "carol@lab.example", "alice@hospital.example"
RUN = "17446744073709551615"
DIFFERENT: dict[str, Any] = {
    "run_id": "1",
    "app_digest": "0" * 64,
    "run_config": {"lr": 0.2},
    "dataset": {"name": "people", "digest": "0" * 64},
    "aggregator": "eve@evil.example",
    "recipients": [],
    "runtime_digest": "0" * 64,
    "train_tasks": 4,
    "evaluate_tasks": 1,
    "limits": {"max_update_bytes": 1 << 20, "max_norm": "2.4", "min_rows": 10, "max_metrics": 64},
    "purpose": "something else",
    "expires_ms": 1_900_000_000_000,
}


def reports(fl: Any) -> list[tuple[str, str]]:
    return [(report.part.value, report.end_reason) for report in fl.proposals.owed()]


async def test_a_true_approval_lets_tasks_run_and_is_audited_and_reported(fl: Any) -> None:
    await fl.propose()
    proposal = await fl.approve()
    assert proposal.state == proposal_pb2.PROPOSAL_STATE_APPROVED
    assert fl.kinds() == ["federated.proposed", "federated.approved"]
    entry = list(fl.world.audit._store.entries())[-1]
    assert (entry.actor, entry.fields["reviewer"], entry.fields["run_id"]) == (OWNER, OWNER, RUN)
    assert reports(fl) == [("awaiting_approval", ""), ("approved", "")]


async def test_the_owner_builds_the_same_terms_from_what_the_api_shows(fl: Any) -> None:
    await fl.propose()
    shown, terms = await fl.get(), json.loads(terms_of(fl.proposals.get(RUN)).to_json())
    assert set(terms) == set(TERM_ORDER)
    assert terms["dataset"] == {"name": shown.dataset, "digest": shown.dataset_digest}
    assert terms["run_config"] == json.loads(shown.run_config_json)
    assert terms["recipients"] == [{"email": r.email, "root": r.root} for r in shown.recipients]
    assert terms["limits"]["max_norm"] == "2.5"
    assert terms["expires_ms"] == shown.expires_unix_ms


@pytest.mark.parametrize("term", DIFFERENT)
async def test_one_different_term_is_refused_and_named(fl: Any, term: str) -> None:
    await fl.propose()
    with pytest.raises(WrongState) as caught:
        await fl.approve(await fl.approval(**{term: DIFFERENT[term]}))
    assert (caught.value.reason, caught.value.metadata["term"]) == ("APPROVAL_MISMATCH", term)
    assert fl.state() == "awaiting_approval"
    assert fl.kinds()[-1] == "federated.attempt_refused"
    assert reports(fl) == [("awaiting_approval", "")]


async def test_a_surplus_term_and_another_kind_are_refused(fl: Any) -> None:
    await fl.propose()
    with pytest.raises(WrongState) as caught:
        await fl.approve(await fl.approval(zeal="much"))
    assert caught.value.metadata["term"] == "zeal"
    terms = json.loads(terms_of(fl.proposals.get(RUN)).to_json())
    with pytest.raises(IntegrityFailure) as failed:
        await fl.approve(fl.world.signed(APPROVAL_KIND, terms))
    assert failed.value.reason == "SIGNATURE_INVALID"
    with pytest.raises(IntegrityFailure):
        await fl.approve(b"junk")
    assert fl.state() == "awaiting_approval"


@pytest.mark.parametrize("signer", ["agent", "runner", "carol", "eve", "rita"])
async def test_only_an_admin_device_of_a_reviewer_counts(fl: Any, signer: str) -> None:
    await fl.propose()
    with pytest.raises(PermissionDenied) as caught:
        await fl.approve(await fl.approval(getattr(fl.world, signer)))
    assert caught.value.reason == "NOT_A_REVIEWER"


async def test_two_reviewers_are_needed_where_the_dataset_says_so(fl: Any) -> None:
    fl.world.settings["reviewers"] = frozenset({"rita@hospital.example"})
    fl.world.restart()
    await fl.world.create_dataset(policy={"required_reviewers": 2})
    await fl.propose()
    await fl.approve()
    fl.world.clock.ms += 5
    await fl.approve(await fl.approval())
    assert fl.state() == "awaiting_approval", "the same person twice is one reviewer"
    assert reports(fl) == [("awaiting_approval", "")]
    await fl.approve(await fl.approval(fl.world.rita))
    assert fl.state() == "approved"
    assert fl.kinds().count("federated.approval_counted") == 2
    assert (await fl.authorise()).run_id == RUN


async def test_the_same_approval_again_changes_nothing_and_another_is_a_wrong_state(fl: Any) -> None:
    await fl.propose()
    signed = await fl.approval()
    await fl.approve(signed)
    entries = len(fl.kinds())
    await fl.approve(signed)
    assert len(fl.kinds()) == entries
    fl.world.clock.ms += 5
    with pytest.raises(WrongState) as caught:
        await fl.approve(await fl.approval())
    assert caught.value.reason == "WRONG_STATE"


async def test_after_the_deadline_no_approval_counts(fl: Any) -> None:
    await fl.propose()
    fl.world.clock.ms += 3_600_000
    with pytest.raises(WrongState) as caught:
        await fl.approve()
    assert caught.value.reason == "APPROVAL_EXPIRED"


async def test_denying_tells_a_constant_and_keeps_the_reason_at_home(fl: Any) -> None:
    await fl.propose()
    proposal = await fl.deny("we do not like it")
    assert (proposal.state, proposal.reason) == (proposal_pb2.PROPOSAL_STATE_DENIED, "DENIED_BY_OWNER")
    assert proposal.message == "we do not like it"
    assert reports(fl) == [("awaiting_approval", ""), ("denied", "DENIED_BY_OWNER")]
    status = await fl.call("status", proposal_pb2.RunReference(run_id=RUN))
    assert b"like" not in status.SerializeToString()
    assert fl.proposals.run_key(RUN) == b""
    for step in (fl.deny, fl.approve, fl.withdraw):
        with pytest.raises(WrongState) as caught:
            await step()
        assert caught.value.reason == "WRONG_STATE"


async def test_leaving_ends_the_process_and_forgets_the_secret(fl: Any) -> None:
    left: list[str] = []
    fl.runs.on_change(left.append)
    await fl.propose()
    with pytest.raises(WrongState):
        await fl.withdraw()
    await fl.approve()
    assert not left
    proposal = await fl.withdraw("enough")
    assert (proposal.state, proposal.reason) == (proposal_pb2.PROPOSAL_STATE_WITHDRAWN, "LEFT_BY_OWNER")
    assert left == [RUN]
    assert fl.proposals.run_key(RUN) == b""
    assert reports(fl)[-1] == ("withdrawn", "LEFT_BY_OWNER")
    assert fl.kinds()[-1] == "federated.withdrawn"
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert (caught.value.reason, caught.value.metadata) == ("NOT_APPROVED", {"state": "withdrawn"})


@pytest.mark.parametrize(("approved", "reason"), [(False, "NOT_DECIDED"), (True, "APPROVAL_EXPIRED")])
async def test_what_is_late_expires(fl: Any, approved: bool, reason: str) -> None:  # noqa: FBT001
    left: list[str] = []
    fl.runs.on_change(left.append)
    await (fl.approved() if approved else fl.propose())
    assert not fl.parts.decision.expire()
    fl.world.clock.ms += 3_600_000
    await fl.world.module._expire()
    proposal = await fl.get()
    assert (proposal.state, proposal.reason) == (proposal_pb2.PROPOSAL_STATE_EXPIRED, reason)
    assert left == ([RUN] if approved else [])
    assert fl.kinds()[-1] == "federated.expired"
    assert reports(fl)[-1] == ("failed", reason)


async def test_an_unknown_run_is_not_found(fl: Any) -> None:
    for step in (fl.get, fl.deny, fl.withdraw):
        with pytest.raises(NotFound) as caught:
            await step()
        assert caught.value.reason == "RUN_UNKNOWN"
    with pytest.raises(NotFound):
        await fl.approve(b"x")


async def test_a_dataset_of_an_open_run_is_not_deleted(fl: Any) -> None:
    from mesh.rds.v1 import rds_service_pb2

    await fl.propose()
    request = rds_service_pb2.DeleteDatasetRequest(name="people")
    with pytest.raises(WrongState) as caught:
        await fl.world.datasets.DeleteDataset(request, None)
    assert caught.value.reason == "DATASET_IN_USE"
    await fl.deny()
    await fl.world.datasets.DeleteDataset(request, None)


async def test_a_super_node_is_needed_while_a_run_is_approved(fl: Any) -> None:
    stream = fl.parts.servicer.WatchSuperNode(site_service_pb2.WatchSuperNodeRequest(), None)
    first = await anext(stream)
    assert not first.needed
    assert 1024 < first.runtime_port < 65536
    secret = fl.world.folder / "state" / "supernode.secret"
    assert first.secret_file == str(secret)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert len(secret.read_bytes()) == 32
    await fl.propose()
    following = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    assert not following.done(), "a proposal alone needs none"
    await fl.approve()
    assert (await following).needed
    following = asyncio.ensure_future(anext(stream))
    await fl.withdraw()
    assert not (await following).needed
    fl.parts.need.close()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_every_start_has_a_new_secret(fl: Any) -> None:
    secret = fl.world.folder / "state" / "supernode.secret"
    before = hashlib.sha256(secret.read_bytes()).digest()
    fl.world.restart()
    assert hashlib.sha256(secret.read_bytes()).digest() != before
    assert not list(fl.world.folder.glob("state/staging/*"))
