"""A whole runner over a temporary folder, with a hub, a directory and an executor made of memory."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mesh.rds.v1 import rds_pb2, rds_service_pb2
from mesh.rpc.v1 import content_pb2
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_client.problem import problem_error
from syftmesh_core.approval import APPROVAL_KIND, RELEASE_KIND, Recipient, ReleasedFile, ReleaseTerms
from syftmesh_core.clock import system_random, uuid7
from syftmesh_core.errors import MeshError, NotFound, Unavailable
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.statement import Statement, sign_statement
from syftmesh_executor.archive import pack_code
from syftmesh_executor.port import Check, EndReason, OutputFile, ProbeReport, RunOutcome, RunSpec
from syftmesh_runner import convert
from syftmesh_runner.app import RunnerModule, Surroundings, assemble
from syftmesh_runner.domain.federated_port import HubRun
from syftmesh_runner.settings import RunnerSettings

OWNER = "alice@hospital.example"
CAROL = "carol@lab.example"
EVE = "eve@evil.example"
REVIEWER = "rita@hospital.example"


class FakeClock:
    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def now_ms(self) -> int:
        self.ms += 1
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000


@dataclass
class FakeKeys:
    principal: str
    root: bytes
    version: int
    devices: tuple[DevicePublic, ...]


class FakeDirectory:
    def __init__(self) -> None:
        self.known: dict[str, FakeKeys] = {}
        self.away = False

    async def devices_of(self, principal: str, *, refresh: bool = False) -> FakeKeys:
        if self.away:
            raise Unavailable("away")
        if principal not in self.known:
            raise NotFound("unknown", reason="PRINCIPAL_UNKNOWN")
        return self.known[principal]


class FakeHub:
    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.reader_set: dict[str, frozenset[str]] = {}
        self.resealed: list[str] = []
        self.written: list[str] = []
        self.away = False

    async def write(self, path: str, data: bytes) -> int:
        if self.away:
            raise Unavailable("away")
        self.files[path] = data
        self.written.append(path)
        return len(data) + 100

    async def delete(self, path: str) -> None:
        self.files.pop(path, None)

    async def reseal(self, path: str) -> None:
        if path not in self.files:
            raise NotFound("gone", reason="FILE_MISSING")
        self.resealed.append(path)

    async def readers(self, path: str) -> frozenset[str]:
        for prefix, readers in self.reader_set.items():
            if path.startswith(prefix):
                return readers
        return frozenset()


class FakeExecutor:
    """Ends a run at once with `files` and logs, or, with `gate` set, when told to."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"counts.csv": b"group,count\na,120\nb,80\n"}
        self.reason = EndReason.OK
        self.stdout = b"done\n"
        self.probe_passes = True
        self.runs: list[RunSpec] = []
        self.gate: asyncio.Event | None = None
        self.cancelled: set[str] = set()
        self.hook: Callable[[RunSpec], None] | None = None
        self.goes_on: set[str] = set()
        self.adopted: list[RunSpec] = []
        self.away = 0

    async def probe(self) -> ProbeReport:
        return ProbeReport(self.probe_passes, (Check("network", self.probe_passes, "seen"),))

    async def run(self, spec: RunSpec) -> RunOutcome:
        self.runs.append(spec)
        if self.hook is not None:
            self.hook(spec)
        if self.gate is not None:
            await self.gate.wait()
        reason = EndReason.CANCELLED if spec.run_id in self.cancelled else self.reason
        out = []
        if reason is EndReason.OK:
            for name, data in self.files.items():
                place = spec.output_dir / name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
                out.append(OutputFile(name, len(data), hashlib.sha256(data).hexdigest()))
        return RunOutcome(reason, 0, 1, 2, self.stdout, b"", tuple(out))

    async def find(self, run_ids: Collection[str]) -> frozenset[str]:
        if self.away:
            self.away -= 1
            raise Unavailable("away", reason="CLUSTER_UNREACHABLE")
        return frozenset(run_ids) & self.goes_on

    async def adopt(self, spec: RunSpec) -> RunOutcome:
        self.goes_on.remove(spec.run_id)
        self.adopted.append(spec)
        return await self.run(spec)

    async def cancel(self, run_id: str) -> None:
        self.cancelled.add(run_id)
        if self.gate is not None:
            self.gate.set()

    async def close(self) -> None:
        return


class FakeRuntime:
    value = "ab" * 32

    def digest(self) -> str:
        return self.value


