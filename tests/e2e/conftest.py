"""One embedded mesh for the tests that only use it; tests that break it start their own with `mesh_process`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SITE = "alice@hospital.example"
_START_S = 60
_STOP_S = 15


@dataclass(frozen=True)
class RunningMesh:
    """A mesh that runs, as its state folder tells it."""

    state: Path
    process: subprocess.Popen[bytes]

    @property
    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "hub/mesh.json").read_bytes())
        return found

    @property
    def server(self) -> str:
        return str(self.info["server"])

    @property
    def grpc(self) -> str:
        return str(self.info["grpc"])


@contextmanager
def mesh_process(state: Path, arguments: Sequence[str] = ()) -> Iterator[RunningMesh]:
    """Run the mesh on `state` and free ports until the block ends."""
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "syftmesh_standalone", "--state", str(state)]
    command += ["--http-port", "0", "--grpc-port", "0", *arguments]
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    log = state.parent / f"{state.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=kept, stdout=output, stderr=output, start_new_session=True)
    try:
        deadline = time.monotonic() + _START_S
        while not (state / "hub/mesh.json").exists():
            assert process.poll() is None, log.read_text()[-4000:]
            assert time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.05)
        yield RunningMesh(state, process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningMesh]:
    """A mesh with one site, shared: use names of your own."""
    with mesh_process(tmp_path_factory.mktemp("mesh") / "state", ["--sites", SITE]) as running:
        yield running
