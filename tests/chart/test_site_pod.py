"""Pods of a datasite: restricted, with the settings that programs have, each container with what it needs alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import typer
from chart_render import Manifest, Program, containers, named, of_kind, pod_template
from site_render import AUTHORITY, EMAIL, FOLDER, STATE, TOKEN, render_site
from syftmesh.cli.root import build_app
from syftmesh_agent.settings import AgentSettings
from syftmesh_runner.settings import RunnerSettings

WORKLOADS = ("StatefulSet", "Job", "Pod")


@pytest.fixture
def manifests(helm: Program) -> list[Manifest]:
    return render_site(helm, hub={"ca": AUTHORITY})


def _site(manifests: list[Manifest]) -> Manifest:
    return pod_template(named(manifests, "StatefulSet", "alice"))


def _container(manifests: list[Manifest], name: str) -> Manifest:
    return next(item for item in containers(_site(manifests)) if item["name"] == name)


def _env(container: Manifest) -> dict[str, str]:
    return {item["name"]: item["value"] for item in container["env"]}


@pytest.mark.parametrize("preset", ["values.yaml", "values-dev.yaml", "values-prod.yaml"])
def test_every_pod_is_restricted(helm: Program, preset: str) -> None:
    pods = [pod_template(item) for item in of_kind(render_site(helm, FOLDER / preset), *WORKLOADS)]
    assert len(pods) == 3
    for pod in pods:
        spec = pod["spec"]
        security = spec["securityContext"]
        assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (
            True,
            65532,
            65532,
        )
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & set(spec)
        assert all("hostPath" not in volume for volume in spec.get("volumes", []))
        for container in containers(pod):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_every_container_has_limits_and_tells_why_it_ended(manifests: list[Manifest]) -> None:
    for workload in of_kind(manifests, *WORKLOADS):
        for container in containers(pod_template(workload)):
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize(("name", "port"), [("agent", 8086), ("runner", 8087)])
def test_programs_are_probed_on_the_port_they_serve(manifests: list[Manifest], name: str, port: int) -> None:
    container = _container(manifests, name)
    assert _env(container)[f"SYFTMESH_{name.upper()}_HEALTH_LISTEN"] == f"0.0.0.0:{port}"
    assert container["readinessProbe"]["grpc"] == {"port": port}
    # A hub that is away is no reason to begin anew.
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": port, "service": "live"}


@pytest.mark.parametrize(("name", "settings"), [("agent", AgentSettings), ("runner", RunnerSettings)])
def test_settings_are_ones_that_the_program_has(
    manifests: list[Manifest], name: str, settings: type[AgentSettings | RunnerSettings]
) -> None:
    prefix = f"SYFTMESH_{name.upper()}_"
    given = {key.removeprefix(prefix).lower() for key in _env(_container(manifests, name)) if key != "HOME"}
    assert given - set(settings.model_fields) == set()


@pytest.mark.parametrize(("name", "settings"), [("agent", AgentSettings), ("runner", RunnerSettings)])
def test_settings_are_valid(
    manifests: list[Manifest],
    name: str,
    settings: type[AgentSettings | RunnerSettings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for key, value in _env(_container(manifests, name)).items():
        monkeypatch.setenv(key, value)
    made = settings()  # type: ignore[call-arg]
    if isinstance(made, RunnerSettings):
        assert (made.memory_bytes, made.disk_bytes, made.log_bytes) == (1 << 30, 256 << 20, 1 << 20)
        assert (made.review_s, made.approval_s) == (14 * 86400, 7 * 86400)


def test_reviewers_reach_the_runner(helm: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    who = ["dora@hospital.example", "emil@hospital.example"]
    for key, value in _env(_container(render_site(helm, review={"reviewers": who}), "runner")).items():
        monkeypatch.setenv(key, value)
    assert RunnerSettings().reviewers == frozenset(who)  # type: ignore[call-arg]


def test_setup_calls_the_command_line_as_it_is(manifests: list[Manifest]) -> None:
    command = _container(manifests, "setup")["command"]
    assert command[:3] == ["syftmesh", "site", "init"]
    options = {word.partition("=")[0] for word in command[3:]}
    assert options == {"--email", "--server", "--ca-file", "--token-file", "--wait"}
    group = typer.main.get_command(build_app())
    verb = group.commands["site"].commands["init"]  # type: ignore[attr-defined]
    assert options - {name for param in verb.params for name in param.opts} == set()


def test_token_of_the_api_server_is_the_runners_alone(manifests: list[Manifest]) -> None:
    holders = [
        (workload["metadata"]["name"], container["name"])
        for workload in of_kind(manifests, *WORKLOADS)
        for container in containers(pod_template(workload))
        for mount in container.get("volumeMounts", [])
        if "serviceaccount" in mount["mountPath"]
    ]
    assert holders == [("alice", "runner")]
    sources = [
        volume["name"]
        for volume in _site(manifests)["spec"]["volumes"]
        if "serviceAccountToken" in json.dumps(volume)
    ]
    assert sources == ["api-token"]


def test_each_container_sees_its_part_of_the_volume(manifests: list[Manifest]) -> None:
    seen: dict[str, set[tuple[str, str, bool]]] = {}
    for container in containers(_site(manifests)):
        seen[container["name"]] = {
            (mount["mountPath"], mount.get("subPath", ""), mount.get("readOnly", False))
            for mount in container["volumeMounts"]
            if mount["name"] == "state"
        }
    site = f"sites/{EMAIL}"
    assert seen == {
        "setup": {(STATE, "", False)},
        "console": {(STATE, "", False)},
        "agent": {(f"{STATE}/{site}/agent", f"{site}/agent", False)},
        "runner": {
            (f"{STATE}/{site}/runner", f"{site}/runner", False),
            (f"{STATE}/incoming", "incoming", True),
        },
    }


def test_programs_meet_in_memory_and_share_no_scratch(manifests: list[Manifest]) -> None:
    volumes = {volume["name"]: volume for volume in _site(manifests)["spec"]["volumes"]}
    assert volumes["run"]["emptyDir"]["medium"] == "Memory"
    scratch = {
        container["name"]: next(m["name"] for m in container["volumeMounts"] if m["mountPath"] == "/tmp")
        for container in containers(_site(manifests))
    }
    assert scratch == {
        "setup": "tmp-console", "console": "tmp-console", "agent": "tmp-agent", "runner": "tmp-runner",
    }  # fmt: skip
    assert _env(_container(manifests, "agent"))["SYFTMESH_AGENT_LISTEN"] == "unix:/run/syftmesh/agent.sock"
    assert _env(_container(manifests, "runner"))["SYFTMESH_RUNNER_LOCAL_DIR"] == "/run/syftmesh"


def test_no_secret_is_in_a_config_map_an_argument_or_the_environment(manifests: list[Manifest]) -> None:
    for manifest in manifests:
        if manifest["kind"] != "Secret":
            assert TOKEN not in json.dumps(manifest), manifest["metadata"]["name"]
    names = [
        item["name"]
        for pod in of_kind(manifests, *WORKLOADS)
        for c in containers(pod_template(pod))
        for item in c["env"]
    ]
    secret = [name for name in names if re.search(r"PASSWORD|SECRET|_KEY$|TOKEN$", name)]
    assert secret == []


def test_keys_stay_closed_when_kubelet_mounts_the_volume_again(manifests: list[Manifest]) -> None:
    security = _site(manifests)["spec"]["securityContext"]
    assert (security["fsGroup"], security["fsGroupChangePolicy"]) == (65532, "OnRootMismatch")


@pytest.mark.parametrize(
    ("hub", "source"),
    [
        ({"ca": AUTHORITY}, {"configMap": {"name": "alice-hub-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}),
        (
            {"caConfigMap": {"name": "x", "key": "k"}},
            {"configMap": {"name": "x", "items": [{"key": "k", "path": "ca.crt"}]}},
        ),
        (
            {"caSecret": {"name": "y", "key": "k"}},
            {"secret": {"secretName": "y", "items": [{"key": "k", "path": "ca.crt"}]}},
        ),
        ({}, None),
    ],
    ids=["pem", "config-map", "secret", "public"],
)  # fmt: skip
def test_authority_of_the_hub_reaches_every_client(
    helm: Program, hub: dict[str, Any], source: dict[str, Any] | None
) -> None:
    manifests = render_site(helm, hub=hub)
    pods = (_site(manifests), named(manifests, "Pod", "alice-doctor"))
    for pod in pods:
        found = [volume for volume in pod["spec"]["volumes"] if volume["name"] == "hub-ca"]
        assert found == ([{"name": "hub-ca", **source}] if source else [])
        for container in containers(pod):
            mounted = "/etc/syftmesh/hub" in [m["mountPath"] for m in container["volumeMounts"]]
            assert mounted is (source is not None)
    for name in ("agent", "runner"):
        given = _env(_container(manifests, name)).get(f"SYFTMESH_{name.upper()}_CA_FILE")
        assert given == ("/etc/syftmesh/hub/ca.crt" if source else None)


def test_new_token_or_authority_begins_with_a_new_pod(helm: Program) -> None:
    def annotations(**values: Any) -> Any:
        return _site(render_site(helm, **values))["metadata"]["annotations"]

    first = annotations(hub={"ca": AUTHORITY})
    assert first == annotations(hub={"ca": AUTHORITY})
    assert first != annotations(hub={"ca": AUTHORITY.replace("MIIB", "MIIC")})
    assert first != annotations(hub={"ca": AUTHORITY}, joinToken={"value": "another"})
