"""A run as a Job: what is in it, what never is, and that the strictest pod security takes it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput
from syftmesh_executor.kubernetes.manifest import job_manifest, job_name, label_value, site_selector
from syftmesh_executor.kubernetes.setting import ClusterSettings
from syftmesh_executor.port import Limits, RunSpec

SETTINGS = ClusterSettings("site-jobs", "syftmesh/job:dev", "olga@site.example")
SPEC = RunSpec(
    "0190b0c4-0000-7000-8000-000000000001", Path("/secret/code"), "secret_main.py",
    {"patients": Path("/secret/data")}, Path("/secret/out"), parameters={"word": "secret"}, project="ward 7",
)  # fmt: skip


def pod_of(settings: ClusterSettings = SETTINGS, spec: RunSpec = SPEC) -> dict[str, Any]:
    return cast("dict[str, Any]", job_manifest(settings, spec)["spec"]["template"]["spec"])


def test_nothing_of_code_data_or_parameters_is_in_it() -> None:
    text = json.dumps(job_manifest(SETTINGS, SPEC))
    for word in ("secret", "patients", "main.py"):
        assert word not in text


def test_it_runs_once_and_ends() -> None:
    spec = job_manifest(SETTINGS, SPEC)["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert spec["activeDeadlineSeconds"] > SPEC.limits.wall_s
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert "finalizers" not in job_manifest(SETTINGS, SPEC)["metadata"]


def test_every_container_is_as_restricted_as_can_be() -> None:
    pod = pod_of()
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["hostUsers"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["limits"]) == {"memory", "cpu"}
        assert "env" not in container


def test_the_job_reads_what_the_carrier_writes_and_the_other_way_round() -> None:
    mounts = {
        container["name"]: {
            mount["name"]: not mount.get("readOnly", False) for mount in container["volumeMounts"]
        }
        for container in pod_of()["containers"]
    }
    assert mounts["carrier"] == {
        "code": True, "data": True, "control": True, "output": False, "report": False,
    }  # fmt: skip
    assert mounts["job"] == {
        "code": False, "data": False, "control": False, "output": True, "report": True, "scratch": True,
        "shared": True,
    }  # fmt: skip


def test_sizes_are_those_of_the_limits() -> None:
    limits = Limits(disk_bytes=5 << 20, output_bytes=3 << 20, memory_bytes=100 << 20)
    pod = pod_of(spec=replace(SPEC, limits=limits))
    sizes = {volume["name"]: volume["emptyDir"].get("sizeLimit") for volume in pod["volumes"]}
    assert int(sizes["scratch"]) == 5 << 20
    assert int(sizes["output"]) == (3 << 20) + 4096
    memory = int(pod["containers"][1]["resources"]["limits"]["memory"])
    assert 100 << 20 < memory < 200 << 20


def test_pods_that_share_users_have_one_of_their_own_each() -> None:
    shared = replace(SETTINGS, host_users=True)
    users = {
        pod_of(shared, replace(SPEC, run_id=f"run-{number}"))["securityContext"]["runAsUser"]
        for number in range(20)
    }
    assert len(users) > 15
    assert all(20_000 <= user < 60_000 for user in users)
    assert "hostUsers" not in pod_of(replace(SETTINGS, host_users=None))


def test_a_runtime_class_is_named_only_where_there_is_one() -> None:
    assert "runtimeClassName" not in pod_of()
    assert pod_of(replace(SETTINGS, runtime_class="gvisor"))["runtimeClassName"] == "gvisor"


def test_pods_are_of_the_account_that_is_named_and_get_no_token_of_it() -> None:
    pod = pod_of(replace(SETTINGS, service_account="job"))
    assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("job", False)
    assert "serviceAccountName" not in pod_of()
    with pytest.raises(InvalidInput, match="service account"):
        replace(SETTINGS, service_account="Job!")


def test_a_run_with_pipes_and_an_expected_image_are_noted_for_whoever_finds_it() -> None:
    spec = replace(SPEC, channel=cast("tuple[FileIO, FileIO]", (BytesIO(), BytesIO())))
    noted = job_manifest(SETTINGS, spec, "ab")["metadata"]["annotations"]
    assert noted["syftmesh.org/channel"] == "true"
    assert noted["syftmesh.org/image-id"] == "ab"
    assert noted["syftmesh.org/run-id"] == SPEC.run_id


@given(st.text(alphabet="abcXYZ019-_", min_size=1, max_size=64))
def test_names_and_labels_are_always_such_as_the_cluster_takes(run_id: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", job_name("site", run_id))
    assert len(job_name("site", run_id)) <= 63
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", label_value(run_id))
    assert job_name("site", run_id) != job_name("other", run_id)


@given(st.text(max_size=80))
def test_any_text_becomes_a_label(text: str) -> None:
    assert re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?", label_value(text))


def test_a_site_finds_its_own_jobs() -> None:
    labels = job_manifest(SETTINGS, SPEC)["metadata"]["labels"]
    for term in site_selector(SETTINGS.site).split(","):
        key, _, value = term.partition("=")
        assert labels[key] == value


@pytest.mark.parametrize(
    "fields",
    [{"namespace": "A"}, {"namespace": ""}, {"image": ""}, {"image": "a b"}, {"pull_policy": "Sometimes"}],
)
def test_settings_that_cannot_work_are_refused(fields: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        replace(SETTINGS, **fields)
    assert replace(SETTINGS, image="a@sha256:cd").image_digest == "cd"
