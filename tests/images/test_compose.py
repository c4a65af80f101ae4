"""The compose files: what they name exists, and each service is as contained as its pod."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_file import DOCKER, HOST, loaded, mounts
from image_builder import IMAGES, SERVICES
from syftmesh_cluster.plan import Plan, load_plan
from syftmesh_kit.settings import ServiceSettings

FILES = ("compose.yaml", "compose.site.yaml")
ALL = [(file, name) for file in FILES for name in loaded(file)["services"]]
every_service = pytest.mark.parametrize(("file", "name"), ALL)
every_file = pytest.mark.parametrize("file", FILES)


def _service(file: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = loaded(file)["services"][name]
    return found


def _settings(service: str) -> type[ServiceSettings]:
    if service == "storage-check":
        return importlib.import_module("syftmesh_cluster.settings").StorageCheckSettings  # type: ignore[no-any-return]
    module = importlib.import_module(f"syftmesh_{service}.settings")
    return getattr(module, f"{service.capitalize()}Settings", None) or _settings_of(module)


def _settings_of(module: Any) -> type[ServiceSettings]:
    classes = [c for c in vars(module).values() if isinstance(c, type) and issubclass(c, ServiceSettings)]
    return next(c for c in classes if c.__module__ == module.__name__)


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """What the hub's setup makes."""
    file = tmp_path / "plan.json"
    file.write_text(
        (DOCKER / "compose/plan.json").read_text().replace("@HUB_HOST@", HOST["SYFTMESH_HUB_HOST"])
    )
    return load_plan(file)


@every_service
def test_service_is_contained(file: str, name: str) -> None:
    service = _service(file, name)

    assert service["user"] == "65532:65532"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["pids_limit"] <= 1024
    assert "privileged" not in service
    assert "cap_add" not in service


@every_service
def test_profiles_of_the_engine_are_off_only_for_the_sandbox(file: str, name: str) -> None:
    relaxed = {option for option in _service(file, name)["security_opt"] if "unconfined" in option}

    assert bool(relaxed) == (file == "compose.site.yaml" and name in {"agent", "runner"})


@every_service
def test_image_is_one_that_is_built_or_a_server_of_others(file: str, name: str) -> None:
    image = _service(file, name)["image"]
    built = {f"syftmesh/{image}:dev" for image in IMAGES}

    assert image in built or (name in {"nats", "store"} and re.fullmatch(r"[a-z./]+:[\w.-]+", image))
    assert name not in SERVICES or image == f"syftmesh/{name}:dev"


@every_file
def test_what_services_name_exists_and_nothing_else(file: str) -> None:
    document = loaded(file)
    services = document["services"].values()
    used = {
        "volumes": {mount[0] for service in services for mount in mounts(service)},
        "configs": {config["source"] for service in services for config in service.get("configs", [])},
        "secrets": {secret for service in services for secret in service.get("secrets", [])},
        "networks": {network for service in services for network in service.get("networks", [])},
    }

    for kind, names in used.items():
        assert names == set(document.get(kind, {})), kind
    ours = [c["file"] for c in document["configs"].values() if not c["file"].startswith("/")]
    assert [path for path in ours if not (DOCKER / path).is_file()] == []


@every_service
def test_service_waits_for_services_that_can_say_they_are_ready(file: str, name: str) -> None:
    services = loaded(file)["services"]

    for other, how in services[name].get("depends_on", {}).items():
        target = services[other]
        if how["condition"] == "service_healthy":
            assert "healthcheck" in target or other in SERVICES, f"{other} has no check of its health"
        if how["condition"] == "service_completed_successfully":
            assert target["restart"] in {"no", "on-failure:3"}, f"{other} never ends"


