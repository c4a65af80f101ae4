"""A ServerApp that never looks at its pipes ends with the aggregator's process all the same."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

_SERVER = """
import os, time
from pathlib import Path
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    Path(os.environ["PARAMETERS"].strip('{}" ').split('"')[-1]).write_text(str(os.getpid()))
    time.sleep(120)
"""

_AGGREGATOR = """
import asyncio, sys
from pathlib import Path
from syftmesh_executor import Limits, ProcessExecutor, RunSpec
from syftmesh_flower.app_process import SERVER_LAUNCHER, AppProcess, add_launchers

async def main(folder):
    code = folder / "code"
    add_launchers(code)
    spec = RunSpec("server", code, SERVER_LAUNCHER, {}, folder / "out", limits=Limits(wall_s=120),
                   parameters={"pid": str(folder / "pid")})
    setup = {"run_id": 7, "component": "app:app", "run_config": {}, "app_digest": "00"}
    app = await AppProcess.start(ProcessExecutor(), spec, setup, limit_bytes=1 << 20)
    await app.receive(timeout_s=None)

asyncio.run(main(Path(sys.argv[1])))
"""


def _gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state == "Z"


def test_a_server_app_that_hangs_ends_when_its_aggregator_is_killed(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text(_SERVER)
    aggregator = subprocess.Popen([sys.executable, "-c", _AGGREGATOR, str(tmp_path)])
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert aggregator.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        pid = int((tmp_path / "pid").read_text())
        assert not _gone(pid)
    finally:
        aggregator.kill()
        aggregator.wait()
    deadline = time.monotonic() + 10
    while not _gone(pid):
        assert time.monotonic() < deadline, "the ServerApp outlives its aggregator"
        time.sleep(0.05)
