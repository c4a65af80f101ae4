"""The blocking client against a whole mesh: an owner, a scientist, a job; and what must be refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import syftmesh
from syftmesh_core.errors import (
    AlreadyExists,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
    WrongState,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

CAROL, EVE = "carol@sdk.example", "eve@sdk.example"
CODE = """
import json, os, pathlib
import pandas as pd
limit = json.loads(os.environ["PARAMETERS"])["limit"]
frame = pd.read_csv(pathlib.Path(os.environ["DATA_DIR"]) / "people.csv")
counts = frame[frame["age"] < limit].groupby("ward").size().reset_index(name="count")
counts.to_csv(pathlib.Path(os.environ["OUTPUT_DIR"]) / "counts.csv", index=False)
print("counted", len(counts))
"""


@pytest.fixture(scope="module")
def people(mesh: Any) -> Iterator[dict[str, syftmesh.Client]]:
    """Clients of the owner, of a scientist and of somebody else."""
    for email in (CAROL, EVE):
        syftmesh.login(mesh.server, email=email, state=mesh.state)
    owner = mesh.info["sites"][0]
    names = {"owner": owner, "carol": CAROL, "eve": EVE}
    clients = {
        name: syftmesh.connect(mesh.server, profile=email, state=mesh.state) for name, email in names.items()
    }
    yield clients
    for client in clients.values():
        client.close()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        {"patient": f"{n * 7919 % 2**40:012x}", "age": 20 + n % 60, "ward": ("north", "south")[n % 3 == 0]}
        for n in range(1, 301)
    ]
    path = tmp_path_factory.mktemp("private") / "people.csv"
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def dataset(people: dict[str, syftmesh.Client], private: Path) -> Any:
    return people["owner"].site.datasets.create(
        "people", private, summary="Wards", audience=[CAROL], policy={"identifier_columns": ["patient"]}
    )


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "count.py"
    path.write_text(CODE)
    return path


def test_an_approved_job_runs_on_private_data_and_its_table_comes_back(
    people: dict[str, syftmesh.Client], dataset: Any, private: Path, code: Path
) -> None:
    owner, carol = people["owner"], people["carol"]
    assert [found.id for found in carol.datasets.list(site=owner.email)] == [dataset.id]
    found = carol.datasets.get(dataset.id)
    mock = found.mock.dataframe()
    assert list(mock.columns) == ["patient", "age", "ward"]
    assert not set(mock["patient"]) & set(pd.read_csv(private)["patient"])
    run = carol.jobs.run_mock(code, dataset=found, parameters={"limit": 200})
    assert (run.exit_code, run.reason, list(run.dataframe().columns)) == (0, "OK", ["ward", "count"])

    job = carol.jobs.submit(code, datasets=[found], parameters={"limit": 200}, purpose="wards")
    assert job.state == "in_review"
    seen = owner.site.jobs.get(job.id)
    assert (seen.submitter, seen.parameters, seen.purpose) == (CAROL, {"limit": 200}, "wards")
    assert owner.site.jobs.code(job.id) == {"count.py": CODE.encode()}
    owner.site.jobs.approve(seen)
    ended = _eventually(lambda: owner.site.jobs.get(job.id), lambda j: j.state == "succeeded")
    assert "counted 2" in owner.site.jobs.logs(job.id)
    assert carol.jobs.get(job.id).results.files() == [], "nothing leaves by itself"
    assert {output.name for output in ended.outputs} >= {"counts.csv", "logs/stdout.txt"}
    released = owner.site.jobs.release(job.id, ["counts.csv"])
    assert released.bytes_out > 0
    assert released.job.released == ("counts.csv",)
    job.wait(timeout_s=30)
    assert job.state == "released"
    expected = pd.read_csv(private).groupby("ward").size().reset_index(name="count")
    pd.testing.assert_frame_equal(job.results.dataframe(), expected)
    assert owner.site.audit.verify().entries > 5
    assert {"job.approved", "job.released"} <= {e.kind for e in owner.site.audit.query(job_id=job.id)}
    assert sum(owner.site.traffic().values()) > released.bytes_out


@pytest.mark.parametrize(
    "term", ["parameters", "code_digest", "entrypoint", "datasets", "recipients", "purpose"]
)
def test_an_approval_with_one_changed_term_is_refused(
    people: dict[str, syftmesh.Client], dataset: Any, code: Path, term: str
) -> None:
    owner, carol = people["owner"], people["carol"]
    job = carol.jobs.submit(code, datasets=[dataset.id], parameters={"limit": 50}, purpose=f"forged {term}")
    seen = owner.site.jobs.get(job.id)
    terms = json.loads(seen.approval_terms_json)
    changed: dict[str, Any] = {
        "parameters": {"limit": 51},
        "code_digest": terms["code_digest"][:-1] + ("0" if terms["code_digest"][-1] != "0" else "1"),
        "entrypoint": "other.py",
        "datasets": [{**terms["datasets"][0], "digest": "0" * 64}],
        "recipients": [{"email": EVE, "root": terms["recipients"][0]["root"]}],
        "purpose": "something else",
    }
    forged = replace(seen, approval_terms_json=json.dumps({**terms, term: changed[term]}))
    with pytest.raises(WrongState) as caught:
        owner.site.jobs.approve(forged)
    assert caught.value.reason == "APPROVAL_MISMATCH"
    assert term in str(caught.value.metadata)
    assert owner.site.jobs.get(job.id).state == "in_review"
    owner.site.jobs.reject(job.id, "a forgery was tried")
    assert job.wait(timeout_s=20).state == "rejected"
    assert "a forgery was tried" in job.message


def test_who_is_not_of_the_audience_sees_nothing_and_cannot_ask(
    people: dict[str, syftmesh.Client], dataset: Any, code: Path
) -> None:
    eve = people["eve"]
    assert eve.datasets.list(site=dataset.site) == []
    with pytest.raises(NotFound) as unknown:
        eve.datasets.get(dataset.id)
    assert unknown.value.reason == "DATASET_UNKNOWN"
    card = people["carol"].datasets.get(dataset.id)
    with pytest.raises(NotFound) as refused:
        eve.jobs.submit(code, datasets=[card], parameters={"limit": 50}, purpose="wards")
    assert refused.value.reason == "DATASET_UNKNOWN"
    with pytest.raises(NotFound):
        eve.files.read(f"{dataset.site}/app_data/rds/datasets/people/mock/people.csv")


def test_a_job_of_somebody_else_is_unknown_and_a_submitter_decides_nothing(
    people: dict[str, syftmesh.Client], dataset: Any, code: Path
) -> None:
    carol, eve, owner = people["carol"], people["eve"], people["owner"]
    job = carol.jobs.submit(code, datasets=[dataset.id], parameters={"limit": 50}, purpose="wards")
    with pytest.raises(NotFound) as unknown:
        eve.jobs.get(job.id, site=owner.email)
    assert unknown.value.reason == "JOB_UNKNOWN"
    with pytest.raises(NotFound) as local:
        carol.site.jobs.list()
    assert local.value.reason == "SITE_NOT_RUNNING"
    assert job.cancel().state == "withdrawn"
    with pytest.raises(WrongState):
        owner.site.jobs.approve(job.id)


def test_files_rights_and_keys(people: dict[str, syftmesh.Client], tmp_path: Path) -> None:
    owner, carol = people["owner"], people["carol"]
    path = f"{owner.email}/public/sdk/readme.md"
    owner.files.write(path, b"hello")
    assert carol.files.read(path) == b"hello"
    assert [view.path for view in carol.files.list(f"{owner.email}/public/sdk")] == [path]
    decision = carol.permissions.check(path)
    assert (decision.allowed, decision.rule.pattern if decision.rule else "") == (True, "**")
    assert carol.permissions.check(path, "write").allowed is False
    assert "write" in carol.permissions.explain(path, "write").needed.lower()
    assert owner.permissions.check(path, as_="anonymous").principal == "anonymous"
    with pytest.raises(PermissionDenied):
        carol.files.write(path, b"mine")
    owner.files.delete(path)
    assert owner.files.stat(path) is None
    assert owner.keys.verify(CAROL) == carol.keys.verify(owner.email)
    assert {device.serves for device in owner.keys.devices()} == {True, False}
    with pytest.raises(InvalidInput):
        carol.files.read(f"{owner.email}/../x")
    with pytest.raises(PermissionDenied):
        carol.rpc.call(f"syft://{owner.email}/app_data/rds/rpc/nothing", {"n": 1}, timeout_s=5)


def test_a_dataset_name_is_used_once_and_what_fails_leaves_its_audience_alone(
    people: dict[str, syftmesh.Client], dataset: Any, private: Path, tmp_path: Path
) -> None:
    owner = people["owner"]
    rules = f"{owner.email}/app_data/rds/datasets/people/syft.pub.yaml"
    before = owner.files.read(rules)
    with pytest.raises(AlreadyExists) as there:
        owner.site.datasets.create("people", private, audience=["*"])
    assert there.value.reason == "DATASET_EXISTS"
    assert owner.files.read(rules) == before
    with pytest.raises(MeshError):
        owner.site.datasets.create("ghost", tmp_path / "missing.csv", audience=[CAROL])
    assert owner.files.stat(f"{owner.email}/app_data/rds/datasets/ghost/syft.pub.yaml") is None
    with pytest.raises(IntegrityFailure) as leaking:
        owner.site.datasets.create("leaking", private, mock=private, audience=[CAROL])
    assert leaking.value.reason == "MOCK_HOLDS_PRIVATE_ROWS"


def test_logging_in_says_what_is_wrong(mesh: Any, tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as away:
        syftmesh.login("http://127.0.0.1:9", email="new@sdk.example", state=tmp_path)
    assert away.value.reason == "SERVER_UNREACHABLE"
    assert not (tmp_path / "profiles").exists()
    with pytest.raises(MeshError) as foreign:
        syftmesh.login(mesh.server, email="new@sdk.example", state=tmp_path)
    assert foreign.value.reason == "NOT_LOGGED_IN"
    # The account was made before the login failed: its phrase waits for the login that works, and for no other.
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub/local.token").write_bytes((mesh.state / "hub/local.token").read_bytes())
    finished = syftmesh.login(mesh.server, email="new@sdk.example", state=tmp_path)
    assert finished.phrase is not None
    assert len(finished.phrase) == 24
    assert syftmesh.login(mesh.server, email="new@sdk.example", state=tmp_path).phrase is None
    with pytest.raises(NotFound) as nobody:
        syftmesh.connect(mesh.server, state=tmp_path / "other")
    assert nobody.value.reason == "PROFILE_MISSING"
    out = tmp_path / "phrase.txt"
    result = syftmesh.login(mesh.server, email="recovered@sdk.example", recovery_out=out, state=mesh.state)
    assert (result.created, result.phrase, len(out.read_text().split())) == (True, None, 24)
    assert out.stat().st_mode & 0o777 == 0o600
    again = syftmesh.login(mesh.server, email="recovered@sdk.example", recovery_out=out, state=mesh.state)
    assert again.created is False


def _eventually(look: Any, wanted: Any) -> Any:
    import time

    deadline = time.monotonic() + 40
    while not wanted(found := look()):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
    return found
