"""The owner's decisions: exactly what is signed, and what is written before what."""

# ruff: noqa: N802, ASYNC109 - names and arguments are those of gRPC

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format
from mesh.common.v1 import common_pb2
from mesh.rds.v1 import rds_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from syftmesh.card import DatasetPolicy
from syftmesh.dataset import AsyncDatasets
from syftmesh.site_dataset import AsyncSiteDatasets
from syftmesh.site_job import AsyncSiteJobs
from syftmesh.site_socket import SiteSockets
from syftmesh_client.files import Change, ChangeKind, Cursor
from syftmesh_client.site import SiteFolders
from syftmesh_core.approval import APPROVAL_KIND, RELEASE_KIND, Recipient, parse_release
from syftmesh_core.clock import uuid7
from syftmesh_core.enc import canonical_json, encode
from syftmesh_core.errors import (
    AlreadyExists,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    Unavailable,
    Unimplemented,
    WrongState,
)
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.statement import Statement, verify_statement
from syftmesh_kit.testing import FakeClock, FakeRandom

OWNER, CAROL, BOB = "alice@hospital.example", "carol@lab.example", "bob@lab.example"
JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
ROOT = b"\x02" * 32
TERMS = '{"code_digest":"c1","job_id":"01890a5d-ac96-774b-bcce-b302099a8057"}'
CLOCK = FakeClock()
DEVICE = DeviceSecret.generate(OWNER, uuid7(CLOCK, FakeRandom(3)), admin=True, random=FakeRandom(1))


def job(state: str = "SUCCEEDED", *outputs: str, root: bytes = ROOT) -> rds_pb2.Job:
    return rds_pb2.Job(
        job_id=JOB,
        submitter=CAROL,
        submitter_root=root,
        parameters_json="{}",
        state=rds_pb2.JobState.Value(f"JOB_STATE_{state}"),
        outputs=[rds_pb2.Output(name=name, sha256=f"{at}" * 64) for at, name in enumerate(outputs, start=1)],
    )


