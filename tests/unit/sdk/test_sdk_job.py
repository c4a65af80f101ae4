"""Jobs and cards as a client sees them, with a site that tells lies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf import json_format
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1 import rpc_pb2
from mesh.rpc.v1.content_pb2 import ReplyContent
from syftmesh.card import parse_card
from syftmesh.convert import state_of, state_value
from syftmesh.dataset import AsyncDatasets, mock_digest, resolved
from syftmesh.job import AsyncJob
from syftmesh.job_desk import AsyncJobs
from syftmesh.portal import Portal
from syftmesh.site_dataset import AsyncSiteDatasets, _rules
from syftmesh.submission import Submission, SubmissionLog
from syftmesh_client.call import CallResult
from syftmesh_client.files import Change, ChangeKind, Cursor
from syftmesh_client.problem import problem_content
from syftmesh_core.errors import (
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    NotFound,
    Unavailable,
    Unimplemented,
    WrongState,
)
from syftmesh_core.job import JobState
from syftmesh_core.permission import parse_ruleset
from syftmesh_kit.testing import FakeClock, FakeRandom

ME, SITE = "carol@lab.example", "alice@hospital.example"
JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
BASE = f"{SITE}/app_data/rds/results/{ME}/{JOB}"
STATUS = f"{BASE}/status.json"


def status(state: str, **more: Any) -> rds_pb2.JobStatus:
    return rds_pb2.JobStatus(job_id=JOB, state=rds_pb2.JobState.Value(f"JOB_STATE_{state}"), **more)


def written(message: Any) -> bytes:
    return json_format.MessageToJson(message).encode()


@dataclass
class Files:
    """A hub's files in a dictionary; `later` are writes that the feed brings."""

    content: dict[str, bytes] = field(default_factory=dict)
    later: list[tuple[str, bytes]] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    authors: dict[str, str] = field(default_factory=dict)

    async def stat(self, path: str) -> Any:
        return SimpleNamespace(path=path) if path in self.content else None

    async def read(self, path: str) -> Any:
        if path not in self.content:
            raise NotFound("no", reason="FILE_MISSING")
        author = self.authors.get(path, path.partition("/")[0])
        return SimpleNamespace(data=self.content[path], author=author)

    async def list(self, prefix: str) -> list[Any]:
        paths = sorted(p for p in self.content if p.startswith(f"{prefix}/"))
        return [SimpleNamespace(path=path, unverified="") for path in paths]

    async def watch(self, prefixes: Sequence[str]) -> AsyncIterator[Change]:
        self.watched += prefixes
        for path, data in self.later:
            self.content[path] = data
            yield Change(ChangeKind.UPDATED, path, None, Cursor(1, 1))
        await asyncio.Event().wait()


@dataclass
class Calls:
    """A site that answers with what it is given, or is offline."""

    answer: rds_pb2.JobStatus | Exception
    asked: list[str] = field(default_factory=list)
    sent: list[Any] = field(default_factory=list)
    result: CallResult = field(default_factory=lambda: CallResult(rpc_pb2.CALL_STATE_PENDING))
    waited: int = 0
    offline_first: bool = False

    async def call(self, url: str, request: Any, *, timeout_s: float) -> ReplyContent:
        del request, timeout_s
        self.asked.append(url.rpartition("/")[2])
        return self._reply()

    async def send(self, url: str, request: Any, *, expires_s: float) -> str:
        del url, expires_s
        self.sent.append(rds_pb2.JobSubmission.FromString(request.body))
        return "call"

    async def wait(self, call_id: str, timeout_s: float, *, site: str | None = None) -> ReplyContent:
        del call_id, timeout_s
        assert site == SITE
        self.waited += 1
        if self.waited == 1 and self.offline_first:
            raise DeadlineExceeded("not yet")
        return self._reply()

    async def reply(self, call_id: str, *, site: str | None = None) -> CallResult:
        del call_id
        assert site == SITE
        return self.result

    def _reply(self) -> ReplyContent:
        if isinstance(self.answer, Exception):
            raise self.answer
        return ReplyContent(status=200, body=self.answer.SerializeToString())


