"""What the story installs on a cluster, what it says when that fails, and that it takes all of it away."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.errors import DeadlineExceeded, MeshError, NotFound, Unavailable, WrongState
from syftmesh_standalone.demo.cluster.installation import ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool, _failure
from syftmesh_standalone.demo.cluster.record import copy_record, job_traces
from syftmesh_standalone.demo.cluster.venue import ClusterVenue
from syftmesh_standalone.demo.cluster.volume import Claim, VolumeReader, claims_of, reader_pod
from syftmesh_standalone.demo.story import OWNERS

pytestmark = pytest.mark.timeout(60)

FAKE = Path(__file__).with_name("fake_kubectl.py")
NONE: dict[str, Any] = {"items": []}


class FakeCluster:
    """Two tools that answer from a table, and what they were asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tool = Tool(sys.executable, str(FAKE), str(folder))
        self.told: list[str] = []
        self.installation = Installation(
            ClusterOptions(charts=folder / "charts"), OWNERS, self.tool, self.tool, self.told.append
        )
        self.answer({"create": "", "apply": "", "install": "", "uninstall": "", "delete": "", "wait": ""})
        self.answer({"get namespaces": NONE, "get pods": NONE})
        self.answer({"exec -n demo-hub deploy/hub-identity -c admin -- syftmesh site token create": "tok\n"})
        self.answer({"get secret hub-hub-tls": {"data": {"ca.crt": base64.b64encode(b"PEM").decode()}}})

    def answer(self, answers: dict[str, Any]) -> None:
        path = self.folder / "answers.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in answers.items()}
        path.write_text(json.dumps(known | texts))

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def sent(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / "stdin").read_text().splitlines()]


@pytest.fixture
def cluster(tmp_path: Path) -> FakeCluster:
    return FakeCluster(tmp_path)