@dataclass
class Runner:
    """The runner's services; keeps what they were asked."""

    job: rds_pb2.Job
    terms: str = TERMS
    datasets: dict[str, rds_pb2.Dataset] = field(default_factory=dict)
    error: MeshError | None = None
    asked: list[Any] = field(default_factory=list)

    async def GetJob(self, request: Any, *, timeout: float) -> Any:
        return pb.GetJobResponse(job=self.job, approval_terms_json=self.terms)

    async def ListJobs(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        last = bool(request.page_token)
        return pb.ListJobsResponse(jobs=[self.job], next_page_token="" if last else "more")

    async def ApproveJob(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        return pb.ApproveJobResponse(job=self.job)

    async def ReleaseJob(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        return pb.ReleaseJobResponse(job=self.job, bytes_out=5)

    async def WithholdJob(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        return pb.WithholdJobResponse(job=self.job)

    async def GetDataset(self, request: Any, *, timeout: float) -> Any:
        if request.name not in self.datasets:
            raise NotFound("no", reason="DATASET_UNKNOWN")
        return pb.GetDatasetResponse(dataset=self.datasets[request.name])

    async def CreateDataset(self, request: Any, *, timeout: float) -> Any:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        made = rds_pb2.Dataset(
            name=request.name, site=OWNER, private_digest="d" * 64, audience=request.audience
        )
        self.datasets[request.name] = made
        return pb.CreateDatasetResponse(dataset=made)


@dataclass
class Files:
    """The hub's files; the runner publishes an old card first, then the right one."""

    runner: Runner
    content: dict[str, bytes] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)

    async def write(self, path: str, data: bytes) -> None:
        self.steps.append(f"write {path.rpartition('/')[2]} before {len(self.runner.asked)}")
        self.content[path] = data

    async def delete(self, path: str) -> None:
        self.steps.append("delete")
        del self.content[path]

    async def read(self, path: str) -> Any:
        return SimpleNamespace(data=self.content[path], author=OWNER)

    async def watch(self, prefixes: Sequence[str]) -> AsyncIterator[Change]:
        (folder,) = prefixes
        path = f"{folder}/card.json"
        for digest in ("e", "d"):
            card = rds_pb2.Dataset(name="people", site=OWNER, private_digest=digest * 64)
            self.content[path] = json_format.MessageToJson(card).encode()
            yield Change(ChangeKind.UPDATED, f"{folder}/mock/x.csv", None, Cursor(1, 1))
            yield Change(ChangeKind.UPDATED, path, None, Cursor(1, 2))
        raise AssertionError("the card was there")


class Directory:
    async def devices_of(self, principal: str, *, refresh: bool) -> Any:
        assert refresh
        return SimpleNamespace(root=ROOT if principal == CAROL else b"\x03" * 32)


def desk(runner: Runner) -> AsyncSiteJobs:
    node: Any = SimpleNamespace(
        principal=OWNER, keystore=SimpleNamespace(device=DEVICE), directory=Directory(), clock=CLOCK
    )
    return AsyncSiteJobs(node, SimpleNamespace(jobs=runner))  # type: ignore[arg-type]


def catalogue(runner: Runner) -> tuple[AsyncSiteDatasets, Files]:
    files = Files(runner)
    node: Any = SimpleNamespace(principal=OWNER, files=files)
    sockets: Any = SimpleNamespace(datasets=runner)
    return AsyncSiteDatasets(node, sockets, AsyncDatasets(node)), files


def verified(signed: common_pb2.SignedStatement, kind: str) -> Statement:
    data = encode("statement-signed", [signed.statement, signed.signature])
    return verify_statement(data, DEVICE.public(), kind=kind, now_ms=None)


async def test_an_approval_signs_exactly_the_terms_that_were_reviewed() -> None:
    runner = Runner(job("IN_REVIEW"))
    seen = await desk(runner).get(JOB)
    runner.terms = '{"job_id":"other"}'
    await desk(runner).approve(seen)
    statement = verified(runner.asked[-1].approval, APPROVAL_KIND)
    assert canonical_json(statement.body).decode() == TERMS
    assert statement.issuer == OWNER
    (listed, *_) = await desk(runner).list()
    await desk(runner).approve(listed)
    assert verified(runner.asked[-1].approval, APPROVAL_KIND).body == {"job_id": "other"}


async def test_a_job_without_terms_cannot_be_approved() -> None:
    runner = Runner(job("REJECTED"), terms="")
    with pytest.raises(WrongState):
        await desk(runner).approve(JOB)
    assert runner.asked == []


async def test_a_release_names_all_outputs_but_logs_for_the_submitter() -> None:
    runner = Runner(job("SUCCEEDED", "counts.csv", "logs/stdout.txt", "plots/a.png"))
    await desk(runner).release(JOB)
    terms = parse_release(
        json.dumps(
            verified(runner.asked[-1].release, RELEASE_KIND).body, sort_keys=True, separators=(",", ":")
        )
    )
    assert [(file.name, file.sha256) for file in terms.files] == [
        ("counts.csv", "1" * 64),
        ("plots/a.png", "3" * 64),
    ]
    assert terms.recipients == (Recipient(CAROL, ROOT.hex()),)
    assert (terms.job_id, terms.override_reason) == (JOB, "")


async def test_a_release_names_what_was_chosen_and_for_whom() -> None:
    runner = Runner(job("FAILED", "counts.csv", "logs/stderr.txt"))
    await desk(runner).release(JOB)
    assert verified(runner.asked[-1].release, RELEASE_KIND).body["files"][0]["name"] == "logs/stderr.txt"  # type: ignore[index]
    await desk(runner).release(JOB, ["counts.csv"], to=[CAROL, BOB], override="agreed")
    body = verified(runner.asked[-1].release, RELEASE_KIND).body
    assert [one["email"] for one in body["recipients"]] == [CAROL, BOB]  # type: ignore[union-attr]
    assert body["override_reason"] == "agreed"
    with pytest.raises(NotFound) as unknown:
        await desk(runner).release(JOB, ["none.csv"])
    assert unknown.value.reason == "OUTPUT_UNKNOWN"
    with pytest.raises(Unimplemented):
        await desk(runner).release(JOB, expires=SimpleNamespace())  # type: ignore[arg-type]


async def test_nothing_is_released_to_a_submitter_whose_keys_have_changed() -> None:
    runner = Runner(job("SUCCEEDED", "counts.csv", root=b"\x09" * 32))
    with pytest.raises(IntegrityFailure) as changed:
        await desk(runner).release(JOB)
    assert changed.value.reason == "KEY_CHANGED"
    assert runner.asked == []


async def test_listing_reads_all_pages_and_refuses_unknown_states() -> None:
    runner = Runner(job("IN_REVIEW"))
    assert len(await desk(runner).list(["in_review"])) == 2
    assert list(runner.asked[0].states) == [rds_pb2.JOB_STATE_IN_REVIEW]
    with pytest.raises(InvalidInput) as unknown:
        await desk(runner).list(["nowhere"])
    assert unknown.value.reason == "STATE_INVALID"


async def test_withholding_tells_the_submitter_something() -> None:
    runner = Runner(job())
    await desk(runner).withhold(JOB)
    assert runner.asked[-1].reason.strip()
    await desk(runner).withhold(JOB, "too small groups")
    assert runner.asked[-1].reason == "too small groups"


async def test_rules_come_before_the_dataset_and_the_card_of_this_version_is_waited_for() -> None:
    runner = Runner(job())
    datasets, files = catalogue(runner)
    policy = DatasetPolicy(min_cell=7, identifier_columns=("patient",))
    made = await datasets.create("people", "p.csv", audience=["Carol@Lab.example"], policy=policy)
    assert made.private_digest == "d" * 64
    assert files.steps == ["write syft.pub.yaml before 0"]
    request = runner.asked[0]
    assert (list(request.audience), request.policy.min_cell) == ([CAROL], 7)
    assert list(request.policy.identifier_columns) == ["patient"]
    assert request.generate_mock
    assert Path(request.private_path).is_absolute()


async def test_the_audience_of_a_dataset_that_is_there_is_not_touched() -> None:
    runner = Runner(job(), datasets={"people": rds_pb2.Dataset(name="people", site=OWNER)})
    datasets, files = catalogue(runner)
    with pytest.raises(AlreadyExists) as taken:
        await datasets.create("people", "p.csv", audience=["*"])
    assert taken.value.reason == "DATASET_EXISTS"
    assert (files.steps, runner.asked) == ([], [])


@pytest.mark.parametrize(
    ("error", "kept"), [(InvalidInput("no", reason="DATASET_INVALID"), False), (Unavailable("away"), True)]
)
async def test_what_fails_for_good_leaves_no_rules_behind(error: MeshError, kept: bool) -> None:  # noqa: FBT001
    runner = Runner(job(), error=error)
    datasets, files = catalogue(runner)
    with pytest.raises(type(error)):
        await datasets.create("people", "p.csv", audience=[CAROL])
    assert bool(files.content) is kept, "when it may have been registered after all, its rules stay"


@pytest.mark.parametrize("policy", [{"min_cel": 5}, {"min_cell": -1}, {"min_cell": "five"}])
async def test_a_policy_with_a_typing_error_is_refused(policy: dict[str, Any]) -> None:
    runner = Runner(job())
    datasets, files = catalogue(runner)
    with pytest.raises(InvalidInput) as invalid:
        await datasets.create("people", "p.csv", policy=policy)
    assert invalid.value.reason == "POLICY_INVALID"
    assert (files.steps, runner.asked) == ([], [])


def test_a_site_that_does_not_run_here_says_how_to_start_it(tmp_path: Path) -> None:
    sockets = SiteSockets(SiteFolders.of(tmp_path, OWNER), OWNER)
    (tmp_path / "sites" / OWNER / "runner").mkdir(parents=True)
    (tmp_path / "sites" / OWNER / "runner/runner.sock").write_text("no socket")
    for program in ("jobs", "datasets", "audit", "agent"):
        with pytest.raises(NotFound) as away:
            getattr(sockets, program)
        assert (away.value.reason, away.value.hint) == ("SITE_NOT_RUNNING", f"syftmesh up --sites {OWNER}")