class FakeRuns:
    """Federated runs at the hub: one that Carol aggregates, unless a test says otherwise."""

    def __init__(self) -> None:
        self.runs: dict[str, HubRun] = {}
        self.bundles: dict[str, bytes] = {}
        self.reports: list[tuple[str, str, str]] = []
        self.refusal: MeshError | None = None
        self.away = False

    async def get(self, run_id: str) -> HubRun:
        if self.away:
            raise Unavailable("away", reason="SERVER_UNREACHABLE")
        if run_id not in self.runs:
            raise NotFound("none", reason="RUN_UNKNOWN")
        return self.runs[run_id]

    async def bundle(self, run_id: str) -> bytes:
        return self.bundles[run_id]

    async def report(self, run_id: str, part: str, end_reason: str) -> None:
        if self.away:
            raise Unavailable("away", reason="SERVER_UNREACHABLE")
        if self.refusal is not None:
            raise self.refusal
        self.reports.append((run_id, str(part), end_reason))


class Refused(Exception):
    def __init__(self, error: MeshError) -> None:
        super().__init__(error.reason)
        self.reason = error.reason
        self.code = error.code


def device(principal: str, *, admin: bool = False, serves: bool = False) -> DeviceSecret:
    return DeviceSecret.generate(principal, uuid7(FakeClock()), admin=admin, serves=serves)


