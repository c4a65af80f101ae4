"""The program, its settings and its surface."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from syftmesh_client.serving import Refusal
from syftmesh_core.clock import system_random
from syftmesh_core.errors import Unavailable
from syftmesh_kit.settings import load_settings
from syftmesh_runner.adapters.state_folder import StateFolder
from syftmesh_runner.settings import RunnerSettings


def test_without_a_state_folder_the_program_names_the_variable_and_ends_with_2() -> None:
    command = [sys.executable, "-m", "syftmesh_runner"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": ""}, timeout=60)
    assert done.returncode == 2
    assert "SYFTMESH_RUNNER_STATE_DIR" in done.stderr


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYFTMESH_RUNNER_STATE_DIR", "/srv/site")
    monkeypatch.setenv("SYFTMESH_RUNNER_REVIEWERS", '["rita@hospital.example"]')
    settings = load_settings(RunnerSettings)
    assert settings.reviewers == {"rita@hospital.example"}
    assert settings.parallel == 1


async def test_socket_and_secret_lie_where_agent_and_runner_of_a_pod_share_a_folder(tmp_path: Path) -> None:
    shared = tmp_path / "run"
    shared.mkdir()
    shared.chmod(0o2777)  # as kubelet makes an emptyDir for a pod with fsGroup
    folder = StateFolder(tmp_path / "state", system_random)
    first = folder.renew_secret("supernode.secret", 32, shared).read_bytes()
    place = folder.renew_secret("supernode.secret", 32, shared)
    assert (place, len(place.read_bytes())) == (shared / "supernode.secret", 32)
    assert place.read_bytes() != first
    assert place.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in shared.iterdir()] == ["supernode.secret"]
    assert (
        folder.renew_secret("supernode.secret", 32, tmp_path / "new/run").parent.stat().st_mode & 0o777
        == 0o700
    )
    folder.close()


async def test_a_shared_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state", system_random)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable) as caught:
        folder.renew_secret("supernode.secret", 32, tmp_path / "file")
    assert caught.value.reason == "STATE_UNUSABLE"
    folder.close()


async def test_the_local_api_is_four_services_on_the_sites_own_socket(world: Any) -> None:
    assert world.module.address == f"unix:{world.folder}/state/runner.sock"
    methods = world.module.public_methods
    assert "/mesh.rds.v1.JobService/ApproveJob" in methods
    assert "/mesh.federated.v1.SiteRunService/WatchSuperNode" in methods
    assert {name.split("/")[1] for name in methods} == {
        "mesh.rds.v1.DatasetService",
        "mesh.rds.v1.JobService",
        "mesh.rds.v1.AuditService",
        "mesh.federated.v1.SiteRunService",
    }
    await world.module.ready()
    world.module._settings = world.module._settings.model_copy(update={"local_dir": Path("/run/syftmesh")})
    assert world.module.address == "unix:/run/syftmesh/runner.sock"


async def test_a_call_that_was_refused_before_any_handler_is_written_down(world: Any) -> None:
    await world.module.audit_refusal(Refusal("c1", "eve@evil.example", "syft://x", "SEAL_INVALID"))
    (entry,) = list(world.audit._store.entries())
    assert (entry.kind, entry.actor) == ("call.refused", "runner")
    assert entry.fields["reason"] == "SEAL_INVALID"


async def test_calls_of_people_for_whom_nothing_is_sealed_ask_the_hub_nothing(world: Any) -> None:
    world.keys.away = True
    assert await world.module._work.publication.reseal_for("eve@evil.example") == 0
