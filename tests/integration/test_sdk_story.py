"""The SDK as people use it: a blocking client for the scientist and the owner, over a mesh of real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import syftmesh
from syftmesh.errors import (
    AlreadyExists,
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
    WrongState,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ALICE, CAROL, EVE = "alice@hospital.example", "carol@lab.example", "eve@evil.example"
DATASET = f"{ALICE}/people"
CODE = """
import json, os, pathlib
import pandas as pd
frame = pd.read_csv(pathlib.Path(os.environ["DATA_DIR"]) / "people.csv")
column = json.loads(os.environ["PARAMETERS"])["by"]
counts = frame.groupby(column).size().reset_index(name="count")
counts.to_csv(pathlib.Path(os.environ["OUTPUT_DIR"]) / "counts.csv", index=False)
print("counted", len(counts))
"""


@dataclass(frozen=True)
class Mesh:
    state: Path
    server: str

    def connect(self, email: str) -> syftmesh.Client:
        return syftmesh.connect(self.server, profile=email, state=self.state)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def mesh(state: Path, sites: Sequence[str] = (), ports: tuple[int, int] = (0, 0)) -> Iterator[Mesh]:
    """Run the embedded mesh as a process of its own, on these ports (0: a free one)."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "syftmesh_standalone", "--state", str(state)]
    command += ["--http-port", str(ports[0]), "--grpc-port", str(ports[1])]
    command += ["--sites", ",".join(sites)] if sites else []
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    log, info = state.parent / f"{state.name}.log", state / "hub/mesh.json"
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=kept, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not info.exists():
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.05)
        yield Mesh(state, str(json.loads(info.read_bytes())["server"]))
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.wait(20)


def private_table() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient": [f"{n * 7919 % 2**40:012x}" for n in range(1, 301)],
            "ward": np.where(np.arange(300) % 3 == 0, "north", "south"),
            "age": np.arange(300) % 60 + 20,
        }
    )


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """A mesh with alice's site, her dataset `people` for carol, and an account of carol's and eve's."""
    base = tmp_path_factory.mktemp("sdk")
    with mesh(base / "state", [ALICE]) as found:
        for email in (CAROL, EVE):
            made = syftmesh.login(found.server, email=email, state=found.state)
            assert made.created
            assert made.phrase is not None
            assert len(made.phrase) == 24
        (base / "private").mkdir()
        private_table().to_csv(base / "private/people.csv", index=False)
        (base / "main.py").write_text(CODE)
        with found.connect(ALICE) as owner:
            owner.site.datasets.create(
                "people",
                base / "private",
                summary="patients <b>by ward</b>",
                tags=("wards",),
                audience=(CAROL,),
                policy={"identifier_columns": ["patient"], "wall_seconds": 60},
            )
        yield found


@pytest.fixture(scope="module")
def code(running: Mesh) -> Path:
    return running.state.parent / "main.py"


@pytest.fixture
def owner(running: Mesh) -> Iterator[syftmesh.Client]:
    with running.connect(ALICE) as client:
        yield client


@pytest.fixture
def scientist(running: Mesh) -> Iterator[syftmesh.Client]:
    with running.connect(CAROL) as client:
        yield client


