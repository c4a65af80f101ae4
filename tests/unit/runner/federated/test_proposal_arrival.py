"""Proposals arrive: everything in them is hostile until checked, and the secret of a run is nowhere to be read."""

from __future__ import annotations

import math
from typing import Any

import pytest
from mesh.federated.v1 import proposal_pb2, site_service_pb2
from syftmesh_core.errors import IntegrityFailure, LimitExceeded, NotFound
from syftmesh_core.federated import ProposalEvent
from syftmesh_runner import convert
from syftmesh_runner.domain.federated_port import HubRun
from syftmesh_runner.domain.proposal_arrival import MAX_AHEAD_MS, MAX_UNDECIDED

CAROL, EVE, OWNER = "carol@lab.example", "eve@evil.example", "alice@hospital.example"
RUN = "17446744073709551615"
AWAITING = proposal_pb2.PROPOSAL_STATE_AWAITING_APPROVAL
DENIED = proposal_pb2.PROPOSAL_STATE_DENIED


async def test_a_proposal_waits_for_the_owner_and_is_audited(fl: Any) -> None:
    status = await fl.propose()
    assert (status.run_id, status.state, status.reason) == (RUN, AWAITING, "")
    proposal = await fl.get()
    dataset = fl.world.module._state.datasets.get("people")
    assert (proposal.aggregator, proposal.app_name) == (CAROL, "carol/breast-cancer 1.0.0")
    assert (proposal.dataset, proposal.dataset_digest) == ("people", dataset.private_digest)
    assert (proposal.partition, proposal.partitions) == (1, 3)
    assert (proposal.train_tasks, proposal.evaluate_tasks) == (3, 2)
    assert proposal.runtime_digest == fl.world.runtime.value
    assert fl.kinds() == ["federated.proposed"]
    assert [(r.run_id, r.part) for r in fl.proposals.owed()] == [(RUN, "awaiting_approval")]


