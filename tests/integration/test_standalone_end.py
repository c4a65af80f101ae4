"""A mesh that does not end when it is told to is ended by force, and says what still ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from syftmesh_standalone import attended
from syftmesh_standalone.options import MeshOptions

async def deaf_mesh(options, stop, *, report, on_ready):
    (options.hub / "mesh.json").write_text("{}")
    os.kill(os.getpid(), signal.SIGTERM)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

attended.run_mesh = deaf_mesh
attended._END_S = 0.3
options = MeshOptions(Path(sys.argv[1]))
sys.exit(attended.run_attended(options, report=print, on_ready=print))
"""


def test_what_does_not_end_is_ended_by_force_and_named(tmp_path: Path) -> None:
    state = tmp_path / "state"
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(state)],
        env=kept,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ended by force" in done.stdout
    log = (state / "hub/mesh.log").read_text()
    assert "mesh.end_forced" in log
    assert "<string>" in log, "the place where it waits is named"
    assert not (state / "hub/mesh.json").exists(), "nothing says that it still runs"