def test_a_job_goes_from_a_card_to_a_released_table(
    owner: syftmesh.Client, scientist: syftmesh.Client, code: Path, tmp_path: Path
) -> None:
    (listed,) = scientist.datasets.list(ALICE)
    dataset = scientist.datasets.get(DATASET)
    assert (listed.site, listed.name, listed.private_digest) == (ALICE, "people", dataset.private_digest)
    assert [column.name for column in dataset.columns] == ["patient", "ward", "age"]
    assert dataset.policy.identifier_columns == ("patient",)
    assert "<b>by" not in dataset._repr_html_()
    frame = dataset.mock.dataframe()
    assert list(frame.columns) == ["patient", "ward", "age"]
    assert not set(frame["patient"]) & set(private_table()["patient"])
    assert (dataset.mock.download(tmp_path / "mock") / "people.csv").read_bytes() == dataset.mock.read(
        "people.csv"
    )

    run = scientist.jobs.run_mock(code, dataset=dataset, parameters={"by": "ward"}, output=tmp_path / "out")
    assert (run.exit_code, run.stdout.split()[0]) == (0, "counted")
    assert list(run.dataframe("counts.csv").columns) == ["ward", "count"]
    assert (tmp_path / "out/counts.csv").read_bytes() == run.outputs["counts.csv"]

    job = scientist.jobs.submit(
        code, datasets=[dataset], parameters={"by": "ward"}, purpose="prevalence", project="wards"
    )
    assert job.state == "in_review"
    assert [found.id for found in owner.site.jobs.list(["in_review"])] == [job.id]
    seen = owner.site.jobs.get(job.id)
    assert (seen.submitter, seen.purpose, seen.parameters) == (CAROL, "prevalence", {"by": "ward"})
    assert owner.site.jobs.code(job.id) == {"main.py": CODE.encode()}
    with pytest.raises(DeadlineExceeded):
        job.wait(timeout_s=0.2)
    owner.site.jobs.approve(seen)

    waiting = threading.Thread(target=job.wait, kwargs={"timeout_s": 90})
    waiting.start()
    deadline = time.monotonic() + 60
    while owner.site.jobs.get(job.id).state != "succeeded":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert waiting.is_alive(), "nothing is with the scientist before the release"
    assert owner.site.jobs.logs(job.id).startswith("counted 2")
    owner.site.jobs.release(job.id)
    waiting.join(60)
    assert (job.state, job.released) == ("released", ("counts.csv",))
    assert job.results.files() == ["counts.csv"]
    expected = {"ward": ["north", "south"], "count": [100, 200]}
    assert job.results.dataframe("counts.csv").to_dict("list") == expected
    assert job.results.dataframe().to_dict("list") == expected
    assert job.results.lineage()["job_id"] == job.id
    assert (job.results.download(tmp_path / "results") / "counts.csv").exists()
    assert scientist.jobs.get(job.id).state == "released"
    assert [found.id for found in scientist.jobs.list()] == [job.id]

    assert owner.site.audit.verify().entries > 0
    kinds = [entry.kind for entry in owner.site.audit.query(job_id=job.id)]
    assert {"job.submitted", "job.approved", "job.released"} <= set(kinds)
    assert len(list(owner.site.audit.export())) >= len(kinds)
    assert sum(owner.site.traffic().values()) > 0
    assert owner.site.status().site == ALICE


def test_what_the_site_finds_wrong_is_raised_at_once_and_leaves_no_job(
    scientist: syftmesh.Client, running: Mesh, code: Path
) -> None:
    dataset = scientist.datasets.get(DATASET)
    before = {job.id for job in scientist.jobs.list()}
    with running.connect(EVE) as eve:
        with pytest.raises(NotFound) as unread:
            eve.jobs.submit(code, datasets=[dataset], parameters={"by": "ward"}, purpose="x")
        assert unread.value.reason == "DATASET_UNKNOWN"
        assert eve.jobs.list() == []
        with pytest.raises(NotFound):
            eve.datasets.get(DATASET)
    with pytest.raises(InvalidInput) as unsaid:
        scientist.jobs.submit(code, datasets=[dataset])
    assert unsaid.value.reason == "JOB_INVALID"
    assert {job.id for job in scientist.jobs.list()} == before


def test_a_job_is_rejected_withdrawn_and_asked_for_twice(
    owner: syftmesh.Client, scientist: syftmesh.Client, code: Path
) -> None:
    options: dict[str, Any] = {"datasets": [DATASET], "parameters": {"by": "age"}, "purpose": "ages"}
    first = scientist.jobs.submit(code, **options)
    again = scientist.jobs.submit(code, job_id=first.id, **options)
    assert again.id == first.id
    owner.site.jobs.reject(first.id, "too few people of one age")
    assert (first.wait(30).state, first.message) == ("rejected", "too few people of one age")
    second = scientist.jobs.submit(code, **options)
    assert second.cancel().state == "withdrawn"
    with pytest.raises(WrongState):
        second.cancel()


