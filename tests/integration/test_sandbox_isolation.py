"""The sandbox against code that attacks it; needs bubblewrap and fails with the way to install it without."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
from syftmesh_core.errors import Unavailable, WrongState
from syftmesh_executor import EndReason, Limits, RunSpec, Runtime, SandboxExecutor, battery
from syftmesh_executor.cgroup import PREFIX, find_tree
from syftmesh_executor.orphan import end_orphans, mark_of

MIB = 1 << 20
MakeSpec = Callable[..., RunSpec]
pytestmark = pytest.mark.integration


@pytest.fixture
async def executor() -> AsyncIterator[SandboxExecutor]:
    made = SandboxExecutor()
    report = await made.probe()
    assert report.passed, report.failures
    yield made
    await made.close()


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    def make(code: str, run_id: str = "run-1", **limits: float) -> RunSpec:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(code)
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "table.csv").write_text("a\n1\n")
        return RunSpec(
            run_id=run_id,
            code_dir=folder,
            entrypoint="main.py",
            datasets={"people": data},
            output_dir=tmp_path / f"output-{run_id}",
            limits=Limits(**{"wall_s": 20, **limits}),  # type: ignore[arg-type]
        )

    return make


def own_groups() -> list[Path]:
    tree = find_tree()
    if tree is None:
        return []
    return [path for parent in {tree.memory, tree.pids} for path in parent.glob(f"{PREFIX}{os.getpid()}-*")]


async def test_the_probe_passes_and_tries_every_way_out(executor: SandboxExecutor) -> None:
    report = await executor.probe()
    assert report.passed, report.failures
    names = {check.name for check in report.checks}
    assert {
        "network_loopback", "network_abstract_socket", "network_metadata_address", "network_raw_socket",
        "writes_data", "writes_code", "writes_system", "reads_etc_shadow", "reads_home", "environment",
        "reads_var_run_secrets", "kernel_mount", "kernel_unshare_user", "kernel_clone_user",
        "kernel_io_uring",
        "kernel_keyctl", "kernel_ptrace", "setuid", "CapEff", "limit_memory", "limit_scratch",
        "limit_processes", "limit_output", "limit_shared_memory", "writes_proc_core_pattern",
    } <= names  # fmt: skip
    assert own_groups() == []


WEAKER = {
    "network": ("--unshare-net", 1, {"network_abstract_socket", "interfaces"}),
    "filter": ("--seccomp", 2, {"kernel_io_uring", "kernel_clone3", "Seccomp", "network_netlink"}),
    "capabilities": ("--cap-drop", 2, {"CapBnd"}),
    "proc": ("--ro-bind-try /proc/sys", 3, {"writes_proc_core_pattern"}),
    "root": ("--remount-ro", 2, {"writes_root", "writes_device"}),
    "scratch": ("--size", 2, {"limit_scratch", "limit_shared_memory", "limit_output"}),
}


@pytest.mark.parametrize("weakness", WEAKER)
async def test_the_probe_fails_in_a_weaker_sandbox(tmp_path: Path, weakness: str) -> None:
    option, count, expected = WEAKER[weakness]
    if weakness == "proc" and os.geteuid() != 0:
        expected = set()  # only the host's root owns those files
    executor = SandboxExecutor(bwrap=weaker_bwrap(tmp_path, option, count))
    report = await executor.probe()
    failed = {check.name for check in report.failures}
    # A fault of the stand-in itself must not pass for a finding of the probe.
    assert expected <= failed, report.failures
    # Left out, the filter's own descriptor stays open.
    assert "fds" not in failed or weakness == "filter"
    assert report.passed is (not expected)
    if expected:
        with pytest.raises(WrongState):
            await executor.run(RunSpec("r", tmp_path, "x.py", {}, tmp_path / "o"))


def weaker_bwrap(folder: Path, option: str, count: int) -> Path:
    """A bubblewrap that leaves out every occurrence of an option with its values."""
    found = shutil.which("bwrap")
    assert found, "install bubblewrap: apt-get install bubblewrap"
    script = folder / "bwrap"
    script.write_text(
        f"#!{sys.executable} -IS\n"
        "import os, sys\n"
        "fd = int(sys.argv[2])\n"
        "given = [a.decode() for a in os.read(fd, 1 << 20).split(b'\\0')[:-1]]; os.close(fd)\n"
        f"option, count, kept, skip = {option.split()!r}, {count}, [], 0\n"
        "for i, a in enumerate(given):\n"
        "    if given[i:i + len(option)] == option: skip = count\n"
        "    if skip: skip -= 1\n"
        "    else: kept.append(a)\n"
        "new = os.memfd_create('args'); os.set_inheritable(new, True)\n"
        "os.write(new, b''.join(a.encode() + b'\\0' for a in kept)); os.lseek(new, 0, 0)\n"
        f"os.execve({found!r}, ['bwrap', '--args', str(new), *sys.argv[3:]], {{}})\n"
    )
    script.chmod(stat.S_IRWXU)
    return script


def test_the_battery_refuses_to_run_outside_a_sandbox() -> None:
    done = subprocess.run([sys.executable, battery.__file__], capture_output=True, check=False, timeout=20)
    assert done.returncode == battery.NOT_SANDBOXED_EXIT
    assert done.stdout == b""


async def test_a_run_without_a_probe_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(WrongState) as caught:
        await SandboxExecutor().run(make_spec(""))
    assert caught.value.reason == "ISOLATION_FAILED"


async def test_a_probe_is_good_for_a_day(make_spec: MakeSpec) -> None:
    class Later:
        now_s = 0.0

        def now_ms(self) -> int:
            return 0

        def monotonic_s(self) -> float:
            return self.now_s

    clock = Later()
    executor = SandboxExecutor(clock=clock)
    assert (await executor.probe()).passed
    clock.now_s = 24 * 3600
    assert (await executor.run(make_spec(""))).reason is EndReason.OK
    clock.now_s += 1
    with pytest.raises(WrongState):
        await executor.run(make_spec(""))


async def test_a_missing_bubblewrap_is_told_with_the_command_that_installs_it(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        await SandboxExecutor(bwrap=tmp_path / "none").probe()
    assert caught.value.reason == "SANDBOX_MISSING"
    assert "apt-get install bubblewrap" in caught.value.message


async def test_a_bubblewrap_that_fails_is_isolation_failed(tmp_path: Path) -> None:
    report = await SandboxExecutor(bwrap=Path("/bin/false")).probe()
    assert not report.passed
    assert "could not build the sandbox" in report.failures[0].detail


async def test_memory_past_the_limit_is_out_of_memory(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    outcome = await executor.run(make_spec("b = b'x' * (400 << 20)", memory_bytes=64 * MIB))
    assert outcome.reason is EndReason.OUT_OF_MEMORY, outcome


async def test_memory_of_children_counts_together(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = (
        "import os, time\n"
        "pids = []\n"
        "for _ in range(6):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        b = b'x' * (40 << 20); time.sleep(3); os._exit(0)\n"
        "    pids.append(pid)\n"
        "raise SystemExit(any([os.waitpid(pid, 0)[1] for pid in pids]))\n"
    )
    outcome = await executor.run(make_spec(code, memory_bytes=128 * MIB))
    assert outcome.reason is EndReason.OUT_OF_MEMORY, outcome


async def test_a_full_scratch_is_disk_limit(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "open('/tmp/x', 'wb').write(bytes(20 << 20))"
    outcome = await executor.run(make_spec(code, disk_bytes=8 * MIB))
    assert outcome.reason is EndReason.DISK_LIMIT, outcome


async def test_endless_empty_files_are_disk_limit(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "i = 0\nwhile True:\n    open(f'/tmp/{i}', 'w').close(); i += 1\n"
    outcome = await executor.run(make_spec(code))
    assert outcome.reason is EndReason.DISK_LIMIT, outcome


async def test_a_fork_bomb_is_process_limit(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "import os, time\nwhile True:\n    if os.fork() == 0: time.sleep(600)\n"
    outcome = await executor.run(make_spec(code, processes=16))
    assert outcome.reason is EndReason.PROCESS_LIMIT, outcome
    assert own_groups() == []


async def test_an_output_bomb_is_output_limit(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "import os\nwith open('/output/x', 'wb') as f:\n    while True: f.write(bytes(1 << 20))\n"
    outcome = await executor.run(make_spec(code, output_bytes=4 * MIB))
    assert outcome.reason is EndReason.OUTPUT_LIMIT, outcome


async def test_a_writer_that_swallows_the_full_output_is_output_limit(
    executor: SandboxExecutor, make_spec: MakeSpec
) -> None:
    code = (
        "import os\nfd = os.open('/output/x', os.O_CREAT | os.O_WRONLY)\n"
        "try:\n    while True: os.write(fd, bytes(4096))\nexcept OSError: pass\n"
    )
    outcome = await executor.run(make_spec(code, output_bytes=MIB))
    assert outcome.reason is EndReason.OUTPUT_LIMIT, outcome


async def test_output_of_exactly_the_limit_comes_out(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "open('/output/x', 'wb').write(bytes(1 << 20))"
    outcome = await executor.run(make_spec(code, output_bytes=MIB))
    assert (outcome.reason, outcome.output_files[0].size_bytes) == (EndReason.OK, MIB)


async def test_too_many_output_files_are_output_limit(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "for i in range(10_001): open(f'/output/{i}', 'w').close()"
    outcome = await executor.run(make_spec(code))
    assert outcome.reason is EndReason.OUTPUT_LIMIT, outcome


async def test_a_sparse_giant_is_refused(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    outcome = await executor.run(make_spec("import os; os.truncate(open('/output/x', 'w').name, 1 << 40)"))
    assert outcome.reason is not EndReason.OK
    outcome = await executor.run(
        make_spec("import os; os.truncate(open('/output/x', 'w').name, 8 << 20)", output_bytes=MIB)
    )
    assert outcome.reason is EndReason.OUTPUT_LIMIT, outcome


async def test_deep_output_is_refused(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "import os\nos.chdir('/output')\nfor _ in range(2000): os.mkdir('d'); os.chdir('d')\n"
    outcome = await executor.run(make_spec(code))
    assert outcome.reason is EndReason.OUTPUT_LIMIT, outcome


async def test_device_files_cannot_be_made(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    outcome = await executor.run(make_spec("import os; os.mknod('/output/sda', 0o060600, os.makedev(8, 0))"))
    assert outcome.reason is EndReason.EXIT_NONZERO
    assert b"PermissionError" in outcome.stderr


async def test_endless_logs_take_neither_memory_nor_disk(
    executor: SandboxExecutor, make_spec: MakeSpec
) -> None:
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = (
        "import os\nblock = b'x' * (1 << 20)\nleft = 10 << 30\n"
        "while left > 0:\n    left -= os.write(1, block)\n"
    )
    outcome = await executor.run(make_spec(code, wall_s=60, log_bytes=MIB))
    assert outcome.reason in {EndReason.OK, EndReason.TIMEOUT}
    assert len(outcome.stdout) <= MIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024


SECRET_READER = """
import glob, os
for path in glob.glob('/proc/*/environ') + glob.glob('/proc/*/cmdline') + ['/proc/mounts']:
    try: print(path, open(path, 'rb').read())
    except OSError as error: print(path, error)
