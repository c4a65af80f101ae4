"""A job's life at the site: arrival, roles, races, the check before the start, restarts, expiry."""

from __future__ import annotations

import asyncio
import io
import json
import tarfile
from collections.abc import Callable
from typing import Any

import pytest
from mesh.rds.v1 import rds_pb2, rds_service_pb2
from syftmesh_core.errors import NotFound, Unavailable, WrongState
from syftmesh_executor.port import EndReason, RunSpec
from syftmesh_runner.domain.job import STDERR, STDOUT

CAROL, EVE, OWNER = "carol@lab.example", "eve@evil.example", "alice@hospital.example"


def archive(*members: tuple[str, bytes | None, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if content is None:
                info.linkname = "/etc/passwd"
                made.addfile(info)
            else:
                info.size = len(content)
                made.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


async def test_submission_is_kept_reviewed_and_audited(world: Any) -> None:
    job_id = await world.submit()
    job = (await world.get(job_id)).job
    assert job.state == rds_pb2.JOB_STATE_IN_REVIEW
    assert (job.submitter, job.submitter_root) == (CAROL, world.roots[CAROL])
    assert [finding.rule for finding in job.findings] == ["IMPORT_FILES"]
    code = await world.jobs.GetJobCode(rds_service_pb2.GetJobCodeRequest(job_id=job_id), None)
    assert [(file.name, file.content) for file in code.files] == [("main.py", b"import os\nprint('hello')\n")]
    assert world.audit_kinds()[-2:] == ["job.submitted", "job.in_review"]


async def test_submit_is_idempotent_for_the_same_job_id(world: Any, refused: Any) -> None:
    dataset = await world.create_dataset()
    message = world.submission(dataset)
    await world.call("submit", message)
    entries = len(world.audit_kinds())
    again = await world.call("submit", message)
    assert again.state == rds_pb2.JOB_STATE_IN_REVIEW
    assert len(world.audit_kinds()) == entries
    message.purpose = "another"
    with pytest.raises(refused) as caught:
        await world.call("submit", message)
    assert caught.value.reason == "JOB_EXISTS"


async def test_submission_of_somebody_outside_the_audience_finds_no_dataset(world: Any, refused: Any) -> None:
    dataset = await world.create_dataset()
    for name in ("people", "nothing"):
        dataset.name = name
        with pytest.raises(refused) as caught:
            await world.call("submit", world.submission(dataset), EVE)
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "DATASET_UNKNOWN")
    listed = await world.jobs.ListJobs(rds_service_pb2.ListJobsRequest(), None)
    assert not listed.jobs
    assert world.audit_kinds()[-1] == "job.submission_refused"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"datasets": [rds_pb2.DatasetVersion(name="people", digest="0" * 64)]}, "DATASET_CHANGED"),
        ({"entrypoint": "other.py"}, "ENTRYPOINT_MISSING"),
        ({"parameters_json": "{"}, "PARAMETERS_INVALID"),
        ({"parameters_json": "[1]"}, "PARAMETERS_INVALID"),
        ({"parameters_json": '{"a":1,"a":2}'}, "PARAMETERS_INVALID"),
        ({"code_archive": b"no tar"}, "ARCHIVE_INVALID"),
        ({"code_archive": archive(("main.py", b"", b"0"), ("../x", b"", b"0"))}, "ARCHIVE_INVALID"),
        ({"code_archive": archive(("main.py", b"", b"0"), ("/x", b"", b"0"))}, "ARCHIVE_INVALID"),
        ({"code_archive": archive(("main.py", None, tarfile.SYMTYPE))}, "ARCHIVE_INVALID"),
        ({"code_archive": archive(("main.py", b"", b"0"), ("h", None, tarfile.LNKTYPE))}, "ARCHIVE_INVALID"),
        ({"code_archive": archive(("main.py", b"", b"0"), ("d", None, tarfile.CHRTYPE))}, "ARCHIVE_INVALID"),
    ],
)
async def test_what_is_wrong_on_arrival_is_told_and_ends_as_rejected(
    world: Any, refused: Any, changes: dict[str, Any], reason: str
) -> None:
    dataset = await world.create_dataset()
    message = world.submission(dataset, **changes)
    with pytest.raises(refused) as caught:
        await world.call("submit", message)
    assert caught.value.reason == reason
    status = await world.call("status", rds_pb2.JobReference(job_id=message.job_id))
    assert (status.state, status.end_reason) == (rds_pb2.JOB_STATE_REJECTED, reason)
    assert not list(world.folder.glob("state/staging/*"))