def test_a_dataset_is_made_once_and_can_go(owner: syftmesh.Client, tmp_path: Path) -> None:
    table = tmp_path / "small.csv"
    private_table().to_csv(table, index=False)
    with pytest.raises(InvalidInput):
        owner.site.datasets.create("Small", table)
    with pytest.raises(MeshError):
        owner.site.datasets.create("small", tmp_path / "none.csv")
    assert owner.files.stat(f"{ALICE}/app_data/rds/datasets/small/syft.pub.yaml") is None
    made = owner.site.datasets.create("small", table)
    assert (made.id, made.audience) == (f"{ALICE}/small", ())
    with pytest.raises(AlreadyExists) as taken:
        owner.site.datasets.create("small", table, audience=["*"])
    assert taken.value.reason == "DATASET_EXISTS"
    assert owner.datasets.get(f"{ALICE}/small").audience == ()
    owner.site.datasets.delete("small")
    assert [found.name for found in owner.site.datasets.list()] == ["people"]
    assert owner.files.list(f"{ALICE}/app_data/rds/datasets/small") == []


def test_files_rights_and_keys(owner: syftmesh.Client, scientist: syftmesh.Client) -> None:
    path = f"{ALICE}/public/a.txt"
    record = owner.files.write(path, b"one", expected_revision=0)
    assert scientist.files.read(path) == b"one"
    assert scientist.permissions.check(path).allowed
    denied = scientist.permissions.check(path, "write")
    assert (denied.allowed, denied.principal, denied.level) == (False, CAROL, "write")
    why = owner.permissions.explain(path, as_="anonymous")
    assert (why.allowed, why.rule is not None and why.rule.pattern) == (True, "**")
    with pytest.raises(PermissionDenied):
        scientist.files.write(path, b"two")
    owner.files.delete(path, expected_revision=record.revision)
    assert scientist.files.stat(path) is None
    assert owner.keys.verify(CAROL) == scientist.keys.verify(ALICE)
    assert {device.device_id for device in owner.keys.devices()} >= {owner.keys.show().device_id}
    assert scientist.traffic.sent_bytes > 0


def test_calls_are_made_and_looked_up_by_another_client(
    running: Mesh, scientist: syftmesh.Client, code: Path
) -> None:
    url = f"syft://{ALICE}/app_data/rds/rpc/status"
    with pytest.raises(NotFound) as unknown:
        scientist.rpc.call(url, b"")
    assert unknown.value.reason == "JOB_UNKNOWN"
    call_id = scientist.rpc.send(url, b"")
    with running.connect(CAROL) as other, pytest.raises(NotFound) as again:
        other.rpc.result(call_id, timeout_s=20)
    assert again.value.reason == "JOB_UNKNOWN"


def test_a_stranger_to_this_machine_has_no_site(running: Mesh, scientist: syftmesh.Client) -> None:
    with pytest.raises(NotFound) as away:
        scientist.site.jobs.list()
    assert (away.value.reason, away.value.hint) == ("SITE_NOT_RUNNING", f"syftmesh up --sites {CAROL}")


def test_ctrl_c_in_a_blocking_call_ends_the_call_and_leaves_the_client_usable(
    scientist: syftmesh.Client, code: Path
) -> None:
    job = scientist.jobs.submit(code, datasets=[DATASET], parameters={"by": "ward"}, purpose="waiting")
    main = threading.main_thread().ident
    assert main is not None
    timer = threading.Timer(1.0, signal.pthread_kill, [main, signal.SIGINT])
    begun = time.monotonic()
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert time.monotonic() - begun < 8
    assert scientist.jobs.get(job.id).state == "in_review"


