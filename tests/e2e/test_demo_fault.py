"""The demo goes on when what it stands on is killed with SIGKILL: servers, services, a sandbox, the mesh itself."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

_STEP = re.compile(r"\[ ?(\d+)/\d+\]")
_INTO_STEP_S = 0.3
_AFTER_END_S = 1.0

Kill = Callable[[Path], int]


def child(name: str) -> Kill:
    """Return how to kill a child process of the mesh, as ``mesh.json`` names it."""

    def kill(state: Path) -> int:
        pid = int(json.loads((state / "hub/mesh.json").read_bytes())["children"][name])
        os.kill(pid, signal.SIGKILL)
        return pid

    return kill


def whole_mesh(state: Path) -> int:
    """Kill the process that everything of the mesh belongs to."""
    pid = int(json.loads((state / "hub/mesh.json").read_bytes())["pid"])
    os.kill(pid, signal.SIGKILL)
    return pid


def sandbox(state: Path) -> int:
    """Kill the first process of a sandbox, as soon as there is one."""
    del state
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and b"syftmesh-job-" in (entry / "cmdline").read_bytes():
                    os.kill(int(entry.name), signal.SIGKILL)
                    return int(entry.name)
            except OSError:
                continue
        time.sleep(0.005)
    raise AssertionError("no sandbox was started")


def flower(program: bytes) -> Kill:
    """Return how to kill the first of Flower's processes that runs `program` for the demo's mesh."""

    def kill(state: Path) -> int:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            for entry in Path("/proc").iterdir():
                try:
                    said = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                    if program in said and os.fsencode(state) in said + (entry / "environ").read_bytes():
                        os.kill(int(entry.name), signal.SIGKILL)
                        return int(entry.name)
                except OSError:
                    continue
            time.sleep(0.05)
        raise AssertionError(f"no {program.decode()} was started")

    return kill


class Demo:
    """A demo that runs on `state`; `at` says what is killed when a step begins."""

    def __init__(self, state: Path, arguments: Iterable[str] = ()) -> None:
        self.state = state
        self.killed: list[str] = []
        self._wrong: list[BaseException] = []
        command = [sys.executable, "-m", "syftmesh.cli", "demo", "--state", str(state), "--keep", *arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    @property
    def pid(self) -> int:
        """The demo's own process id."""
        return self._process.pid

    def run(self, at: Callable[[int], list[tuple[str, Kill]]]) -> tuple[int, str]:
        """Return exit code and output once the demo has ended."""
        lines: list[str] = []
        threads: list[threading.Thread] = []
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for line in output:
                lines.append(line)
                step = _STEP.match(line)
                for name, kill in at(int(step[1])) if step else ():
                    thread = threading.Thread(target=self._kill, args=(name, kill))
                    thread.start()
                    threads.append(thread)
        for thread in threads:
            thread.join()
        assert not self._wrong, self._wrong
        return self._process.wait(), "".join(lines)

    def _kill(self, name: str, kill: Kill) -> None:
        if kill is not sandbox:
            time.sleep(_INTO_STEP_S)
        try:
            kill(self.state)
        except (OSError, KeyError, AssertionError) as error:
            self._wrong.append(error)
            return
        self.killed.append(name)


def left_behind(state: Path) -> list[str]:
    """Return the command lines of processes that have to do with `state`."""
    time.sleep(_AFTER_END_S)
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                if os.fsencode(state) in text:
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except OSError:
            continue
    return found


def test_the_demo_survives_its_servers_a_sandbox_and_the_mesh_being_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    plan: dict[int, list[tuple[str, Kill]]] = {
        3: [("seaweedfs", child("seaweedfs"))],
        5: [("nats-server", child("nats-server"))],
        7: [("sandbox", sandbox)],
        9: [("mesh", whole_mesh)],
        14: [
            ("superlink", flower(b"syftmesh_superlink.adapters")),
            ("supernode", flower(b"flower-supernode")),
        ],
    }
    demo = Demo(state)
    code, output = demo.run(lambda step: plan.get(step, []))
    assert sorted(demo.killed) == sorted(name for kills in plan.values() for name, _ in kills), output[-4000:]
    assert code == 0, output[-4000:]
    assert "pooled" in output
    assert left_behind(state) == []


def test_the_demo_survives_each_service_of_its_own_process_being_killed(tmp_path: Path) -> None:
    state = tmp_path / "state"
    todo: list[str] = []
    named: list[str] = []

    def at(step: int) -> list[tuple[str, Kill]]:
        if step == 2:
            children = json.loads((state / "hub/mesh.json").read_bytes())["children"]
            todo.extend(sorted(set(children) - {"nats-server", "seaweedfs"}))
            named.extend(todo)
        if step < 2:
            return []
        # One a step, and two where there are more left than steps, so that the last begins with none left to kill.
        chosen = [todo.pop(0) for _ in range(2 if len(todo) > 14 - step else 1) if todo]
        return [(name, child(name)) for name in chosen]

    demo = Demo(state, ["--processes"])
    code, output = demo.run(at)
    assert {"identity", "sync", "permissions", "crypto", "router", "gateway", "superlink"} <= set(named)
    assert sorted(demo.killed) == sorted(named), output[-4000:]
    assert code == 0, output[-4000:]
    assert left_behind(state) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_demo_that_is_ended_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    state = tmp_path / "state"
    demo = Demo(state)

    def end(_state: Path) -> int:
        os.kill(demo.pid, number)
        return 0

    code, _ = demo.run(lambda step: [("demo", end)] if step == 3 else [])
    assert code == (130 if number == signal.SIGINT else -number)
    assert left_behind(state) == []