print(sorted(os.listdir('/proc/self/fd')), os.listdir('/'), os.listdir('/etc'))
"""


async def test_secrets_of_the_runner_are_nowhere(tmp_path: Path, make_spec: MakeSpec) -> None:
    done = await run_driver(
        tmp_path, make_spec(SECRET_READER), {"SITE_SECRET": "marked-7731", "PATH": os.environ["PATH"]}
    )
    assert done["reason"] == "OK", done
    assert "marked-7731" not in done["stdout"]
    assert "SITE_SECRET" not in done["stdout"]
    assert "/proc/1/environ b''" in done["stdout"]
    assert "--ro-bind" not in done["stdout"]
    assert "['0', '1', '2', '3']" in done["stdout"]


DRIVER = """
import asyncio, json, sys
from pathlib import Path
from syftmesh_executor import Limits, RunSpec, SandboxExecutor
async def main():
    given = json.loads(sys.argv[1])
    executor = SandboxExecutor()
    report = await executor.probe()
    if not report.passed:
        print(json.dumps({"reason": "PROBE", "failures": [str(c) for c in report.failures]})); return
    print("probed", flush=True)
    o = await executor.run(RunSpec("driven", Path(given["code"]), "main.py", {"people": Path(given["data"])},
                           Path(given["output"]), {}, Limits(**given["limits"])))
    print(json.dumps({"reason": o.reason, "stdout": o.stdout.decode(), "stderr": o.stderr.decode(),
                      "detail": o.detail, "files": [f.path for f in o.output_files]}))
