"""A runner as its own process: real sandbox, real socket, killed and started again."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mesh.common.v1 import common_pb2
from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from mesh.rds.v1 import rds_service_pb2_grpc as api
from syftmesh_core.approval import APPROVAL_KIND, RELEASE_KIND, Recipient, ReleasedFile, ReleaseTerms
from syftmesh_core.clock import SystemClock, uuid7
from syftmesh_core.enc import Reader
from syftmesh_core.errors import IntegrityFailure, MeshError, WrongState
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.statement import Statement, sign_statement
from syftmesh_executor.archive import pack_code
from syftmesh_kit.channel import open_channel

pytestmark = pytest.mark.integration

OWNER, CAROL = "alice@hospital.example", "carol@lab.example"
CLOCK = SystemClock()
SCRIPT = Path(__file__).with_name("runner_site.py")
RNG = np.random.default_rng(11)
FRAME = pd.DataFrame(
    {
        "patient": [f"{RNG.integers(2**63):016x}" for _ in range(400)],
        "age": RNG.integers(20, 90, 400),
        "ward": RNG.choice(["north", "south"], 400),
        "radius": RNG.normal(14, 3, 400).round(4),
        "texture": RNG.normal(19, 4, 400).round(4),
    }
)

COUNT = """
import json, os, pathlib
import pandas as pd
frame = pd.read_csv(pathlib.Path(os.environ["DATA_DIR"]) / "patients.csv")
parameters = json.loads(os.environ["PARAMETERS"])
counts = frame.groupby(parameters["by"]).size().reset_index(name="count")
counts.to_csv(pathlib.Path(os.environ["OUTPUT_DIR"]) / "counts.csv", index=False)
print("counted", parameters["by"])
"""

LEAK = """
import base64, os, pathlib, zlib
import pandas as pd
frame = pd.read_csv(pathlib.Path(os.environ["DATA_DIR"]) / "patients.csv")
out = pathlib.Path(os.environ["OUTPUT_DIR"])
value = str(frame["patient"][7]).encode()
(out / "hidden.txt").write_text("weights " + base64.b64encode(zlib.compress(value)).decode())
(out / "hex.json").write_text('{"digest": "%s"}' % value.hex())
frame.iloc[3:4, 1:].rename(columns=str.upper).to_csv(out / "row.csv", index=False)
(out / "link.txt").symlink_to("/etc/passwd")
print("-".join(value.decode()))
"""

NOISE = """
import os, sys
line = b"x" * 65535 + b"\\n"
for _ in range(4000):
    os.write(1, line)