async def test_a_hub_and_sites_get_namespaces_that_take_restricted_pods_alone(cluster: FakeCluster) -> None:
    await cluster.installation.install_hub()
    for owner in OWNERS:
        await cluster.installation.install_site(owner)
    spaces = [document for document in cluster.sent if document.get("kind") == "Namespace"]
    assert [space["metadata"]["name"] for space in spaces] == ["demo-hub", "demo-a", "demo-b"]
    assert {s["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] for s in spaces} == {"restricted"}
    installs = [call for call in cluster.calls if call[0] == "install"]
    assert [call[1] for call in installs] == ["hub", "site", "site"]
    assert all("--wait" in call for call in installs)


async def test_a_site_is_told_hub_owner_and_authority_and_its_token_is_in_a_secret_alone(
    cluster: FakeCluster,
) -> None:
    await cluster.installation.install_site(OWNERS[1])
    values = next(document for document in cluster.sent if "joinToken" in document)
    assert values["email"] == OWNERS[1]
    assert values["hub"] == {"url": "https://hub-gateway.demo-hub.svc", "ca": "PEM"}
    secret = next(document for document in cluster.sent if document.get("kind") == "Secret")
    assert secret["metadata"]["namespace"] == "demo-b"
    assert secret["stringData"] == {"token": "tok"}
    assert values["joinToken"] == {"existingSecret": secret["metadata"]["name"]}
    assert not any("tok" in word for call in cluster.calls for word in call if word != "token")


async def test_namespaces_that_are_there_are_left_alone(cluster: FakeCluster) -> None:
    cluster.answer({"get namespaces": {"items": [{"metadata": {"name": "demo-a"}}]}})
    with pytest.raises(WrongState) as refused:
        await cluster.installation.install_hub()
    assert (refused.value.reason, refused.value.metadata) == ("NAMESPACE_TAKEN", {"namespaces": "demo-a"})
    await cluster.installation.uninstall()
    assert {call[0] for call in cluster.calls} == {"get"}


async def test_a_release_that_does_not_get_ready_says_what_keeps_its_pods(cluster: FakeCluster) -> None:
    pod = {
        "metadata": {"name": "hub-sync-0"},
        "status": {
            "containerStatuses": [
                {
                    "name": "sync",
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": {"message": "BUS_REFUSED: wrong password"}},
                }
            ]
        },
    }
    cluster.answer({"install": "!Error: timed out waiting", "get pods": {"items": [pod]}})
    with pytest.raises(Unavailable) as failed:
        await cluster.installation.install_hub()
    assert "timed out waiting" in failed.value.message
    assert "hub-sync-0/sync: CrashLoopBackOff BUS_REFUSED: wrong password" in failed.value.message


async def test_all_that_was_made_is_taken_away_also_when_helm_fails(cluster: FakeCluster) -> None:
    await cluster.installation.install_hub()
    await cluster.installation.install_site(OWNERS[0])
    cluster.answer({"uninstall": "!Error: hook failed"})
    await cluster.installation.uninstall()
    (deleted,) = [call for call in cluster.calls if call[0] == "delete"]
    assert deleted[2:6] == ["demo-hub", "demo-a", "demo-hub-jobs", "demo-a-jobs"]
    assert any("hook failed" in line for line in cluster.told)
    before = len(cluster.calls)
    await cluster.installation.uninstall()
    assert len(cluster.calls) == before


async def test_namespaces_that_stay_are_an_error(cluster: FakeCluster) -> None:
    await cluster.installation.install_hub()
    cluster.answer({"delete": "!error: timed out waiting for the condition"})
    with pytest.raises(Unavailable, match="timed out"):
        await cluster.installation.uninstall()


@pytest.mark.parametrize("keep", [False, True])
async def test_a_story_that_is_cancelled_takes_everything_away_unless_it_is_kept(
    cluster: FakeCluster, tmp_path: Path, *, keep: bool
) -> None:
    options = ClusterOptions(charts=tmp_path)
    venue = ClusterVenue(
        tmp_path,
        OWNERS,
        options,
        tell=cluster.told.append,
        keep=keep,
        kubectl=cluster.tool,
        helm=cluster.tool,
    )
    begun = asyncio.Event()

    async def story() -> None:
        async with venue.lifetime():
            await venue._installation.install_hub()
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(story())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert any(call[0] == "delete" for call in cluster.calls) is not keep


@pytest.mark.parametrize("answer", ["", "two words\n"])
async def test_an_operator_that_gives_no_token_is_an_error(cluster: FakeCluster, answer: str) -> None:
    cluster.answer({"exec -n demo-hub deploy/hub-identity -c admin -- syftmesh site token create": answer})
    with pytest.raises(MeshError) as refused:
        await cluster.installation.join_token(OWNERS[0])
    assert refused.value.reason == "JOIN_TOKEN_MISSING"


async def test_tools_that_fail_say_how(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.answer({"get pod x": '!Error from server (NotFound): pods "x" not found', "get pod y": "no json"})
    with pytest.raises(NotFound):
        await cluster.tool.run("get", "pod", "x")
    with pytest.raises(MeshError) as refused:
        await cluster.tool.json("get", "pod", "y")
    assert refused.value.reason == "CLUSTER_TOOL_FAILED"
    with pytest.raises(NotFound) as missing:
        await Tool("a-program-that-is-not-there").run("get")
    assert missing.value.reason == "BINARY_MISSING"
    with pytest.raises(DeadlineExceeded):
        await Tool(sys.executable, "-c", "import time; time.sleep(30)").run(timeout_s=0.2)
    del tmp_path


def _pod(component: str, claim: str | None, node: str = "node-1") -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    if claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": claim}})
    labels = {"app.kubernetes.io/component": component} if component else {}
    return {
        "kind": "Pod",
        "metadata": {"name": f"hub-{component}-0", "labels": labels},
        "spec": {
            "nodeName": node,
            "volumes": volumes,
            "containers": [{"name": "admin", "image": "syftmesh/tools:dev"}],
        },
    }


def test_every_volume_of_the_hub_is_read_on_the_node_that_has_it() -> None:
    pods = [_pod("nats", "data-hub-nats-0"), _pod("store", "data-hub-store-0", "node-2"), _pod("sync", None)]
    found = claims_of([*pods, _pod("", "somebody-elses")])
    assert found == [Claim("data-hub-nats-0", "nats", "node-1"), Claim("data-hub-store-0", "s3", "node-2")]
    pod = reader_pod("reader", found[1], "image")
    assert pod["spec"]["volumes"][0]["persistentVolumeClaim"] == {
        "claimName": "data-hub-store-0",
        "readOnly": True,
    }
    assert pod["spec"]["containers"][0]["volumeMounts"][0]["readOnly"] is True
    assert "node-2" in json.dumps(pod["spec"]["affinity"])


async def test_the_files_of_a_volume_arrive_as_they_lie_there(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.answer({"get pods": {"items": [_pod("nats", "data-hub-nats-0")]}})
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "1.blk").write_bytes(bytes(range(256)))
    (tmp_path / "link").symlink_to("/etc/passwd")
    parts = await VolumeReader(cluster.tool, "demo-hub").copy(tmp_path / "copy")
    assert parts == ["nats"]
    assert (tmp_path / "copy/nats/deep/er/1.blk").read_bytes() == bytes(range(256))
    assert not (tmp_path / "copy/nats/link").exists()


async def test_a_hub_without_volumes_is_no_scan(cluster: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await VolumeReader(cluster.tool, "demo-hub").copy(tmp_path / "copy")


async def test_objects_secrets_and_logs_are_part_of_what_is_scanned(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    secret = {
        "kind": "Secret",
        "metadata": {"name": "s"},
        "data": {"a": base64.b64encode(b"in the clear").decode()},
    }
    cluster.answer({"get configmaps": {"items": [secret]}, "get pods": {"items": [_pod("nats", None)]}})
    cluster.answer({"logs hub-nats-0": "a line\n"})
    await copy_record(cluster.tool, ["demo-hub"], tmp_path / "copy")
    assert (tmp_path / "copy/manifests/demo-hub.s.secret").read_bytes() == b"in the clear"
    assert (tmp_path / "copy/logs/demo-hub.hub-nats-0.txt").read_text() == "a line\n"
    assert json.loads((tmp_path / "copy/manifests/demo-hub.json").read_text())["items"]


async def test_the_traces_of_a_run_are_the_events_of_its_job(cluster: FakeCluster) -> None:
    job_id = "018f4e3a-0000-7000-8000-000000000001"
    event = {
        "metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"kind": "Job", "name": f"run-{job_id}"},
        "reason": "SuccessfulCreate",
        "message": "Created pod",
    }
    other = {**event, "involvedObject": {"kind": "Job", "name": "run-other"}}
    cluster.answer({"get events": {"items": [event, other]}})
    lines = await job_traces(cluster.tool, "demo-a-jobs", job_id)
    assert lines == [f"job/run-{job_id} in demo-a-jobs: SuccessfulCreate: Created pod"]


def test_what_a_tool_logs_of_its_tries_does_not_hide_what_it_ends_with() -> None:
    tries = b'E1124 21:58:15.8 127 memcache.go:265] "Unhandled Error" err="refused"\n' * 3
    error = _failure("kubectl get namespaces", tries + b"The connection to the server was refused\n")
    assert error.message == "kubectl get namespaces failed: The connection to the server was refused"
    assert "KUBECONFIG" in error.hint
    assert "Unhandled Error" in _failure("kubectl get namespaces", tries).message