def test_a_program_that_forgets_to_close_ends_quietly(running: Mesh) -> None:
    program = (
        "import syftmesh, sys\n"
        "client = syftmesh.connect(sys.argv[1], profile=sys.argv[2], state=sys.argv[3])\n"
        "print(client.email, len(client.datasets.list('alice@hospital.example')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, running.server, CAROL, str(running.state)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, [CAROL, "1"], "")


async def test_the_blocking_client_works_where_a_loop_runs_and_beside_the_asynchronous_one(
    running: Mesh,
) -> None:
    syftmesh.login(running.server, email=CAROL, state=running.state)
    with running.connect(CAROL) as blocking:
        async with syftmesh.connect_async(running.server, profile=CAROL, state=running.state) as client:
            there = await client.datasets.get(DATASET)
            here = await asyncio.to_thread(blocking.datasets.get, DATASET)
            assert there.private_digest == here.private_digest
            assert await there.mock.read("people.csv") == here.mock.read("people.csv")
            await client.close()
    blocking.close()
    with pytest.raises(WrongState) as closed:
        blocking.datasets.list()
    assert closed.value.reason == "CLIENT_CLOSED"


def test_a_submission_waits_for_an_owner_who_is_offline(tmp_path: Path) -> None:
    state = tmp_path / "state"
    (tmp_path / "main.py").write_text(CODE)
    private_table().to_csv(tmp_path / "people.csv", index=False)
    with mesh(state, [ALICE]) as found:
        syftmesh.login(found.server, email=CAROL, state=state)
        syftmesh.login(found.server, email=EVE, state=state)
        with found.connect(ALICE) as owner:
            owner.site.datasets.create("people", tmp_path / "people.csv", audience=[CAROL])
        with found.connect(CAROL) as scientist:
            dataset = scientist.datasets.get(DATASET)
    options: dict[str, Any] = {"datasets": [dataset], "parameters": {"by": "ward"}, "purpose": "prevalence"}
    (state / "sites").rename(tmp_path / "away")  # the owner's machine is off
    with mesh(state) as found:
        with found.connect(CAROL) as scientist:
            begun = time.monotonic()
            job = scientist.jobs.submit(tmp_path / "main.py", **options)
            assert time.monotonic() - begun < 8
            assert job.state == "submitted"
            assert [(one.id, one.state) for one in scientist.jobs.list()] == [(job.id, "submitted")]
        with found.connect(EVE) as eve:
            refused = eve.jobs.submit(tmp_path / "main.py", **options)
            assert refused.state == "submitted"
    if (state / "sites").exists():
        (state / "sites").rmdir()
    (tmp_path / "away").rename(state / "sites")
    with mesh(state, [ALICE]) as found, found.connect(EVE) as eve:
        unread = eve.jobs.get(refused.id).wait(60)
        assert (unread.state, unread.end_reason) == ("rejected", "DATASET_UNKNOWN")
        with found.connect(CAROL) as scientist, found.connect(ALICE) as owner:
            arrived = scientist.jobs.get(job.id)
            deadline = time.monotonic() + 60
            while arrived.refresh().state != "in_review":
                assert time.monotonic() < deadline
                time.sleep(0.2)
            owner.site.jobs.reject(job.id, "not now")
            assert arrived.wait(60).state == "rejected"


def test_results_of_a_job_that_another_submitted_stay_closed(running: Mesh, code: Path) -> None:
    with running.connect(CAROL) as scientist, running.connect(EVE) as eve:
        job = scientist.jobs.submit(code, datasets=[DATASET], parameters={"by": "ward"}, purpose="mine")
        with pytest.raises(NotFound) as unknown:
            eve.jobs.get(job.id, site=ALICE)
        assert unknown.value.reason == "JOB_UNKNOWN"
        job.cancel()


def test_code_that_no_call_can_carry_is_refused_here(scientist: syftmesh.Client, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/main.py").write_text("pass")
    (tmp_path / "code/model.bin").write_bytes(os.urandom(300_000))
    with pytest.raises(MeshError) as large:
        scientist.jobs.submit(tmp_path / "code", datasets=[DATASET], purpose="x")
    assert large.value.reason == "CODE_TOO_LARGE"
    assert not isinstance(large.value, IntegrityFailure)


def test_waiting_and_clients_outlive_a_restart_of_the_whole_mesh(tmp_path: Path) -> None:
    state, ports = tmp_path / "state", (free_port(), free_port())
    (tmp_path / "main.py").write_text(CODE)
    private_table().to_csv(tmp_path / "people.csv", index=False)
    with mesh(state, [ALICE], ports) as found:
        syftmesh.login(found.server, email=CAROL, state=state)
        scientist, owner = found.connect(CAROL), found.connect(ALICE)
        owner.site.datasets.create("people", tmp_path / "people.csv", audience=[CAROL])
        job = scientist.jobs.submit(
            tmp_path / "main.py", datasets=[DATASET], parameters={"by": "ward"}, purpose="prevalence"
        )
        waiting = threading.Thread(target=job.wait, kwargs={"timeout_s": 120})
        waiting.start()
    with scientist, owner, mesh(state, [ALICE], ports):
        deadline = time.monotonic() + 60
        while True:
            try:
                owner.site.jobs.reject(job.id, "not today")
                break
            except (Unavailable, NotFound):
                assert time.monotonic() < deadline
                time.sleep(0.2)
        waiting.join(60)
        assert (job.state, job.message) == ("rejected", "not today")