def job_of(found: Any, call_id: str = "") -> AsyncJob:
    return AsyncJob(found, Submission(JOB, SITE, 0, call_id))


OFFLINE = DeadlineExceeded("no", reason="CALL_EXPIRED")


def node(files: Files, answer: rds_pb2.JobStatus | Exception = OFFLINE) -> Any:
    keystore = SimpleNamespace(pinned_roots={SITE: b""})
    return SimpleNamespace(
        principal=ME,
        files=files,
        calls=Calls(answer),
        keystore=keystore,
        clock=FakeClock(),
        random=FakeRandom(),
    )


async def test_waiting_ends_at_the_settled_state_and_looks_at_nothing_but_the_feed():
    files = Files(
        {STATUS: written(status("IN_REVIEW"))},
        [
            (f"{BASE}/counts.csv", b"x"),
            (STATUS, written(status("SUCCEEDED"))),
            (STATUS, written(status("RELEASED", released=["counts.csv"]))),
        ],
    )
    found = node(files)
    job = await job_of(found).wait(timeout_s=5)
    assert (job.state, job.released) == (JobState.RELEASED, ("counts.csv",))
    assert files.watched == [BASE]
    assert found.calls.asked == ["status"], "an offline site is asked once, and then woken by"
    assert await job.results.files() == ["counts.csv"]


async def test_waiting_too_long_says_where_the_job_is():
    files = Files({STATUS: written(status("FAILED"))})
    with pytest.raises(DeadlineExceeded) as caught:
        await job_of(node(files)).wait(timeout_s=0.05)
    assert caught.value.reason == "JOB_NOT_SETTLED"
    assert caught.value.metadata["state"] == "failed"


async def test_a_settled_job_asks_nobody():
    files = Files({STATUS: written(status("REJECTED", message="no"))})
    found = node(files)
    job = await job_of(found).refresh()
    assert (job.state, job.message, found.calls.asked) == (JobState.REJECTED, "no", [])


@pytest.mark.parametrize(
    "lie",
    [
        b"{",
        b"[]",
        b'{"jobId": "x", "state": "JOB_STATE_RELEASED"}',
        written(rds_pb2.JobStatus(job_id=JOB)),
        f'{{"jobId": "{JOB}", "state": 99}}'.encode(),
        f'{{"jobId": "{JOB}", "state": "JOB_STATE_RELEASED", "more": 1}}'.encode(),
        b" " * (5 << 20),
    ],
    ids=["cut", "list", "other job", "no state", "unknown number", "unknown field", "huge"],
)
async def test_a_status_that_does_not_hold_is_named(lie):
    files = Files({STATUS: lie})
    with pytest.raises(IntegrityFailure) as caught:
        await job_of(node(files)).refresh()
    assert caught.value.reason == "STATUS_INVALID"


async def test_a_site_that_answers_for_another_job_is_refused():
    lie = rds_pb2.JobStatus(job_id="other", state=rds_pb2.JOB_STATE_RELEASED)
    with pytest.raises(IntegrityFailure):
        await job_of(node(Files(), lie)).refresh()


