"""``up``, ``status`` and ``down`` where nothing is started."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from syftmesh_standalone.state_lock import StateLock

with warnings.catch_warnings():
    # Typer uses names that click warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    from syftmesh.cli.__main__ import run
    from syftmesh.cli.frame import Surroundings

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:typer")


def command(state: Path, *arguments: str) -> tuple[int, str, str]:
    around = Surroundings(stdin=io.StringIO(), stdout=io.StringIO(), stderr=io.StringIO(), environ={})
    code = run([*arguments, "--state", str(state)], around)
    assert isinstance(around.stdout, io.StringIO)
    assert isinstance(around.stderr, io.StringIO)
    return code, around.stdout.getvalue(), around.stderr.getvalue()


def test_status_of_nothing_is_down_with_exit_code_six(tmp_path: Path) -> None:
    code, out, err = command(tmp_path, "status")
    assert (code, out) == (6, "")
    assert err.startswith("error: MESH_DOWN: ")
    assert "hint: syftmesh up" in err


def test_down_of_nothing_is_fine(tmp_path: Path) -> None:
    code, out, _ = command(tmp_path, "down", "--json")
    assert code == 0
    assert json.loads(out) == {"stopped": False, "pid": None}


def test_a_mesh_that_is_not_ready_yet_is_said(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with StateLock.acquire(tmp_path / "hub"):
        code, _, err = command(tmp_path, "status")
    assert code == 6
    assert err.startswith("error: MESH_STARTING: ")
    assert str(os.getpid()) in err


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_site_that_is_no_email_is_refused_before_anything_is_made(
    tmp_path: Path, detach: list[str]
) -> None:
    code, _, err = command(tmp_path / "state", "up", "--sites", "nobody", *detach)
    assert code == 2
    assert "PRINCIPAL_INVALID" in err
    assert not (tmp_path / "state").exists()


def test_a_port_out_of_range_is_a_usage_error(tmp_path: Path) -> None:
    code, _, err = command(tmp_path, "up", "--port", "70000")
    assert code == 2
    assert "--port" in err


def test_an_open_state_is_refused_by_up(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    code, _, err = command(tmp_path, "up", "--detach")
    assert code == 5
    assert err.startswith("error: STATE_UNUSABLE: ")


@pytest.mark.parametrize("name", ["up", "status", "down", "demo"])
def test_every_command_explains_itself_with_an_example(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(tmp_path, name, "--help")
    assert f"syftmesh {name}" in capsys.readouterr().out


def test_help_loads_neither_services_nor_servers() -> None:
    heavy = ["grpc", "pandas", "numpy", "sklearn", "syftmesh_kit", "syftmesh_router", "nats", "httpx"]
    code = (
        "import sys; import syftmesh_standalone.commands; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_mesh_process_loads_no_data_libraries() -> None:
    code = (
        "import sys; import syftmesh_standalone.hub_host, syftmesh_standalone.site_host, "
        "syftmesh_standalone.mesh; print([n for n in ('pandas', 'sklearn', 'numpy', 'flwr') if n in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
