"""What a job sees and how it is bounded, without starting anything."""

from __future__ import annotations

import json
import os
import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import Unavailable
from syftmesh_executor.capture import CappedLog
from syftmesh_executor.cgroup import ControlGroup, GroupTree, GroupUsage, find_tree
from syftmesh_executor.limit import plan_limits, process_limits
from syftmesh_executor.mount import job_environment, sandbox_arguments
from syftmesh_executor.port import EndReason, Limits, RunSpec
from syftmesh_executor.runtime import Runtime, outermost, running_runtime
from syftmesh_executor.verdict import Evidence, judge


def names(folder: Path | str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


RUNTIME = Runtime(Path("/opt/env/bin/python"), (Path("/opt/env"),))


@pytest.fixture
def spec(tmp_path: Path) -> RunSpec:
    (tmp_path / "code").mkdir()
    (tmp_path / "one").mkdir()
    return RunSpec("r", tmp_path / "code", "main.py", {"one": tmp_path / "one"}, tmp_path / "out", {"n": 1})


def test_only_output_and_scratch_are_writable(spec: RunSpec) -> None:
    arguments = sandbox_arguments(spec, RUNTIME, {})
    assert not {"--bind", "--dev-bind", "--bind-try", "--share-net", "--cap-add"} & set(arguments)
    sized = [arguments[i + 3] for i, word in enumerate(arguments) if word == "--size"]
    assert sorted(sized) == ["/dev/shm", "/output", "/tmp"]
    assert arguments.count("--tmpfs") == len(sized)


def test_a_runtime_below_tmp_is_not_hidden_by_the_scratch_folder(spec: RunSpec) -> None:
    runtime = Runtime(Path("/tmp/clone/.venv/bin/python"), (Path("/tmp/clone/.venv"),))
    arguments = sandbox_arguments(spec, runtime, {})
    assert arguments.index("/tmp") < arguments.index("/tmp/clone/.venv")


def test_every_namespace_is_new(spec: RunSpec) -> None:
    arguments = sandbox_arguments(spec, RUNTIME, {})
    for name in ("user", "ipc", "pid", "net", "uts", "cgroup"):
        assert f"--unshare-{name}" in arguments
    assert {"--disable-userns", "--die-with-parent", "--new-session", "--clearenv"} <= set(arguments)


def test_nothing_of_home_or_etc_is_bound_beyond_the_list(spec: RunSpec) -> None:
    arguments = sandbox_arguments(spec, RUNTIME, {})
    sources = [arguments[i + 1] for i, word in enumerate(arguments) if word.startswith("--ro-bind")]
    etc = {source for source in sources if source.startswith("/etc")}
    assert etc == {"/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime"}
    assert not {"/", "/home", "/root", "/etc", "/var", "/run", "/proc", "/dev"} & set(sources)


def test_a_single_data_set_is_the_data_folder_and_several_are_named(spec: RunSpec, tmp_path: Path) -> None:
    arguments = sandbox_arguments(spec, RUNTIME, {})
    assert arguments[arguments.index(str(tmp_path / "one")) + 1] == "/data"
    several = RunSpec("r", spec.code_dir, "m", {"a": tmp_path, "b": tmp_path}, spec.output_dir)
    assert {"/data/a", "/data/b"} <= set(sandbox_arguments(several, RUNTIME, {}))


def test_the_environment_takes_only_numeric_variables_of_the_host(spec: RunSpec) -> None:
    host = {"SECRET": "x", "OPENBLAS_CORETYPE": "Zen", "PYTHONPATH": "/x", "LD_PRELOAD": "/y"}
    made = job_environment(spec, data_dir="/data", output_dir="/output", home="/tmp", path="/bin", host=host)
    assert "x" not in made.values()
    assert made["OPENBLAS_CORETYPE"] == "Zen"
    assert json.loads(made["PARAMETERS"]) == {"n": 1}
    assert not {"SECRET", "PYTHONPATH", "LD_PRELOAD"} & set(made)


def test_runtime_folders_are_not_bound_twice() -> None:
    given_folders = (
        Path("/opt/a/b"),
        Path("/opt/a"),
        Path("/usr"),
        Path("/usr/local"),
        Path("/"),
        Path("/opt/a"),
    )
    assert outermost(given_folders) == (Path("/opt/a"),)
    assert running_runtime().python.exists()


def test_rlimits_hold_memory_and_processes_only_without_a_group() -> None:
    limits = Limits(memory_bytes=1000, processes=5, open_files=7)
    grouped, alone = process_limits(limits, grouped=True), process_limits(limits, grouped=False)
    assert resource.RLIMIT_AS not in grouped
    assert (alone[resource.RLIMIT_AS], alone[resource.RLIMIT_NPROC]) == (1000, 6)
    assert grouped[resource.RLIMIT_NOFILE] == 7
    assert grouped[resource.RLIMIT_CORE] == 0


def test_root_without_groups_is_refused_and_a_user_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syftmesh_executor.limit.find_tree", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(Unavailable) as caught:
        plan_limits()
    assert caught.value.reason == "SANDBOX_LIMITS_UNAVAILABLE"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert plan_limits().tree is None


def unified(tmp_path: Path, own: str, *, delegated: str) -> Path:
    """A /proc/self and a version 2 hierarchy in which only one folder delegates."""
    proc, root = tmp_path / "proc", tmp_path / "cgroup"
    proc.mkdir()
    (root / own.strip("/")).mkdir(parents=True)
    for folder in [root, *root.rglob("*")]:
        (folder / "cgroup.subtree_control").touch(mode=0o400)
    (root / delegated.strip("/") / "cgroup.subtree_control").chmod(0o600)
    (root / delegated.strip("/") / "cgroup.subtree_control").write_text("cpu memory pids")
    (proc / "mounts").write_text(f"x /y ext4 rw 0 0\ncgroup2 {root} cgroup2 rw,nsdelegate 0 0\n")
    (proc / "cgroup").write_text(f"0::{own}\n")
    return proc


def test_version_2_takes_the_first_place_that_delegates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = unified(tmp_path, "/user/app/me", delegated="/user/app")
    held = Path.write_text

    def refuse(self: Path, data: str, *rest: str) -> int:
        if self.name == "cgroup.subtree_control":
            raise PermissionError(13, "refused")
        return held(self, data, *rest)

    monkeypatch.setattr(Path, "write_text", refuse)
    tree = find_tree(proc)
    assert tree is not None
    assert tree.memory == tree.pids == tmp_path / "cgroup/user/app"


def test_no_place_is_found_without_a_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "mounts").write_text("x / ext4 rw 0 0\n")
    (tmp_path / "cgroup").write_text("0::/\n")
    assert find_tree(tmp_path) is None