async def test_a_submission_to_a_site_that_is_offline_is_submitted(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text("print(1)")
    card = rds_pb2.Dataset(name="people", site=SITE, private_digest="ab" * 32)
    files = Files({f"{SITE}/app_data/rds/datasets/people/card.json": written(card)})
    found = node(files)
    desk = AsyncJobs(found, AsyncDatasets(found), SubmissionLog(tmp_path))
    job = await desk.submit(code, datasets=[f"{SITE}/people"], parameters={"b": 1, "a": 2}, purpose="why")
    assert job.state is JobState.SUBMITTED
    sent = found.calls.sent[0]
    assert (sent.job_id, sent.entrypoint, sent.parameters_json) == (job.id, "main.py", '{"a":2,"b":1}')
    assert [(d.name, d.digest) for d in sent.datasets] == [("people", "ab" * 32)]
    assert (await desk.get(job.id)).site == SITE
    assert [known.id for known in await desk.list()] == [job.id]
    with pytest.raises(NotFound) as unknown:
        await desk.get("01890a5d-ac96-774b-bcce-b302099a8058")
    assert unknown.value.reason == "JOB_UNKNOWN"


async def test_what_the_site_finds_wrong_at_once_is_raised(tmp_path):
    (tmp_path / "a.py").write_text("print(1)")
    card = rds_pb2.Dataset(name="people", site=SITE)
    found = node(
        Files({f"{SITE}/app_data/rds/datasets/people/card.json": written(card)}),
        WrongState("changed", reason="DATASET_CHANGED"),
    )
    desk = AsyncJobs(found, AsyncDatasets(found), SubmissionLog(tmp_path))
    with pytest.raises(WrongState) as caught:
        await desk.submit(tmp_path / "a.py", datasets=[f"{SITE}/people"], purpose="why")
    assert caught.value.reason == "DATASET_CHANGED"


async def test_code_that_cannot_be_sent_is_refused_before_anything_is(tmp_path):
    found = node(Files())
    desk = AsyncJobs(found, AsyncDatasets(found), SubmissionLog(tmp_path / "log"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInput) as missing:
        await desk.submit(tmp_path / "empty", datasets=[f"{SITE}/people"], purpose="why")
    assert missing.value.reason == "ENTRYPOINT_MISSING"
    (tmp_path / "big.py").write_bytes(b"#" * 300_000)
    with pytest.raises(LimitExceeded) as large:
        await desk.submit(tmp_path / "big.py", datasets=[f"{SITE}/people"], purpose="why")
    assert large.value.reason == "CODE_TOO_LARGE"
    assert found.calls.sent == []


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        (b"{", "CARD_INVALID"),
        (b'{"name": "people", "site": "bob@x.example"}', "CARD_FOREIGN"),
        (b'{"name": "other", "site": "alice@hospital.example"}', "CARD_FOREIGN"),
        (b'{"name": "people", "site": "alice@hospital.example", "evil": 1}', "CARD_INVALID"),
        (b" " * (5 << 20), "CARD_INVALID"),
    ],
    ids=["cut", "other site", "other name", "unknown field", "huge"],
)
async def test_a_card_that_does_not_hold_is_refused_and_hides_no_other(card, reason):
    with pytest.raises(IntegrityFailure) as caught:
        parse_card(card, SITE, "people")
    assert caught.value.reason == reason
    good = written(rds_pb2.Dataset(name="good", site=SITE))
    folder = f"{SITE}/app_data/rds/datasets"
    files = Files({f"{folder}/people/card.json": card, f"{folder}/good/card.json": good})
    assert [found.name for found in await AsyncDatasets(node(files)).list()] == ["good"]


async def test_the_html_of_a_card_carries_no_markup_of_its_owner():
    card = parse_card(
        written(rds_pb2.Dataset(name="people", site=SITE, summary="<script>x</script>")), SITE, "people"
    )
    assert "<script>" not in card._repr_html_()


async def test_datasets_of_two_sites_are_two_jobs():
    cards = [
        parse_card(written(rds_pb2.Dataset(name="d", site=site)), site, "d") for site in (SITE, "b@x.example")
    ]
    with pytest.raises(InvalidInput) as caught:
        await resolved(AsyncDatasets(node(Files())), cards)
    assert caught.value.reason == "DATASETS_OF_SEVERAL_SITES"
    with pytest.raises(InvalidInput):
        await resolved(AsyncDatasets(node(Files())), [])


@pytest.mark.parametrize("audience", ["USER", "*@lab.example", "group:team"])
async def test_an_audience_that_cannot_be_sealed_for_is_refused_before_anything_is_written(audience):
    desk = AsyncSiteDatasets(node(Files()), SimpleNamespace(), AsyncDatasets(node(Files())))
    with pytest.raises(Unimplemented) as caught:
        await desk.create("people", "x.csv", audience=[audience])
    assert caught.value.reason == "OPEN_READERS"
    with pytest.raises(InvalidInput):
        await desk.create("People!", "x.csv")


