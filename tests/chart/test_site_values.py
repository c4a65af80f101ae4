"""Values of the datasite's chart: what is refused and how it is named, and that every one of them does something."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from chart_render import Chart, Manifest, Program, ProgramFailed, containers, leaves, named, requested
from site_render import AUTHORITY, FLAGS, FOLDER, GIVEN, TOKEN, merged, render_site, site_chart

PRESETS = ("values.yaml", "values-dev.yaml", "values-prod.yaml")

# Every option at once, each with another value than its default: what `values.yaml` describes can be set.
OTHER: dict[str, Any] = {
    "email": "bob@clinic.example",
    "fullnameOverride": "bob",
    "hub": {"url": "https://mesh-gateway.mesh.svc:8443", "caSecret": {"name": "hub", "key": "root.pem"}},
    "joinToken": {"value": "", "existingSecret": "join", "key": "secret", "waitSeconds": 30},
    "image": {"registry": "registry.example/mesh", "tag": "1.2.3", "pullPolicy": "Always"},
    "imagePullSecrets": [{"name": "registry"}],
    "jobs": {
        "namespace": "runs",
        "create": False,
        "image": "registry.example/job@sha256:" + "0" * 64,
        "pullPolicy": "Always",
        "imagePullSecrets": [{"name": "other"}],
        "runtimeClassName": "gvisor",
        "hostUsers": True,
        "parallel": 2,
        "startSeconds": 60,
        "limits": {"cpu": "2", "memory": "2Gi", "disk": "64Mi", "output": "32Mi", "log": "512Ki", "processes": 32},
        "quota": {
            "limits.cpu": "4",
            "limits.memory": "6Gi",
            "requests.cpu": "1",
            "requests.memory": "6Gi",
            "pods": "5",
            "count/jobs.batch": "9",
        },
        "containerDefaults": {
            "limits": {"cpu": "500m", "memory": "128Mi"},
            "requests": {"cpu": "20m", "memory": "32Mi"},
        },
    },
    "rbac": {"create": False},
    "review": {"reviewers": ["dora@hospital.example"], "decideHours": 1, "approvalHours": 2},
    "federated": {"maxUpdate": "1Mi", "maxNorm": 1.5, "maxMetrics": 3},
    "logLevel": "debug",
    **{
        part: {
            "resources": {
                "requests": {"cpu": "11m", "memory": "111Mi"},
                "limits": {"cpu": "222m", "memory": "222Mi"},
            }
        }
        for part in ("agent", "runner", "console")
    },
    "storage": {"size": "3Gi", "className": "fast", "tmp": "2Gi"},
    "networkPolicy": {
        "enabled": False,
        "hub": {
            "cidrs": ["192.0.2.1/32"],
            "inCluster": {"namespace": "mesh", "podLabels": {"app.kubernetes.io/component": "edge"}, "port": 9443},
        },
        "kubeApi": {"cidrs": ["192.0.2.2/32"], "ports": [16443]},
        "dns": {
            "namespaceLabels": {"kubernetes.io/metadata.name": "dns"},
            "podLabels": {"k8s-app": "other"},
            "ports": [5353],
        },
        "extraEgress": [{"ports": [{"protocol": "TCP", "port": 5432}]}],
    },
    "isolationProbe": {"enabled": False, "graceSeconds": 3, "deadlineSeconds": 60},
    "priorityClassName": "high",
    "nodeSelector": {"zone": "a"},
    "tolerations": [{"key": "data", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "podAnnotations": {"a": "b"},
    "podLabels": {"c": "d"},
    "terminationGracePeriodSeconds": 60,
}  # fmt: skip

# Values that say something only beside another one.
BESIDE: dict[tuple[str, ...], dict[str, Any]] = {
    ("hub", "caConfigMap", "key"): {"hub": {"caConfigMap": {"name": "hub"}}},
    ("hub", "caSecret", "key"): {"hub": {"caSecret": {"name": "hub"}}},
    ("joinToken", "key"): {"joinToken": {"value": "", "existingSecret": "join"}},
    ("joinToken", "existingSecret"): {"joinToken": {"value": ""}},
    ("networkPolicy", "hub", "inCluster", "port"): {"networkPolicy": {"hub": {"inCluster": {"namespace": "mesh"}}}},
    ("networkPolicy", "hub", "inCluster", "podLabels", "app.kubernetes.io/component"): {
        "networkPolicy": {"hub": {"inCluster": {"namespace": "mesh"}}}
    },
}  # fmt: skip

# What OTHER cannot hold, as it would contradict the rest of it.
SINGLE: dict[tuple[str, ...], Any] = {
    ("hub", "ca"): AUTHORITY,
    ("hub", "caConfigMap", "name"): "hub",
    ("hub", "caConfigMap", "key"): "root.pem",
    ("joinToken", "value"): "another-token",
}


@pytest.fixture
def chart(helm: Program) -> Chart:
    return site_chart(helm)


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    return {path[0]: _nested(path[1:], value) if len(path) > 1 else value}


def _found(values: dict[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


@pytest.mark.parametrize("preset", PRESETS)
def test_helm_finds_nothing_to_complain_of(helm: Program, preset: str) -> None:
    said = helm(
        "lint", "--strict", str(FOLDER), *FLAGS, "--values", str(FOLDER / preset), "--values", "-",
        text=json.dumps(GIVEN),
    )  # fmt: skip
    assert "0 chart(s) failed" in said


def test_every_option_can_be_set(helm: Program) -> None:
    assert render_site(helm, **OTHER)


def test_every_value_changes_what_is_rendered(chart: Chart) -> None:
    unused = []
    flags = (*FLAGS, "--is-upgrade")  # a site that is there needs no token
    defaults = chart.values()
    assert len(list(leaves(defaults))) > 60
    for path, default in leaves(defaults):
        value = SINGLE[path] if path in SINGLE else _found(OTHER, path)
        assert value != default, f"{path}: give another value than the default"
        beside = merged(GIVEN, BESIDE.get(path, {}))
        with_default = chart.render(values=beside, flags=flags)
        if chart.render(values=merged(beside, _nested(path, value)), flags=flags) == with_default:
            unused.append(".".join(path))
    assert unused == []


def test_manual_and_schema_name_the_same_values(chart: Chart) -> None:
    schema = json.loads((FOLDER / "values.schema.json").read_text())
    described = {path for path, _ in leaves(chart.values())}

    def known(properties: dict[str, Any], prefix: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        found = set()
        for key, inner in properties.items():
            shape = schema["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
            below = shape.get("properties")
            found |= known(below, (*prefix, key)) if below else {(*prefix, key)}
        return found

    schema["properties"].pop("global")
    named_in_schema = known(schema["properties"])
    # What has no default: who and where, and a limit of the processor, which would only make bursts slower.
    optional = {(part, "resources", "limits", "cpu") for part in ("agent", "runner", "console")}
    without = {("email",), ("hub", "url"), *optional}
    maps = {path for path in named_in_schema - without if isinstance(_found(chart.values(), path), dict)}
    assert named_in_schema - maps - described == without
    assert {path for path in described if not any(path[: len(m)] == m for m in maps)} <= named_in_schema


def test_every_level_of_the_schema_is_strict() -> None:
    loose = []

    def walk(node: Any, place: str) -> None:
        if isinstance(node, dict):
            if "properties" in node and node.get("additionalProperties") is not False:
                loose.append(place)
            for key, inner in node.items():
                walk(inner, f"{place}/{key}")

    walk(json.loads((FOLDER / "values.schema.json").read_text()), "")
    assert loose == []


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"email": "Alice@hospital.example"}, "/email"),
        ({"email": "alice"}, "/email"),
        ({"email": "../alice@hospital.example"}, "/email"),
        ({"hub": {"url": "http://mesh.example"}}, "/hub/url"),
        ({"hub": {"url": "https://mesh.example/path"}}, "/hub/url"),
        ({"hub": {"ca": "no certificate"}}, "/hub/ca"),
        ({"jobs": {"paralel": 2}}, "paralel"),
        ({"netwrokPolicy": {"enabled": False}}, "netwrokPolicy"),
        ({"jobs": {"limits": {"memory": "1G"}}}, "/jobs/limits/memory"),
        ({"jobs": {"parallel": 0}}, "/jobs/parallel"),
        ({"jobs": {"hostUsers": "no"}}, "/jobs/hostUsers"),
        ({"storage": {"size": "many"}}, "/storage/size"),
        ({"networkPolicy": {"hub": {"cidrs": ["mesh.example"]}}}, "/networkPolicy/hub/cidrs"),
        ({"networkPolicy": {"hub": {"inCluster": {"podLabels": None}}}}, "podLabels"),
        ({"review": {"reviewers": ["dora"]}}, "/review/reviewers"),
        ({"logLevel": "loud"}, "/logLevel"),
        ({"agent": {"resources": {"limits": {"memory": None}}}}, "memory"),
        ({"terminationGracePeriodSeconds": 1}, "/terminationGracePeriodSeconds"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_value_is_named(helm: Program, values: dict[str, Any], word: str) -> None:
    with pytest.raises(ProgramFailed, match="the schema") as failed:
        render_site(helm, **values)
    assert word in str(failed.value)


def test_values_without_default_are_asked_for(chart: Chart) -> None:
    with pytest.raises(ProgramFailed) as failed:
        chart.render(values={"joinToken": GIVEN["joinToken"]}, flags=FLAGS)
    assert "missing property 'email'" in str(failed.value)
    assert "missing property 'url'" in str(failed.value)


@pytest.mark.parametrize(
    "path", [("rbac",), ("jobs", "quota"), ("storage", "size"), ("hub", "caSecret", "key")]
)
def test_default_cannot_be_taken_away(chart: Chart, path: tuple[str, ...]) -> None:
    with pytest.raises(ProgramFailed, match=f"missing property '{path[-1]}'"):
        chart.render(values=merged(GIVEN, _nested(path, None)), flags=FLAGS)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"jobs": {"namespace": "alice"}}, "jobs.namespace: runs need a namespace of their own"),
        ({"hub": {"ca": AUTHORITY, "caSecret": {"name": "x"}}}, "hub: give at most one of ca"),
        ({"joinToken": {"existingSecret": "x"}}, "joinToken: give value or existingSecret, not both"),
        ({"joinToken": {"value": ""}}, "joinToken: a new site needs the token"),
        ({"jobs": {"limits": {"memory": "256Mi"}}}, "jobs.limits: disk and output live in memory"),
        ({"jobs": {"parallel": 7}}, "jobs.quota: limits.memory 8Gi is less than 7 runs"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contradiction_is_named(helm: Program, values: dict[str, Any], line: str) -> None:
    with pytest.raises(ProgramFailed) as failed:
        render_site(helm, **values)
    assert line in str(failed.value)


def test_upgrade_needs_no_token(chart: Chart) -> None:
    without = merged(GIVEN, {"joinToken": {"value": ""}})
    manifests = chart.render(values=without, flags=(*FLAGS, "--is-upgrade"))
    setup = named(manifests, "StatefulSet", "alice")["spec"]["template"]["spec"]["initContainers"][0]
    assert not [word for word in setup["command"] if word.startswith("--token-file")]
    assert "join" not in [mount["name"] for mount in setup["volumeMounts"]]


def test_small_preset_asks_for_little(helm: Program) -> None:
    cores, size_bytes = requested(render_site(helm, FOLDER / "values-dev.yaml"))
    assert cores <= 0.5
    assert size_bytes <= 512 << 20


def test_images_are_named_by_registry_and_tag(helm: Program) -> None:
    def images(manifests: list[Manifest]) -> dict[str, str]:
        pod = named(manifests, "StatefulSet", "alice")["spec"]["template"]
        return {container["name"]: container["image"] for container in containers(pod)}

    version = yaml.safe_load((FOLDER / "Chart.yaml").read_text())["appVersion"]
    program = {"setup": "tools", "agent": "agent", "runner": "runner", "console": "tools"}
    assert images(render_site(helm)) == {
        name: f"syftmesh/{image}:{version}" for name, image in program.items()
    }
    other = images(render_site(helm, image={"registry": "registry.example:5000/mesh/", "tag": "7"}))
    assert other == {name: f"registry.example:5000/mesh/{image}:7" for name, image in program.items()}


def test_token_is_stored_without_the_end_of_its_line(helm: Program) -> None:
    import base64

    secret = named(render_site(helm), "Secret", "alice-join")
    assert base64.b64decode(secret["data"]["token"]).decode() == TOKEN
