"""The demo from outside: the whole story, and what becomes of it when something is killed on the way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

_GONE_S = 8.0


@dataclass
class Demo:
    """A demo that runs; its lines for people are read as they come."""

    process: subprocess.Popen[str]
    state: Path
    lines: list[str] = field(default_factory=list)

    def read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip("\n"))

    def wait_for(self, text: str, within_s: float = 60) -> None:
        deadline = time.monotonic() + within_s
        while not any(text in line for line in self.lines):
            assert self.process.poll() is None, "\n".join(self.lines[-20:])
            assert time.monotonic() < deadline, "\n".join(self.lines[-20:])
            time.sleep(0.02)

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "hub/mesh.json").read_bytes())
        return found

    def finish(self) -> tuple[int, str]:
        assert self.process.stdout is not None
        out = self.process.stdout.read()
        return self.process.wait(10), out


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[Demo]:
    """Run the demo with its temporary files below `folder`, so that whatever it leaves can be told by that."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    command = [sys.executable, "-m", "syftmesh.cli", "demo", "--json", *arguments]
    process = subprocess.Popen(
        command,
        env={**kept, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    running = Demo(process, folder / "state")
    reader = threading.Thread(target=running.read)
    reader.start()
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        reader.join(10)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def leftovers(folder: Path) -> list[str]:
    """Return the processes of a demo that ran below `folder`."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            said = " ".join(process.cmdline()) + " " + process.environ().get("TMPDIR", "")
            if str(folder) in said and process.pid != os.getpid():
                found.append(f"{process.pid}: {said[:200]}")
    return found


def assert_none_left(folder: Path) -> None:
    deadline = time.monotonic() + _GONE_S
    while found := leftovers(folder):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_the_whole_story_holds_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        code, out = running.finish()
        assert code == 0, "\n".join(running.lines[-20:])
        found = json.loads(out)
        assert found["ok"] is True
        assert [step["number"] for step in found["steps"]] == list(range(1, len(found["steps"]) + 1))
        assert len(found["steps"]) == 15
        assert all(step["title"] and step["checks"] for step in found["steps"])
        sites = found["results"]["sites"]
        assert sorted(sum(row["n"] for row in rows) for rows in sites.values()) == [198, 371]
        assert sum(row["n"] for row in found["results"]["pooled"]) == 569
        assert set(found["bytes_out"]) == set(found["audit"]) == set(sites)
        canary = found["canary"]
        assert (canary["findings"], canary["unreadable"]) == (0, 0)
        assert canary["scanned_bytes"] > 100_000
        assert all(canary["places"][part] > 0 for part in ("objects", "nats", "s3", "superlink"))
        assert set(canary["controls"]) == {"public copy", "unsealed call", "unsealed update"}
        assert all(canary["controls"].values())
        assert all(entry["entries"] > 0 and entry["checkpoints"] > 0 for entry in found["audit"].values())
        federated = found["federated"]
        assert (federated["state"], federated["rounds"]) == ("succeeded", 3)
        assert federated["accuracy"] >= 0.95
        assert abs(federated["accuracy"] - federated["pooled_accuracy"]) <= 0.02
        assert set(federated["sent_bytes"]) == set(sites)
        assert all(0 < size < 100_000 for size in federated["sent_bytes"].values())
        assert not Path(found["state"]["folder"]).exists()
        assert_none_left(tmp_path)
    assert list(tmp_path.glob("syftmesh-demo-*")) == []


@pytest.mark.parametrize(("victim", "at"), [("nats-server", "[ 6/"), ("mesh", "[ 4/"), ("mesh", "[14/")])
def test_a_killed_part_is_recovered_from_or_named(tmp_path: Path, victim: str, at: str) -> None:
    with demo(tmp_path, "--state", str(tmp_path / "state")) as running:
        running.wait_for(at)
        info = running.info()
        os.kill(info["pid"] if victim == "mesh" else info["children"][victim], signal.SIGKILL)
        code, out = running.finish()
        if code == 0:
            assert json.loads(out)["ok"] is True
        else:
            errors = [line for line in running.lines if line.startswith("error: ")]
            assert errors, "\n".join(running.lines[-20:])
            assert re.match(r"error: [A-Z][A-Z0-9_]+: step \d+ \(.+\): ", errors[-1]), errors
            assert out == ""
        assert_none_left(tmp_path)


def test_a_killed_demo_leaves_no_process(tmp_path: Path) -> None:
    with demo(tmp_path, "--state", str(tmp_path / "state")) as running:
        running.wait_for("[ 1/")
        deadline = time.monotonic() + 30
        while len(leftovers(tmp_path)) < 4:  # itself, the mesh, bus and store
            assert time.monotonic() < deadline
            time.sleep(0.1)
        running.process.kill()
        assert_none_left(tmp_path)


def test_ctrl_c_ends_it_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    with demo(tmp_path) as running:
        running.wait_for("[ 2/")
        assert list(tmp_path.glob("syftmesh-demo-*/hub/mesh.json"))
        running.process.send_signal(signal.SIGINT)
        code, out = running.finish()
        assert (code, out) == (130, "")
        assert list(tmp_path.glob("syftmesh-demo-*")) == []
        assert_none_left(tmp_path)


def test_a_used_state_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/mine").write_text("kept")
    with demo(tmp_path, "--state", str(tmp_path / "state")) as running:
        code, out = running.finish()
    assert (code, out) == (5, "")
    assert any(line.startswith("error: STATE_NOT_EMPTY: ") for line in running.lines)
