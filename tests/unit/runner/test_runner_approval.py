"""Approvals bind bytes: whatever differs is refused by name, whoever may not sign is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from syftmesh_core.approval import APPROVAL_KIND, RELEASE_KIND
from syftmesh_core.errors import IntegrityFailure, NotFound, PermissionDenied, WrongState
from syftmesh_runner import convert

DIFFERENT: dict[str, Any] = {
    "job_id": "01890000-0000-7000-8000-000000000001",
    "code_digest": "0" * 64,
    "entrypoint": "other.py",
    "parameters": {"n": 4},
    "runtime_digest": "0" * 64,
    "datasets": [{"name": "people", "digest": "0" * 64}],
    "purpose": "something else",
    "expires_ms": 1_900_000_000_000,
}


async def test_a_true_approval_queues_the_job(world: Any) -> None:
    job_id = await world.submit()
    job = await world.approve(job_id)
    assert world.state_of(job_id) == "queued"
    assert len(job.approvals) == 1


@pytest.mark.parametrize("term", DIFFERENT)
async def test_one_different_term_is_refused_and_named(world: Any, term: str) -> None:
    job_id = await world.submit()
    signed = await world.approval(job_id, **{term: DIFFERENT[term]})
    with pytest.raises(WrongState) as caught:
        await world.approve(job_id, signed)
    assert (caught.value.reason, caught.value.metadata["term"]) == ("APPROVAL_MISMATCH", term)
    assert world.state_of(job_id) == "in_review"
    assert "job.attempt_refused" in world.audit_kinds()


@pytest.mark.parametrize("change", ["email", "root", "more", "none"])
async def test_other_recipients_are_refused(world: Any, change: str) -> None:
    job_id = await world.submit()
    (carol,) = json.loads((await world.get(job_id)).approval_terms_json)["recipients"]
    recipients = {
        "email": [{**carol, "email": "eve@evil.example"}],
        "root": [{**carol, "root": "0" * 64}],
        "more": [carol, {"email": "eve@evil.example", "root": "0" * 64}],
        "none": [],
    }[change]
    with pytest.raises(WrongState) as caught:
        await world.approve(job_id, await world.approval(job_id, recipients=recipients))
    assert caught.value.metadata["term"] == "recipients"


async def test_a_surplus_term_is_refused(world: Any) -> None:
    job_id = await world.submit()
    with pytest.raises(WrongState) as caught:
        await world.approve(job_id, await world.approval(job_id, zeal="much"))
    assert caught.value.metadata["term"] == "zeal"


@pytest.mark.parametrize("where", range(40, 400, 23))
async def test_one_changed_byte_of_the_statement_is_refused(world: Any, where: int) -> None:
    job_id = await world.submit()
    message = convert.statement_message(await world.approval(job_id))
    data = bytearray(message.statement)
    data[where] ^= 1
    message.statement = bytes(data)
    with pytest.raises((IntegrityFailure, PermissionDenied)) as caught:
        await world.approve(job_id, convert.signed_bytes(message))
    assert caught.value.reason in ("SIGNATURE_INVALID", "NOT_A_REVIEWER")
    assert world.state_of(job_id) == "in_review"


@pytest.mark.parametrize("signer", ["agent", "runner", "carol", "eve", "rita"])
async def test_only_an_admin_device_of_a_reviewer_counts(world: Any, signer: str) -> None:
    job_id = await world.submit()
    with pytest.raises(PermissionDenied) as caught:
        await world.approve(job_id, await world.approval(job_id, getattr(world, signer)))
    assert caught.value.reason == "NOT_A_REVIEWER"


async def test_a_device_taken_off_the_list_counts_no_more(world: Any) -> None:
    job_id = await world.submit()
    signed = await world.approval(job_id)
    keys = world.keys.known[world.admin.principal]
    keys.devices = tuple(found for found in keys.devices if not found.admin)
    with pytest.raises(PermissionDenied):
        await world.approve(job_id, signed)


async def test_a_statement_of_another_kind_is_refused(world: Any) -> None:
    job_id = await world.submit()
    terms = json.loads((await world.get(job_id)).approval_terms_json)
    with pytest.raises(IntegrityFailure) as caught:
        await world.approve(job_id, world.signed(RELEASE_KIND, terms))
    assert caught.value.reason == "SIGNATURE_INVALID"


async def test_a_statement_that_ended_is_refused(world: Any) -> None:
    job_id = await world.submit()
    terms = json.loads((await world.get(job_id)).approval_terms_json)
    signed = world.signed(APPROVAL_KIND, terms, expires_ms=world.clock.ms + 1)
    world.clock.ms += 10
    with pytest.raises(WrongState) as caught:
        await world.approve(job_id, signed)
    assert caught.value.reason == "APPROVAL_EXPIRED"


async def test_the_same_approval_again_changes_nothing_and_another_is_a_wrong_state(world: Any) -> None:
    job_id = await world.submit()
    signed = await world.approval(job_id)
    await world.approve(job_id, signed)
    entries = len(world.audit_kinds())
    await world.approve(job_id, signed)
    assert len(world.audit_kinds()) == entries
    world.clock.ms += 5
    with pytest.raises(WrongState) as caught:
        await world.approve(job_id, await world.approval(job_id))
    assert caught.value.reason == "WRONG_STATE"


async def test_the_owner_does_not_approve_a_job_of_their_own(world: Any) -> None:
    dataset = await world.create_dataset()
    job_id = (await world.call("submit", world.submission(dataset), world.admin.principal)).job_id
    with pytest.raises(PermissionDenied) as caught:
        await world.approve(job_id)
    assert caught.value.reason == "NOT_A_REVIEWER"


async def test_two_of_two_different_reviewers_are_needed_where_the_dataset_says_so(world: Any) -> None:
    world.settings["reviewers"] = frozenset({"rita@hospital.example"})
    world.restart()
    await world.create_dataset(policy={"required_reviewers": 2})
    job_id = await world.submit()
    await world.approve(job_id)
    assert world.state_of(job_id) == "in_review"
    world.clock.ms += 5
    await world.approve(job_id, await world.approval(job_id))
    assert world.state_of(job_id) == "in_review", "the same person twice is one reviewer"
    await world.approve(job_id, await world.approval(job_id, world.rita))
    assert world.state_of(job_id) == "queued"


async def test_an_unknown_job_is_not_found(world: Any) -> None:
    with pytest.raises(NotFound) as caught:
        await world.get("nope")
    assert caught.value.reason == "JOB_UNKNOWN"
