"""The executor of a cluster where it differs from others: restarts, what others see, and clusters that do not hold."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.errors import Unavailable, WrongState
from syftmesh_executor import EndReason, Limits, RunLeft, RunSpec
from syftmesh_executor.kubernetes import ClusterSettings
from syftmesh_executor.kubernetes.api import ClusterApi
from syftmesh_executor.port import ProbeReport

sys.path.insert(0, str(Path(__file__).parents[1] / "contract"))

from executor_cluster import IMAGE, SITE, ClusterExecutor, kubectl, namespace, until_up

pytestmark = [pytest.mark.timeout(300)]
SECRET = "marked-5e1f"
MakeSpec = Callable[..., RunSpec]


@pytest.fixture(scope="module")
def jobs() -> Iterator[str]:
    with namespace() as name:
        yield name


def ready(name: str, **fields: Any) -> ClusterExecutor:
    """Return an executor that need not be probed first."""
    made = ClusterExecutor(ClusterSettings(name, fields.pop("image", IMAGE), SITE, **fields))
    made._proof.take(ProbeReport(passed=True, checks=()))
    return made


@pytest.fixture
async def executor(jobs: str) -> AsyncIterator[ClusterExecutor]:
    made = ready(jobs)
    await made.find(())
    yield made
    await made.close()


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    def make(code: str, run_id: str = "run-1", **fields: Any) -> RunSpec:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(code)
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "table.csv").write_text(f"name\n{SECRET}\n")
        values: dict[str, Any] = {"output_dir": tmp_path / "output", "limits": Limits(wall_s=60)}
        return RunSpec(run_id, folder, "main.py", {"people": data}, **{**values, **fields})

    return make


async def test_a_run_goes_on_without_the_runner_and_is_found_with_its_output(
    jobs: str, make_spec: MakeSpec, tmp_path: Path
) -> None:
    first = ready(jobs)
    code = "import time; print('begun', flush=True); time.sleep(6); open('/output/x', 'w').write('done')"
    run = asyncio.create_task(first.run(make_spec(code)))
    await until_up(first)
    await first.close()
    with pytest.raises(RunLeft):
        await run
    second = ready(jobs)
    with pytest.raises(WrongState) as caught:
        await second.run(make_spec(code))
    assert caught.value.reason == "RUN_EXISTS", "it does not run twice"
    assert await second.find(["run-1", "run-2"]) == {"run-1"}
    outcome = await second.adopt(make_spec(code))
    assert (outcome.reason, outcome.stdout) == (EndReason.OK, b"begun\n"), outcome
    assert (tmp_path / "output/x").read_text() == "done"
    assert outcome.ended_ms - outcome.started_ms >= 6000
    assert await second.jobs() == []
    await second.close()


async def test_a_run_that_ended_while_the_runner_was_away_is_collected(
    jobs: str, make_spec: MakeSpec
) -> None:
    first = ready(jobs)
    spec = make_spec("import time; time.sleep(2); print('end')")
    run = asyncio.create_task(first.run(spec))
    await until_up(first, settle_s=0)
    await first.close()
    with pytest.raises(RunLeft):
        await run
    await asyncio.sleep(5)
    second = ready(jobs)
    await second.find(["run-1"])
    outcome = await second.adopt(make_spec(""))
    assert (outcome.reason, outcome.stdout) == (EndReason.OK, b"end\n")
    await second.close()


async def test_an_adopted_run_can_be_cancelled(jobs: str, make_spec: MakeSpec) -> None:
    first = ready(jobs)
    spec = make_spec("import time; time.sleep(600)", limits=Limits(wall_s=900))
    run = asyncio.create_task(first.run(spec))
    await until_up(first)
    await first.close()
    with pytest.raises(RunLeft):
        await run
    second = ready(jobs)
    await second.find(["run-1"])
    adopted = asyncio.create_task(second.adopt(spec))
    await until_up(second)
    await second.cancel("run-1")
    async with asyncio.timeout(12):
        assert (await adopted).reason is EndReason.CANCELLED
    assert await second.jobs() == []
    await second.close()


async def test_runs_that_nobody_knows_are_deleted_and_those_of_other_sites_are_not(
    jobs: str, make_spec: MakeSpec
) -> None:
    first = ready(jobs)
    run = asyncio.create_task(first.run(make_spec("import time; time.sleep(600)", run_id="forgotten")))
    await until_up(first, "forgotten")
    await first.close()
    with pytest.raises(RunLeft):
        await run
    other = ClusterExecutor(ClusterSettings(jobs, IMAGE, "eve@other.example"))
    assert await other.find(()) == frozenset()
    assert len(await first_jobs(jobs)) == 1
    second = ready(jobs)
    assert await second.find(["something-else"]) == frozenset()
    assert await second.jobs() == []
    await second.close()
    await other.close()


async def first_jobs(name: str) -> list[dict[str, Any]]:
    looking = ready(name)
    try:
        return await looking.jobs()
    finally:
        await looking.close()


async def test_a_run_with_pipes_ends_with_the_executor(jobs: str, make_spec: MakeSpec) -> None:
    import os

    executor = ready(jobs)
    their_read, write = os.pipe()
    read, their_write = os.pipe()
    spec = make_spec(
        "import time; time.sleep(600)", channel=(FileIO(their_read, "rb"), FileIO(their_write, "wb"))
    )
    run = asyncio.create_task(executor.run(spec))
    await until_up(executor)
    await executor.close()
    assert (await run).reason is EndReason.CANCELLED
    assert await asyncio.to_thread(os.read, read, 10) == b""
    assert await first_jobs(jobs) == []
    os.close(write)


async def test_people_with_kubectl_see_the_run_and_nothing_private(
    executor: ClusterExecutor, jobs: str, make_spec: MakeSpec
) -> None:
    code = (
        f"import os, time; print(open(os.environ['DATA_DIR'] + '/table.csv').read(), '{SECRET}-code')\n"
        "time.sleep(6)"
    )
    spec = make_spec(code, parameters={"word": f"{SECRET}-parameter"}, project="ward")
    run = asyncio.create_task(executor.run(spec))
    await until_up(executor)
    selector = "syftmesh.org/job=run-1,syftmesh.org/project=ward"
    seen = kubectl("get", "jobs,pods", "-n", jobs, "-l", selector, "-o", "yaml")
    seen += kubectl("describe", "job", "-n", jobs, "-l", selector)
    seen += kubectl("get", "secrets,configmaps", "-n", jobs, "-o", "yaml")
    outcome = await run
    pod = executor.runs["run-1"].pod
    assert pod is not None
    seen += kubectl("get", "events", "-n", jobs, "-o", "yaml")
    assert SECRET.encode() in outcome.stdout
    assert SECRET not in seen
    assert "The code is in the pod and runs." in seen
    assert "The code ended well" in seen


async def test_the_log_of_the_job_holds_our_lines_alone(
    executor: ClusterExecutor, jobs: str, make_spec: MakeSpec
) -> None:
    run = asyncio.create_task(executor.run(make_spec(f"print('{SECRET}'); import time; time.sleep(5)")))
    await until_up(executor)
    pod = executor.runs["run-1"].pod
    assert pod is not None
    log = kubectl("logs", "-n", jobs, pod["metadata"]["name"], "-c", "job")
    log += kubectl("logs", "-n", jobs, pod["metadata"]["name"], "-c", "carrier")
    assert log == "job: started\n"
    assert (await run).reason is EndReason.OK


async def test_a_pod_that_somebody_deletes_is_a_lost_run(
    executor: ClusterExecutor, jobs: str, make_spec: MakeSpec
) -> None:
    run = asyncio.create_task(
        executor.run(make_spec("import time; time.sleep(600)", limits=Limits(wall_s=900)))
    )
    await until_up(executor)
    kubectl("delete", "pods", "--all", "-n", jobs, "--wait=false")
    async with asyncio.timeout(30):
        outcome = await run
    assert outcome.reason is EndReason.RUNNER_LOST
    assert await executor.jobs() == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("b = bytearray(400 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1", EndReason.OUT_OF_MEMORY),
        ("open('/tmp/x', 'wb').write(bytes(40 << 20))", EndReason.DISK_LIMIT),
        (
            "for i in range(60000): open(f'/tmp/{i}', 'w').close()\nimport time; time.sleep(5)",
            EndReason.DISK_LIMIT,
        ),
        ("open('/output/x', 'wb').write(bytes(40 << 20))", EndReason.OUTPUT_LIMIT),
        ("import os, time\nwhile True: os.fork() or time.sleep(20)", EndReason.PROCESS_LIMIT),
        ("open('/data/table.csv', 'w')", EndReason.EXIT_NONZERO),
        ("open('/code/main.py', 'w')", EndReason.EXIT_NONZERO),
        ("import socket; socket.socket(socket.AF_INET, socket.SOCK_STREAM)", EndReason.EXIT_NONZERO),
    ],
)
async def test_limits_end_a_run_with_their_name(
    executor: ClusterExecutor, make_spec: MakeSpec, code: str, reason: EndReason
) -> None:
    limits = Limits(
        wall_s=60, memory_bytes=200 << 20, disk_bytes=16 << 20, output_bytes=16 << 20, processes=32
    )
    outcome = await executor.run(make_spec(code, limits=limits))
    assert outcome.reason is reason, outcome


async def test_code_cannot_forge_or_read_what_the_launcher_tells(
    executor: ClusterExecutor, make_spec: MakeSpec
) -> None:
    code = (
        "import json, os\n"
        "open('/report/report.json', 'w').write(json.dumps({'ended': 'EXIT', 'exit_code': 0}))\n"
        "os.mkdir('/report/stdout'); os.symlink('/data/table.csv', '/report/stderr')\n"
        "for path in ('/control/order.json', '/control/cancel', '/control/staged'):\n"
        "    try: open(path, 'w'); print('written', path)\n"
        "    except OSError: pass\n"
        "try: os.kill(1, 9)\n"
        "except OSError: pass\n"
        "try: print(open('/proc/1/environ').read())\n"
        "except OSError: print('hidden')\n"
        "os._exit(7)\n"
    )
    outcome = await executor.run(make_spec(code))
    assert outcome.reason is not EndReason.OK
    if outcome.reason is EndReason.EXIT_NONZERO:
        assert outcome.exit_code == 7
        assert b"written" not in outcome.stdout
        assert SECRET.encode() not in outcome.stderr


async def test_large_data_arrives_as_it_is(
    executor: ClusterExecutor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    import hashlib
    import os

    big = tmp_path / "big.bin"
    big.write_bytes(os.urandom(1 << 20) * 60)
    code = (
        "import hashlib; print(hashlib.sha256(open('/data/big.bin', 'rb').read()).hexdigest())\n"
        "open('/output/back', 'wb').write(open('/data/big.bin', 'rb').read(40 << 20))\n"
    )
    spec = make_spec(code)
    spec = RunSpec(
        spec.run_id, spec.code_dir, spec.entrypoint, {"big": big}, spec.output_dir, limits=spec.limits
    )
    outcome = await executor.run(spec)
    assert outcome.stdout.decode().strip() == hashlib.sha256(big.read_bytes()).hexdigest(), outcome
    assert (tmp_path / "output/back").read_bytes() == big.read_bytes()[: 40 << 20]


async def test_an_image_that_is_not_there_is_told_and_leaves_nothing(jobs: str, make_spec: MakeSpec) -> None:
    executor = ready(jobs, image="syftmesh/nobody-built-this:1", pull_policy="Never", start_s=60)
    with pytest.raises(Unavailable) as caught:
        await executor.run(make_spec(""))
    assert (caught.value.reason, "image" in caught.value.message) == ("JOB_NOT_STARTED", True)
    assert await executor.jobs() == []
    await executor.close()


async def test_a_runtime_class_that_is_not_there_fails_the_probe_by_name(jobs: str) -> None:
    executor = ready(jobs, runtime_class="nobody-has-this")
    report = await executor.probe()
    assert [check.name for check in report.failures] == ["runtime_class"]
    with pytest.raises(WrongState):
        await executor.run(RunSpec("r", Path("/"), "x", {}, Path("/")))
    await executor.close()


async def test_user_namespaces_that_the_runtime_has_not_fail_the_probe_by_name(jobs: str) -> None:
    executor = ready(jobs, runtime_class="gvisor", host_users=False, start_s=20)
    report = await executor.probe()
    assert not report.passed
    assert report.failures[0].name in {"user_namespace", "start"}, report
    assert await executor.jobs() == []
    await executor.close()


async def test_a_cluster_without_a_policy_fails_the_probe_before_any_code_runs(make_spec: MakeSpec) -> None:
    with namespace(policy=False) as name:
        executor = ready(name)
        report = await executor.probe()
        assert [check.name for check in report.failures] == ["network_policy"]
        assert "api_server" in report.failures[0].detail
        executor._proof.take(ProbeReport(passed=True, checks=()))
        outcome = await executor.run(make_spec("print('ran')"))
        assert (outcome.reason, outcome.stdout) == (EndReason.ISOLATION_FAILED, b"")
        await executor.close()


async def test_a_namespace_that_refuses_pods_is_told(make_spec: MakeSpec) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    }
    with namespace() as name:
        kubectl("apply", "-n", name, "-f", "-", text=json.dumps(quota))
        executor = ready(name, start_s=6)
        with pytest.raises(Unavailable) as caught:
            await executor.run(make_spec(""))
        assert caught.value.metadata["problem"].startswith("quota")
        assert await executor.jobs() == []
        await executor.close()


async def test_rights_that_are_missing_are_named(jobs: str, tmp_path: Path, make_spec: MakeSpec) -> None:
    kubectl("create", "serviceaccount", "nobody", "-n", jobs)
    token = kubectl("create", "token", "nobody", "-n", jobs).strip()
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    place = tmp_path / "kubeconfig"
    place.write_text(json.dumps(config))
    settings = ClusterSettings(jobs, IMAGE, SITE)
    executor = ClusterExecutor(settings, connect=lambda: ClusterApi(jobs, str(place)))
    executor._proof.take(ProbeReport(passed=True, checks=()))
    with pytest.raises(Unavailable) as caught:
        await executor.run(make_spec(""))
    assert caught.value.reason == "CLUSTER_RIGHTS_MISSING"
    assert caught.value.metadata == {"verb": "create", "resource": "jobs"}
    with pytest.raises(Unavailable) as caught:
        await executor.find(())
    assert caught.value.metadata == {"verb": "list", "resource": "jobs"}
    await executor.close()


async def test_another_image_than_the_approved_one_gives_nothing(
    executor: ClusterExecutor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    executor._image_id = "ab" * 32
    outcome = await executor.run(make_spec("open('/output/x', 'w').write('x')"))
    assert outcome.reason is EndReason.ISOLATION_FAILED
    assert outcome.output_files == ()
    assert not (tmp_path / "output").exists()