@pytest.mark.parametrize("readers", [[], ["*"], [ME, "b@x.example"]])
def test_the_rule_file_of_a_dataset_says_who_reads_it(readers):
    rules = parse_ruleset(_rules(readers))
    assert len(rules.rules) == (1 if readers else 0)


def test_a_closed_portal_says_so():
    portal = Portal()

    async def answer() -> int:
        return 7

    assert portal.run(answer()) == 7
    portal.close()
    portal.close()
    with pytest.raises(WrongState) as caught:
        portal.run(answer())
    assert caught.value.reason == "CLIENT_CLOSED"


def test_the_public_names_are_all_there():
    import syftmesh

    assert [name for name in syftmesh.__all__ if not hasattr(syftmesh, name)] == []
    assert set(syftmesh.__all__) <= set(dir(syftmesh))
    assert Path(syftmesh.__file__).with_name("py.typed").is_file()


REFUSED = problem_content(NotFound("not yours", reason="DATASET_UNKNOWN"))
COMPLETED = rpc_pb2.CALL_STATE_COMPLETED


@pytest.mark.parametrize(
    ("result", "state", "reason"),
    [
        (CallResult(rpc_pb2.CALL_STATE_PENDING), "submitted", ""),
        (CallResult(rpc_pb2.CALL_STATE_DELIVERED), "submitted", ""),
        (CallResult(COMPLETED, REFUSED), "rejected", "DATASET_UNKNOWN"),
        (
            CallResult(COMPLETED, ReplyContent(status=200, body=status("IN_REVIEW").SerializeToString())),
            "in_review",
            "",
        ),
        (CallResult(rpc_pb2.CALL_STATE_EXPIRED), "expired", ""),
        (CallResult(rpc_pb2.CALL_STATE_FAILED, failure_reason="SEAL_INVALID"), "rejected", "SEAL_INVALID"),
        (CallResult(rpc_pb2.CALL_STATE_FAILED), "rejected", "CALL_FAILED"),
    ],
)
async def test_what_became_of_a_submission_is_told_from_its_call(
    result: CallResult, state: str, reason: str
) -> None:
    found = node(Files())
    found.calls.result = result
    job = await job_of(found, "call").look()
    assert (job.state, job.end_reason) == (state, reason)
    if state == "submitted":
        await job.refresh()
        assert found.calls.asked == [], "a site that has not taken the submission is not asked about it"


async def test_a_submission_that_is_refused_later_ends_the_wait_though_the_site_writes_nothing() -> None:
    found = node(Files())

    async def wait(call_id: str, timeout_s: float, *, site: str | None = None) -> ReplyContent:
        found.calls.result = CallResult(COMPLETED, REFUSED)
        raise NotFound("not yours", reason="DATASET_UNKNOWN")

    found.calls.wait = wait
    job = await job_of(found, "call").wait(timeout_s=5)
    assert (job.state, job.end_reason, job.message) == ("rejected", "DATASET_UNKNOWN", "not yours")


async def test_what_the_site_writes_counts_more_than_the_answer_to_the_submission() -> None:
    files = Files(later=[(STATUS, written(status("WITHHELD")))])
    found = node(files, status("IN_REVIEW"))
    answered = ReplyContent(status=200, body=status("IN_REVIEW").SerializeToString())
    found.calls.result = CallResult(rpc_pb2.CALL_STATE_PENDING)
    job = job_of(found, "call")

    async def wait(call_id: str, timeout_s: float, *, site: str | None = None) -> ReplyContent:
        found.calls.result = CallResult(COMPLETED, answered)
        return answered

    found.calls.wait = wait
    assert (await job.wait(timeout_s=5)).state == "withheld"