asyncio.run(main())
"""


def driver_arguments(folder: Path, spec: RunSpec, **limits: float) -> list[str]:
    (folder / "driver.py").write_text(DRIVER)
    given = {
        "code": str(spec.code_dir),
        "data": str(spec.datasets["people"]),
        "output": str(folder / "driven"),
        "limits": {"wall_s": 30, **limits},
    }
    return [str(folder / "driver.py"), json.dumps(given)]


async def run_driver(folder: Path, spec: RunSpec, environment: dict[str, str]) -> dict[str, str]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, *driver_arguments(folder, spec), env=environment, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate()
    result: dict[str, str] = json.loads(out.splitlines()[-1])
    return result


async def test_killing_the_runner_leaves_no_process_and_the_next_one_tidies_up(
    tmp_path: Path, make_spec: MakeSpec
) -> None:
    spec = make_spec(
        "import os, time\nos.fork()\nopen('/tmp/marker-9917', 'w')\nprint(flush=True)\ntime.sleep(600)\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, *driver_arguments(tmp_path, spec), stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"probed\n"
    await until(lambda: len(descendants(child.pid)) >= 4)
    family = descendants(child.pid)
    child.send_signal(signal.SIGKILL)
    await child.wait()
    await until(partial(all_gone, family))
    tree = find_tree()
    if tree is not None:
        # pytest's own process is the next runner of this machine.
        await SandboxExecutor().probe()
        assert not list(tree.pids.glob(f"{PREFIX}{child.pid}-*"))
        assert not list(tree.memory.glob(f"{PREFIX}{child.pid}-*"))


async def test_killing_the_runner_at_any_moment_of_a_start_leaves_no_process(
    tmp_path: Path, make_spec: MakeSpec
) -> None:
    spec = make_spec("import time\ntime.sleep(600)\n")
    runners = []
    for delay_s in (0.0, 0.002, 0.004, 0.005, 0.006, 0.008, 0.01, 0.02):
        child = await asyncio.create_subprocess_exec(
            sys.executable, *driver_arguments(tmp_path, spec), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        await child.stdout.readline()
        await asyncio.sleep(delay_s)
        family = descendants(child.pid)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        runners.append(child.pid)
        await until(lambda: not sandboxes_of(spec.code_dir))
        await until(partial(all_gone, [pid for pid in family if not waits_at_the_door(pid)]))
    # The next runner ends what was caught before bubblewrap could tie itself to its parent.
    await SandboxExecutor().probe()
    await until(lambda: not any(marked(pid) for pid in runners))


async def test_sandboxes_of_a_dead_runner_are_ended_and_those_of_a_living_one_are_not() -> None:
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    read, write = os.pipe()
    orphan, mine = await held_sandbox(read, gone.pid), await held_sandbox(read, os.getpid())
    try:
        assert end_orphans() >= 1
        assert await orphan.wait() == -signal.SIGKILL
        assert mine.returncode is None
    finally:
        os.close(write)
        os.close(read)
        await mine.wait()


async def held_sandbox(block_fd: int, runner: int) -> asyncio.subprocess.Process:
    """A real bubblewrap that waits, with the command line of a runner's sandbox."""
    options = os.memfd_create("options")
    words = ["--ro-bind", "/", "/", "--block-fd", str(block_fd)]
    os.write(options, b"".join(word.encode() + b"\0" for word in words))
    os.lseek(options, 0, os.SEEK_SET)
    command = ["bwrap", "--args", str(options), "--", "/bin/sh", "-c", "exit 0", mark_of(runner), "python"]
    try:
        return await asyncio.create_subprocess_exec(*command, pass_fds=(options, block_fd))
    finally:
        os.close(options)