async def test_the_secret_is_in_the_store_and_in_no_log_repr_audit_or_answer(
    fl: Any, run_key: bytes, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    await fl.propose()
    assert fl.proposals.run_key(RUN) == run_key
    listed = await fl.parts.servicer.ListProposals(site_service_pb2.ListProposalsRequest(), None)
    answers = (await fl.get()).SerializeToString() + listed.SerializeToString()
    texts = [
        repr(fl.proposals.get(RUN)),
        repr(convert.run_request(fl.message())),
        *(str(entry.fields) for entry in fl.world.audit._store.entries()),
        *capsys.readouterr(),
        caplog.text,
    ]
    for secret in (repr(run_key)[2:-1], run_key.hex(), "secret-of-the-run"):
        assert not any(secret in text for text in texts)
    assert b"secret-of-the-run" not in answers


async def test_the_same_proposal_again_has_the_same_answer(fl: Any) -> None:
    message = fl.message()
    await fl.prepare()
    first = await fl.call("propose", message)
    entries = len(fl.world.audit_kinds())
    assert await fl.call("propose", message) == first
    assert len(fl.world.audit_kinds()) == entries
    await fl.deny()
    again = await fl.call("propose", message)
    assert (again.state, again.reason) == (DENIED, "DENIED_BY_OWNER")


@pytest.mark.parametrize(
    "change",
    [
        {"app_digest": "0" * 64},
        {"run_config_json": '{"lr":0.2}'},
        {"train_tasks": 4},
        {"evaluate_tasks": 4},
        {"purpose": "other"},
        {"partition": 2},
        {"partitions": 4},
        {"run_key": b"x" * 32},
        {"limits": proposal_pb2.UpdateLimits(max_norm=2)},
        {"deadline_unix_ms": 1_700_000_900_000},
    ],
)
async def test_the_same_run_with_other_content_is_refused(
    fl: Any, refused: Any, change: dict[str, Any]
) -> None:
    await fl.propose()
    with pytest.raises(refused) as caught:
        await fl.propose(**change)
    assert (caught.value.code, caught.value.reason) == ("ALREADY_EXISTS", "RUN_CHANGED")
    assert (await fl.get()).train_tasks == 3
    assert fl.kinds()[-1] == "federated.proposal_refused"


ROOT = "02" * 32


def recipient(email: str = CAROL, root: str = "") -> proposal_pb2.RunRecipient:
    return proposal_pb2.RunRecipient(email=email, root=root)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"run_id": ""}, "run_id"),
        ({"run_id": "18446744073709551616"}, "run_id"),
        ({"run_id": "../../x"}, "run_id"),
        ({"run_id": "-1"}, "run_id"),
        ({"app_digest": ""}, "app_digest"),
        ({"app_digest": "A" * 64}, "app_digest"),
        ({"app_digest": "../" + "a" * 61}, "app_digest"),
        ({"run_key": b""}, "run_key"),
        ({"run_key": b"x" * 31}, "run_key"),
        ({"run_key": b"x" * 33}, "run_key"),
        ({"partition": 3}, "partition"),
        ({"partition": 0, "partitions": 0}, "partition"),
        ({"partitions": 10_001}, "partition"),
        ({"train_tasks": 0}, "train_tasks"),
        ({"train_tasks": 100_001}, "train_tasks"),
        ({"evaluate_tasks": 0}, "evaluate_tasks"),
        ({"evaluate_tasks": 100_001}, "evaluate_tasks"),
        ({"deadline_unix_ms": 0}, "deadline"),
        ({"deadline_unix_ms": -5}, "deadline"),
        ({"deadline_unix_ms": 1_700_000_000_000}, "deadline"),
        ({"deadline_unix_ms": 1_700_000_100_000 + MAX_AHEAD_MS}, "deadline"),
        ({"purpose": ""}, "purpose"),
        ({"purpose": " \n"}, "purpose"),
        ({"purpose": "x" * 4097}, "purpose"),
        ({"recipients": []}, "recipients"),
        ({"recipients": [recipient(root="00" * 32)]}, "recipients"),
        ({"recipients": [recipient(root=ROOT.upper() + "A")]}, "recipients"),
        ({"recipients": [recipient(EVE, ROOT)]}, "recipients"),
        ({"recipients": [recipient(root=ROOT), recipient(root=ROOT)]}, "recipients"),
        ({"recipients": [recipient(root=ROOT), recipient("nobody", ROOT)]}, "recipients"),
        ({"recipients": [recipient(root=ROOT)] * 17}, "recipients"),
        ({"limits": proposal_pb2.UpdateLimits(max_norm=math.nan)}, "limits"),
        ({"limits": proposal_pb2.UpdateLimits(max_norm=math.inf)}, "limits"),
        ({"limits": proposal_pb2.UpdateLimits(max_norm=-1)}, "limits"),
        ({"limits": proposal_pb2.UpdateLimits(min_rows=(1 << 64) - 1)}, "limits"),
        ({"run_config_json": "{"}, "run_config"),
        ({"run_config_json": "[1]"}, "run_config"),
        ({"run_config_json": '{"a":1,"a":2}'}, "run_config"),
        ({"run_config_json": '{ "a":1}'}, "run_config"),
        ({"run_config_json": '{"a":{"b":1}}'}, "run_config"),
        ({"run_config_json": '{"a":null}'}, "run_config"),
        ({"run_config_json": '{"a":NaN}'}, "run_config"),
        ({"run_config_json": "[" * 10_000}, "run_config"),
        ({"run_config_json": '{"a":"' + "x" * 17_000 + '"}'}, "run_config"),
    ],
)
async def test_a_malformed_proposal_is_refused_by_field_and_leaves_none(
    fl: Any, refused: Any, change: dict[str, Any], field: str
) -> None:
    with pytest.raises(refused) as caught:
        await fl.propose(**change)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "RUN_INVALID")
    assert caught.value.__cause__.metadata == {"field": field}
    assert not fl.proposals.newest(10)
    assert not list(fl.world.folder.glob("state/runs/*"))
    assert fl.kinds() == ["federated.proposal_refused"]