async def test_nobody_but_the_owner_speaks_for_a_site() -> None:
    folder = f"{SITE}/app_data/rds/datasets/people"
    card = written(rds_pb2.Dataset(name="people", site=SITE))
    files = Files(
        {f"{folder}/card.json": card, STATUS: written(status("RELEASED")), f"{BASE}/x.csv": b"a\n1\n"}
    )
    found, eve = node(files), "eve@evil.example"
    files.authors = dict.fromkeys(files.content, eve)
    for reading in (
        AsyncDatasets(found).get(f"{SITE}/people"),
        job_of(found).refresh(),
        job_of(found).results.read("x.csv"),
    ):
        with pytest.raises(IntegrityFailure) as foreign:
            await reading
        assert foreign.value.reason == "AUTHOR_NOT_ALLOWED"
    assert await AsyncDatasets(found).list() == []


async def test_one_damaged_status_hides_no_other_job(tmp_path: Path) -> None:
    other = JOB.replace("8057", "8058")
    lie = f"{SITE}/app_data/rds/results/{ME}/{other}/status.json"
    found = node(Files({STATUS: written(status("REJECTED")), lie: b"{", f"{lie}x/status.json": b"{}"}))
    desk = AsyncJobs(found, AsyncDatasets(found), SubmissionLog(tmp_path))
    assert [(job.id, job.state) for job in await desk.list()] == [(JOB, "rejected")]
    assert (await desk.get(JOB)).state == "rejected", "of another device of the same person"


@pytest.mark.parametrize("job_id", ["", "../x", "x/y", JOB.upper(), JOB + "0"])
async def test_what_is_no_id_of_a_job_is_unknown(tmp_path: Path, job_id: str) -> None:
    found = node(Files())
    desk = AsyncJobs(found, AsyncDatasets(found), SubmissionLog(tmp_path))
    for site in (None, SITE):
        with pytest.raises(NotFound) as unknown:
            await desk.get(job_id, site=site)
        assert unknown.value.reason == "JOB_UNKNOWN"
    assert found.calls.asked == []


def desk_of(found: Any, folder: Path) -> tuple[AsyncJobs, SubmissionLog, Path]:
    (folder / "a.py").write_text("print(1)")
    log = SubmissionLog(folder)
    return AsyncJobs(found, AsyncDatasets(found), log), log, folder / "a.py"


CARD = parse_card(written(rds_pb2.Dataset(name="people", site=SITE)), SITE, "people")


async def test_a_refused_submission_is_forgotten_and_a_waiting_one_kept(tmp_path: Path) -> None:
    found = node(Files(), WrongState("changed", reason="DATASET_CHANGED"))
    desk, log, code = desk_of(found, tmp_path)
    with pytest.raises(WrongState):
        await desk.submit(code, datasets=[CARD], purpose="why")
    assert log.list() == []
    found.calls.answer = DeadlineExceeded("not yet")
    job = await desk.submit(code, datasets=[CARD], purpose="why")
    assert [(known.id, known.call_id) for known in log.list()] == [(job.id, "call")]


async def test_a_hub_that_goes_away_after_it_took_a_submission_does_not_make_people_submit_twice(
    tmp_path: Path,
) -> None:
    found = node(Files(), Unavailable("away"))
    desk, log, code = desk_of(found, tmp_path)
    assert (await desk.submit(code, datasets=[CARD], purpose="why")).state == "submitted"
    found.calls.result = CallResult(rpc_pb2.CALL_STATE_FAILED)
    with pytest.raises(Unavailable):
        await desk.submit(code, datasets=[CARD], purpose="why")
    assert len(log.list()) == 1


async def test_a_submission_that_no_call_can_carry_says_what_to_do(tmp_path: Path) -> None:
    found = node(Files())
    desk, log, code = desk_of(found, tmp_path)

    async def send(url: str, request: Any, *, expires_s: float) -> str:
        raise LimitExceeded("too large", reason="BODY_TOO_LARGE")

    found.calls.send = send
    with pytest.raises(LimitExceeded) as large:
        await desk.submit(code, datasets=[CARD], parameters={"x": "y" * 60_000}, purpose="why")
    assert (large.value.reason, bool(large.value.hint)) == ("CODE_TOO_LARGE", True)
    assert log.list() == []