@pytest.mark.parametrize(
    "changes",
    [
        {"job_id": "x"},
        {"job_id": "../../etc"},
        {"datasets": []},
        {"purpose": " "},
        {"purpose": "x" * 5000},
        {"entrypoint": "main.sh"},
        {"parameters_json": '{"a":"' + "x" * 70_000 + '"}'},
    ],
)
async def test_a_malformed_submission_leaves_no_job(
    world: Any, refused: Any, changes: dict[str, Any]
) -> None:
    dataset = await world.create_dataset()
    with pytest.raises(refused) as caught:
        await world.call("submit", world.submission(dataset, **changes))
    assert caught.value.reason == "JOB_INVALID"
    assert not (await world.jobs.ListJobs(rds_service_pb2.ListJobsRequest(), None)).jobs


async def test_bytes_that_are_no_message_and_endpoints_that_are_none_are_refused(
    world: Any, refused: Any
) -> None:
    class Junk:
        @staticmethod
        def SerializeToString() -> bytes:  # noqa: N802
            return b"\xff\xff\xff"

    for endpoint in ("submit", "withdraw", "status"):
        with pytest.raises(refused) as caught:
            await world.call(endpoint, Junk)
        assert caught.value.reason == "MESSAGE_MALFORMED"
    with pytest.raises(refused) as caught:
        await world.call("approve", rds_pb2.JobReference(job_id="x"))
    assert caught.value.reason == "ENDPOINT_UNKNOWN"


async def test_strangers_find_no_job_and_a_party_in_the_wrong_role_is_denied(
    world: Any, refused: Any
) -> None:
    reference = rds_pb2.JobReference(job_id=await world.submit())
    for endpoint in ("status", "withdraw"):
        with pytest.raises(refused) as caught:
            await world.call(endpoint, reference, EVE)
        assert (caught.value.code, caught.value.reason) == ("NOT_FOUND", "JOB_UNKNOWN")
    assert (await world.call("status", reference, OWNER)).state == rds_pb2.JOB_STATE_IN_REVIEW
    with pytest.raises(refused) as caught:
        await world.call("withdraw", reference, OWNER)
    assert caught.value.code == "PERMISSION_DENIED"
    assert world.audit_kinds()[-1] == "job.attempt_refused"


async def test_submitter_withdraws_before_it_runs(world: Any, refused: Any) -> None:
    job_id = await world.submit()
    await world.approve(job_id)
    status = await world.call("withdraw", rds_pb2.JobReference(job_id=job_id))
    assert status.state == rds_pb2.JOB_STATE_WITHDRAWN
    with pytest.raises(refused) as caught:
        await world.call("withdraw", rds_pb2.JobReference(job_id=job_id))
    assert caught.value.code == "FAILED_PRECONDITION"


async def test_owner_rejects_with_a_reason(world: Any) -> None:
    job_id = await world.submit()
    job = await world.jobs.RejectJob(
        rds_service_pb2.RejectJobRequest(job_id=job_id, reason="too broad"), None
    )
    assert (job.job.state, job.job.message) == (rds_pb2.JOB_STATE_REJECTED, "too broad")
    with pytest.raises(WrongState):
        await world.approve(job_id)


async def test_owner_cannot_cancel_before_approval(world: Any) -> None:
    job_id = await world.submit()
    with pytest.raises(WrongState):
        await world.jobs.CancelJob(rds_service_pb2.CancelJobRequest(job_id=job_id), None)


