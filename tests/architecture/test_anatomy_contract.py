"""The anatomy of a service is held by `.importlinter`; here it is shown that each way of breaking it is caught."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")
COMPOSITION = {"standalone"}
"""Services that compose the others and have no domain of their own."""
CONTRACTS = ("anatomy", "composition", "pure_domain")
SERVICE = {
    "__init__": "",
    "__main__": "from cat import app, settings",
    "app": "from cat import adapters, servicer\nfrom cat.adapters import store",
    "servicer": "from cat import convert\nfrom cat.domain import use_case",
    "consumers": "from cat.domain import use_case",
    "convert": "import mesh\nfrom cat.domain import use_case",
    "settings": "",
    "adapters/__init__": "",
    "adapters/store": "import grpc\nfrom cat import settings\nfrom cat.domain import use_case",
    "domain/__init__": "",
    "domain/use_case": "import json",
}


def _config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser


def _lint(folder: Path, modules: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Check one service of these modules, named cat, by the three contracts of the repository."""
    for name, text in modules.items():
        path = folder / "cat" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    # The generated code as a package of no modules: only that it is imported counts.
    (folder / "mesh").mkdir()
    (folder / "mesh" / "__init__.py").write_text("")
    config = _config()
    config["importlinter"]["root_packages"] = "\ncat\nmesh"
    config["importlinter:contract:anatomy"]["containers"] = "cat"
    for section in list(config.sections()):
        if section.startswith("importlinter:contract:") and section.rpartition(":")[2] not in CONTRACTS:
            del config[section]
    with (folder / "contract.cfg").open("w") as file:
        config.write(file)
    return subprocess.run(
        [str(LINT), "--no-cache", "--config", str(folder / "contract.cfg")],
        check=False,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )


def test_contract_of_anatomy_names_every_service() -> None:
    services = {p.name for p in (ROOT / "services").iterdir() if (p / "src").is_dir()} - COMPOSITION
    assert set(_config()["importlinter:contract:anatomy"]["containers"].split()) == {
        f"syftmesh_{name}" for name in services
    }


def test_every_service_has_settings_app_and_servicer() -> None:
    for container in _config()["importlinter:contract:anatomy"]["containers"].split():
        folder = ROOT / "services" / container.removeprefix("syftmesh_") / "src" / container
        for module in ("__main__", "settings", "app", "servicer"):
            assert (folder / f"{module}.py").exists() or (folder / module).is_dir(), f"{container}.{module}"


def test_sound_service_keeps_the_contracts(tmp_path: Path) -> None:
    done = _lint(tmp_path, SERVICE)
    assert done.returncode == 0, done.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("servicer", "from cat.adapters import store"),
        ("consumers", "from cat.adapters.store import x"),
        ("convert", "from cat.adapters import store"),
        ("__main__", "from cat.adapters import store"),
        ("servicer", "from cat import consumers"),
        ("servicer", "from cat import app"),
        ("adapters/store", "from cat import servicer"),
        ("settings", "from cat import convert"),
        ("domain/use_case", "from cat.adapters import store"),
        ("domain/use_case", "from cat import settings"),
        ("domain/use_case", "from cat import convert"),
        ("domain/use_case", "import grpc"),
        ("domain/use_case", "import nats"),
        ("domain/use_case", "from google.protobuf import message"),
        ("domain/use_case", "import mesh"),
        ("domain/use_case", "import sqlite3"),
        ("helpers", "import json"),
    ],
)
def test_each_way_of_breaking_the_anatomy_is_caught(tmp_path: Path, module: str, line: str) -> None:
    broken = {**SERVICE, module: f"{SERVICE.get(module, '')}\n{line}"}
    done = _lint(tmp_path, broken)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "broken" in done.stdout