@pytest.mark.parametrize(("file", "name"), [pair for pair in ALL if pair[1] in (*SERVICES, "storage-check")])
def test_environment_is_made_of_settings(file: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable is a field, and all of them together are accepted."""
    environment = _service(file, name)["environment"]
    settings = _settings(name)
    prefix = str(settings.model_config["env_prefix"])
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)

    unknown = [v for v in environment if v.removeprefix(prefix).lower() not in settings.model_fields]

    assert unknown == []
    assert isinstance(settings(), settings)


def test_only_the_gateway_is_reached_from_outside() -> None:
    document = loaded("compose.yaml")
    services = document["services"]

    assert [name for name, service in services.items() if "ports" in service] == ["gateway"]
    assert [name for name, service in services.items() if "outside" in service.get("networks", [])] == [
        "gateway"
    ]
    assert document["networks"]["inside"] == {"internal": True}
    assert services["proxy"]["network_mode"] == "service:gateway"
    assert services["gateway"]["environment"]["SYFTMESH_GATEWAY_HTTP_HOST"] == "127.0.0.1"


def test_a_site_listens_nowhere() -> None:
    assert [
        name for name, service in loaded("compose.site.yaml")["services"].items() if "ports" in service
    ] == []


def test_parts_of_volumes_are_made_before_they_are_mounted(plan: Plan) -> None:
    services = loaded("compose.yaml")["services"]
    setup = (DOCKER / "compose/setup.sh").read_text()
    made = {
        "secrets": {*plan.secrets(), *re.findall(r"\$secrets/(nats-config|store-certs)\"?", setup)},
        "data": {word.rsplit("/", 1)[-1] for word in services["folders"]["entrypoint"][2:]},
    }

    for name, service in services.items():
        for volume, _, part, _ in mounts(service):
            if volume in made and name not in {"setup", "folders"}:
                assert part in made[volume], f"{name}: {volume}/{part}"


@pytest.mark.parametrize("name", [name for file, name in ALL if file == "compose.yaml" and name != "setup"])
def test_service_sees_its_own_secrets_alone(name: str) -> None:
    owner = {"proxy": "gateway", "storage-check": "tools"}.get(name, name)
    allowed = {f"tls-{owner}", f"nats-{owner}"}
    allowed |= {"nats": {"nats-config"}, "store": {"store", "store-certs"}, "proxy": {"hub-tls"}}.get(
        name, set()
    )
    allowed |= {"identity": {"signing-key"}}.get(name, set())
    allowed |= {"store"} if name in {"sync", "permissions", "crypto", "router", "storage-check"} else set()
    seen = [
        (part, read_only)
        for volume, _, part, read_only in mounts(_service("compose.yaml", name))
        if volume == "secrets"
    ]

    assert {part for part, _ in seen} <= allowed
    assert all(read_only for _, read_only in seen)


def test_certificates_bear_the_names_that_services_call_each_other_by(plan: Plan) -> None:
    services = loaded("compose.yaml")["services"]
    names = {leaf.secret: leaf.names for leaf in plan.leaves}

    for service in (*sorted(set(SERVICES) - {"agent", "runner"}), "nats", "store"):
        assert service in services
        assert service in names[f"tls-{service}"]
    assert HOST["SYFTMESH_HUB_HOST"] in names["hub-tls"]


def test_bus_starts_with_its_configuration_and_the_secrets_of_setup(plan: Plan, tmp_path: Path) -> None:
    folder, config = tmp_path / "secrets", tmp_path / "nats"
    command = [sys.executable, "-m", "syftmesh_cluster.bootstrap", "--config", str(tmp_path / "plan.json")]
    subprocess.run([*command, "--folder", str(folder)], check=True, capture_output=True, timeout=60)
    config.mkdir()
    text = (DOCKER / "compose/nats.conf").read_text().replace("/etc/syftmesh/tls", str(folder / "tls-nats"))
    (config / "nats.conf").write_text(text.replace("/data/jetstream", str(tmp_path / "jetstream")))
    shutil.copy(DOCKER.parent / "charts/syftmesh/files/nats-users.conf", config / "users.conf")
    shutil.copy(folder / "nats-server/passwords.conf", config)
    server = Path(sys.executable).parent / "nats-server"
    check = [server, "-t", "-c", config / "nats.conf"]
    done = subprocess.run(check, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert sorted(part.name for part in folder.iterdir() if part.is_dir()) == sorted(plan.secrets())


@pytest.mark.parametrize(("service", "prefix"), [("sync", "SYFTMESH_SYNC"), ("tools", "SYFTMESH")])
def test_start_gives_a_service_its_passwords_from_files(tmp_path: Path, service: str, prefix: str) -> None:
    for file, value in (("nats/password", "p w'd"), ("store/access-key", "a"), ("store/secret-key", "s$k")):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(value)
    script = tmp_path / "start.sh"
    script.write_text((DOCKER / "compose/start.sh").read_text().replace("/etc/syftmesh", str(tmp_path)))
    show = [sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
    env = {"SYFTMESH_SERVICE": service, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", script, *show], capture_output=True, text=True, env=env, check=True, timeout=30
    )
    told = json.loads(done.stdout)

    assert told[f"{prefix}_NATS_PASSWORD"] == "p w'd"
    assert told[f"{prefix}_S3_ACCESS_KEY"] == "a"
    assert told[f"{prefix}_S3_SECRET_KEY"] == "s$k"


def test_proxy_is_told_what_the_chart_tells_it() -> None:
    helm = os.environ.get("HELM") or shutil.which("helm")
    if helm is None:
        pytest.skip("helm is not here")
    chart = [helm, "template", "mesh", str(DOCKER.parent / "charts/syftmesh"), "--kube-version", "1.34.0"]
    given = ["--set", "hub.host=hub.example.org", "--show-only", "templates/gateway/config.yaml"]
    done = subprocess.run([*chart, *given], capture_output=True, text=True, check=True, timeout=60)
    text = yaml.safe_load(done.stdout)["data"]["nginx.conf"]
    text = re.sub(r"mesh-(\w+)\.default\.svc\.cluster\.local", r"\1", text)
    own = (DOCKER / "compose/nginx.conf").read_text().split("\n", 1)[1]

    assert own == re.sub(r"\bmesh-(\w+)", r"\1", text)


@every_file
def test_compose_itself_accepts_the_file(file: str) -> None:
    version = ["docker", "compose", "version"]
    if shutil.which("docker") is None or subprocess.run(version, capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not here")
    command = ["docker", "compose", "--file", str(DOCKER / file), "config", "--quiet"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | HOST, check=False, timeout=60
    )

    assert done.returncode == 0, done.stderr
