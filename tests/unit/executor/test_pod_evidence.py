"""Why a run on a cluster is over: reports that lie, pods that are gone, and pods that never start."""

from __future__ import annotations

from typing import Any

import pytest
from syftmesh_executor.kubernetes.evidence import (
    job_image_id,
    judge_pod,
    judge_report,
    start_problem,
    takes_no_session,
)
from syftmesh_executor.kubernetes.session import Ended
from syftmesh_executor.port import EndReason

MIB = 1 << 20
GOOD: dict[str, Any] = {
    "ended": "EXIT", "exit_code": 0, "started_ms": 5, "ended_ms": 9, "memory_kills": 0,
    "scratch_free_bytes": MIB, "output_free_bytes": MIB,
}  # fmt: skip


def pod(**status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "status": status}


def ended(name: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "state": {"terminated": fields}}


@pytest.mark.parametrize(
    ("change", "stderr", "reason"),
    [
        ({}, b"", EndReason.OK),
        ({"exit_code": 3}, b"", EndReason.EXIT_NONZERO),
        ({"exit_code": 137, "memory_kills": 1}, b"", EndReason.OUT_OF_MEMORY),
        ({"exit_code": 1}, b"MemoryError", EndReason.OUT_OF_MEMORY),
        ({"exit_code": 1}, b"BlockingIOError", EndReason.PROCESS_LIMIT),
        ({"exit_code": 1, "scratch_free_bytes": 0}, b"", EndReason.DISK_LIMIT),
        ({"output_free_bytes": 0}, b"", EndReason.OUTPUT_LIMIT),
        ({"ended": "TIMEOUT", "exit_code": 137}, b"", EndReason.TIMEOUT),
        ({"ended": "CANCELLED", "exit_code": 143}, b"", EndReason.CANCELLED),
        ({"ended": "PROCESS_LIMIT", "exit_code": 137}, b"", EndReason.PROCESS_LIMIT),
    ],
)
def test_a_report_is_judged_as_a_sandbox_is(change: dict[str, Any], stderr: bytes, reason: EndReason) -> None:
    found = judge_report(Ended(report={**GOOD, **change}, stderr=stderr))
    assert (found.reason, found.started_ms, found.ended_ms) == (reason, 5, 9)


@pytest.mark.parametrize(
    "report",
    [
        {},
        {**GOOD, "exit_code": "x"},
        {**GOOD, "exit_code": None},
        {**GOOD, "started_ms": []},
        {**GOOD, "memory_kills": {}},
        {"ended": "EXIT"},
    ],
)
def test_a_report_that_is_none_is_a_lost_run(report: dict[str, Any]) -> None:
    assert judge_report(Ended(report=report)).reason is EndReason.RUNNER_LOST


def test_output_that_is_too_large_and_an_open_network_are_named() -> None:
    assert judge_report(Ended(report=GOOD, too_large="much")).detail == "much"
    report = {
        "ended": "ISOLATION_FAILED",
        "exit_code": None,
        "network": {"dns_0": "DROPPED", "api_server": "OPEN"},
    }
    found = judge_report(Ended(report=report))
    assert found.reason is EndReason.ISOLATION_FAILED
    assert "(api_server)" in found.detail
    report = {"ended": "ISOLATION_FAILED", "exit_code": 97, "problem": "OSError: no filter"}
    assert "no filter" in judge_report(Ended(report=report)).detail


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (None, EndReason.RUNNER_LOST),
        ({"metadata": {"deletionTimestamp": "now"}}, EndReason.RUNNER_LOST),
        (pod(reason="DeadlineExceeded", phase="Failed"), EndReason.TIMEOUT),
        (pod(reason="Evicted", phase="Failed"), EndReason.RUNNER_LOST),
        (pod(containerStatuses=[ended("job", reason="OOMKilled", exitCode=137)]), EndReason.OUT_OF_MEMORY),
        # In gVisor all containers end with the kernel they share, whichever is named.
        (pod(containerStatuses=[ended("carrier", reason="OOMKilled")]), EndReason.OUT_OF_MEMORY),
        (pod(containerStatuses=[ended("job", reason="Error", exitCode=1)]), EndReason.RUNNER_LOST),
    ],
)
def test_a_pod_that_ends_without_a_report_tells_why(seen: Any, reason: EndReason) -> None:
    found = judge_pod(seen)
    assert found is not None
    assert found.reason is reason


def test_a_pod_at_work_is_not_judged_and_takes_a_session() -> None:
    at_work = pod(phase="Running", containerStatuses=[{"name": "job", "state": {"running": {}}}])
    assert judge_pod(at_work) is None
    assert not takes_no_session(at_work)
    assert not takes_no_session(pod(phase="Running", containerStatuses=[ended("job", exitCode=0)]))
    assert takes_no_session(pod(phase="Running", containerStatuses=[ended("carrier", exitCode=0)]))
    assert takes_no_session(None)


@pytest.mark.parametrize(
    ("waiting", "events", "problem", "hopeless"),
    [
        ("ErrImageNeverPull", [], "image", True),
        ("ImagePullBackOff", [], "image", False),
        ("CreateContainerConfigError", [], "container", True),
        (None, [("FailedScheduling", "0/2 nodes: secret-node")], "no node", False),
        (None, [("FailedCreate", "RuntimeClass.node.k8s.io kata not found")], "runtime class", True),
        (None, [("FailedCreate", "exceeded quota: q, requested pods=1")], "quota", False),
        (None, [("FailedCreate", "violates PodSecurity restricted")], "pod security", True),
        (None, [("Pulled", "all well")], "", False),
        (None, [], "", False),
    ],
)
def test_what_keeps_a_pod_is_told_in_our_words(
    waiting: str | None, events: list[tuple[str, str]], problem: str, *, hopeless: bool
) -> None:
    seen = (
        pod(containerStatuses=[{"name": "job", "state": {"waiting": {"reason": waiting}}}])
        if waiting
        else None
    )
    told = [{"reason": reason, "message": message} for reason, message in events]
    text, is_hopeless = start_problem(seen, told)
    assert text.startswith(problem)
    assert is_hopeless is hopeless
    assert "secret-node" not in text


@pytest.mark.parametrize(
    ("image_id", "digest"),
    [("registry/x@sha256:ab", "ab"), ("sha256:cd", "cd"), ("", ""), (None, "")],
)
def test_the_digest_of_an_image_is_read_in_both_spellings(image_id: str | None, digest: str) -> None:
    assert job_image_id(pod(containerStatuses=[{"name": "job", "imageID": image_id}])) == digest