async def test_an_approved_job_runs_on_the_private_part_with_its_parameters(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
    (spec,) = world.executor.runs
    assert spec.parameters == {"n": 3}
    assert (spec.code_dir / "main.py").name == spec.entrypoint
    assert sorted(path.name for path in spec.datasets["people"].iterdir()) == ["table.csv"]
    assert spec.limits.wall_s == 600
    job = (await world.get(job_id)).job
    assert [output.name for output in job.outputs] == ["counts.csv", STDOUT, STDERR]


@pytest.mark.parametrize("by", ["owner", "submitter"])
async def test_a_running_job_is_cancelled_and_its_output_dropped(world: Any, by: str) -> None:
    world.executor.gate = asyncio.Event()
    async with world.running():
        job_id = await world.submit()
        await world.approve(job_id)
        await world.until(job_id, "running")
        if by == "owner":
            await world.jobs.CancelJob(rds_service_pb2.CancelJobRequest(job_id=job_id), None)
        else:
            await world.call("withdraw", rds_pb2.JobReference(job_id=job_id))
            async with asyncio.timeout(5):
                await world.executor.gate.wait()
        assert job_id in world.executor.cancelled
        await asyncio.sleep(0)
    job = (await world.get(job_id)).job
    assert job.state == rds_pb2.JOB_STATE_CANCELLED
    assert job.end_reason == f"CANCELLED_BY_{by.upper()}"
    assert not job.outputs


async def test_a_job_cancelled_while_its_output_is_read_stays_cancelled(world: Any) -> None:
    async with world.running():
        job_id = await world.submit()
        await world.approve(job_id)

        def stop(spec: RunSpec) -> None:
            world.module._work.decision.cancel(spec.run_id)

        world.executor.hook = stop
        await world.until(job_id, "cancelled")
        for _ in range(50):
            await asyncio.sleep(0.002)
    assert not (await world.get(job_id)).job.outputs


async def test_withdrawing_between_the_check_and_the_start_wins(world: Any) -> None:
    job_id = await world.submit()
    await world.approve(job_id)
    execution = world.module._work.execution
    real = execution._prepare

    async def prepare(job: Any) -> RunSpec:
        spec = await real(job)
        world.module._work.decision.withdraw(job_id, CAROL)
        return spec

    execution._prepare = prepare
    async with world.running():
        await world.until(job_id, "withdrawn")
        for _ in range(20):
            await asyncio.sleep(0.002)
    assert not world.executor.runs


def touch_code(world: Any, job_id: str) -> None:
    path = world.folder / "state/jobs" / job_id / "code.tar"
    data = bytearray(path.read_bytes())
    data[600] ^= 1
    path.write_bytes(bytes(data))


def lose_code(world: Any, job_id: str) -> None:
    (world.folder / "state/jobs" / job_id / "code.tar").unlink()


def link_code(world: Any, job_id: str) -> None:
    path = world.folder / "state/jobs" / job_id / "code.tar"
    path.rename(path.with_name("moved"))
    path.symlink_to(path.with_name("moved"))


def touch_data(world: Any, _job_id: str) -> None:
    (path,) = world.folder.glob("state/datasets/people/*/private/table.csv")
    path.write_text(path.read_text() + "a,1,2\n")


def add_data(world: Any, _job_id: str) -> None:
    (path,) = world.folder.glob("state/datasets/people/*/private")
    (path / "more.csv").write_text("x\n1\n")


def change_runtime(world: Any, _job_id: str) -> None:
    world.runtime.value = "cd" * 32


def forget_device(world: Any, _job_id: str) -> None:
    keys = world.keys.known[OWNER]
    keys.devices = tuple(found for found in keys.devices if not found.admin)


def change_row(column: str, value: Any) -> Callable[[Any, str], None]:
    def change(world: Any, job_id: str) -> None:
        connection = world.module.database.connection
        (document,) = connection.execute("SELECT document FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        changed = json.dumps({**json.loads(document), column: value})
        connection.execute("UPDATE jobs SET document = ? WHERE job_id = ?", (changed, job_id))

    return change


def forge_code(world: Any, job_id: str) -> None:
    """Change the archive and the digest in the database, as who can write both would."""
    import hashlib

    touch_code(world, job_id)
    path = world.folder / "state/jobs" / job_id / "code.tar"
    change_row("code_digest", hashlib.sha256(path.read_bytes()).hexdigest())(world, job_id)


@pytest.mark.parametrize(
    ("change", "end"),
    [
        (touch_code, "APPROVAL_MISMATCH"),
        (lose_code, "APPROVAL_MISMATCH"),
        (link_code, "APPROVAL_MISMATCH"),
        (forge_code, "APPROVAL_MISMATCH"),
        (change_runtime, "APPROVAL_MISMATCH"),
        (forget_device, "APPROVAL_MISMATCH"),
        (change_row("parameters_json", '{"n":4}'), "APPROVAL_MISMATCH"),
        (change_row("entrypoint", "evil.py"), "APPROVAL_MISMATCH"),
        (change_row("purpose", "other"), "APPROVAL_MISMATCH"),
        (change_row("recipients", [{"email": EVE, "root": "0" * 64}]), "APPROVAL_MISMATCH"),
        (change_row("approvals", []), "APPROVAL_MISMATCH"),
        (touch_data, "DATASET_CHANGED"),
        (add_data, "DATASET_CHANGED"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_what_changed_after_the_approval_keeps_the_job_from_starting(
    world: Any, change: Callable[[Any, str], None], end: str
) -> None:
    job_id = await world.submit()
    await world.approve(job_id)
    change(world, job_id)
    async with world.running():
        await world.until(job_id, "failed")
    job = (await world.get(job_id)).job
    assert job.end_reason == end
    assert not world.executor.runs


async def test_a_failed_isolation_probe_keeps_every_job_from_starting(world: Any) -> None:
    world.executor.probe_passes = False
    async with world.running():
        job_id = await world.succeeded()
    job = (await world.get(job_id)).job
    assert (job.state, job.end_reason) == (rds_pb2.JOB_STATE_FAILED, "ISOLATION_FAILED")
    assert not world.executor.runs


async def test_an_approval_that_ended_in_the_queue_expires_the_job(world: Any) -> None:
    job_id = await world.submit()
    await world.approve(job_id)
    world.clock.ms += 30 * 24 * 3600 * 1000
    async with world.running():
        await world.until(job_id, "expired")
    assert (await world.get(job_id)).job.end_reason == "APPROVAL_EXPIRED"


async def test_an_undecided_job_expires_and_cannot_be_approved_then(world: Any) -> None:
    job_id = await world.submit()
    signed = await world.approval(job_id)
    world.clock.ms += 15 * 24 * 3600 * 1000
    with pytest.raises(WrongState):
        await world.approve(job_id, signed)
    assert [job.job_id for job in world.module._work.decision.expire()] == [job_id]
    assert world.state_of(job_id) == "expired"
    assert world.module._work.decision.expire() == []


async def test_a_restart_finds_queued_jobs_and_never_runs_a_lost_one_again(world: Any) -> None:
    world.executor.gate = asyncio.Event()
    async with world.running():
        lost = await world.submit()
        await world.approve(lost)
        await world.until(lost, "running")
        waiting = await world.submit()
        await world.approve(waiting)
        assert world.state_of(waiting) == "queued", "one at a time"
    world.executor.gate = None
    world.restart()
    async with world.running():
        await world.until(waiting, "succeeded")
        job = (await world.get(lost)).job
    assert (job.state, job.end_reason) == (rds_pb2.JOB_STATE_FAILED, "RUNNER_LOST")
    assert [spec.run_id for spec in world.executor.runs] == [lost, waiting]


async def test_an_unreachable_directory_leaves_the_job_in_the_queue(world: Any) -> None:
    job_id = await world.submit()
    await world.approve(job_id)
    world.keys.away = True
    async with world.running():
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert world.state_of(job_id) == "queued"
        world.keys.away = False
        world.module._work.execution.wake()
        await world.until(job_id, "succeeded")


@pytest.mark.parametrize(
    "reason", [EndReason.TIMEOUT, EndReason.OUT_OF_MEMORY, EndReason.EXIT_NONZERO, EndReason.OUTPUT_LIMIT]
)
async def test_a_failed_run_says_why_and_tells_the_submitter_nothing_else(
    world: Any, reason: EndReason
) -> None:
    world.executor.reason = reason
    world.executor.stdout = b"secret of the run"
    async with world.running():
        job_id = await world.succeeded()
        status = await world.call("status", rds_pb2.JobReference(job_id=job_id))
    assert (status.state, status.end_reason) == (rds_pb2.JOB_STATE_FAILED, reason.value)
    assert b"secret" not in status.SerializeToString()


async def test_a_defect_of_the_executor_ends_one_job_and_not_the_queue(world: Any) -> None:
    def break_once(spec: RunSpec) -> None:
        world.executor.hook = None
        raise RuntimeError("defect")

    world.executor.hook = break_once
    async with world.running():
        first = await world.succeeded()
        second = await world.succeeded()
    assert (world.state_of(first), world.state_of(second)) == ("failed", "succeeded")


async def test_status_files_follow_every_transition_and_survive_an_absent_hub(world: Any) -> None:
    path = f"{OWNER}/app_data/rds/results/{CAROL}/%s/status.json"
    world.hub.away = True
    async with world.running():
        job_id = await world.succeeded()
    assert path % job_id not in world.hub.files
    world.hub.away = False
    world.restart()
    async with world.running():
        async with asyncio.timeout(5):
            while path % job_id not in world.hub.files:
                await asyncio.sleep(0.002)
    status = json.loads(world.hub.files[path % job_id])
    assert (status["jobId"], status["state"]) == (job_id, "JOB_STATE_SUCCEEDED")


async def test_logs_are_streamed_to_the_owner(world: Any) -> None:
    async with world.running():
        job_id = await world.succeeded()
    request = rds_service_pb2.StreamLogsRequest(job_id=job_id)
    pieces = [(piece.stream, piece.data) async for piece in world.jobs.StreamLogs(request, None)]
    assert pieces == [("stdout", b"done\n")]


async def test_jobs_are_listed_newest_first_in_pages(world: Any) -> None:
    ids = [await world.submit() for _ in range(3)]
    world.module._work.decision.reject(ids[0], "no")
    page = await world.jobs.ListJobs(rds_service_pb2.ListJobsRequest(page_size=2), None)
    assert [job.job_id for job in page.jobs] == ids[:0:-1]
    request = rds_service_pb2.ListJobsRequest(page_size=2, page_token=page.next_page_token)
    rest = await world.jobs.ListJobs(request, None)
    assert ([job.job_id for job in rest.jobs], rest.next_page_token) == ([ids[0]], "")
    only = rds_service_pb2.ListJobsRequest(states=[rds_pb2.JOB_STATE_REJECTED])
    assert [job.job_id for job in (await world.jobs.ListJobs(only, None)).jobs] == [ids[0]]


async def test_a_second_runner_on_the_same_folder_is_refused(world: Any) -> None:
    with pytest.raises(Unavailable) as caught:
        world.start()
    assert caught.value.reason == "STATE_IN_USE"


async def test_withhold_needs_an_ended_job(world: Any) -> None:
    job_id = await world.submit()
    request = rds_service_pb2.WithholdJobRequest(job_id=job_id, reason="no")
    with pytest.raises(WrongState):
        await world.jobs.WithholdJob(request, None)
    with pytest.raises(NotFound):
        await world.jobs.WithholdJob(rds_service_pb2.WithholdJobRequest(job_id="x", reason="no"), None)
