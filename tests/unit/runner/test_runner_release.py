"""Releases: only what a reviewer signed leaves, only past the gate or with a reason, and it is counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mesh.rds.v1 import rds_pb2, rds_service_pb2
from syftmesh_core.approval import RELEASE_KIND, Recipient, ReleasedFile
from syftmesh_core.errors import IntegrityFailure, NotFound, PermissionDenied, Unavailable, WrongState
from syftmesh_executor.port import EndReason
from syftmesh_runner.domain.job import STDERR, STDOUT

OWNER, CAROL = "alice@hospital.example", "carol@lab.example"


def results(world: Any, job_id: str) -> dict[str, bytes]:
    root = f"{OWNER}/app_data/rds/results/{CAROL}/{job_id}/"
    return {path.removeprefix(root): data for path, data in world.hub.files.items() if path.startswith(root)}


async def test_only_what_was_chosen_leaves_with_its_lineage(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        before = set(results(world, job_id)) - {"status.json"}
        answer = await world.release(job_id, names=["counts.csv"])
    assert before == set()
    found = results(world, job_id)
    assert set(found) - {"status.json"} == {"counts.csv", "lineage.json"}
    assert found["counts.csv"] == b"group,count\na,120\nb,80\n"
    assert answer.bytes_out == sum(len(found[name]) + 100 for name in ("counts.csv", "lineage.json"))
    lineage = json.loads(found["lineage.json"])
    job = answer.job
    assert lineage["datasets"] == [{"name": "people", "digest": job.datasets[0].digest}]
    assert (lineage["code_digest"], lineage["runtime_digest"]) == (job.code_digest, job.runtime_digest)
    assert lineage["reviewers"] == [OWNER]
    assert {output.name for output in job.outputs if output.released} == {"counts.csv"}
    assert job.state == rds_pb2.JOB_STATE_RELEASED


async def test_the_status_names_the_released_files(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        await world.release(job_id, names=["counts.csv"])
        status = await world.call("status", rds_pb2.JobReference(job_id=job_id))
    assert list(status.released) == ["counts.csv"]


async def test_the_bytes_out_are_audited_per_release_and_in_total(world: Any) -> None:
    async with world.running():
        first = await world.succeeded()
        one = (await world.release(first)).bytes_out
        second = await world.succeeded()
        two = (await world.release(second)).bytes_out
    request = rds_service_pb2.QueryAuditRequest(kind="job.released")
    entries = (await world.audit.QueryAudit(request, None)).entries
    facts = [json.loads(entry.fields_json) for entry in entries]
    assert [fact["bytes_out"] for fact in facts] == [one, two]
    assert [fact["bytes_out_total"] for fact in facts] == [one, one + two]


async def test_blocked_output_leaves_only_with_a_reason_that_is_signed_and_audited(world: Any) -> None:
    world.executor.files = {"counts.csv": b"group,count\na,3\n"}
    async with world.running():
        job_id = await world.succeeded()
        with pytest.raises(IntegrityFailure) as caught:
            await world.release(job_id)
        assert (caught.value.reason, caught.value.metadata["outputs"]) == ("RELEASE_REFUSED", "counts.csv")
        with pytest.raises(IntegrityFailure):
            await world.release(job_id, override_reason="  ")
        assert world.state_of(job_id) == "succeeded"
        await world.release(job_id, override_reason="the three are ours")
    entry = list(world.audit._store.entries())[-1]
    assert entry.fields["override_reason"] == "the three are ours"


async def test_more_bytes_than_the_policy_allows_are_refused(world: Any) -> None:
    world.executor.files = {f"{n}.txt": b"word " * 30 for n in range(10)}
    await world.create_dataset(policy={"max_result_bytes": 1000})
    async with world.running():
        job_id = await world.succeeded()
        with pytest.raises(IntegrityFailure) as caught:
            await world.release(job_id)
        assert caught.value.reason == "RELEASE_REFUSED"
        await world.release(job_id, names=["1.txt", "2.txt"])


@pytest.mark.parametrize("signer", ["agent", "runner", "carol", "eve"])
async def test_only_an_admin_device_of_the_owner_releases(world: Any, signer: str) -> None:
    async with world.running():
        job_id = await world.succeeded()
        with pytest.raises(PermissionDenied) as caught:
            await world.release(job_id, by=getattr(world, signer))
    assert caught.value.reason == "NOT_A_REVIEWER"
    assert set(results(world, job_id)) <= {"status.json"}


@pytest.mark.parametrize(
    ("changes", "error", "reason"),
    [
        ({"job_id": "01890000-0000-7000-8000-000000000001"}, WrongState, "RELEASE_MISMATCH"),
        ({"files": (ReleasedFile("counts.csv", "0" * 64),)}, WrongState, "RELEASE_MISMATCH"),
        ({"files": (ReleasedFile("other.csv", "0" * 64),)}, NotFound, "OUTPUT_UNKNOWN"),
        ({"files": (ReleasedFile("../code.tar", "0" * 64),)}, NotFound, "OUTPUT_UNKNOWN"),
        ({"recipients": ()}, WrongState, "RELEASE_MISMATCH"),
        ({"recipients": (Recipient("eve@evil.example", "0" * 64),)}, WrongState, "RELEASE_MISMATCH"),
        ({"recipients": (Recipient(CAROL, "0" * 64),)}, WrongState, "RELEASE_MISMATCH"),
    ],
)
async def test_a_release_of_anything_else_is_refused(
    world: Any, changes: dict[str, Any], error: type[Exception], reason: str
) -> None:
    async with world.running():
        job_id = await world.succeeded()
        terms = await world.release_terms(job_id, **{k: v for k, v in changes.items() if k != "job_id"})
        body = {**json.loads(terms.to_json()), **{k: v for k, v in changes.items() if k == "job_id"}}
        with pytest.raises(error) as caught:
            await world.release_signed(job_id, world.signed(RELEASE_KIND, body))
    assert caught.value.reason == reason  # type: ignore[attr-defined]
    assert set(results(world, job_id)) <= {"status.json"}


async def test_a_recipient_with_a_new_root_gets_nothing(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        world.keys.known[CAROL].root = b"\x77" * 32
        with pytest.raises(IntegrityFailure) as caught:
            await world.release(job_id)
    assert caught.value.reason == "KEY_CHANGED"


async def test_output_changed_after_the_gate_does_not_leave(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        (path,) = world.folder.glob(f"state/jobs/{job_id}/output/counts.csv")
        path.write_bytes(b"group,count\na,1\n")
        with pytest.raises(IntegrityFailure) as caught:
            await world.release(job_id)
    assert caught.value.reason == "OUTPUT_CHANGED"
    assert "counts.csv" not in results(world, job_id)


async def test_a_link_put_in_place_of_an_output_is_not_followed(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        (path,) = world.folder.glob(f"state/jobs/{job_id}/output/counts.csv")
        secret = world.folder / "secret"
        secret.write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(secret)
        with pytest.raises(IntegrityFailure):
            await world.release(job_id)


async def test_a_failed_job_releases_its_logs_only(world: Any) -> None:
    world.executor.reason = EndReason.EXIT_NONZERO
    async with world.running():
        job_id = await world.succeeded()
        assert world.state_of(job_id) == "failed"
        await world.release(job_id, names=[STDOUT, STDERR])
    assert set(results(world, job_id)) - {"status.json"} == {STDOUT, STDERR, "lineage.json"}
    job = (await world.get(job_id)).job
    assert (job.state, job.end_reason) == (rds_pb2.JOB_STATE_RELEASED, "EXIT_NONZERO")


async def test_output_that_calls_itself_a_log_or_the_lineage_stays_behind(world: Any) -> None:
    world.executor.files = {"logs/stdout.txt": b"forged", "lineage.json": b"{}", "Logs/x": b"x"}
    async with world.running():
        job_id = await world.succeeded()
        job = (await world.get(job_id)).job
        with pytest.raises(NotFound):
            await world.release(job_id, names=["lineage.json"])
        await world.release(job_id, names=[STDOUT])
    assert [output.name for output in job.outputs] == ["lineage.json", STDOUT, STDERR]
    assert results(world, job_id)[STDOUT] == b"done\n"


async def test_the_same_release_again_gives_the_same_answer_and_another_is_refused(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        terms = await world.release_terms(job_id)
        signed = world.signed(RELEASE_KIND, json.loads(terms.to_json()))
        first = await world.release_signed(job_id, signed)
        written = len(world.hub.written)
        again = await world.release_signed(job_id, signed)
        assert (again.bytes_out, len(world.hub.written)) == (first.bytes_out, written)
        world.clock.ms += 5
        with pytest.raises(WrongState):
            await world.release(job_id)


async def test_a_release_that_was_cut_off_is_finished_after_a_restart(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        world.hub.away = True
        with pytest.raises(Unavailable):
            await world.release(job_id)
        with pytest.raises(WrongState):
            await world.jobs.WithholdJob(rds_service_pb2.WithholdJobRequest(job_id=job_id, reason="no"), None)
    world.hub.away = False
    world.restart()
    resume = asyncio.create_task(world.module._work.release.resume())
    await world.until(job_id, "released")
    resume.cancel()
    await asyncio.gather(resume, return_exceptions=True)
    assert "counts.csv" in results(world, job_id)


async def test_withheld_output_never_leaves(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        request = rds_service_pb2.WithholdJobRequest(job_id=job_id, reason="too detailed")
        answer = await world.jobs.WithholdJob(request, None)
        assert (answer.job.state, answer.job.message) == (rds_pb2.JOB_STATE_WITHHELD, "too detailed")
        with pytest.raises(WrongState):
            await world.release(job_id)
    assert set(results(world, job_id)) <= {"status.json"}


async def test_a_statement_with_other_terms_is_refused(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        body = {**json.loads((await world.release_terms(job_id)).to_json()), "more": 1}
        with pytest.raises(IntegrityFailure) as caught:
            await world.release_signed(job_id, world.signed(RELEASE_KIND, body))
    assert caught.value.reason == "SIGNATURE_INVALID"


async def test_files_are_sealed_anew_when_a_readers_device_list_changes(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
        await world.release(job_id, names=["counts.csv"])
        async with asyncio.timeout(5):
            while "status.json" not in results(world, job_id):
                await asyncio.sleep(0.002)
    publication = world.module._work.publication
    assert await publication.reseal_for(CAROL) == 0
    world.keys.known[CAROL].version = 2
    count = await publication.reseal_for(CAROL)
    assert f"{OWNER}/app_data/rds/results/{CAROL}/{job_id}/counts.csv" in world.hub.resealed
    assert count == len(world.hub.resealed)
    assert await publication.reseal_for(CAROL) == 0


async def test_update_and_revoke_say_that_they_are_not_built(world: Any) -> None:
    from syftmesh_core.errors import Unimplemented

    with pytest.raises(Unimplemented):
        await world.datasets.UpdateDataset(rds_service_pb2.UpdateDatasetRequest(), None)
    with pytest.raises(Unimplemented):
        await world.jobs.RevokeRelease(rds_service_pb2.RevokeReleaseRequest(), None)