async def test_asking_with_an_own_id_sends_that_id(tmp_path: Path) -> None:
    found = node(Files(), DeadlineExceeded("not yet"))
    desk, _, code = desk_of(found, tmp_path)
    assert (await desk.submit(code, datasets=[CARD], purpose="why", job_id=JOB)).id == JOB
    for bad in ("7", JOB.upper()):
        with pytest.raises(InvalidInput) as invalid:
            await desk.submit(code, datasets=[CARD], purpose="why", job_id=bad)
        assert invalid.value.reason == "JOB_INVALID"
    with pytest.raises(InvalidInput):
        await desk.submit(code, datasets=[CARD])
    with pytest.raises(InvalidInput):
        await desk.submit(code, datasets=[CARD, CARD], purpose="why")
    assert len(found.calls.sent) == 1


async def test_a_mock_of_another_version_than_its_card_is_not_used(tmp_path: Path) -> None:
    folder = f"{SITE}/app_data/rds/datasets/people"
    mock = {"a.csv": b"x\n1\n", "b/c.csv": b"y\n2\n"}
    card = written(rds_pb2.Dataset(name="people", site=SITE, mock_digest=mock_digest(mock)))
    files = Files({f"{folder}/card.json": card, **{f"{folder}/mock/{name}": mock[name] for name in mock}})
    found = await AsyncDatasets(node(files)).get(f"{SITE}/people")
    target = await found.mock.download(tmp_path / "mock")
    assert (target / "b/c.csv").read_bytes() == b"y\n2\n"
    with pytest.raises(InvalidInput) as several:
        await found.mock.dataframe()
    assert several.value.reason == "FILE_AMBIGUOUS"
    del files.content[f"{folder}/mock/b/c.csv"]
    with pytest.raises(IntegrityFailure) as changed:
        await found.mock.download(tmp_path / "other")
    assert changed.value.reason == "MOCK_CHANGED"
    assert not (tmp_path / "other").exists()


async def test_lineage_is_beside_the_results(tmp_path: Path) -> None:
    files = Files({f"{BASE}/{name}": b"{}" for name in ("status.json", "lineage.json", "counts.json")})
    results = job_of(node(files)).results
    assert await results.files() == ["counts.json"]
    assert await results.lineage() == {}
    target = await results.download(tmp_path / "out")
    assert sorted(path.name for path in target.iterdir()) == ["counts.json", "lineage.json"]
    files.content[f"{BASE}/lineage.json"] = b"[" * 100_000
    with pytest.raises(IntegrityFailure):
        await results.lineage()


async def test_the_html_of_a_job_carries_no_markup_of_its_site() -> None:
    files = Files({STATUS: written(status("REJECTED", message="<img src=x onerror=alert(1)>"))})
    job = await job_of(node(files)).refresh()
    assert "<img" not in job._repr_html_()
    assert "&lt;img" in job._repr_html_()


async def test_a_deeply_nested_document_is_refused_like_any_other() -> None:
    deep = b'{"tables":' * 50_000
    with pytest.raises(IntegrityFailure):
        parse_card(deep, SITE, "people")
    with pytest.raises(IntegrityFailure):
        await job_of(node(Files({STATUS: b"[" * 200_000}))).refresh()


async def test_a_hub_that_is_away_when_the_status_changes_does_not_end_the_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("syftmesh.job._PAUSE_S", 0.0)
    files = Files({STATUS: written(status("RUNNING"))}, [(STATUS, written(status("RELEASED")))])
    reads, read = [0], files.read

    async def away_for_a_moment(path: str) -> Any:
        reads[0] += 1
        if 2 <= reads[0] <= 3:
            raise Unavailable("away")
        return await read(path)

    monkeypatch.setattr(files, "read", away_for_a_moment)
    assert (await job_of(node(files)).wait(timeout_s=5)).state == "released"
    assert reads == [4]


def test_every_state_of_the_protocol_has_its_name_and_no_other() -> None:
    for state in JobState:
        assert state_of(state_value(state)) is state
    for value in (0, 99, -1):
        with pytest.raises(IntegrityFailure):
            state_of(value)
    assert len(rds_pb2.JobState.values()) == len(JobState) + 1
