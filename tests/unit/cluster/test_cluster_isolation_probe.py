"""The probe of a pod's isolation holds each promise for itself and says what to do."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest
from syftmesh_cluster import isolation_probe as probing
from syftmesh_cluster.isolation_probe import Finding, Place, Settings

STATUS = """\
Name:\tpython
Uid:\t65532\t65532\t65532\t65532
CapInh:\t0000000000000000
CapPrm:\t0000000000000000
CapEff:\t0000000000000000
CapBnd:\t0000000000000000
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""
VARIABLES = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
GVISOR_STATUS = "Name:\tpython\nUid:\t65532\t65532\t65532\t65532\nSeccomp:\t0\n"


class Time:
    """Passes only when one sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def now_s(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def pod(tmp_path: Path) -> Place:
    """A pod as it must be."""
    write(tmp_path, "proc/self/status", STATUS)
    write(tmp_path, "proc/self/uid_map", "         0 1879048192      65536\n")
    write(tmp_path, "proc/version", "Linux version 6.12.0\n")
    write(tmp_path, "etc/resolv.conf", "search x.svc\nnameserver 10.96.0.10\noptions ndots:5\n")
    return Place(tmp_path)


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def by_name(findings: list[Finding]) -> dict[str, bool]:
    return {found.name: found.ok for found in findings}


def test_process_of_a_good_pod_holds(pod):
    assert by_name(probing.process(pod, sandboxed=False)) == {
        "not-root": True,
        "no-new-privileges": True,
        "no-capabilities": True,
        "seccomp": True,
    }


@pytest.mark.parametrize(
    ("old", "new", "failing"),
    [
        ("65532\t65532\t65532\t65532", "0\t0\t0\t0", "not-root"),
        ("65532\t65532\t65532\t65532", "65532\t65532\t0\t65532", "not-root"),
        ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "no-new-privileges"),
        ("NoNewPrivs:\t1\n", "", "no-new-privileges"),
        ("CapBnd:\t0000000000000000", "CapBnd:\t0000000000000400", "no-capabilities"),
        ("CapAmb:\t0000000000000000\n", "", "no-capabilities"),
        ("Seccomp:\t2", "Seccomp:\t0", "seccomp"),
        ("Seccomp:\t2", "Seccomp:\t1", "seccomp"),
        ("Seccomp:\t2\n", "", "seccomp"),
    ],
)
def test_process_with_too_much_is_named(pod, tmp_path, old, new, failing):
    write(tmp_path, "proc/self/status", STATUS.replace(old, new))
    found = by_name(probing.process(pod, sandboxed=False))
    assert [name for name, ok in found.items() if not ok] == [failing]


def test_status_that_cannot_be_read_proves_nothing(tmp_path):
    for sandboxed in (True, False):
        found = by_name(probing.process(Place(tmp_path), sandboxed=sandboxed))
        assert not found["not-root"]
        assert not found["no-new-privileges"]
        assert not found["no-capabilities"]


def test_gvisor_leaves_fields_out(pod, tmp_path):
    write(tmp_path, "proc/self/status", GVISOR_STATUS)
    assert all(by_name(probing.process(pod, sandboxed=True)).values())
    assert not all(by_name(probing.process(pod, sandboxed=False)).values())


@pytest.mark.parametrize("folder", probing.TOKEN_FOLDERS)
def test_token_of_a_service_account_is_found(pod, tmp_path, folder):
    assert probing.account(pod).ok
    write(tmp_path, f"{folder.lstrip('/')}/serviceaccount/token", "x")
    assert not probing.account(pod).ok


@pytest.mark.parametrize(
    ("uid_map", "ok"),
    [
        ("0 1879048192 65536\n", True),
        ("0 0 4294967295\n", False),
        ("0 0 65536\n", False),
        ("0 100000 1000\n65532 65532 1\n", False),
        ("", False),
    ],
)
def test_user_namespace_is_told_by_the_map_of_users(pod, tmp_path, uid_map, ok):
    write(tmp_path, "proc/self/uid_map", uid_map)
    assert probing.user_namespace(Settings(user_namespace=True), pod, sandboxed=False).ok is ok
    assert probing.user_namespace(Settings(), pod, sandboxed=False).ok
    assert probing.user_namespace(Settings(user_namespace=True), pod, sandboxed=True).ok


@pytest.mark.parametrize(
    ("version", "log", "is_it"),
    [
        ("Linux version 6.12.0", "[0.0] Linux version 6.12.0", False),
        ("Linux version 4.19.0-gvisor #1 SMP", "", True),
        ("Linux version 4.4.0 #1 SMP Sun Jan 10 15:06:54 PST 2016", "", True),
        ("Linux version 4.4.0", "[ 0.000000] Starting gVisor...", True),
        ("", "", False),
    ],
)
def test_gvisor_is_recognised(pod, tmp_path, version, log, is_it):
    write(tmp_path, "proc/version", version)
    assert probing.is_gvisor(pod, log) is is_it


@pytest.mark.parametrize("name", ["gvisor", "my-runsc", "gVisor-kvm"])
def test_runtime_class_must_be_what_it_is_called(name):
    assert probing.runtime_class(Settings(runtime_class=name), sandboxed=True).ok
    assert not probing.runtime_class(Settings(runtime_class=name), sandboxed=False).ok
    assert probing.runtime_class(Settings(), sandboxed=False).ok


def test_kernel_log_is_text():
    assert isinstance(probing.kernel_log(), str)


def test_root_that_can_be_written_is_found_and_left_clean(pod, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert not probing.read_only_root(pod).ok
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(("options", "ok"), [("ro,relatime", True), ("rw,relatime", False)])
def test_root_that_is_not_ours_is_told_by_its_mount(pod, tmp_path, monkeypatch, options, ok):
    write(tmp_path, "proc/self/mounts", f"overlay / overlay {options} 0 0\nproc /proc proc rw 0 0\n")

    def refused(*_given: object) -> int:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(probing.os, "open", refused)
    assert probing.read_only_root(pod).ok is ok


def reach_none(_target: str) -> bool:
    return False


def test_network_asks_api_name_servers_metadata_and_further_targets(pod):
    asked: list[tuple[str, str]] = []

    def note(kind: str):
        def reach(target: str) -> bool:
            asked.append((kind, target))
            return False

        return reach

    settings = Settings(targets=("10.1.2.3:5432", "[fd00::1]:80"))
    findings = probing.network(settings, pod, VARIABLES, tcp=note("tcp"), udp=note("udp"))
    assert all(found.ok for found in findings)
    assert sorted(asked) == sorted(
        [
            ("tcp", "10.96.0.1:443"),
            ("udp", "10.96.0.10:53"),
            ("tcp", "10.96.0.10:53"),
            ("tcp", "169.254.169.254:80"),
            ("tcp", "10.1.2.3:5432"),
            ("tcp", "[fd00::1]:80"),
        ]
    )
    assert len(findings) == 6


def test_network_gives_a_policy_time_to_bind(pod):
    time = Time()
    findings = probing.network(
        Settings(grace_s=20),
        pod,
        VARIABLES,
        tcp=lambda target: target == "10.96.0.1:443" and time.now < 5,
        udp=reach_none,
        now_s=time.now_s,
        sleep=time.sleep,
    )
    assert all(found.ok for found in findings)
    assert 5 <= time.now < 7


@pytest.mark.parametrize("open_one", ["10.96.0.1:443", "10.96.0.10:53", "169.254.169.254:80"])
def test_network_that_stays_open_is_named_after_the_grace(pod, open_one):
    time = Time()
    findings = probing.network(
        Settings(grace_s=20),
        pod,
        VARIABLES,
        tcp=lambda target: target == open_one,
        udp=reach_none,
        now_s=time.now_s,
        sleep=time.sleep,
    )
    assert [found.name for found in findings if not found.ok] == [f"no-tcp-{open_one}"]
    assert 20 <= time.now < 22


def test_name_server_that_answers_by_udp_is_found(pod):
    findings = probing.network(Settings(grace_s=0), pod, VARIABLES, tcp=reach_none, udp=lambda _target: True)
    assert [found.name for found in findings if not found.ok] == ["no-udp-10.96.0.10:53"]


def test_probe_without_an_api_to_ask_proves_nothing(pod):
    findings = probing.network(Settings(grace_s=0), pod, {}, tcp=reach_none, udp=reach_none)
    assert [found.name for found in findings if not found.ok] == ["no-tcp-kubernetes-api"]


def test_report_names_what_failed_and_what_to_do(capsys):
    good = Finding("one", ok=True, seen="x")
    assert probing.report([good]) == 0
    capsys.readouterr()
    wrong = [Finding("two", ok=False, seen="y", advice="network"), Finding("three", ok=False, seen="z")]
    assert probing.report([good, *wrong]) == 1
    shown = capsys.readouterr().out.splitlines()
    assert shown[:3] == ["ok    one: x", "fail  two: y", "fail  three: z"]
    assert shown[3].endswith("must not run here: two, three")
    assert [line.split()[0] for line in shown[4:]] == ["next:", "next:"]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"SYFTMESH_PROBE_USER_NAMESPACE": "yes"}, "USER_NAMESPACE"),
        ({"SYFTMESH_PROBE_GRACE_S": "soon"}, "GRACE_S"),
        ({"SYFTMESH_PROBE_TARGETS": "10.0.0.1"}, "TARGETS"),
        ({"SYFTMESH_PROBE_TARGETS": "10.0.0.1:99999"}, "TARGETS"),
        ({"SYFTMESH_PROBE_TARGETS": ":80"}, "TARGETS"),
    ],
)
def test_wrong_setting_is_named(given, named, capsys):
    assert probing.main(given) == 2
    assert f"SETTING_INVALID: SYFTMESH_PROBE_{named}" in capsys.readouterr().out


def test_settings_are_read_as_the_chart_writes_them():
    given = {
        "SYFTMESH_PROBE_GRACE_S": "30",
        "SYFTMESH_PROBE_USER_NAMESPACE": "true",
        "SYFTMESH_PROBE_RUNTIME_CLASS": "",
        "SYFTMESH_PROBE_TARGETS": " 10.0.0.1:80, ",
    }
    assert Settings.of(given) == Settings(30.0, user_namespace=True, targets=("10.0.0.1:80",))
    assert Settings.of({}) == Settings()


def test_probe_needs_the_standard_library_alone():
    tree = ast.parse(Path(probing.__file__).read_text())
    names = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {
        (node.module or "").split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level
    }
    assert names <= sys.stdlib_module_names
