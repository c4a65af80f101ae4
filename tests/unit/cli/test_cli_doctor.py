"""`doctor` in pods and against hubs elsewhere: each line on servers that are simulated."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from syftmesh.cli import cluster_diagnosis, hub_diagnosis, site_diagnosis
from syftmesh.cli.cluster_diagnosis import bus_space_finding, cluster_findings, durability_finding
from syftmesh.cli.diagnosis import Finding, HubAnswer, Status, ask_hub, state_finding
from syftmesh.cli.hub_diagnosis import certificate_finding, dns_finding, is_loopback, parts_finding
from syftmesh_client.profile import ProfileStore
from syftmesh_client.trust import HubTrust
from syftmesh_core.errors import IntegrityFailure, Unavailable
from syftmesh_kit.testing import FakeClock

HUB = "https://hub.example"
CLOCK = FakeClock(now_ms=1_767_225_600_000)  # 2026-01-01T00:00:00Z


def test_a_name_that_is_known_shows_its_addresses() -> None:
    found = dns_finding(HUB, lambda name: [f"{name}!", "10.0.0.1"])
    assert found == Finding("dns", Status.OK, "hub.example is hub.example!, 10.0.0.1")


def test_a_name_that_nobody_knows_fails(raising: Any) -> None:
    found = dns_finding(HUB, raising(OSError("no")))
    assert found is not None
    assert (found.status, found.next) == (Status.FAIL, "nslookup hub.example")


@pytest.mark.parametrize(
    "server", ["http://127.0.0.1:8080", "https://localhost:1", "https://[::1]:1", "http://[", ""]
)
def test_an_address_without_a_name_asks_no_resolver(server: str, raising: Any) -> None:
    assert dns_finding(server, raising(AssertionError())) is None


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://localhost", True),
        ("https://[::1]", True),
        (HUB, False),
        ("https://10.0.0.1", False),
        ("http://[", False),
    ],
)
def test_loopback_is_told_from_elsewhere(server: str, expected: object) -> None:
    assert is_loopback(server) is expected


def _shown(end: str) -> Callable[..., Mapping[str, Any]]:
    return lambda _host, _port, _context: {"notAfter": end}


@pytest.mark.parametrize(
    ("end", "status", "days"),
    [
        ("Mar  2 00:00:00 2026 GMT", Status.OK, 60),
        ("Jan 15 12:00:00 2026 GMT", Status.OK, 14),
        ("Jan 14 12:00:00 2026 GMT", Status.WARN, 13),
        ("Jan  1 12:00:00 2026 GMT", Status.WARN, 0),
    ],
)
def test_days_that_the_certificate_holds_are_told(end: str, status: Status, days: int) -> None:
    found = certificate_finding(HUB, HubTrust(), CLOCK, _shown(end))
    assert found is not None
    assert (found.status, bool(found.next)) == (status, status is Status.WARN)
    assert f"for {days} more days" in found.detail


def test_an_authority_that_ends_sooner_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = SimpleNamespace(get_ca_certs=lambda: [{"notAfter": "Jan  3 00:00:00 2026 GMT"}])
    monkeypatch.setattr(HubTrust, "context", lambda _self: authority)
    found = certificate_finding(HUB, HubTrust(b"pem"), CLOCK, _shown("Mar  2 00:00:00 2026 GMT"))
    assert found is not None
    assert (found.status, found.detail) == (Status.WARN, "proven by the authority given, for 2 more days")


@pytest.mark.parametrize(
    ("error", "words", "follow"),
    [
        (ssl.SSLCertVerificationError("self-signed"), "nobody whom this program trusts", "--ca-file"),
        (ssl.SSLError("WRONG_VERSION_NUMBER"), "speaks no TLS", "curl"),
    ],
)
def test_a_certificate_that_does_not_verify_fails(
    error: Exception, words: str, follow: str, raising: Any
) -> None:
    found = certificate_finding(HUB, HubTrust(), CLOCK, raising(error))
    assert found is not None
    assert found.status is Status.FAIL
    assert words in found.detail
    assert follow in found.next
    assert str(error.args[0]) not in found.detail


def test_without_tls_or_answer_there_is_no_certificate_to_tell_of(raising: Any) -> None:
    assert certificate_finding("http://hub.example", HubTrust(), CLOCK, raising(AssertionError())) is None
    assert certificate_finding(HUB, HubTrust(), CLOCK, raising(ConnectionRefusedError())) is None


def test_parts_that_do_not_serve_are_named() -> None:
    found = parts_finding(HUB, {"sync": False, "identity": True, "crypto": False})
    assert (found.status, found.detail, found.next) == (
        Status.FAIL,
        "Not serving: crypto, sync.",
        "kubectl get pods",
    )
    assert parts_finding("http://127.0.0.1:1", {"sync": False}).next == "syftmesh status"
    assert parts_finding(HUB, {"sync": True}) == Finding("parts", Status.OK, "sync serve")
    assert parts_finding(HUB, None).status is Status.WARN


@pytest.mark.parametrize(
    ("health", "parts"),
    [
        (httpx.Response(200, json={"parts": {"sync": "serving"}}), {"sync": True}),
        (httpx.Response(503, json={"parts": {"sync": "not_serving"}}), {"sync": False}),
        (httpx.Response(404, json={}), None),
        (httpx.Response(200, content=b"<html>"), None),
        (httpx.Response(200, json={"parts": 5}), None),
        (httpx.Response(200, json=[]), None),
    ],
    ids=range(6),
)
def test_the_hub_is_asked_for_itself_and_its_parts(
    health: httpx.Response, parts: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/healthz":
            return health
        return httpx.Response(200, json={"version": "7"}, headers={"date": "d"})

    real = httpx.Client
    monkeypatch.setattr(httpx, "Client", lambda **_: real(transport=httpx.MockTransport(handle)))
    assert ask_hub("http://127.0.0.1:8080/", HubTrust()) == HubAnswer("7", "d", parts)  # type: ignore[arg-type]


def _items(done: Any) -> dict[str, dict[str, str]]:
    return {item["check"]: item for item in done.json["items"]}


@pytest.fixture
def hub(program: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub elsewhere that is well; gives what was asked."""
    from importlib.metadata import version

    asked: list[str] = []

    def ask(server: str) -> HubAnswer:
        asked.append(server)
        return HubAnswer(version("syftmesh"), "Thu, 01 Jan 2026 00:00:00 GMT", {"identity": True})

    program.more["ask_hub"] = ask
    monkeypatch.setattr(hub_diagnosis, "dns_finding", lambda _server: Finding("dns", Status.OK, "known"))
    monkeypatch.setattr(hub_diagnosis, "certificate_finding", lambda *_: Finding("tls", Status.OK, "proven"))
    return asked