async def test_outside_the_audience_there_is_no_dataset(fl: Any, refused: Any) -> None:
    root = fl.world.roots[EVE].hex()
    fl.world.runs.runs[RUN] = HubRun(EVE, "pending")
    for name in ("people", "nothing", "../people", ""):
        with pytest.raises(refused) as caught:
            await fl.propose(EVE, recipients=[recipient(EVE, root)], dataset=name)
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "DATASET_UNKNOWN")
    assert not fl.proposals.newest(10)


async def test_a_run_of_another_aggregator_cannot_be_taken(fl: Any, refused: Any) -> None:
    await fl.prepare()
    fl.world.runs.runs[RUN] = HubRun(EVE, "pending")
    with pytest.raises(refused) as caught:
        await fl.propose()
    assert caught.value.reason == "RUN_UNKNOWN"
    fl.world.runs.runs.clear()
    with pytest.raises(refused) as caught:
        await fl.call("propose", fl.message())
    assert caught.value.reason == "RUN_UNKNOWN"
    assert not fl.proposals.newest(10)


async def test_a_stranger_learns_nothing_of_a_run_that_another_proposed(fl: Any, refused: Any) -> None:
    await fl.propose()
    root = fl.world.roots[EVE].hex()
    reference = proposal_pb2.RunReference(run_id=RUN)
    for endpoint, message in (
        ("propose", fl.message(recipients=[recipient(EVE, root)])),
        ("status", reference),
    ):
        for sender in (EVE, OWNER) if endpoint == "status" else (EVE,):
            with pytest.raises(refused) as caught:
                await fl.call(endpoint, message, sender)
            assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "RUN_UNKNOWN")
    assert (await fl.call("status", reference)).state == AWAITING


async def test_a_run_that_is_over_at_the_hub_is_not_taken(fl: Any, refused: Any) -> None:
    fl.world.runs.runs[RUN] = HubRun(CAROL, "cancelled", ProposalEvent.CANCEL)
    with pytest.raises(refused) as caught:
        await fl.propose()
    assert caught.value.reason == "WRONG_STATE"


async def test_without_the_hub_nothing_is_stored_and_the_next_try_succeeds(fl: Any, refused: Any) -> None:
    fl.world.runs.away = True
    message = fl.message()
    await fl.prepare()
    with pytest.raises(refused) as caught:
        await fl.call("propose", message)
    assert caught.value.code == "UNAVAILABLE"
    fl.world.runs.away = False
    assert (await fl.call("propose", message)).state == AWAITING


@pytest.mark.parametrize(
    ("bundle", "reason"), [(b"no zip", "BUNDLE_INVALID"), (b"\0" * ((4 << 20) + 1), "BUNDLE_TOO_LARGE")]
)
async def test_a_wrong_bundle_is_denied_and_the_hub_is_told_why(
    fl: Any, run_key: bytes, bundle: bytes, reason: str
) -> None:
    fl.bundle = bundle
    message = fl.message()
    await fl.prepare()
    for _ in range(2):
        status = await fl.call("propose", message)
        assert (status.state, status.reason) == (DENIED, reason)
    assert [(r.part, r.end_reason) for r in fl.proposals.owed()] == [("denied", reason)]
    assert fl.kinds() == ["federated.proposed", "federated.denied"]
    assert fl.proposals.run_key(RUN) == b""
    with pytest.raises(IntegrityFailure):
        await fl.parts.servicer.GetProposalCode(site_service_pb2.GetProposalCodeRequest(run_id=RUN), None)


async def test_another_bundle_at_the_hub_than_named_is_denied(fl: Any, zipped: Any, app_files: Any) -> None:
    fl.world.runs.bundles[RUN] = zipped({**app_files, "app/more.py": b""})
    status = await fl.propose()
    assert (status.state, status.reason) == (DENIED, "BUNDLE_CHANGED")


