"""The audit chain: every change by hand is found, and questions are answered from it."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from mesh.rds.v1 import rds_service_pb2
from syftmesh_core.errors import IntegrityFailure
from syftmesh_runner.domain.review import review_code

CHANGES = {
    "actor": "UPDATE audit SET actor = 'mallory@x.example' WHERE sequence = 3",
    "fields": "UPDATE audit SET fields = replace(fields, 'prevalence', 'something') WHERE sequence = 3",
    "fields no json": "UPDATE audit SET fields = '{' WHERE sequence = 3",
    "fields not canonical": "UPDATE audit SET fields = fields || ' ' WHERE sequence = 3",
    "kind": "UPDATE audit SET kind = 'job.harmless' WHERE sequence = 3",
    "time": "UPDATE audit SET at_ms = at_ms + 1 WHERE sequence = 3",
    "link": "UPDATE audit SET previous_digest = zeroblob(32) WHERE sequence = 3",
    "link of another type": "UPDATE audit SET previous_digest = 'x' WHERE sequence = 3",
    "not utf-8": "UPDATE audit SET actor = CAST(x'ff' AS TEXT) WHERE sequence = 3",
    "deleted": "DELETE FROM audit WHERE sequence = 3",
    "deleted at the end": "DELETE FROM audit WHERE sequence >= 3",
    "all deleted": "DELETE FROM audit",
    "checkpoint": "UPDATE audit_checkpoints SET digest = zeroblob(32)",
    "checkpoint's signature": "UPDATE audit_checkpoints SET signature = zeroblob(64)",
    "checkpoint of another type": "UPDATE audit_checkpoints SET signature = 'x'",
}


async def verify(world: Any) -> rds_service_pb2.VerifyAuditResponse:
    return await world.audit.VerifyAudit(rds_service_pb2.VerifyAuditRequest(), None)


async def test_an_honest_chain_verifies_with_its_checkpoints(world: Any) -> None:
    async with world.running():
        await world.release(await world.succeeded())
    found = await verify(world)
    assert found.entries == len(world.audit_kinds())
    assert found.checkpoints == 1
    assert len(found.root) == 32
    world.restart()
    assert (await verify(world)).root == found.root


async def test_checkpoints_come_after_so_many_entries(world: Any) -> None:
    world.settings["checkpoint_every"] = 2
    world.restart()
    await world.submit()
    found = await verify(world)
    assert found.checkpoints == found.entries // 2


@pytest.mark.parametrize("change", CHANGES)
async def test_a_change_by_hand_is_found_and_its_place_is_named(world: Any, change: str) -> None:
    async with world.running():
        await world.release(await world.succeeded())
    world.module.database.connection.execute(CHANGES[change])
    with pytest.raises(IntegrityFailure) as caught:
        await verify(world)
    assert caught.value.reason == "AUDIT_BROKEN"
    if "checkpoint" not in change and "all" not in change:
        assert int(caught.value.metadata["sequence"]) in (3, 4)


async def test_a_recomputed_chain_fails_at_the_signed_checkpoint(world: Any) -> None:
    from syftmesh_core.audit_chain import entry_digest

    async with world.running():
        await world.release(await world.succeeded())
    connection = world.module.database.connection
    connection.execute("UPDATE audit SET actor = 'mallory@x.example' WHERE sequence = 3")
    previous = None
    for entry in list(world.audit._store.entries()):
        connection.execute(
            "UPDATE audit SET previous_digest = ? WHERE sequence = ?", (previous, entry.sequence)
        )
        (changed,) = list(
            world.audit._store.query(dataset="", job_id="", kind="", after=entry.sequence - 1, limit=1)
        )
        previous = entry_digest(changed)
    with pytest.raises(IntegrityFailure) as caught:
        await verify(world)
    assert caught.value.metadata["why"] == "AUDIT_CHECKPOINT_MISMATCH"


async def test_the_chain_verifies_without_the_hub(world: Any) -> None:
    await world.submit()
    world.keys.away = True
    await verify(world)


async def test_a_dataset_answers_who_touched_it_under_which_approval_and_what_left(world: Any) -> None:
    await world.create_dataset(name="other")
    async with world.running():
        await world.create_dataset()
        job_id = (
            await world.call("submit", world.submission(world.module._state.datasets.get("people")))
        ).job_id
        await world.approve(job_id)
        await world.until(job_id, "succeeded")
        await world.release(job_id)
    request = rds_service_pb2.QueryAuditRequest(dataset="people")
    entries = (await world.audit.QueryAudit(request, None)).entries
    kinds = [entry.kind for entry in entries if entry.kind != "dataset.published"]
    assert kinds == [
        "dataset.created", "job.submitted", "job.in_review", "job.approved", "job.queued", "job.running",
        "job.succeeded", "job.release_begun", "job.released",
    ]  # fmt: skip
    facts = {entry.kind: json.loads(entry.fields_json) for entry in entries}
    assert len(facts["job.approved"]["approval"]) == 64
    assert facts["job.released"]["recipients"] == ["carol@lab.example"]
    by_job = rds_service_pb2.QueryAuditRequest(job_id=job_id, kind="job.released")
    assert len((await world.audit.QueryAudit(by_job, None)).entries) == 1


async def test_the_export_streams_everything_in_order(world: Any) -> None:
    await world.submit()
    request = rds_service_pb2.ExportAuditRequest()
    found = [answer.entry async for answer in world.audit.ExportAudit(request, None)]
    assert [entry.sequence for entry in found] == list(range(1, len(found) + 1))
    assert all(one.digest == two.previous_digest for one, two in itertools.pairwise(found))


async def test_a_rolled_back_transaction_leaves_neither_job_nor_entry(world: Any) -> None:
    job_id = await world.submit()
    entries = world.audit_kinds()

    def reject_and_fail() -> None:
        with world.module.database.transaction():
            world.module._work.decision.reject(job_id, "no")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        reject_and_fail()
    assert world.state_of(job_id) == "in_review"
    assert world.audit_kinds() == entries


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("import socket", "IMPORT_NETWORK"),
        ("from urllib.request import urlopen", "IMPORT_NETWORK"),
        ("import subprocess as s", "IMPORT_PROCESS"),
        ("import ctypes", "IMPORT_NATIVE"),
        ("import pickle", "IMPORT_PICKLE"),
        ("import importlib", "IMPORT_DYNAMIC"),
        ("import base64", "IMPORT_ENCODING"),
        ("eval('1')", "DYNAMIC_CODE"),
        ("x.__class__.__bases__", "DUNDER_ATTRIBUTE"),
        ("getattr(x, 'y')", "DYNAMIC_ATTRIBUTE"),
        ("open('x', 'w')", "FILE_WRITE"),
        ("open('x', mode=m)", "FILE_WRITE"),
        ("path.open('ab')", "FILE_WRITE"),
        ("os.system('ls')", "PROCESS_START"),
        ("os.symlink('a', 'b')", "LINK"),
        ("os.environ['X']", "ENVIRONMENT"),
        ("frame.to_csv('x')", "TABLE_WRITE"),
        ("x = '" + "A" * 600 + "'", "LONG_LITERAL"),
        ("x = b'" + "A" * 600 + "'", "LONG_LITERAL"),
        ("def f(:", "SOURCE_UNREADABLE"),
        ("x = " + "(" * 5000 + ")" * 5000, "SOURCE_UNREADABLE"),
    ],
)
def test_static_review_says_where_to_look(code: str, rule: str) -> None:
    assert rule in {finding.rule for finding in review_code([("main.py", b"\n" + code.encode())])}


def test_static_review_names_file_and_line_and_leaves_plain_code_alone() -> None:
    found = review_code([("a/b.py", b"x = 1\n\nimport socket\n")])
    assert [(finding.file, finding.line) for finding in found] == [("a/b.py", 3)]
    assert review_code([("main.py", b"import pandas as pd\nprint(open('x').read())\n")]) == ()
    assert [finding.rule for finding in review_code([("x.so", b"\x7fELF\xff")])] == ["BINARY_FILE"]