def marked(runner: int) -> list[int]:
    """Sandboxes that say they belong to a runner."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark_of(runner).encode() in (entry / "cmdline").read_bytes().split(
                b"\0"
            ):
                found.append(int(entry.name))
    return found


def waits_at_the_door(pid: int) -> bool:
    """Whether a process is a sandbox's that lost its outer process before any mount was made."""
    with contextlib.suppress(OSError):
        status = Path(f"/proc/{pid}/status").read_text()
        return "\nPPid:\t1\n" in status and "bwrap" in status
    return False


def all_gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found


def sandboxes_of(code: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and str(code) in (entry / "mountinfo").read_text():
                found.append(int(entry.name))
    return found


async def until(condition: Callable[[], bool], timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.05)


async def test_runs_leave_no_group_no_descriptor_and_no_child(
    executor: SandboxExecutor, make_spec: MakeSpec
) -> None:
    await executor.run(make_spec("", "warm"))
    children = set(descendants(os.getpid()))  # servers of other tests in this process
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(5):
        await executor.run(make_spec("print(1)", f"run-{number}"))
    async with asyncio.TaskGroup() as tasks:
        runs = [tasks.create_task(executor.run(make_spec("print(1)", f"par-{n}"))) for n in range(4)]
    assert [run.result().stdout for run in runs] == [b"1\n"] * 4
    await asyncio.sleep(0)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert own_groups() == []
    assert set(descendants(os.getpid())) <= children


async def test_processes_left_behind_end_with_the_run(executor: SandboxExecutor, make_spec: MakeSpec) -> None:
    code = "import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(600)\nprint('parent')\n"
    children = set(descendants(os.getpid()))  # servers of other tests in this process
    began = time.monotonic()
    outcome = await executor.run(make_spec(code))
    assert (outcome.reason, outcome.stdout) == (EndReason.OK, b"parent\n")
    assert time.monotonic() - began < 5
    assert set(descendants(os.getpid())) <= children


async def test_numeric_libraries_and_subprocesses_work_inside(
    executor: SandboxExecutor, make_spec: MakeSpec
) -> None:
    code = (
        "import asyncio, concurrent.futures, getpass, multiprocessing, sqlite3, ssl, subprocess, tempfile\n"
        "async def main():\n"
        "    p = await asyncio.create_subprocess_exec('echo', 'hi', stdout=-1)\n"
        "    return (await p.communicate())[0]\n"
        "print(asyncio.run(main()), getpass.getuser())\n"
        "with multiprocessing.Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
        "with concurrent.futures.ThreadPoolExecutor(2) as pool: print(list(pool.map(abs, [-3])))\n"
    )
    outcome = await executor.run(make_spec(code))
    assert outcome.stdout == b"b'hi\\n' nobody\n[1, 2]\n[3]\n", outcome.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user is what the other tests run as then")
async def test_an_ordinary_user_gets_the_same_isolation_by_rlimits(
    tmp_path_factory: pytest.TempPathFactory, make_spec: MakeSpec
) -> None:
    """The whole probe and a run as host user 1000, whose limits are rlimits and the watcher."""
    system_python = Path("/usr/bin/python3")
    assert system_python.exists(), "install python3: it is the interpreter an ordinary user can read"
    spec = make_spec("open('/output/x', 'w').write('1')\nb = b'x' * (10 << 20)\nprint(len(b))")
    folder = Path(tmp_path_factory.mktemp("ordinary"))
    source = folder / "source"
    for package in ("syftmesh_core", "syftmesh_executor"):
        origin = Path(sys.modules[package].__path__[0])
        shutil.copytree(origin, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("code", "data"):
        shutil.copytree(spec.code_dir.parent / name, folder / name)
    moved = RunSpec("driven", folder / "code", "main.py", {"people": folder / "data"}, folder / "driven")
    arguments = driver_arguments(folder, moved)
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 1000, 1000)
    for parent in (folder, *folder.parents):
        if parent not in {Path("/"), Path("/tmp")}:
            parent.chmod(0o755)
    child = await asyncio.create_subprocess_exec(
        str(system_python), *arguments,
        env={"PYTHONPATH": str(source), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        user=1000, group=1000, extra_groups=[], cwd="/", stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await child.communicate()
    done = json.loads(out.splitlines()[-1])
    assert done["reason"] == "OK", done
    assert (done["stdout"], done["files"]) == ("10485760\n", ["x"])


async def test_root_without_control_groups_refuses_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syftmesh_executor.limit.find_tree", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(Unavailable) as caught:
        await SandboxExecutor().probe()
    assert caught.value.reason == "SANDBOX_LIMITS_UNAVAILABLE"


async def test_a_runtime_that_is_not_there_is_isolation_failed(make_spec: MakeSpec, tmp_path: Path) -> None:
    executor = SandboxExecutor(runtime=Runtime(tmp_path / "none/bin/python", (tmp_path / "none",)))
    report = await executor.probe()
    assert not report.passed
    assert str(tmp_path) not in report.failures[0].detail
