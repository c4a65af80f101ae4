"""Pods of an installed mesh are killed under load, and all are replaced: nothing that was acknowledged is lost."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from syftmesh_standalone.demo.cluster.installation import HUB, Installation
from syftmesh_standalone.demo.story import OWNERS

sys.path.insert(0, str(Path(__file__).parent))

from mesh_load import Load, running_load
from mesh_pod import eventually, get, helm, kubectl, pods, restarted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

PARTS = ("identity", "sync", "permissions", "crypto", "router", "superlink", "gateway", "nats", "store")
PER_S = 1.0
SILENT_S = 60.0
"""Longest time without a success that is borne: of each part there is one pod, which has to be made and to come up."""
ROLLED_S = 120.0
"""The same where all are replaced at once, bus and store too."""


@pytest.fixture(scope="module")
def load(installed_mesh: Installation) -> Iterator[Load]:
    with running_load(installed_mesh, OWNERS, PER_S) as running:
        running.wait_working(60)
        yield running


def kill(namespace: str, name: str, **labels: str) -> None:
    """End a pod as a crash does, and return when another one is ready in its place."""
    old = get("pod", name, namespace)["metadata"]["uid"]
    kubectl("delete", "pod", name, "-n", namespace, "--grace-period=1", "--wait=false")

    def replaced() -> bool:
        return any(pod["metadata"]["uid"] != old and is_ready(pod) for pod in pods(namespace, **labels))

    eventually(replaced, 120, f"a pod in place of {name}")


def is_ready(pod: dict[str, object]) -> bool:
    conditions = pod["status"].get("conditions", [])  # type: ignore[attr-defined]
    return any(entry["type"] == "Ready" and entry["status"] == "True" for entry in conditions)


def tell(load: Load, what: str, since: float, bound_s: float = SILENT_S) -> None:
    """Say how long nothing worked since a moment, and hold it against the bound."""
    load.wait_working(60)
    now = time.time()
    silent = load.silences(since, now)
    failed = dict(Counter(load.failures(since, now)))
    figures = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in silent.items())
    sys.stdout.write(f"{what}: longest without a success: {figures}; failed for good: {failed or 'none'}\n")
    assert max(silent.values()) < bound_s, silent


@pytest.mark.parametrize("part", PARTS)
def test_the_hub_works_again_when_a_pod_of_it_was_killed(
    installed_mesh: Installation, load: Load, part: str
) -> None:
    namespace, since = installed_mesh.options.hub_namespace, time.time()
    [pod] = pods(namespace, component=part)
    kill(namespace, pod["metadata"]["name"], component=part)
    tell(load, f"{part} killed", since)


@pytest.mark.parametrize("owner", OWNERS)
def test_a_site_comes_back_when_its_pod_was_killed_and_others_notice_nothing(
    installed_mesh: Installation, load: Load, owner: str
) -> None:
    since = time.time()
    kill(installed_mesh.site_of(owner), "site-0", component="site")
    assert max(load.silences(since, time.time()).values()) < 5
    tell(load, f"site of {owner} killed", since)


def test_an_upgrade_of_every_pod_and_its_rollback_go_on_under_load(
    installed_mesh: Installation, load: Load
) -> None:
    namespace = installed_mesh.options.hub_namespace
    before = {pod["metadata"]["uid"] for pod in pods(namespace, instance=HUB)}
    revision = _revision(namespace)
    since = time.time()
    values = {"hub": {"logLevel": "debug"}, "podAnnotations": {"meshtest.example/rolled": "1"}}
    chart = str(installed_mesh.options.charts / "syftmesh")
    given = ("--namespace", namespace, "--reuse-values", "--values", "-", "--wait", "--timeout", "240s")
    helm("upgrade", HUB, chart, *given, text=json.dumps(values))
    tell(load, "helm upgrade of every pod", since, ROLLED_S)
    assert _log_level(namespace) == "debug"
    running = [pod for pod in pods(namespace, instance=HUB) if pod["status"]["phase"] == "Running"]
    # Helm returns when the new pods are ready; the old ones may still be draining.
    staying = [pod for pod in running if "deletionTimestamp" not in pod["metadata"]]
    assert not {pod["metadata"]["uid"] for pod in staying} & before, "every pod was replaced"
    since = time.time()
    helm("rollback", HUB, str(revision), "--namespace", namespace, "--wait", "--timeout", "240s")
    tell(load, "helm rollback", since, ROLLED_S)
    assert _log_level(namespace) == "info"
    assert _revision(namespace) == revision + 2


def _log_level(namespace: str) -> str:
    [container] = get("deployment", f"{HUB}-sync", namespace)["spec"]["template"]["spec"]["containers"]
    return next(entry["value"] for entry in container["env"] if entry["name"] == "SYFTMESH_SYNC_LOG_LEVEL")


def _revision(namespace: str) -> int:
    return int(json.loads(helm("status", HUB, "--namespace", namespace, "--output", "json"))["version"])


def test_everything_that_was_acknowledged_is_there_once(installed_mesh: Installation, load: Load) -> None:
    verdict, effects = load.stop(), load.effects()
    calls = verdict["calls"]
    sys.stdout.write(f"{len(calls)} calls and {verdict['files']} files were acknowledged\n")
    assert len(calls) > 20
    assert verdict["files"] > 10
    assert verdict["lost"] == []
    assert [call for call in calls if call["state"] != "COMPLETED"] == []
    for owner in OWNERS:
        assert any(owner in call["url"] for call in calls)
    echoed = [call["id"] for call in calls if "/app_data/load/" in call["url"]]
    assert {effects.get(call_id, 0) for call_id in echoed} == {1}
    assert set(effects.values()) == {1}
    # Nothing went round in circles meanwhile: a pod that was killed has been replaced, none began anew by itself.
    for namespace in installed_mesh.namespaces[:3]:
        assert restarted(namespace) == {}