def test_without_a_profile_only_the_hub_that_is_named_is_looked_at(program: Any, hub: list[str]) -> None:
    done = program("doctor", "--server", HUB, "--json")
    assert done.code == 0
    assert list(_items(done)) == ["dns", "tls", "hub", "parts", "clock", "version"]
    assert {item["status"] for item in done.json["items"]} == {"ok"}
    assert not program.state.exists()


def test_nobody_is_asked_when_the_name_is_unknown_or_the_certificate_refused(
    program: Any, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Finding("tls", Status.FAIL, "The certificate has expired.", "renew")
    monkeypatch.setattr(hub_diagnosis, "certificate_finding", lambda *_: refused)
    done = program("doctor", "--server", HUB, "--json")
    assert (done.code, list(_items(done)), hub) == (1, ["dns", "tls"], [])


def test_the_certificates_named_are_those_that_count(
    program: Any, hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(
        hub_diagnosis, "certificate_finding", lambda _server, trust, _clock: seen.append(trust)
    )
    monkeypatch.setattr(HubTrust, "of_file", classmethod(lambda cls, path: cls(path.name.encode())))
    program("doctor", "--server", HUB, "--ca-file", "ca.pem")
    folder = ProfileStore(program.state).save("a@x.example", HUB).folder
    (folder / "hub-ca.pem").write_bytes(b"")
    program("doctor")
    assert [trust.pem for trust in seen] == [b"ca.pem", b"hub-ca.pem"]


def test_a_certificate_file_that_is_missing_is_an_error(program: Any, hub: list[str]) -> None:
    done = program("doctor", "--server", HUB, "--ca-file", "/nowhere/ca.pem")
    assert (done.code, done.err.split(":")[1]) == (4, " CA_FILE_MISSING")


def test_a_site_in_a_pod_shows_what_its_programs_say(
    program: Any, hub: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Path, Path, str]] = []

    def said(agent: Path, runner: Path, pod: str) -> list[Finding]:
        asked.append((agent, runner, pod))
        return [Finding("agent", Status.FAIL, "It is not connected.", "kubectl logs alice-0 -c agent")]

    monkeypatch.setattr(site_diagnosis, "pod_findings", said)
    program.environ |= {"SYFTMESH_SITE_SOCKETS": str(tmp_path), "HOSTNAME": "alice-0"}
    program.state.mkdir(mode=0o700)
    done = program("doctor", "--server", HUB, "--json", "--cluster")
    found = _items(done)
    assert asked == [(tmp_path / "agent.sock", tmp_path / "runner.sock", "alice-0")]
    assert (done.code, found["agent"]["status"]) == (1, "fail")
    assert "sandbox" not in found
    assert "cluster" not in found


def test_the_root_of_a_pods_volume_is_no_open_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_path.chmod(0o2775)
    assert state_finding(tmp_path).status is Status.FAIL
    real = tmp_path.stat()
    owned = SimpleNamespace(st_mode=real.st_mode, st_uid=0)
    monkeypatch.setattr(Path, "stat", lambda _self, **_: owned)
    assert state_finding(tmp_path, in_pod=True).status is Status.OK
    owned.st_uid = 65532
    assert state_finding(tmp_path, in_pod=True).status is Status.FAIL


def test_a_cluster_that_names_nothing_is_told_so(program: Any, hub: list[str]) -> None:
    done = program("doctor", "--server", HUB, "--cluster", "--json")
    assert (done.code, _items(done)["cluster"]["next"]) == (1, "helm test RELEASE")


def test_settings_that_are_wrong_are_named_and_never_shown() -> None:
    (found,) = cluster_findings(
        {"SYFTMESH_DOCTOR_TLS_CERT_FILE": "/x", "SYFTMESH_DOCTOR_NATS_PASSWORD": "s3cret"}, CLOCK
    )
    assert (found.status, found.check) == (Status.FAIL, "cluster")
    assert "s3cret" not in found.detail


@contextmanager
def _monitor(monkeypatch: pytest.MonkeyPatch, answer: object) -> Iterator[None]:
    real = httpx.AsyncClient

    def handle(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(200, content=json.dumps(answer))

    with monkeypatch.context() as patch:
        patch.setattr(httpx, "AsyncClient", lambda **_: real(transport=httpx.MockTransport(handle)))
        yield


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"jetstream": {"config": {"sync_always": True}}, "config": {"sync_always": True}}, Status.OK),
        ({"jetstream": {"config": {}}, "config": {}}, Status.FAIL),
        (httpx.ConnectError("no"), Status.FAIL),
    ],
    ids=range(3),
)
async def test_a_bus_that_does_not_sync_fails(
    answer: object, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _monitor(monkeypatch, answer):
        found = await durability_finding("http://nats:8222")
    assert (found.status, bool(found.next)) == (status, status is Status.FAIL)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"storage": 1 << 30, "config": {"max_storage": 10 << 30}}, Status.OK),
        ({"storage": 8 << 30, "config": {"max_storage": 10 << 30}}, Status.WARN),
        ({"storage": 96, "config": {"max_storage": 100}}, Status.FAIL),
        ({"storage": 0, "config": {"max_storage": 0}}, Status.OK),
        ({}, Status.FAIL),
        ({"storage": "much", "config": {}}, Status.FAIL),
        (httpx.ConnectError("no"), Status.FAIL),
    ],
    ids=range(7),
)
async def test_how_full_the_bus_is_is_told(
    answer: object, status: Status, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _monitor(monkeypatch, answer):
        found = await bus_space_finding("http://nats:8222")
    assert (found.status, bool(found.next)) == (status, status is not Status.OK)


@pytest.mark.parametrize(
    ("used", "limit", "said"),
    [
        (2048, 900_000_000, "2.0 KiB of 858.3 MiB used"),
        (3 << 30, 10 << 30, "3.0 GiB of 10.0 GiB used"),
        (7, -1, "7 B used"),
    ],
    ids=["small", "large", "without a limit"],
)
async def test_the_bus_is_told_in_units_of_its_size(
    used: int, limit: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _monitor(monkeypatch, {"storage": used, "config": {"max_storage": limit}}):
        assert (await bus_space_finding("http://nats:8222")).detail == said


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (IntegrityFailure("It does not keep 'range'.", reason="STORE_UNFIT"), "range"),
        (Unavailable("It does not answer.", reason="OBJECT_STORE_AWAY"), "answer"),
        (TimeoutError(), "too slow"),
    ],
    ids=range(3),
)
def test_a_store_that_does_not_keep_its_promises_fails(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(*_: object) -> list[str]:
        raise error

    monkeypatch.setattr(cluster_diagnosis, "storage_check", check)
    (found,) = cluster_findings({"SYFTMESH_DOCTOR_S3_ENDPOINT": "http://127.0.0.1:9"}, CLOCK)
    assert (found.check, found.status) == ("store", Status.FAIL)
    assert words in found.detail
    assert found.next.startswith("kubectl logs")


class Runner:
    """Stubs of a site's programs."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        async def call(_request: Any, **_options: Any) -> Any:
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def _pod(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> list[Finding]:
    runner = Runner(**answers)
    for module, name in (
        (site_diagnosis.agent_api, "AgentServiceStub"),
        (site_diagnosis.api, "AuditServiceStub"),
        (site_diagnosis.api, "JobServiceStub"),
    ):
        monkeypatch.setattr(module, name, lambda _channel: runner)
    return site_diagnosis.pod_findings(Path("/run/a"), Path("/run/r"), "alice-0")


def _check(name: str, *, passed: bool) -> Any:
    return SimpleNamespace(name=name, passed=passed, detail="seen")


GOOD = {
    "GetStatus": SimpleNamespace(connected=True, site="alice@x.example"),
    "GetTraffic": SimpleNamespace(),
    "ProbeIsolation": SimpleNamespace(
        passed=True, executor="kubernetes", checks=[_check("dns", passed=True)]
    ),
}


def test_a_site_that_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _pod(monkeypatch, **GOOD)
    assert [(f.check, f.status) for f in found] == [
        (name, Status.OK) for name in ("agent", "runner", "rights", "isolation")
    ]


def test_a_sandbox_of_this_machine_tells_of_no_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SimpleNamespace(passed=True, executor="sandbox", checks=[])
    assert "rights" not in [f.check for f in _pod(monkeypatch, **{**GOOD, "ProbeIsolation": probe})]


AWAY = Unavailable("No answer.", reason="SERVER_UNREACHABLE")


@pytest.mark.parametrize(
    ("answers", "check", "words", "follow"),
    [
        ({"GetStatus": AWAY}, "agent", "No answer", "kubectl logs alice-0 -c agent --tail=20"),
        (
            {"GetStatus": SimpleNamespace(connected=False)},
            "agent",
            "not connected",
            "kubectl logs alice-0 -c agent",
        ),
        ({"GetTraffic": AWAY}, "runner", "No answer", "kubectl logs alice-0 -c runner"),
        (
            {
                "ProbeIsolation": SimpleNamespace(
                    passed=False, executor="kubernetes", checks=[_check("dns", passed=False)]
                )
            },
            "isolation",
            "dns (seen)",
            "-c runner",
        ),
        (
            {"ProbeIsolation": SimpleNamespace(passed=False, executor="kubernetes", checks=[])},
            "isolation",
            "no check was made",
            "-c runner",
        ),
        (
            {"ProbeIsolation": Unavailable("It may not create jobs.", reason="CLUSTER_RIGHTS_MISSING")},
            "rights",
            "may not create",
            "-c runner",
        ),
        (
            {
                "ProbeIsolation": Unavailable(
                    "Not started.", reason="JOB_NOT_STARTED", hint="kubectl describe"
                )
            },
            "isolation",
            "Not started",
            "kubectl describe",
        ),
    ],
    ids=range(7),
)
def test_what_is_wrong_with_a_site_is_named(
    answers: dict[str, Any], check: str, words: str, follow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {f.check: f for f in _pod(monkeypatch, **{**GOOD, **answers})}
    assert found[check].status is Status.FAIL
    assert words in found[check].detail
    assert follow in found[check].next


def test_a_runner_that_is_away_is_not_asked_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [f.check for f in _pod(monkeypatch, **{**GOOD, "GetTraffic": AWAY})] == ["agent", "runner"]