@pytest.mark.parametrize(
    ("asked", "settings", "expected"),
    [
        ((0, 0, 0, 0), {}, (64 << 20, 0, 5, 64)),
        ((1 << 20, 2.5, 10, 3), {}, (1 << 20, 2.5, 10, 3)),
        ((1 << 40, 0, 1, 1_000_000), {}, (64 << 20, 0, 5, 64)),
        ((1 << 40, 9, 7, 10), {"max_update_bytes": 512 << 20, "max_norm": 4.0}, (512 << 20, 4.0, 7, 10)),
        ((1 << 10, 3, 7, 10), {"max_norm": 4.0, "max_metrics": 2}, (1 << 10, 3.0, 7, 2)),
    ],
)
async def test_limits_are_the_stricter_of_what_is_asked_and_what_the_owner_demands(
    fl: Any, asked: Any, settings: dict[str, Any], expected: Any
) -> None:
    fl.world.settings.update(settings)
    fl.world.restart()
    size, norm, rows, metrics = asked
    await fl.propose(
        limits=proposal_pb2.UpdateLimits(
            max_update_bytes=size, max_norm=norm, min_rows=rows, max_metrics=metrics
        )
    )
    found = (await fl.get()).limits
    assert (found.max_update_bytes, found.max_norm, found.min_rows, found.max_metrics) == expected


async def test_one_aggregator_cannot_fill_the_owners_list(fl: Any, refused: Any) -> None:
    await fl.prepare()
    for number in range(1, MAX_UNDECIDED + 2):
        run_id = str(number)
        fl.world.runs.runs[run_id] = HubRun(CAROL, "pending")
        fl.world.runs.bundles[run_id] = fl.bundle
        if number <= MAX_UNDECIDED:
            await fl.call("propose", fl.message(run_id=run_id))
    with pytest.raises(refused) as caught:
        await fl.call("propose", fl.message(run_id=run_id))
    assert (caught.value.code, caught.value.reason) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")
    listed = await fl.parts.servicer.ListProposals(site_service_pb2.ListProposalsRequest(), None)
    assert [p.run_id for p in listed.proposals][:2] == [str(MAX_UNDECIDED), str(MAX_UNDECIDED - 1)]


async def test_bytes_that_are_no_message_and_endpoints_that_are_none_are_refused(
    fl: Any, refused: Any
) -> None:
    class Junk:
        @staticmethod
        def SerializeToString() -> bytes:  # noqa: N802
            return b"\xff\xff\xff"

    for endpoint in ("propose", "status"):
        with pytest.raises(refused) as caught:
            await fl.call(endpoint, Junk)
        assert caught.value.reason == "MESSAGE_MALFORMED"
    with pytest.raises(refused) as caught:
        await fl.call("approve", proposal_pb2.RunReference(run_id=RUN))
    assert caught.value.reason == "ENDPOINT_UNKNOWN"


async def test_the_owner_reads_the_code_that_was_proposed(fl: Any) -> None:
    await fl.propose()
    request = site_service_pb2.GetProposalCodeRequest(run_id=RUN)
    code = await fl.parts.servicer.GetProposalCode(request, None)
    assert [file.path for file in code.files] == ["app/client.py", "app/server.py", "pyproject.toml"]
    (kept,) = fl.world.folder.glob(f"state/runs/{RUN}/*.fab")
    assert kept.stat().st_mode & 0o777 == 0o600
    kept.write_bytes(b"another")
    with pytest.raises(IntegrityFailure) as caught:
        await fl.parts.servicer.GetProposalCode(request, None)
    assert caught.value.reason == "BUNDLE_CHANGED"
    request.run_id = "1"
    with pytest.raises(NotFound):
        await fl.parts.servicer.GetProposalCode(request, None)


async def test_code_that_fits_into_no_answer_is_refused_with_a_word(
    fl: Any, zipped: Any, app_files: Any
) -> None:
    fl.bundle = zipped({**app_files, "long.txt": bytes(8 << 20)})
    assert (await fl.propose()).state == AWAITING
    with pytest.raises(LimitExceeded):
        await fl.parts.servicer.GetProposalCode(site_service_pb2.GetProposalCodeRequest(run_id=RUN), None)


async def test_proposals_outlive_a_restart(fl: Any, run_key: bytes) -> None:
    await fl.propose()
    before = await fl.get()
    fl.world.restart()
    assert await fl.get() == before
    assert fl.proposals.run_key(RUN) == run_key
