"""Every task is checked against what lies on disk and what the owner signed; the database is not believed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import Any

import pytest
from syftmesh_core.approval import Recipient
from syftmesh_core.errors import InvalidInput, LimitExceeded, NotFound, Unavailable, WrongState

CAROL, OWNER = "carol@lab.example", "alice@hospital.example"
RUN = "17446744073709551615"


async def test_an_approved_run_grants_what_was_approved(fl: Any, run_key: bytes) -> None:
    await fl.approved()
    grant = await fl.authorise()
    assert grant.run_key == run_key
    assert "secret-of-the-run" not in repr(grant)
    assert grant.bundle.read_bytes() == fl.bundle
    assert (grant.data / "table.csv").is_file()
    assert (grant.dataset.name, grant.rows) == ("people", 200)
    assert (grant.aggregator, grant.run_config) == (CAROL, {"lr": 0.1})
    assert grant.recipients == (Recipient(CAROL, fl.world.roots[CAROL].hex()),)
    assert (grant.partition, grant.partitions) == (1, 3)
    assert (grant.train_left, grant.evaluate_left, grant.wall_s) == (3, 2, 600)
    limits = grant.limits
    assert (limits.max_update_bytes, limits.max_norm, limits.min_rows) == (1 << 20, 2.5, 10)
    assert await fl.authorise() == grant


async def test_a_dataset_without_tables_counts_its_files(fl: Any) -> None:
    private, mock = fl.world.folder / "images", fl.world.folder / "mocks"
    for folder in (private, mock):
        folder.mkdir()
        for number in range(7):
            (folder / f"{number}.bin").write_bytes(bytes([number]) + folder.name.encode())
    await fl.world.create_dataset(private_path=str(private), mock_path=str(mock), generate_mock=False)
    await fl.approved()
    assert (await fl.authorise()).rows == 7


async def test_what_was_not_approved_runs_not(fl: Any) -> None:
    with pytest.raises(NotFound) as unknown:
        await fl.authorise()
    assert unknown.value.reason == "RUN_UNKNOWN"
    await fl.propose()
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert (caught.value.reason, caught.value.metadata) == ("NOT_APPROVED", {"state": "awaiting_approval"})


async def test_another_bundle_is_a_mismatch(fl: Any) -> None:
    await fl.approved()
    with pytest.raises(WrongState) as caught:
        await fl.authorise(app_digest="0" * 64)
    assert (caught.value.reason, caught.value.metadata) == ("APPROVAL_MISMATCH", {"term": "app_digest"})


@pytest.mark.parametrize("change", ["changed", "gone", "link"])
async def test_a_bundle_that_was_changed_on_disk_is_a_mismatch(fl: Any, change: str) -> None:
    await fl.approved()
    (kept,) = fl.world.folder.glob(f"state/runs/{RUN}/*.fab")
    if change == "changed":
        kept.write_bytes(b"x")
    else:
        data = kept.read_bytes()
        kept.unlink()
        if change == "link":
            (fl.world.folder / "elsewhere").write_bytes(data)
            kept.symlink_to(fl.world.folder / "elsewhere")
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert (caught.value.reason, caught.value.metadata) == ("APPROVAL_MISMATCH", {"term": "app_digest"})


@pytest.mark.parametrize(
    ("term", "change"),
    [
        ("run_config", {"run_config_json": '{"lr":9}'}),
        ("aggregator", {"aggregator": "eve@evil.example"}),
        ("recipients", {"recipients": (Recipient("eve@evil.example", "0" * 64),)}),
        ("train_tasks", {"train_tasks": 9}),
        ("evaluate_tasks", {"evaluate_tasks": 9}),
        ("purpose", {"purpose": "other"}),
        ("expires_ms", {"expires_ms": 1_900_000_000_000}),
        ("reviewers", {"approvals": ()}),
        ("signature", {"approvals": ("00",)}),
    ],
)
async def test_a_changed_database_is_a_mismatch(fl: Any, term: str, change: dict[str, Any]) -> None:
    await fl.approved()
    fl.proposals.save(replace(fl.proposals.get(RUN), **change))
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert (caught.value.reason, caught.value.metadata) == ("APPROVAL_MISMATCH", {"term": term})


async def test_a_proposal_set_to_approved_in_the_database_has_no_approval(fl: Any) -> None:
    await fl.propose()
    from syftmesh_core.federated import ProposalState

    fl.proposals.save(replace(fl.proposals.get(RUN), state=ProposalState.APPROVED))
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert caught.value.metadata == {"term": "reviewers"}


async def test_another_runtime_is_a_mismatch(fl: Any) -> None:
    await fl.approved()
    fl.world.runtime.value = "cd" * 32
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert caught.value.metadata == {"term": "runtime_digest"}


async def test_a_device_that_was_revoked_approves_nothing_any_more(fl: Any) -> None:
    await fl.approved()
    keys = fl.world.keys.known[OWNER]
    keys.devices = tuple(found for found in keys.devices if not found.admin)
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert caught.value.metadata == {"term": "signature"}
    fl.world.keys.away = True
    with pytest.raises(Unavailable):
        await fl.authorise()


@pytest.mark.parametrize("change", ["changed", "more", "gone", "unregistered", "another"])
async def test_a_dataset_that_was_changed_is_told(fl: Any, change: str) -> None:
    await fl.approved()
    dataset = fl.world.module._state.datasets.get("people")
    part = fl.world.module._state.folder.private_part("people", dataset.private_digest)
    if change == "changed":
        (part / "table.csv").write_text("group,age,value\n")
    elif change == "more":
        (part / "more.csv").write_text("a\n")
    elif change == "gone":
        shutil.rmtree(part)
    elif change == "another":
        fl.world.module._state.datasets.save(replace(dataset, private_digest="0" * 64))
    else:
        fl.world.module._state.datasets.delete("people")
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert (caught.value.reason, caught.value.metadata) == ("DATASET_CHANGED", {"dataset": "people"})


async def test_an_approval_ends(fl: Any) -> None:
    await fl.approved()
    with pytest.raises(WrongState) as caught:
        await fl.authorise(now_ms=fl.proposals.get(RUN).expires_ms)
    assert caught.value.reason == "APPROVAL_EXPIRED"


async def test_a_statement_that_ends_before_the_run_counts_no_more(fl: Any) -> None:
    import json

    from syftmesh_core.federated import FEDERATED_APPROVAL_KIND
    from syftmesh_runner.domain.proposal import terms_of

    await fl.propose()
    terms = json.loads(terms_of(fl.proposals.get(RUN)).to_json())
    expires_ms = fl.world.clock.ms + 1000
    await fl.approve(fl.world.signed(FEDERATED_APPROVAL_KIND, terms, expires_ms=expires_ms))
    await fl.authorise()
    fl.world.clock.ms = expires_ms
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert caught.value.reason == "APPROVAL_EXPIRED"


async def test_an_owner_who_leaves_during_the_check_has_left(fl: Any) -> None:
    await fl.approved()
    directory = fl.world.keys
    devices_of = directory.devices_of

    async def slow(principal: str, *, refresh: bool = False) -> Any:
        await fl.withdraw()
        return await devices_of(principal, refresh=refresh)

    directory.devices_of = slow
    with pytest.raises(WrongState) as caught:
        await fl.authorise()
    assert caught.value.reason == "NOT_APPROVED"


async def test_tasks_are_counted_audited_and_end(fl: Any) -> None:
    await fl.approved()
    record = fl.runs.record_task
    record(RUN, "train", "", 1000)
    record(RUN, "train", "UPDATE_NOT_FINITE", 50)
    record(RUN, "train", "", 1000)
    record(RUN, "query", "", 10)
    proposal = await fl.get()
    assert (proposal.train_tasks_done, proposal.evaluate_tasks_done) == (2, 1)
    assert (proposal.refused_tasks, proposal.sent_bytes) == (1, 2060)
    entry = list(fl.world.audit._store.entries())[-1]
    assert (entry.kind, entry.actor) == ("federated.task", "runner")
    assert entry.fields == {
        "run_id": RUN,
        "aggregator": CAROL,
        "datasets": ["people"],
        "kind": "query",
        "ok": True,
        "reason": "",
        "sent_bytes": 10,
    }
    await fl.authorise(kind="train")
    record(RUN, "train", "", 1)
    with pytest.raises(LimitExceeded) as caught:
        await fl.authorise(kind="train")
    assert caught.value.reason == "TASKS_EXHAUSTED"
    for kind in ("evaluate", "query", None):
        assert (await fl.authorise(kind=kind)).evaluate_left == 1
    record(RUN, "evaluate", "", 1)
    for kind in ("evaluate", "query", None):
        with pytest.raises(LimitExceeded):
            await fl.authorise(kind=kind)


async def test_code_that_fails_for_ever_is_stopped_too(fl: Any) -> None:
    await fl.approved()
    for _ in range(5):
        await fl.authorise(kind="train")
        fl.runs.record_task(RUN, "train", "APP_ERROR", 0)
    with pytest.raises(LimitExceeded):
        await fl.authorise(kind="train")


async def test_tasks_of_unknown_runs_and_kinds_are_written_down_as_refused(fl: Any) -> None:
    await fl.approved()
    with pytest.raises(InvalidInput) as caught:
        await fl.authorise(kind="steal")
    assert caught.value.reason == "TASK_KIND_UNKNOWN"
    fl.runs.record_task(RUN, "steal", "", 0)
    assert (await fl.get()).refused_tasks == 1
    fl.runs.record_task("9" * 500, "train", "RUN_UNKNOWN", 0)
    first, second = list(fl.world.audit._store.entries())[-2:]
    assert (first.fields["kind"], first.fields["ok"]) == ("unknown", False)
    assert (second.fields["run_id"], second.fields["reason"]) == ("9" * 64, "RUN_UNKNOWN")


async def test_what_an_app_printed_is_kept_for_the_owner(fl: Any) -> None:
    await fl.approved()
    for text in (b"one", b"two"):
        fl.runs.keep_log(RUN, text, b"")
    kept = fl.world.folder / "state" / "runs" / RUN / "stdout.txt"
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (b"two", 0o600)
    with pytest.raises(NotFound):
        fl.runs.keep_log("../../x", b"", b"")


async def test_a_stricter_owner_is_obeyed_from_the_next_start_on(fl: Any) -> None:
    await fl.approved()
    fl.world.settings.update(max_update_bytes=2048, max_norm=1.5)
    fl.world.restart()
    limits = (await fl.authorise()).limits
    assert (limits.max_update_bytes, limits.max_norm) == (2048, 1.5)