@dataclass
class World:
    """One site and everybody around it."""

    folder: Path
    clock: FakeClock = field(default_factory=FakeClock)
    keys: FakeDirectory = field(default_factory=FakeDirectory)
    hub: FakeHub = field(default_factory=FakeHub)
    executor: FakeExecutor = field(default_factory=FakeExecutor)
    runtime: FakeRuntime = field(default_factory=FakeRuntime)
    runs: FakeRuns = field(default_factory=FakeRuns)
    settings: dict[str, Any] = field(default_factory=dict)
    roots: dict[str, bytes] = field(default_factory=dict)
    module: RunnerModule = field(init=False)

    def __post_init__(self) -> None:
        self.admin = device(OWNER, admin=True)
        self.agent = device(OWNER, serves=True)
        self.runner = device(OWNER, serves=True)
        self.carol = device(CAROL, admin=True)
        self.eve = device(EVE, admin=True)
        self.rita = device(REVIEWER, admin=True)
        owners = (self.admin, self.agent, self.runner)
        for number, devices in enumerate((owners, (self.carol,), (self.eve,), (self.rita,))):
            principal = devices[0].principal
            self.roots[principal] = bytes([number + 1]) * 32
            public = tuple(found.public() for found in devices)
            self.keys.known[principal] = FakeKeys(principal, self.roots[principal], 1, public)
        self.module = self.start()

    def start(self) -> RunnerModule:
        settings = RunnerSettings(state_dir=self.folder / "state", **self.settings)
        return assemble(
            settings,
            Surroundings(
                device=self.runner,
                keys=self.keys,
                hub=self.hub,
                executor=self.executor,
                clock=self.clock,
                random=system_random,
                runtime=self.runtime,
                runs=self.runs,
            ),
        )

    def restart(self) -> None:
        self.module.close()
        self.module = self.start()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the queue and the publication, as the module's tasks."""
        work = self.module._work
        work.execution.recover()
        tasks = [asyncio.create_task(work.execution.serve()), asyncio.create_task(work.publication.serve())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    # The owner's API.
    @property
    def datasets(self) -> Any:
        return self.module._servicers[0]

    @property
    def jobs(self) -> Any:
        return self.module._servicers[1]

    @property
    def audit(self) -> Any:
        return self.module._servicers[2]

    async def create_dataset(self, **changes: Any) -> rds_pb2.Dataset:
        private = self.folder / "private"
        if not private.exists():
            private.mkdir()
            rows = "".join(f"{'ab'[n % 2]},{n * 7 % 90},{n / 3:.3f}\n" for n in range(200))
            (private / "table.csv").write_text("group,age,value\n" + rows)
        fields = {
            "name": "people",
            "private_path": str(private),
            "generate_mock": True,
            "audience": [CAROL],
            **changes,
        }
        self.hub.reader_set[f"{OWNER}/app_data/rds/datasets/"] = frozenset(fields["audience"])
        request = rds_service_pb2.CreateDatasetRequest(**fields)
        return (await self.datasets.CreateDataset(request, None)).dataset

    def submission(self, dataset: rds_pb2.Dataset, **changes: Any) -> rds_pb2.JobSubmission:
        code = self.folder / "code"
        code.mkdir(exist_ok=True)
        (code / "main.py").write_text("import os\nprint('hello')\n")
        fields = {
            "job_id": uuid7(self.clock),
            "datasets": [rds_pb2.DatasetVersion(name=dataset.name, digest=dataset.private_digest)],
            "code_archive": pack_code(code),
            "entrypoint": "main.py",
            "parameters_json": '{"n":3}',
            "purpose": "prevalence",
            "project": "p1",
            **changes,
        }
        return rds_pb2.JobSubmission(**fields)

    async def call(self, endpoint: str, message: Any, sender: str = CAROL) -> rds_pb2.JobStatus:
        body = await self.reply_to("rds", self.module.endpoints, endpoint, message, sender)
        return rds_pb2.JobStatus.FromString(body)

    async def reply_to(self, app: str, handler: Any, endpoint: str, message: Any, sender: str) -> bytes:
        call = IncomingCall(
            call_id=uuid7(self.clock),
            sender=sender,
            sender_root=self.roots[sender],
            sender_device="d",
            site=OWNER,
            app=app,
            endpoint=endpoint,
            request=content_pb2.RequestContent(body=message.SerializeToString()),
            expires_ms=self.clock.ms + 60_000,
        )
        tx = Transaction()
        try:
            returned = await handler.handle(call, tx)
        except MeshError as error:
            raise Refused(error) from error

        def end() -> content_pb2.ReplyContent:
            with self.module.database.transaction():
                return tx.content(returned)

        # In another thread, as the inbox does it.
        reply = await asyncio.to_thread(end)
        error = problem_error(reply)
        if error is not None:
            raise Refused(error)
        return reply.body

    async def submit(self, **changes: Any) -> str:
        known = list((await self.datasets.ListDatasets(rds_service_pb2.ListDatasetsRequest(), None)).datasets)
        dataset = known[0] if known else await self.create_dataset()
        return (await self.call("submit", self.submission(dataset, **changes))).job_id

    async def get(self, job_id: str) -> rds_service_pb2.GetJobResponse:
        return await self.jobs.GetJob(rds_service_pb2.GetJobRequest(job_id=job_id), None)

    def state_of(self, job_id: str) -> str:
        return self.module._state.jobs.get(job_id).state.value

    def signed(
        self,
        kind: str,
        body: Mapping[str, object],
        by: DeviceSecret | None = None,
        expires_ms: int | None = None,
    ) -> bytes:
        signer = by or self.admin
        statement = Statement(kind, signer.principal, signer.device_id, self.clock.ms, expires_ms, body)
        return sign_statement(statement, signer)

    async def approval(self, job_id: str, by: DeviceSecret | None = None, /, **changes: Any) -> bytes:
        terms = json.loads((await self.get(job_id)).approval_terms_json)
        return self.signed(APPROVAL_KIND, {**terms, **changes}, by)

    async def approve(self, job_id: str, signed: bytes | None = None) -> rds_pb2.Job:
        message = convert.statement_message(signed or await self.approval(job_id))
        request = rds_service_pb2.ApproveJobRequest(job_id=job_id, approval=message)
        return (await self.jobs.ApproveJob(request, None)).job

    async def release_terms(self, job_id: str, **changes: Any) -> ReleaseTerms:
        job = (await self.get(job_id)).job
        names = changes.pop("names", None)
        files = [o for o in job.outputs if names is None or o.name in names]
        fields = {
            "job_id": job_id,
            "files": tuple(ReleasedFile(o.name, o.sha256) for o in files),
            "recipients": (Recipient(CAROL, self.roots[CAROL].hex()),),
            **changes,
        }
        return ReleaseTerms(**fields)

    async def release(
        self, job_id: str, *, by: DeviceSecret | None = None, **changes: Any
    ) -> rds_service_pb2.ReleaseJobResponse:
        terms = await self.release_terms(job_id, **changes)
        signed = self.signed(RELEASE_KIND, json.loads(terms.to_json()), by)
        return await self.release_signed(job_id, signed)

    async def release_signed(self, job_id: str, signed: bytes) -> rds_service_pb2.ReleaseJobResponse:
        request = rds_service_pb2.ReleaseJobRequest(job_id=job_id, release=convert.statement_message(signed))
        return await self.jobs.ReleaseJob(request, None)

    async def until(self, job_id: str, *states: str) -> str:
        """Wait until the job is in one of `states`; an event loop's turn at a time, no sleeping."""
        async with asyncio.timeout(20):
            while self.state_of(job_id) not in states:
                await asyncio.sleep(0.002)
        return self.state_of(job_id)

    async def succeeded(self, **changes: Any) -> str:
        """Return a job that ran; the queue must be running."""
        job_id = await self.submit(**changes)
        await self.approve(job_id)
        await self.until(job_id, "succeeded", "failed")
        return job_id

    def audit_kinds(self) -> list[str]:
        return [entry.kind for entry in self.audit._store.entries()]


@pytest.fixture
def world(tmp_path: Path) -> Any:
    made = World(tmp_path)
    yield made
    made.module.close()


@pytest.fixture
def refused() -> type[Refused]:
    return Refused
