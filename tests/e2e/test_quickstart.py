"""The commands of docs/quickstart.md and docs/federated.md, run in order by somebody with an empty home folder."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
QUICKSTART, FEDERATED = DOCS / "quickstart.md", DOCS / "federated.md"
FREE_PORTS = " --port 0 --grpc-port 0"
"""Added to `up`: the page's own ports may be in use where tests run."""
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}


@dataclass(frozen=True)
class Step:
    """A command of the page, with the output that the page shows for it."""

    command: str
    output: str
    line: int


def blocks(page: Path, kind: str) -> Iterator[tuple[int, list[str]]]:
    """Every fenced block of `kind`: the line where it begins, and its lines."""
    inside: list[str] | None = None
    start = 0
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if inside is not None and line.startswith("```"):
            yield start, inside
            inside = None
        elif inside is not None:
            inside.append(line)
        elif line == f"```{kind}":
            inside, start = [], number + 1


def steps(page: Path) -> list[Step]:
    """What is typed, a continued command joined, with what the page says comes back."""
    found: list[Step] = []
    for start, lines in blocks(page, "console"):
        for number, line in enumerate(lines, start=start):
            if line.startswith("$ "):
                found.append(Step(line[2:], "", number))
            elif line == ">" or line.startswith("> "):
                last = found.pop()
                found.append(Step(f"{last.command}\n{line[2:]}", "", last.line))
            else:
                last = found.pop()
                found.append(Step(last.command, last.output + line + "\n", last.line))
    return found


def run(step: Step, folder: Path) -> str:
    command = step.command
    if command.startswith("syftmesh up"):
        command += FREE_PORTS
    kept = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**kept, **QUIET, "PATH": path, "HOME": str(folder), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert done.returncode == 0, f"line {step.line}: {command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def follow(page: Path, home: Path) -> None:
    """Run every command of a page and compare what it shows; the mesh is down afterwards."""
    told = steps(page)
    assert len(told) > 20
    try:
        for step in told:
            out = run(step, home)
            shown = step.output.replace("127.0.0.1:8080", "127.0.0.1:*")
            assert shown in re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:*", out), f"line {step.line}: {out}"
    finally:
        run(Step("syftmesh down", "", 0), home)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "home"
    made.mkdir(mode=0o700)
    return made


def test_the_quickstart_runs_from_the_mesh_to_the_proof(home: Path) -> None:
    follow(QUICKSTART, home)
    assert (home / "results/counts.csv").read_text().startswith("ward,n,mean_age\n")


def test_the_federated_guide_runs_from_two_sites_to_a_model_and_again_with_flowers_own_program(
    home: Path,
) -> None:
    (home / "examples").symlink_to(ROOT / "examples")
    try:
        follow(FEDERATED, home)
    finally:
        serving = home / "serving"
        if serving.exists():
            with suppress(ProcessLookupError):
                os.kill(int(serving.read_text()), signal.SIGKILL)
    assert (home / "model/model.safetensors").stat().st_size > 0
    assert "succeeded" in (home / "serving.txt").read_text()


def test_make_targets_and_links_of_the_pages_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = [line for _, found in blocks(QUICKSTART, "shell") for line in found]
    used = [line.split()[1] for line in lines if line.startswith("make ")]
    assert used
    assert set(used) <= targets
