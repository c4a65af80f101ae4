"""The chart of the hub as helm renders it: schema, values, pods, secrets."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import certifi
import pytest
import yaml
from chart_render import (
    CHARTS,
    WORKLOADS,
    Chart,
    Manifest,
    Program,
    ProgramFailed,
    containers,
    leaves,
    named,
    of_kind,
    pod_template,
    requested,
    with_value,
)
from syftmesh_identity.adapters.provider_file import read_providers
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.settings import load_settings

FOLDER = CHARTS / "syftmesh"
HERE = Path(__file__).parent
FULL = HERE / "values-hub-full.yaml"
OUTSIDE = HERE / "values-hub-outside.yaml"
DEV = FOLDER / "values-dev.yaml"
HOST = {"hub": {"host": "hub.example.org"}}
FILES = [DEV, FOLDER / "values-prod.yaml", HERE / "values-test.yaml", FULL, OUTSIDE]
SERVICES = ("identity", "sync", "permissions", "crypto", "router", "superlink", "gateway")
HOUSE = {"name": "house", "issuer": "https://sso.example.org", "clientId": "hub"}
CERT_MANAGER = {"issuer": {"name": "house"}, "enabled": True}


@pytest.fixture(scope="module")
def chart(helm: Program) -> Chart:
    return Chart(helm, FOLDER)


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def rendered(request: pytest.FixtureRequest, chart: Chart) -> list[Manifest]:
    return chart.render(request.param, values={} if request.param != FILES[1] else HOST)


def test_lint_finds_nothing(helm: Program) -> None:
    for file in FILES:
        helm("lint", "--strict", str(FOLDER), "--values", str(file), "--set", "hub.host=hub.example.org")


def test_every_value_is_described(chart: Chart) -> None:
    lines = (FOLDER / "values.yaml").read_text().splitlines()
    tops = [index for index, line in enumerate(lines) if line and line[0].isalpha()]
    assert {lines[index].split(":")[0] for index in tops} == set(chart.values())
    assert sum(line.lstrip().startswith("#") for line in lines) > 60


def test_schema_knows_exactly_the_values(chart: Chart) -> None:
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    _same_keys(schema, schema, chart.values(), "")


def _same_keys(schema: dict[str, Any], node: dict[str, Any], value: Any, path: str) -> None:
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].removeprefix("#/$defs/")]
    if "properties" not in node:
        return
    assert node["additionalProperties"] is False, path
    # Helm itself adds `global` to the values of every chart.
    assert set(node["properties"]) - {"global"} == set(value), path
    for key, inner in node["properties"].items():
        if key != "global":
            _same_keys(schema, inner, value[key], f"{path}.{key}")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"nats": {"replica": 3}}, "replica"),
        ({"natz": {}}, "natz"),
        ({"hub": {"hosts": "a"}}, "hosts"),
        ({"sync": {"resources": {"request": {}}}}, "request"),
        ({"hub": {"host": ""}}, "/hub/host"),
        ({"hub": {"host": "https://hub.example.org"}}, "/hub/host"),
        ({"nats": {"replicas": 2}}, "/nats/replicas"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"certificates": {"days": 30}}, "/certificates/days"),
        ({"objectStore": {"external": {"endpoint": "http://store"}}}, "/objectStore/external/endpoint"),
        ({"nats": {"external": {"url": "nats://bus:4222"}}}, "/nats/external/url"),
        ({"sync": {"settings": {"S3_SECRET_KEY": "x"}}}, "S3_SECRET_KEY"),
        ({"sync": {"replicas": 0}}, "/sync/replicas"),
        ({"nats": {"enabled": False}}, "nats.external.url"),
        ({"objectStore": {"enabled": False}}, "objectStore.external.endpoint"),
        ({"nats": {"external": {"url": "tls://bus:4222"}}}, "nats.enabled is true"),
        ({"objectStore": {"external": {"endpoint": "https://s3"}}}, "objectStore.enabled is true"),
        (
            {"nats": {"enabled": False, "external": {"url": "tls://bus:4222", "existingSecret": "bus"}}},
            "certificates.authoritySecret",
        ),
        (
            {"certificates": {"authoritySecret": "ca", "certManager": CERT_MANAGER}},
            "both say who signs",
        ),
        ({"certificates": {"certManager": {"issuer": {"name": "house"}}}}, "certManager.enabled is false"),
        (
            {
                "tls": {"existingSecret": "tls"},
                "certificates": {"certManager": {**CERT_MANAGER, "publicIssuer": {"name": "letters"}}},
            },
            "both give the public certificate",
        ),
        ({"tls": {"privateAuthority": True}}, "tls.existingSecret"),
        ({"service": {"nodePort": 30443}}, "service.type"),
        ({"service": {"externalTrafficPolicy": "Local"}}, "service.externalTrafficPolicy"),
        ({"sync": {"autoscaling": {"enabled": True, "minReplicas": 9}}}, "sync.autoscaling"),
        ({"fullnameOverride": "x" * 41}, "/fullnameOverride"),
        ({"identity": {"administrators": ["Ada@example.org"]}}, "/identity/administrators/0"),
        ({"identity": {"mail": {"security": "none"}}}, "/identity/mail/security"),
        ({"identity": {"mail": {"password": "x"}}}, "password"),
        ({"identity": {"mail": {"host": "mail.example.org"}}}, "identity.mail.from"),
        (
            {"identity": {"mail": {"host": "mail.example.org", "from": "mesh@example.org"}}},
            "identity.mail.cidrs",
        ),
        ({"identity": {"mail": {"from": "mesh@example.org"}}}, "identity.mail.host"),
        ({"identity": {"providers": {"list": [{"name": "house"}]}}}, "/identity/providers/list/0"),
        ({"identity": {"providers": {"list": [{**HOUSE, "secret": "x"}]}}}, "secret"),
        ({"identity": {"providers": {"list": [HOUSE]}}}, "identity.providers.existingSecret"),
        ({"identity": {"providers": {"list": [{**HOUSE, "public": True}]}}}, "identity.providers.cidrs"),
        ({"identity": {"providers": {"existingSecret": "keys"}}}, "identity.providers.list"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_wrong_values_are_refused_by_name(chart: Chart, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ProgramFailed, match=said):
        chart.render(DEV, values=changed)


def test_long_name_of_a_release_is_refused(helm: Program) -> None:
    with pytest.raises(ProgramFailed, match="fullnameOverride"):
        Chart(helm, FOLDER, release="x" * 41).render(DEV)


@pytest.mark.timeout(600)  # more than a hundred renderings
@pytest.mark.parametrize("file", [FULL, OUTSIDE], ids=lambda file: file.stem)
def test_every_value_changes_what_is_rendered(chart: Chart, file: Path) -> None:
    values = yaml.safe_load(file.read_text())
    before = chart.text(values=values)
    ignored = []
    for path, value in leaves(values):
        for other in _others(path, value):
            if _render_or_refusal(chart, with_value(values, path, other), path) == before:
                ignored.append(".".join(path))
    # With autoscaling on, Kubernetes decides how many there are.
    allowed = [name for name in ignored if name.endswith(".replicas") and name.split(".")[0] in SERVICES]
    assert sorted(set(ignored) - set(allowed)) == []


def _render_or_refusal(chart: Chart, values: dict[str, Any], path: tuple[str, ...]) -> str:
    try:
        return chart.text(values=values)
    except ProgramFailed as failed:
        said = str(failed)
    assert path[-1] in said  # a contradiction that is named is a use as well
    return said


def test_files_of_all_options_name_each_option(chart: Chart) -> None:
    def paths(values: dict[str, Any]) -> set[str]:
        return {".".join(path) for path, _ in leaves(values)}

    given = paths(yaml.safe_load(FULL.read_text())) | paths(yaml.safe_load(OUTSIDE.read_text()))
    free_form = ("settings", "annotations", "env", "nodeSelector", "affinity", "podLabels", "podAnnotations")
    missing = [
        name
        for name in paths(chart.values())
        if name not in given and not any(part in free_form for part in name.split("."))
        and not any(other.startswith(f"{name}.") for other in given)
        and not name.startswith(("networkPolicy.dns.", "networkPolicy.enabled"))
    ]  # fmt: skip
    assert missing == []


_WORDS = {
    "pullPolicy": "Never",
    "logLevel": "error",
    "type": "NodePort",
    "kind": "Issuer",
    "goMemoryLimit": "1GiB",
    "maxFileStore": "1GB",
    "spread": "ScheduleAnyway",
    "healthPath": "/other",
    "url": "tls://other:1",
    "security": "starttls",
    "externalTrafficPolicy": "Cluster",
    "from": "other@example.org",
    "endpoint": "https://other.example.org:9443",
    "accessKeyVariable": "OTHER_USER",
    "secretKeyVariable": "OTHER_WORD",
}


def _others(path: tuple[str, ...], value: Any) -> list[Any]:
    """Return another value of the same kind, that the schema allows."""
    key = path[-1]
    if key in _WORDS:
        return [_WORDS[key]]
    if isinstance(value, bool):
        return [not value]
    if path == ("nats", "replicas"):
        return [1]
    if isinstance(value, int):
        return [value + 1]
    if key in ("cpu", "memory", "size"):
        return ["3Gi"]
    if isinstance(value, list):
        return [_other_list(key, value)]
    return [{} if isinstance(value, dict) else f"{value}0"]


def _other_list(key: str, value: list[Any]) -> list[Any]:
    if key in ("cidrs", "publicCidrs"):
        return ["203.0.113.0/24"]
    if key == "ports":
        return [1]
    if key in ("command", "args", "extraHosts", "administrators", "admittedDomains"):
        return [f"{value[0]}x"]
    return []


def test_every_pod_is_restricted(rendered: list[Manifest]) -> None:
    workloads = of_kind(rendered, *WORKLOADS)
    assert len(workloads) > 8
    for workload in workloads:
        spec = pod_template(workload)["spec"]
        name = workload["metadata"]["name"]
        pod = spec["securityContext"]
        assert (pod["runAsNonRoot"], pod["runAsUser"], pod["fsGroup"]) == (True, 65532, 65532), name
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["automountServiceAccountToken"] is ("bootstrap" in name), name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert not [volume for volume in spec["volumes"] if "hostPath" in volume], name
        for container in containers(pod_template(workload)):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name


def test_every_container_has_limits_probes_and_a_last_word(rendered: list[Manifest]) -> None:
    for workload in of_kind(rendered, *WORKLOADS):
        for container in containers(pod_template(workload)):
            where = f"{workload['metadata']['name']}/{container['name']}"
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), where
            assert "memory" in container["resources"]["limits"], where
            assert container["terminationMessagePolicy"] == "FallbackToLogsOnError", where
        if workload["kind"] in ("Deployment", "StatefulSet"):
            for container in workload["spec"]["template"]["spec"]["containers"]:
                wanted = {"startupProbe", "readinessProbe", "livenessProbe"}
                # The console of the operator does nothing by itself: there is nothing in it to start or to die.
                assert wanted - set(container) <= (
                    {"startupProbe", "livenessProbe"} if container["name"] == "admin" else set()
                )


def test_liveness_does_not_ask_for_upstreams(chart: Chart) -> None:
    for name in SERVICES:
        kind = "StatefulSet" if name == "superlink" else "Deployment"
        first = pod_template(named(chart.render(DEV), kind, f"mesh-{name}"))["spec"]["containers"][0]
        assert first["livenessProbe"]["grpc"] == {"port": 8086, "service": "live"}
        assert first["readinessProbe"]["grpc"] == {"port": 8086}


def test_pods_end_after_their_drain(rendered: list[Manifest]) -> None:
    for workload in of_kind(rendered, "Deployment"):
        spec = pod_template(workload)["spec"]
        first = spec["containers"][0]
        drain_s = next(float(item["value"]) for item in first["env"] if item["name"].endswith("_DRAIN_S"))
        assert (
            spec["terminationGracePeriodSeconds"]
            > drain_s + first["lifecycle"]["preStop"]["sleep"]["seconds"]
        )


def test_replicas_are_spread_and_guarded(chart: Chart) -> None:
    prod = chart.render(FOLDER / "values-prod.yaml", values=HOST)
    budgets = {item["metadata"]["name"] for item in of_kind(prod, "PodDisruptionBudget")}
    assert budgets == {f"mesh-{name}" for name in (*SERVICES, "nats") if name != "superlink"}
    scaled = {item["metadata"]["name"] for item in of_kind(prod, "HorizontalPodAutoscaler")}
    assert scaled == budgets - {"mesh-nats"}
    assert not of_kind(chart.render(DEV), "PodDisruptionBudget", "HorizontalPodAutoscaler")
    for workload in of_kind(prod, "Deployment", "StatefulSet"):
        assert pod_template(workload)["spec"]["topologySpreadConstraints"], workload["metadata"]["name"]


def test_no_secret_is_in_a_config_map_or_a_variable(rendered: list[Manifest]) -> None:
    for secret in of_kind(rendered, "Secret"):
        assert not {"data", "stringData"} & set(secret), secret["metadata"]["name"]
    for config in of_kind(rendered, "ConfigMap"):
        assert "PRIVATE KEY" not in json.dumps(config)
    for workload in of_kind(rendered, *WORKLOADS):
        for container in containers(pod_template(workload)):
            for item in container.get("env", []):
                name = item["name"]
                words = ("PASSWORD", "SECRET_KEY", "ACCESS_KEY", "ROOT_USER")
                if any(word in name for word in words) and not name.endswith("_FILE"):
                    assert set(item["valueFrom"]) == {"secretKeyRef"}, name


def test_mounted_keys_of_secrets_are_named(rendered: list[Manifest]) -> None:
    """A pod is held until these keys are there, and sees no other."""
    for workload in of_kind(rendered, *WORKLOADS):
        for volume in pod_template(workload)["spec"]["volumes"]:
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            for source in sources:
                if "secret" in source:
                    assert source["secret"]["items"], workload["metadata"]["name"]
                    assert source["secret"].get("defaultMode", 0o440) == 0o440


def test_bootstrap_may_touch_exactly_what_it_fills(chart: Chart) -> None:
    manifests = chart.render(DEV)
    [rule] = named(manifests, "Role", "mesh-bootstrap")["rules"]
    assert (rule["resources"], rule["verbs"]) == (["secrets"], ["get", "patch"])
    assert set(rule["resourceNames"]) == {item["metadata"]["name"] for item in of_kind(manifests, "Secret")}
    assert set(rule["resourceNames"]) == {
        "mesh-ca", "mesh-hub-tls", "mesh-nats-server", "mesh-store", "mesh-signing-key",
        *(f"mesh-tls-{name}" for name in (*SERVICES, "nats", "store", "tools")),
        *(f"mesh-nats-{name}" for name in (*SERVICES, "tools") if name != "gateway"),
    }  # fmt: skip


def test_plan_is_one_that_bootstrap_reads(chart: Chart, tmp_path: Path) -> None:
    plan_module = pytest.importorskip("syftmesh_cluster.plan")
    for file in (DEV, FULL, OUTSIDE):
        manifests = chart.render(file)
        [config] = [item for item in of_kind(manifests, "ConfigMap") if "plan.json" in item["data"]]
        path = tmp_path / "plan.json"
        path.write_text(config["data"]["plan.json"])
        plan = plan_module.load_plan(path)
        role = next(item for item in of_kind(manifests, "Role"))
        assert sorted(plan.secrets()) == sorted(role["rules"][0]["resourceNames"])
    assert plan.ca is None
    assert plan.store is None


def test_certificates_bear_every_name_of_a_component(chart: Chart) -> None:
    plan = json.loads(named(chart.render(DEV), "ConfigMap", "mesh-bootstrap")["data"]["plan.json"])
    names = {leaf["secret"]: leaf["names"] for leaf in plan["leaves"]}
    assert names["mesh-tls-sync"] == [
        "sync", "mesh-sync", "mesh-sync.hub", "mesh-sync.hub.svc", "mesh-sync.hub.svc.cluster.local", "localhost",
    ]  # fmt: skip
    assert names["mesh-hub-tls"] == [
        "hub.local", "mesh-gateway", "mesh-gateway.hub", "mesh-gateway.hub.svc",
        "mesh-gateway.hub.svc.cluster.local", "localhost", "127.0.0.1",
    ]  # fmt: skip
    assert "*.mesh-nats-pods.hub.svc.cluster.local" in names["mesh-tls-nats"]


def test_gateway_answers_to_the_names_of_its_certificate(chart: Chart) -> None:
    manifests = chart.render(DEV, values={"hub": {"extraHosts": ["other.example.org"]}})
    gateway = pod_template(named(manifests, "Deployment", "mesh-gateway"))["spec"]["containers"][0]
    env = {item["name"]: item.get("value") for item in gateway["env"]}
    plan = json.loads(named(manifests, "ConfigMap", "mesh-bootstrap")["data"]["plan.json"])
    hub = next(leaf["names"] for leaf in plan["leaves"] if leaf["secret"] == "mesh-hub-tls")
    assert json.loads(env["SYFTMESH_GATEWAY_ALLOWED_HOSTS"]) == hub
    assert "other.example.org" in hub


def test_settings_are_fields_of_the_services(chart: Chart) -> None:
    """A variable that a service does not know would be ignored in silence."""
    unknown = []
    for file in (DEV, FULL, OUTSIDE):
        manifests = chart.render(file)
        for workload in of_kind(manifests, "Deployment", "StatefulSet"):
            name = workload["metadata"]["labels"]["app.kubernetes.io/component"]
            if name not in SERVICES:
                continue
            module = importlib.import_module(f"syftmesh_{name}.settings")
            fields = set(getattr(module, f"{name.capitalize()}Settings").model_fields)
            prefix = f"SYFTMESH_{name.upper()}_"
            for item in pod_template(workload)["spec"]["containers"][0]["env"]:
                if item["name"].startswith("SYFTMESH_"):
                    assert item["name"].startswith(prefix), item["name"]
                    if item["name"].removeprefix(prefix).lower() not in fields:
                        unknown.append(item["name"])
    assert unknown == []


def test_bus_syncs_what_it_acknowledges_and_knows_its_callers(chart: Chart) -> None:
    config = named(chart.render(DEV), "ConfigMap", "mesh-nats")["data"]
    assert "sync_interval: always" in config["nats.conf"]
    assert "verify: true" in config["nats.conf"]
    assert "cluster {" not in config["nats.conf"]
    assert "password: $SYNC_PASSWORD" in config["users.conf"]
    three = named(chart.render(DEV, values={"nats": {"replicas": 3}}), "ConfigMap", "mesh-nats")["data"]
    assert three["nats.conf"].count("-nats-pods.hub.svc.cluster.local:6222") == 3
    assert three["nats.conf"].count("verify: true") == 2


def test_outside_store_is_checked_before_anything_is_installed(chart: Chart) -> None:
    [check] = [
        item for item in of_kind(chart.render(OUTSIDE), "Job") if "storage-check" in item["metadata"]["name"]
    ]
    assert check["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert check["metadata"]["annotations"]["helm.sh/hook-output-log-policy"] == "hook-failed"
    mounted = {
        volume["secret"]["secretName"]
        for volume in check["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    assert mounted == {"store-ca"}  # nothing that the release itself would have to bring first
    assert check["spec"]["backoffLimit"] == 0
    [own] = [
        item for item in of_kind(chart.render(DEV), "Job") if "storage-check" in item["metadata"]["name"]
    ]
    assert "annotations" not in own["metadata"]
    waits = pod_template(named(chart.render(DEV), "Deployment", "mesh-sync"))["spec"]["initContainers"]
    assert [container["name"] for container in waits] == ["storage-check"]
    off = chart.render(DEV, values={"storageCheck": {"enabled": False}})
    assert not [
        item for item in off if "storage-check" in json.dumps(item) and item["kind"] != "NetworkPolicy"
    ]


def test_small_hub_fits_one_processor(chart: Chart) -> None:
    cores, size_bytes = requested(chart.render(DEV))
    assert cores <= 1
    assert size_bytes <= 1.5 * 2**30


def test_identity_reads_the_providers_that_are_given(chart: Chart, tmp_path: Path) -> None:
    manifests = chart.render(FULL)
    pod = pod_template(named(manifests, "Deployment", "centre-identity"))["spec"]
    [container] = [item for item in pod["containers"] if item["name"] == "identity"]
    told = {entry["name"]: entry.get("value") for entry in container["env"]}
    [volume] = [item for item in pod["volumes"] if item["name"] == "providers"]
    assert volume["projected"]["defaultMode"] == 0o440
    # The volume as kubelet would make it, in a folder of ours.
    folder = tmp_path / "providers"
    folder.mkdir(mode=0o700)
    config = named(manifests, "ConfigMap", "centre-identity")["data"]
    for source in volume["projected"]["sources"]:
        for item in source.get("configMap", source.get("secret"))["items"]:
            text = config[item["key"]] if "configMap" in source else certifi.contents()
            text = text.replace("/etc/syftmesh/providers", str(folder))
            place = folder / item["path"]
            place.touch(mode=0o600)
            place.write_text("word" if place.suffix == ".secret" else text)
    assert told["SYFTMESH_IDENTITY_PROVIDERS_FILE"] == "/etc/syftmesh/providers/providers.json"
    house, public = (found.provider for found in read_providers(folder / "providers.json"))
    assert (house.name, house.client_id, house.client_secret) == ("house", "hub", "word")
    assert (house.email_claim, house.verified_claim) == ("mail", "mail_verified")
    assert house.email_domains == {"example.org"}
    assert house.may_ask("https://keys.example.org:8443/jwks")
    assert (public.client_id, public.client_secret) == ("1234", "")
    assert "word" not in json.dumps(config)


def test_identity_understands_what_the_chart_tells_it(chart: Chart, monkeypatch: pytest.MonkeyPatch) -> None:
    manifests = chart.render(FULL)
    pod = pod_template(named(manifests, "Deployment", "centre-identity"))["spec"]
    [container] = [item for item in pod["containers"] if item["name"] == "identity"]
    for entry in container["env"]:
        if entry["name"].startswith("SYFTMESH_IDENTITY_"):
            monkeypatch.setenv(entry["name"], entry.get("value", "from-a-secret"))
    told = load_settings(IdentitySettings)
    assert (told.smtp_host, told.mail_port, told.smtp_security) == ("mail.example.org", 465, "tls")
    assert (told.mail_from, told.smtp_user) == ("mesh@example.org", "from-a-secret")
    assert told.administrators == {"ada@example.org"}
    assert told.admitted_domains == {"example.org"}
    assert (told.guests_enabled, told.key_rotation_days) == (True, 7)
    assert told.trusted_proxies == {"gateway"}
    known = {f"SYFTMESH_IDENTITY_{name.upper()}" for name in IdentitySettings.model_fields}
    given = {entry["name"] for entry in container["env"] if entry["name"].startswith("SYFTMESH_IDENTITY_")}
    assert given <= known
    mounted = [mount["mountPath"] for mount in container["volumeMounts"]]
    for path in (told.smtp_password_file, told.smtp_ca_file, told.signing_key_file, told.providers_file):
        assert any(str(path).startswith(f"{place}/") for place in mounted), path


def test_another_version_of_the_chart_alone_replaces_neither_bus_nor_store(chart: Chart) -> None:
    manifests = chart.render(DEV)
    for name, versioned in (("nats", False), ("store", False), ("superlink", True)):
        labels = pod_template(named(manifests, "StatefulSet", f"mesh-{name}"))["metadata"]["labels"]
        assert ("helm.sh/chart" in labels) is versioned, name
        assert ("app.kubernetes.io/version" in labels) is versioned, name


def test_what_there_is_one_of_is_found_as_soon_as_it_listens(chart: Chart) -> None:
    def found_early(replicas: int) -> set[str]:
        manifests = chart.render(DEV, values={"nats": {"replicas": replicas}})
        early = [s for s in of_kind(manifests, "Service") if s["spec"].get("publishNotReadyAddresses")]
        return {service["metadata"]["name"] for service in early}

    assert found_early(1) == {"mesh-superlink", "mesh-nats", "mesh-nats-pods"}
    assert found_early(3) == {"mesh-superlink", "mesh-nats-pods"}


def test_a_pod_waits_before_its_end_only_where_there_is_another_to_be_sent_to(chart: Chart) -> None:
    for name in SERVICES:
        [workload] = [
            item for item in of_kind(chart.render(DEV), "Deployment", "StatefulSet")
            if item["metadata"]["name"] == f"mesh-{name}"
        ]  # fmt: skip
        [container] = [c for c in pod_template(workload)["spec"]["containers"] if c["name"] == name]
        assert ("lifecycle" in container) is (name != "superlink")


def test_helm_test_is_the_doctor(chart: Chart) -> None:
    doctor = named(chart.render(DEV), "Pod", "mesh-doctor")
    hook = doctor["metadata"]["annotations"]
    assert hook["helm.sh/hook"] == "test"
    # What it says is shown, and nothing of it is left when the release is taken away.
    assert hook["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
    assert hook["helm.sh/hook-output-log-policy"] == "hook-succeeded,hook-failed"
    args = doctor["spec"]["containers"][0]["args"]
    assert args[:3] == ["doctor", "--server", "https://mesh-gateway:443"]
    assert "--ca-file" in args
    public = named(chart.render(OUTSIDE), "Pod", "mesh-doctor")["spec"]["containers"][0]["args"]
    assert public == ["doctor", "--server", "https://hub.example.org", "--cluster"]


def test_notes_tell_what_comes_next(helm: Program, tmp_path: Path) -> None:
    notes = _notes(helm, tmp_path, DEV)
    for said in ("site token create", "syftmesh login", "--ca-file", "helm -n hub test mesh", "get pvc"):
        assert said in notes
    assert "port-forward" in notes


def test_notes_ask_for_no_authority_that_everybody_knows(helm: Program, tmp_path: Path) -> None:
    notes = _notes(helm, tmp_path, OUTSIDE)
    assert "--ca-file" not in notes
    assert "NATS" not in notes


def _notes(helm: Program, folder: Path, values: Path) -> str:
    """Return the notes; helm shows them where there is a cluster only, so they are rendered as an object."""
    copied = folder / "syftmesh"
    shutil.copytree(FOLDER, copied)
    text = (copied / "templates/NOTES.txt").read_text()
    body = 'kind: Notes\ntext: {{ include "notes" . | quote }}\n'
    wrapped = f'{{{{- define "notes" -}}}}{text}{{{{- end -}}}}\n{body}'
    (copied / "templates/notes.yaml").write_text(wrapped)
    [found] = of_kind(Chart(helm, copied).render(values), "Notes")
    return str(found["text"])


def test_cluster_takes_every_object(chart: Chart, kubectl: Program, scratch_namespace: str) -> None:
    for file in FILES:
        # The class of FULL's pods is not in this cluster; the test of every value has looked at it.
        values = {**(HOST if file == FILES[1] else {}), "priorityClassName": ""}
        here = Chart(chart.helm, FOLDER, namespace=scratch_namespace)
        known = [
            item for item in here.render(file, values=values) if "cert-manager.io" not in item["apiVersion"]
        ]
        text = yaml.safe_dump_all(known)
        said = kubectl("apply", "--dry-run=server", "--validate=strict", "--filename", "-", text=text)
        assert said.count("(server dry run)") == len(known)