def test_version_1_needs_both_controllers(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("4:memory:/x\n")
    (tmp_path / "mem").mkdir()
    (tmp_path / "pid").mkdir()
    memory = f"cgroup {tmp_path}/mem cgroup rw,relatime,memory 0 0\n"
    (tmp_path / "mounts").write_text(memory)
    assert find_tree(tmp_path) is None
    (tmp_path / "mounts").write_text(memory + f"cgroup {tmp_path}/pid cgroup rw,pids 0 0\n")
    tree = find_tree(tmp_path)
    assert tree is not None
    assert (tree.memory, tree.pids) == (tmp_path / "mem", tmp_path / "pid")


def test_version_2_limits_forbid_swap_and_count_kills(tmp_path: Path) -> None:
    (tmp_path / "memory.swap.max").touch()
    group = ControlGroup(tmp_path, tmp_path)
    group.limit(memory_bytes=1000, processes=9)
    group.add(77)
    read = {name: (tmp_path / name).read_text() for name in names(tmp_path)}
    assert read == {
        "memory.swap.max": "0\n",
        "memory.max": "1000\n",
        "pids.max": "9\n",
        "cgroup.procs": "77\n",
    }
    (tmp_path / "memory.events").write_text("low 0\noom 3\noom_kill 2\noom_group_kill 1\n")
    (tmp_path / "pids.events").write_text("max 5\n")
    assert group.usage() == GroupUsage(oom_kills=2, refused_forks=5)


def test_only_groups_of_dead_runners_are_swept(tmp_path: Path) -> None:
    for name in ("syftmesh-10-a", "syftmesh-11-b", "syftmesh-x-c", "other-10-a"):
        (tmp_path / name).mkdir()
    assert GroupTree(tmp_path, tmp_path).sweep(alive=lambda pid: pid == 11) == 1
    assert sorted(names(tmp_path)) == ["other-10-a", "syftmesh-11-b", "syftmesh-x-c"]


def test_an_empty_group_of_the_same_name_is_taken_over(tmp_path: Path) -> None:
    tree = GroupTree(tmp_path, tmp_path, owner_pid=5)
    assert tree.create("run").memory == tree.create("run").memory
    assert names(tmp_path) == ["syftmesh-5-run"]


def test_a_group_in_use_is_tried_again_and_then_left(tmp_path: Path) -> None:
    group = GroupTree(tmp_path, tmp_path, owner_pid=5).create("run")
    (group.memory / "busy").mkdir()
    pauses: list[float] = []
    assert not group.remove(pauses.append)
    assert len(pauses) == 50
    (group.memory / "busy").rmdir()
    assert group.remove(pauses.append)
    assert names(tmp_path) == []


@given(st.lists(st.binary(min_size=1, max_size=400)), st.integers(1, 700))
def test_a_log_keeps_its_ends_within_its_cap(blocks: list[bytes], cap: int) -> None:
    log = CappedLog(cap)
    for block in blocks:
        log.feed(block)
    whole, kept = b"".join(blocks), log.value()
    assert log.total_bytes == len(whole)
    assert len(kept) <= cap
    if len(whole) <= cap:
        assert kept == whole
    elif cap > 128:
        head, _, tail = kept.partition(b"\n[... ")
        left_out, _, tail = tail.partition(b" bytes left out ...]\n")
        assert len(head) + int(left_out) + len(tail) == len(whole)
        assert whole.startswith(head)
        assert whole.endswith(tail)


QUIET = GroupUsage(oom_kills=0, refused_forks=0)


@pytest.mark.parametrize(
    ("code", "usage", "scratch_free", "output_free", "stderr", "reason"),
    [
        (0, QUIET, 1 << 20, 1 << 20, b"", EndReason.OK),
        (0, GroupUsage(3, 3), 1 << 20, 1 << 20, b"", EndReason.OK),
        (0, QUIET, 0, 1 << 20, b"", EndReason.OK),
        (0, QUIET, 1 << 20, 0, b"", EndReason.OUTPUT_LIMIT),
        (1, QUIET, 1 << 20, 1 << 20, b"ValueError", EndReason.EXIT_NONZERO),
        (137, GroupUsage(1, 0), 1 << 20, 1 << 20, b"", EndReason.OUT_OF_MEMORY),
        (1, None, 1 << 20, 1 << 20, b"MemoryError", EndReason.OUT_OF_MEMORY),
        (1, GroupUsage(0, 1), 1 << 20, 1 << 20, b"", EndReason.PROCESS_LIMIT),
        (1, None, 1 << 20, 1 << 20, b"BlockingIOError: [Errno 11]", EndReason.PROCESS_LIMIT),
        (1, QUIET, 0, 1 << 20, b"", EndReason.DISK_LIMIT),
        (1, QUIET, 1 << 20, 1 << 20, b"No space left on device", EndReason.DISK_LIMIT),
        (1, QUIET, 1 << 20, 1, b"No space left on device", EndReason.OUTPUT_LIMIT),
        (-9, QUIET, 1 << 20, 1 << 20, b"", EndReason.RUNNER_LOST),
    ],
)
def test_the_end_is_named_by_what_was_seen(
    code: int, usage: GroupUsage | None, scratch_free: int, output_free: int, stderr: bytes, reason: EndReason
) -> None:
    assert judge(Evidence(code, usage, scratch_free, output_free, stderr)) is reason
