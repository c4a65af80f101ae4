"""What a pod's status and events say about a run; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from syftmesh_core.errors import Unavailable

from syftmesh_executor.cgroup import GroupUsage
from syftmesh_executor.kubernetes.manifest import CARRIER, JOB
from syftmesh_executor.kubernetes.session import Ended
from syftmesh_executor.port import EndReason
from syftmesh_executor.verdict import Evidence, judge

_HOPELESS: Final = {
    "ErrImageNeverPull": "image: it is not on the node, and may not be fetched",
    "InvalidImageName": "image: its name is not valid",
    "CreateContainerConfigError": "container: its configuration is refused",
    "CreateContainerError": "container: the runtime cannot make it",
    "RunContainerError": "container: the runtime cannot start it",
}
_WAITING: Final = {
    "ErrImagePull": "image: it cannot be fetched",
    "ImagePullBackOff": "image: it cannot be fetched",
    "FailedScheduling": "no node takes it: memory, CPU or a condition of the pod",
    "FailedMount": "a volume cannot be mounted",
    "FailedCreatePodSandBox": "the node cannot make the pod",
    "FailedCreate": "the cluster refuses the pod",
}
_REFUSED: Final = (
    ("RuntimeClass", "runtime class: the cluster has none of that name"),
    ("exceeded quota", "quota: the jobs namespace has no room"),
    ("violates PodSecurity", "pod security: the jobs namespace refuses the pod"),
    ("hostUsers", "user namespace: the cluster refuses pods with one"),
    ("user namespace", "user namespace: the node or its runtime has none for pods"),
)
_WATCHED: Final = frozenset(
    {
        "TIMEOUT",
        "CANCELLED",
        "DISK_LIMIT",
        "OUTPUT_LIMIT",
        "PROCESS_LIMIT",
        "OUT_OF_MEMORY",
        "ISOLATION_FAILED",
    }
)


@dataclass(frozen=True, slots=True)
class Judgement:
    """Why a run is over, its exit code, when it ran (Unix ms, 0 unknown), and a sentence for the owner."""

    reason: EndReason
    exit_code: int | None = None
    started_ms: int = 0
    ended_ms: int = 0
    detail: str = ""


def judge_report(ended: Ended) -> Judgement:
    """Return why a run with a report is over; a report that is none counts as a lost run."""
    report = ended.report
    try:
        started_ms, ended_ms = int(report.get("started_ms", 0)), int(report.get("ended_ms", 0))
        kind = str(report["ended"])
        code = None if report["exit_code"] is None else int(report["exit_code"])
        if kind in _WATCHED:
            detail = _isolation_problem(report) if kind == "ISOLATION_FAILED" else ""
            return Judgement(EndReason(kind), code, started_ms, ended_ms, detail)
        if ended.too_large:
            return Judgement(EndReason.OUTPUT_LIMIT, code, started_ms, ended_ms, ended.too_large)
        kills = int(report["memory_kills"])
        evidence = Evidence(
            exit_code=int(report["exit_code"]),
            usage=GroupUsage(kills, 0) if kills else None,
            scratch_free_bytes=int(report["scratch_free_bytes"]),
            output_free_bytes=int(report["output_free_bytes"]),
            stderr=ended.stderr,
        )
    except (KeyError, TypeError, ValueError):
        return Judgement(EndReason.RUNNER_LOST, detail="the pod's report is not readable")
    return Judgement(judge(evidence), code, started_ms, ended_ms)


def _isolation_problem(report: Mapping[str, Any]) -> str:
    if report.get("problem"):
        return f"the pod could not confine the code ({str(report['problem'])[:200]!a})"
    seen = report.get("network")
    names = sorted(name for name, value in seen.items() if value == "OPEN") if isinstance(seen, dict) else []
    return f"the pod's network is open ({', '.join(names)[:200]}); does the cluster enforce network policies?"


def judge_pod(pod: Mapping[str, Any] | None) -> Judgement | None:
    """Return why a run without a report is over, None while its pod may still give one."""
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return Judgement(
            EndReason.RUNNER_LOST, detail="the pod was deleted by somebody else, or its node is gone"
        )
    status = pod.get("status", {})
    if status.get("reason") == "DeadlineExceeded":
        return Judgement(EndReason.TIMEOUT, detail="the cluster ended the pod at its deadline")
    if status.get("reason") == "Evicted":
        return Judgement(EndReason.RUNNER_LOST, detail="the node evicted the pod")
    ends = {found["name"]: _ended(found) for found in status.get("containerStatuses") or ()}
    if any(end is not None and end.get("reason") == "OOMKilled" for end in ends.values()):
        return Judgement(EndReason.OUT_OF_MEMORY, 137, detail="the node ended the pod for its memory")
    end = ends.get(JOB)
    if end is not None or status.get("phase") in ("Failed", "Succeeded"):
        code = (end or {}).get("exitCode")
        return Judgement(EndReason.RUNNER_LOST, detail=f"the pod ended without a report (exit code {code})")
    return None


def takes_no_session(pod: Mapping[str, Any] | None) -> bool:
    """Whether nothing can be asked of a pod any more; a job that ended still leaves its carrier to be asked."""
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        return True
    status = pod.get("status", {})
    carriers = [found for found in status.get("containerStatuses") or () if found["name"] == CARRIER]
    return status.get("phase") in ("Failed", "Succeeded") or any(_ended(found) for found in carriers)


def _ended(container: Mapping[str, Any]) -> dict[str, Any] | None:
    found: dict[str, Any] | None = (container.get("state") or {}).get("terminated")
    return found


def job_image_id(pod: Mapping[str, Any]) -> str:
    """Return the digest of the image that the job's container runs, hex; empty while it is not told."""
    for found in pod.get("status", {}).get("containerStatuses") or ():
        if found["name"] == JOB:
            return str(found.get("imageID") or "").rpartition("sha256:")[2]
    return ""


def start_problem(pod: Mapping[str, Any] | None, events: Iterable[Mapping[str, Any]]) -> tuple[str, bool]:
    """Return the kind of thing that keeps a pod from starting, and whether waiting is of no use.

    The text is ours: what the cluster writes may name nodes and registries.
    """
    for reason in _waiting_reasons(pod):
        if reason in _HOPELESS:
            return _HOPELESS[reason], True
        if reason in _WAITING:
            return _WAITING[reason], False
    for event in sorted(events, key=lambda found: str(found.get("lastTimestamp") or ""), reverse=True):
        reason, message = str(event.get("reason")), str(event.get("message"))
        for sign, text in _REFUSED:
            if reason in _WAITING and sign in message:
                return text, not text.startswith("quota")
        if reason in _WAITING:
            return _WAITING[reason], False
    return "", False


def _waiting_reasons(pod: Mapping[str, Any] | None) -> Sequence[str]:
    statuses = (pod or {}).get("status", {}).get("containerStatuses") or ()
    return [str(((found.get("state") or {}).get("waiting") or {}).get("reason")) for found in statuses]


def not_started(problem: str) -> Unavailable:
    """Return the error of a run that did not start."""
    text = problem or "the pod did not come up in time"
    return Unavailable(
        f"the cluster did not start the job ({text}); look at its events in the jobs namespace",
        reason="JOB_NOT_STARTED",
        metadata={"problem": text},
    )