"""

SLEEP = "import time\ntime.sleep(120)\n"


class Site:
    """One runner process and the people around it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("devices", "hub", "calls"):
            (folder / name).mkdir()
        self.admin = self._device("admin", OWNER, admin=True)
        self._device("runner", OWNER, serves=True)
        self._device("carol", CAROL, admin=True)
        self.process: subprocess.Popen[str] | None = None
        private = folder / "private"
        private.mkdir()
        FRAME.to_csv(private / "patients.csv", index=False)

    def _device(
        self, name: str, principal: str, *, admin: bool = False, serves: bool = False
    ) -> DeviceSecret:
        made = DeviceSecret.generate(principal, uuid7(CLOCK), admin=admin, serves=serves)
        (self.folder / "devices" / name).write_bytes(made.to_bytes())
        return made

    def start(self) -> None:
        log = (self.folder / "log").open("a")
        command = [sys.executable, str(SCRIPT), str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()
        assert self.process.stdout is not None
        if self.process.stdout.readline().strip() != "ready":
            self.end(kill=True)
            raise AssertionError((self.folder / "log").read_text()[-3000:])

    def end(self, *, kill: bool = False) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        if kill:
            process.kill()
        else:
            process.terminate()
        process.wait(20)
        assert process.stdout is not None
        process.stdout.close()

    @property
    def socket(self) -> Path:
        return self.folder / "state/runner.sock"


class Owner:
    """The owner's program on the socket."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.channel = open_channel(f"unix:{site.socket}")
        self.datasets: Any = api.DatasetServiceStub(self.channel)
        self.jobs: Any = api.JobServiceStub(self.channel)
        self.audit: Any = api.AuditServiceStub(self.channel)

    async def dataset(self, name: str, **policy: Any) -> rds_pb2.Dataset:
        request = pb.CreateDatasetRequest(
            name=name,
            private_path=str(self.site.folder / "private"),
            generate_mock=True,
            audience=[CAROL],
            policy=rds_pb2.DatasetPolicy(**policy),
        )
        return (await self.datasets.CreateDataset(request)).dataset

    async def submit(self, dataset: rds_pb2.Dataset, code: str, parameters: str = "{}") -> str:
        job_id = uuid7(CLOCK)
        source = self.site.folder / "main.py"
        source.write_text(code)
        message = rds_pb2.JobSubmission(
            job_id=job_id,
            datasets=[rds_pb2.DatasetVersion(name=dataset.name, digest=dataset.private_digest)],
            code_archive=pack_code(source),
            entrypoint="main.py",
            parameters_json=parameters,
            purpose="prevalence",
        )
        place = self.site.folder / "calls" / f"{job_id}.part"
        place.write_bytes(message.SerializeToString())
        place.rename(place.with_suffix(".call"))
        await self.until(job_id, "IN_REVIEW")
        return job_id

    async def until(self, job_id: str, *states: str, within_s: float = 30) -> rds_pb2.Job:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    job = (await self.jobs.GetJob(pb.GetJobRequest(job_id=job_id))).job
                except MeshError:
                    job = rds_pb2.Job()
                name = rds_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
                if name in states:
                    return job
                await asyncio.sleep(0.05)

    def signed(self, kind: str, body: dict[str, Any]) -> common_pb2.SignedStatement:
        admin = self.site.admin
        statement = Statement(kind, admin.principal, admin.device_id, CLOCK.now_ms(), None, body)
        reader = Reader("statement-signed", sign_statement(statement, admin))
        return common_pb2.SignedStatement(statement=reader.raw(), signature=reader.raw())

    async def approve(self, job_id: str, **changes: Any) -> None:
        found = await self.jobs.GetJob(pb.GetJobRequest(job_id=job_id))
        body = {**json.loads(found.approval_terms_json), **changes}
        await self.jobs.ApproveJob(
            pb.ApproveJobRequest(job_id=job_id, approval=self.signed(APPROVAL_KIND, body))
        )

    async def release(self, job_id: str, *names: str, override: str = "") -> pb.ReleaseJobResponse:
        job = (await self.jobs.GetJob(pb.GetJobRequest(job_id=job_id))).job
        terms = ReleaseTerms(
            job_id,
            tuple(ReleasedFile(o.name, o.sha256) for o in job.outputs if o.name in names),
            (Recipient(CAROL, (b"\x02" * 32).hex()),),
            override,
        )
        request = pb.ReleaseJobRequest(
            job_id=job_id, release=self.signed(RELEASE_KIND, json.loads(terms.to_json()))
        )
        return await self.jobs.ReleaseJob(request)

    async def run(self, dataset: rds_pb2.Dataset, code: str, parameters: str = "{}") -> rds_pb2.Job:
        job_id = await self.submit(dataset, code, parameters)
        await self.approve(job_id)
        return await self.until(job_id, "SUCCEEDED", "FAILED", within_s=60)


def _processes_of(job_id: str) -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text())
        except OSError:
            continue
    return [line for line in lines if job_id in line]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(tmp_path_factory.mktemp("site"))
    made.start()
    yield made
    made.end()


@pytest.fixture
async def owner(site: Site) -> AsyncIterator[Owner]:
    made = Owner(site)
    yield made
    await made.channel.close()


async def test_a_job_runs_in_the_sandbox_and_only_the_released_file_leaves(site: Site, owner: Owner) -> None:
    assert stat.S_IMODE(site.socket.stat().st_mode) == 0o600
    dataset = await owner.dataset("patients")
    job = await owner.run(dataset, COUNT, '{"by":"ward"}')
    assert (job.end_reason, job.exit_code) == ("", 0)
    results = site.folder / "hub" / OWNER / "app_data/rds/results" / CAROL / job.job_id
    assert not (results / "counts.csv").exists()
    answer = await owner.release(job.job_id, "counts.csv")
    rows = list(csv.DictReader(io.StringIO((results / "counts.csv").read_text())))
    assert {row["ward"]: int(row["count"]) for row in rows} == FRAME.groupby("ward").size().to_dict()
    assert {path.name for path in results.iterdir()} <= {"counts.csv", "lineage.json", "status.json"}
    assert answer.bytes_out == sum((results / n).stat().st_size for n in ("counts.csv", "lineage.json"))


async def test_no_private_value_reaches_the_hub(site: Site, owner: Owner) -> None:
    await owner.dataset("canary")
    card = site.folder / "hub" / OWNER / "app_data/rds/datasets/canary/card.json"
    async with asyncio.timeout(20):
        while not card.exists():
            await asyncio.sleep(0.05)
    for path in (site.folder / "hub").rglob("*"):
        if path.is_file():
            data = path.read_text()
            assert not [value for value in FRAME["patient"] if value in data]


async def test_identifiers_and_rows_in_real_output_are_blocked_and_links_stay(
    site: Site, owner: Owner
) -> None:
    job = await owner.run(await owner.dataset("leaky"), LEAK)
    blocked = {o.name: {f.rule for f in o.findings if f.severity == "block"} for o in job.outputs}
    assert "PRIVATE_VALUE" in blocked["hidden.txt"]
    assert "PRIVATE_VALUE" in blocked["hex.json"]
    assert "PRIVATE_ROW" in blocked["row.csv"]
    assert "PRIVATE_VALUE" in blocked["logs/stdout.txt"]
    assert "link.txt" not in blocked
    assert ("SYMBOLIC_LINK", "link.txt") in {(f.rule, f.file) for f in job.findings}
    with pytest.raises(IntegrityFailure) as caught:
        await owner.release(job.job_id, "row.csv")
    assert caught.value.reason == "RELEASE_REFUSED"
    assert FRAME["patient"][7] not in str(job)


async def test_endless_output_to_the_log_is_bounded(owner: Owner) -> None:
    job = await owner.run(await owner.dataset("noisy"), NOISE)
    (log,) = [output for output in job.outputs if output.name == "logs/stdout.txt"]
    assert 0 < log.size_bytes <= 1 << 20
    pieces = [piece async for piece in owner.jobs.StreamLogs(pb.StreamLogsRequest(job_id=job.job_id))]
    assert sum(len(piece.data) for piece in pieces) == log.size_bytes


async def test_a_program_that_fails_or_takes_too_long_says_so(owner: Owner) -> None:
    dataset = await owner.dataset("short", wall_seconds=1)
    assert (await owner.run(dataset, "raise SystemExit(3)")).end_reason == "EXIT_NONZERO"
    assert (await owner.run(dataset, SLEEP)).end_reason == "TIMEOUT"


async def test_cancel_ends_a_run_within_ten_seconds(owner: Owner) -> None:
    job_id = await owner.submit(await owner.dataset("slow"), SLEEP)
    await owner.approve(job_id)
    await owner.until(job_id, "RUNNING")
    started_s = CLOCK.monotonic_s()
    answer = await owner.jobs.CancelJob(pb.CancelJobRequest(job_id=job_id))
    assert CLOCK.monotonic_s() - started_s < 10
    assert answer.job.end_reason == "CANCELLED_BY_OWNER"
    assert not await asyncio.to_thread(_processes_of, job_id)


async def test_an_approval_of_other_bytes_is_refused_over_the_socket(owner: Owner) -> None:
    job_id = await owner.submit(await owner.dataset("other"), COUNT, '{"by":"ward"}')
    with pytest.raises(WrongState) as caught:
        await owner.approve(job_id, parameters={"by": "patient"})
    assert (caught.value.reason, caught.value.metadata["term"]) == ("APPROVAL_MISMATCH", "parameters")


async def test_the_probe_of_this_machine_passes(owner: Owner) -> None:
    report = await owner.jobs.ProbeIsolation(pb.ProbeIsolationRequest())
    assert report.passed, [check for check in report.checks if not check.passed]
    assert len(report.checks) > 3


async def test_a_killed_runner_finds_its_jobs_and_runs_none_twice(site: Site, owner: Owner) -> None:
    dataset = await owner.dataset("killed")
    lost = await owner.submit(dataset, SLEEP)
    waiting = await owner.submit(dataset, COUNT, '{"by":"ward"}')
    await owner.approve(lost)
    await owner.until(lost, "RUNNING")
    await owner.approve(waiting)
    await asyncio.to_thread(site.end, kill=True)
    await asyncio.to_thread(site.start)
    again = Owner(site)
    try:
        assert (await again.until(lost, "FAILED")).end_reason == "RUNNER_LOST"
        await again.until(waiting, "SUCCEEDED", within_s=60)
        kinds = pb.QueryAuditRequest(job_id=lost, kind="job.running")
        assert len((await again.audit.QueryAudit(kinds)).entries) == 1
        verified = await again.audit.VerifyAudit(pb.VerifyAuditRequest())
        assert verified.entries > 20
    finally:
        await again.channel.close()


async def test_a_change_by_hand_of_the_database_is_found(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await asyncio.to_thread(site.start)
    owner = Owner(site)
    await owner.dataset("first")
    await owner.dataset("second")
    await owner.channel.close()
    await asyncio.to_thread(site.end)
    with sqlite3.connect(tmp_path / "state/rds.sqlite3") as connection:
        connection.execute("UPDATE audit SET actor = 'mallory@x.example' WHERE sequence = 1")
    connection.close()
    await asyncio.to_thread(site.start)
    owner = Owner(site)
    try:
        with pytest.raises(IntegrityFailure) as caught:
            await owner.audit.VerifyAudit(pb.VerifyAuditRequest())
        assert caught.value.reason == "AUDIT_BROKEN"
    finally:
        await owner.channel.close()
        await asyncio.to_thread(site.end)
