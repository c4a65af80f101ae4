"""What the lines between the demo and a site's console keep, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh.review import Finding, Output, ReviewJob
from syftmesh.site_run import Proposal
from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.errors import IntegrityFailure, Internal, MeshError, NotFound, WrongState
from syftmesh_core.federated import ProposalState, UpdateLimits
from syftmesh_core.job import JobState
from syftmesh_standalone.demo.cluster.wire import decode, decode_error, encode, encode_error

FINDING = Finding("block", "PRIVATE_VALUE", "a.csv", 3, "record_id", "a private value")
JOB = ReviewJob(
    id="018f",
    site="a@x.example",
    state=JobState.IN_REVIEW,
    end_reason="",
    message="waits",
    submitter="s@x.example",
    submitter_root=bytes(range(32)),
    project="p",
    purpose="q",
    datasets=(DatasetVersion("d", "00"),),
    code_digest="ab",
    entrypoint="main.py",
    parameters={"features": ["x"], "n": 1},
    runtime_digest="cd",
    recipients=("s@x.example",),
    findings=(FINDING,),
    outputs=(Output("a.csv", 3, "ef", (FINDING,), released=False),),
    exit_code=None,
    created_ms=1,
    updated_ms=2,
    expires_ms=3,
)
PROPOSAL = Proposal(
    run_id="1",
    site="a@x.example",
    state=ProposalState.APPROVED,
    reason="",
    message="",
    aggregator="s@x.example",
    app_digest="00",
    app_name="p/a 1.0.0",
    dataset=DatasetVersion("d", "00"),
    run_config={"lr": 0.1},
    recipients=(Recipient("s@x.example", bytes(32)),),
    train_tasks=3,
    evaluate_tasks=1,
    limits=UpdateLimits(1, 0.0, 1, 1),
    purpose="",
    runtime_digest="",
    partition=0,
    partitions=2,
    train_tasks_done=0,
    evaluate_tasks_done=0,
    refused_tasks=0,
    sent_bytes=0,
    created_ms=0,
    updated_ms=0,
    expires_ms=0,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)


def over_the_line(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value))))


@pytest.mark.parametrize("value", [JOB, PROPOSAL, [JOB, JOB], {"a": (PROPOSAL,)}, frozenset({1, 2})])
def test_what_a_site_answers_arrives_as_what_it_was(value: Any) -> None:
    found = over_the_line(value)
    assert found == value
    assert type(found) is type(value)


@given(VALUES)
def test_plain_values_arrive_as_what_they_were(value: Any) -> None:
    assert over_the_line(value) == value


def test_a_moment_keeps_its_zone() -> None:
    moment = datetime(2026, 11, 25, 1, 2, 3, 456789, tzinfo=UTC)
    assert over_the_line([moment]) == [moment]


def test_states_are_still_states_and_paths_still_paths() -> None:
    assert over_the_line(JobState.RUNNING) is JobState.RUNNING
    assert over_the_line(PurePosixPath("/a/b")) == PurePosixPath("/a/b")


def test_an_object_that_no_line_carries_is_refused_where_it_is_sent() -> None:
    @dataclass
    class Inner:
        value: int

    for value in (object(), Inner(1), lambda: 1, {"a": object()}):
        with pytest.raises(TypeError, match="no line carries"):
            encode(value)


@pytest.mark.parametrize(
    "line",
    [
        {"$": "object", "class": "subprocess:Popen", "fields": {"args": ["true"]}},
        {"$": "object", "class": "syftmesh_standalone.demo.data:PrivateTable", "fields": {}},
        {"$": "object", "class": "syftmesh.client:Client", "fields": {}},
        {"$": "object", "class": "syftmesh.review:Finding", "fields": {"severity": "x"}},
        {"$": "object", "class": "syftmesh.review:missing", "fields": {}},
        {"$": "enum", "class": "syftmesh.review:Finding", "value": 1},
        {"$": "enum", "class": "syftmesh_core.job:JobState", "value": "no state"},
        {"$": "bytes", "value": "***"},
        {"$": "strange"},
        {"no": "tag"},
    ],
)
def test_a_line_that_is_none_of_ours_is_refused(line: dict[str, Any]) -> None:
    with pytest.raises(IntegrityFailure) as refused:
        decode(line)
    assert refused.value.reason == "LINE_INVALID"


@pytest.mark.parametrize("kind", [NotFound, WrongState, Internal, MeshError])
def test_errors_arrive_with_class_reason_metadata_and_hint(kind: type[MeshError]) -> None:
    sent = kind("words", reason="SOME_REASON", metadata={"a": "b"}, hint="do this")
    found = decode_error(json.loads(json.dumps(encode_error(sent))))
    assert type(found) is kind
    assert (found.message, found.reason, found.metadata, found.hint) == (
        "words",
        "SOME_REASON",
        {"a": "b"},
        "do this",
    )


@pytest.mark.parametrize("name", ["SystemExit", "Mapping", "", "annotations"])
def test_an_error_that_is_none_of_ours_is_refused(name: str) -> None:
    with pytest.raises(IntegrityFailure):
        decode_error({"class": name, "message": "", "reason": "", "metadata": {}, "hint": ""})
