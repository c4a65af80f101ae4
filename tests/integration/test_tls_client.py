"""Clients of a hub that is reached by TLS with a certificate of its own authority: people, a headless site."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import syftmesh
from grpc_health.v1 import health_pb2, health_pb2_grpc
from syftmesh.cli.cluster_diagnosis import cluster_findings
from syftmesh.cli.diagnosis import Status
from syftmesh_client.account import create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.traffic import Traffic
from syftmesh_client.trust import CA_FILE, HubTrust
from syftmesh_client.wellknown import discover
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import IntegrityFailure, MeshError, Unavailable
from syftmesh_flower.relay import fleet_relay
from syftmesh_flower.transfer import Headers, RuntimeLink
from syftmesh_kit.native import NatsAddress
from syftmesh_kit.s3 import S3Config
from syftmesh_kit.testing_authority import TestAuthority

sys.path.insert(0, str(Path(__file__).parent))
from tls_front import TlsFront

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ALICE, CAROL = "alice@hospital.example", "carol@lab.example"
KEPT = ("PATH", "HOME", "PYTHONPATH")


def _environment(**more: str) -> dict[str, str]:
    return {name: os.environ[name] for name in KEPT if name in os.environ} | more


@dataclass(frozen=True)
class Hub:
    """A mesh behind a TLS port, with the socket of its operator."""

    url: str
    front: TlsFront
    ca_file: Path
    admin_socket: Path

    def program(self, state: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "syftmesh.cli", *arguments],
            env=_environment(SYFTMESH_STATE=str(state), **more),
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def token(self, folder: Path, email: str) -> Path:
        """Return a file with a join token that the operator has made."""
        done = self.program(
            folder,
            *("site", "token", "create", "--email", email, "--quiet"),
            SYFTMESH_ADMIN_SOCKET=str(self.admin_socket),
        )
        assert done.returncode == 0, done.stderr
        file = folder / f"{email}.token"
        file.touch(mode=0o600)
        file.write_text(done.stdout)
        return file


@contextmanager
def process(log: Path, module: str, *arguments: str, **environ: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=_environment(**environ),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait(20)


def until(what: Any, log: Path, seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, log.read_text()[-4000:]
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority("hub authority")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, authority: TestAuthority) -> Iterator[Hub]:
    folder = tmp_path_factory.mktemp("hub")
    admin, log = folder / "admin.sock", folder / "mesh.log"
    (folder / "state").mkdir(mode=0o700)
    environ = {
        "SYFTMESH_IDENTITY_ADMIN_SOCKET": str(admin),
        "SYFTMESH_GATEWAY_ALLOWED_HOSTS": '["localhost"]',
    }
    ports = ("--http-port", "0", "--grpc-port", "0")
    with process(log, "syftmesh_standalone", "--state", str(folder / "state"), *ports, **environ):
        info = until(lambda: _info(folder / "state/hub/mesh.json"), log)
        known = asyncio.run(discover(info["server"]))
        identity = authority.issue(folder / "tls", "hub.example", addresses=())
        front = TlsFront(identity, info["server"].removeprefix("http://"), known.grpc_address)
        with front.serving() as url:
            yield Hub(url, front, identity.ca_file, admin)


def _info(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.exists() else None


def test_a_person_logs_in_with_a_token_and_trusts_the_hubs_authority_from_then_on(
    hub: Hub, tmp_path: Path
) -> None:
    token = hub.token(tmp_path, CAROL)
    hub.front.taken.clear()
    syftmesh.login(
        hub.url,
        email=CAROL,
        token_file=token,
        ca_file=hub.ca_file,
        state=tmp_path,
        recovery_out=tmp_path / "p",
    )
    assert (tmp_path / "profiles" / CAROL / CA_FILE).read_bytes().count(b"BEGIN") == 1
    with syftmesh.connect(profile=CAROL, state=tmp_path) as client:
        client.files.write(f"{CAROL}/private/note.txt", b"hello")
        assert client.files.read(f"{CAROL}/private/note.txt") == b"hello"
    assert {"h2", "http/1.1"} <= {*hub.front.taken, "http/1.1" if "" in hub.front.taken else ""}
    syftmesh.login(email=CAROL, state=tmp_path)  # the profile's certificates serve the next login


@pytest.mark.parametrize("known", [False, True])
def test_a_hub_that_does_not_prove_itself_gets_nothing_and_leaves_nothing(
    hub: Hub, tmp_path: Path, known: object
) -> None:
    other = TestAuthority("somebody else").issue(tmp_path / "other", "hub.example").ca_file
    done = hub.program(
        tmp_path / "state",
        *("login", "--email", CAROL, "--server", hub.url, "--token-file", str(tmp_path / "none")),
        *(("--ca-file", str(other)) if known else ()),
    )
    assert done.returncode == 7
    assert done.stderr.splitlines()[0].startswith("error: SERVER_UNTRUSTED: The certificate at ")
    assert "--ca-file" in done.stderr
    assert "SSL" not in done.stderr
    assert not (tmp_path / "state/profiles").exists()


def test_a_certificate_for_another_name_is_told_as_such(hub: Hub) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        asyncio.run(discover(f"https://127.0.0.1:{hub.front.port}", trust=HubTrust.of_file(hub.ca_file)))
    assert caught.value.reason == "SERVER_UNTRUSTED"
    assert "another" in caught.value.message


def test_services_behind_another_certificate_are_told_before_anything_is_sent(
    hub: Hub, tmp_path: Path, authority: TestAuthority
) -> None:
    strange = TlsFront(TestAuthority("else").issue(tmp_path / "s", "x.example"), "127.0.0.1:9", "127.0.0.1:9")
    with ExitStack() as stack:
        stack.enter_context(strange.serving())
        own = authority.issue(tmp_path / "own", "hub.example")
        document: dict[str, object] = {"grpc": f"localhost:{strange.port}"}
        front = TlsFront(own, "127.0.0.1:9", "127.0.0.1:9", document)
        url = stack.enter_context(front.serving())
        with pytest.raises(IntegrityFailure) as caught:
            syftmesh.login(
                url,
                email=CAROL,
                token_file=hub.token(tmp_path, CAROL),
                ca_file=hub.ca_file,
                recovery_out=tmp_path / "phrase",
                state=tmp_path / "state",
            )
    assert caught.value.reason == "SERVER_UNTRUSTED"
    assert strange.taken == []


def test_a_hub_that_lowers_its_guard_is_refused(tmp_path: Path, authority: TestAuthority) -> None:
    own = authority.issue(tmp_path, "hub.example")
    with TlsFront(own, "127.0.0.1:9", "127.0.0.1:9", {"grpc_tls": False}).serving() as url:
        with pytest.raises(IntegrityFailure) as caught:
            asyncio.run(discover(url, trust=HubTrust.of_file(own.ca_file)))
    assert caught.value.reason == "SERVER_DOWNGRADE"


async def test_objects_at_the_hub_are_fetched_by_its_trust_and_others_by_the_internets(hub: Hub) -> None:
    async with HubTrust.of_file(hub.ca_file).object_client(hub.url, timeout_s=10) as http:
        assert (await http.get("/healthz")).status_code == 200
    async with HubTrust().object_client(hub.url, timeout_s=10) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get("/healthz")


@pytest.mark.parametrize("trusted", [True, False])
async def test_flowers_ways_to_the_hub_go_by_the_same_trust(hub: Hub, trusted: object) -> None:
    async def access_token() -> str:
        return "none"

    trust = HubTrust.of_file(hub.ca_file) if trusted else HubTrust()
    async with (
        fleet_relay(hub.url, access_token, Traffic(), trust) as port,
        httpx.AsyncClient(trust_env=False) as client,
    ):
        answer = await client.post(f"http://127.0.0.1:{port}/v1/fleet/PullMessages", content=b"")
    assert (answer.status_code == 503) is not trusted
    link = RuntimeLink(hub.url.removeprefix("https://"), Headers("t"), tls_root=trust.pem, insecure=False)
    with pytest.raises(httpx.HTTPError) as caught:
        await asyncio.to_thread(link.nodes)
    assert isinstance(caught.value, httpx.HTTPStatusError) is trusted
    link.close()


@dataclass(frozen=True)
class Site:
    """A datasite as in a pod: its state on a volume, its sockets elsewhere."""

    hub: Hub
    state: Path
    sockets: Path

    def init(self, *more: str) -> subprocess.CompletedProcess[str]:
        base = ("site", "init", "--email", ALICE, "--server", self.hub.url, "--json", "--wait", "20")
        return self.hub.program(self.state, *base, *more)

    @contextmanager
    def running(self) -> Iterator[Path]:
        """Run agent and runner; give the file of their log."""
        log = self.state.parent / "site.log"
        base = self.state / "sites" / ALICE
        ports = [_free_port(), _free_port()]
        agent = {
            "FOLDER": str(base / "agent"),
            "HUB_URL": self.hub.url,
            "LISTEN": f"unix:{self.sockets / 'agent.sock'}",
            "RUNNER_SOCKET": str(self.sockets / "runner.sock"),
            "JOIN_TOKEN_FILE": str(base / "agent/join.token"),
            "HEALTH_LISTEN": f"127.0.0.1:{ports[0]}",
        }
        runner = {
            "STATE_DIR": str(base / "runner"),
            "SERVER_URL": self.hub.url,
            "LOCAL_DIR": str(self.sockets),
            "JOIN_TOKEN_FILE": str(base / "runner/join.token"),
            "HEALTH_LISTEN": f"127.0.0.1:{ports[1]}",
        }
        with ExitStack() as stack:
            for name, settings in (("AGENT", agent), ("RUNNER", runner)):
                environ = {f"SYFTMESH_{name}_{key}": value for key, value in settings.items()}
                stack.enter_context(process(log, f"syftmesh_{name.lower()}", **environ))
            for port in ports:
                until(lambda port=port: _is_serving(port), log)
            yield log


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_serving(port: int) -> bool:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@pytest.fixture(scope="module")
def site(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("site")
    sockets = folder / "run"
    sockets.mkdir()
    sockets.chmod(0o2777)
    return Site(hub, folder / "state", sockets)


def test_a_site_is_made_headless_by_one_token_and_serves(
    site: Site, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = hub.token(tmp_path, ALICE)
    first = site.init("--token-file", str(token), "--ca-file", str(hub.ca_file))
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["invited"] == ["agent", "runner"]
    phrase = site.state / "recovery" / f"{ALICE}.txt"
    assert (len(phrase.read_text().split()), phrase.stat().st_mode & 0o777) == (24, 0o600)
    for name in ("agent/hub-ca.pem", "agent/join.token", "runner/keys/hub-ca.pem", "runner/join.token"):
        assert (site.state / "sites" / ALICE / name).stat().st_mode & 0o777 == 0o600
    with site.running():
        monkeypatch.setenv("SYFTMESH_SITE_SOCKETS", str(site.sockets))
        with syftmesh.connect(profile=ALICE, state=site.state) as client:
            assert client.site.status().connected
            assert list(client.site.jobs.list()) == []
        told = site.hub.program(
            site.state, "doctor", "--json", "--profile", ALICE, SYFTMESH_SITE_SOCKETS=str(site.sockets)
        )
        found = {item["check"]: item["status"] for item in json.loads(told.stdout)["items"]}
        assert {found[name] for name in ("state", "hub", "parts", "login", "agent", "runner")} == {"ok"}
        assert found["isolation"] in {"ok", "fail"}  # as this machine lets its sandbox be
        assert (site.sockets / "runner.sock").stat().st_mode & 0o777 == 0o600
        again = site.init("--token-file", str(tmp_path / "gone"))
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["invited"] == []
        assert not (site.state / "sites" / ALICE / "agent/join.token").exists()
    with site.running():  # with the tokens that they hold now
        pass


def test_a_token_that_was_used_or_is_for_another_ends_with_one_clear_line(hub: Hub, tmp_path: Path) -> None:
    token = hub.token(tmp_path, "dave@lab.example")
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("smj1.a.b.c")
    joined = Site(hub, tmp_path / "dave", tmp_path)
    assert (
        hub.program(
            joined.state,
            *("login", "--email", "dave@lab.example", "--server", hub.url, "--token-file", str(token)),
            *("--ca-file", str(hub.ca_file)),
        ).returncode
        == 0
    )
    other = hub.token(tmp_path, "erin@lab.example")
    for number, file in enumerate((token, wrong, other)):
        site = Site(hub, tmp_path / f"s{number}", tmp_path)
        done = site.init("--token-file", str(file), "--ca-file", str(hub.ca_file))
        assert done.returncode == 3
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1
        assert lines[0].startswith("error: JOIN_TOKEN_INVALID: ")
        assert "Ask the hub's operator" in done.stderr
    missing = Site(hub, tmp_path / "s9", tmp_path).init(
        "--token-file", str(tmp_path / "none"), "--ca-file", str(hub.ca_file)
    )
    assert (missing.returncode, "JOIN_TOKEN_MISSING" in missing.stderr) == (4, True)


def test_operators_see_and_take_back_what_they_made_and_nobody_logs_in_by_the_socket(
    hub: Hub, tmp_path: Path
) -> None:
    environ = {"SYFTMESH_ADMIN_SOCKET": str(hub.admin_socket)}
    token = hub.token(tmp_path, "frank@lab.example")
    listed = json.loads(hub.program(tmp_path, "site", "token", "ls", "--json", **environ).stdout)["items"]
    (found,) = [item for item in listed if item["email"] == "frank@lab.example"]
    assert (found["label"], found["state"]) == ("profile", "open")
    done = hub.program(tmp_path, "site", "token", "revoke", found["token_id"], **environ)
    assert done.returncode == 0, done.stderr
    with pytest.raises(MeshError) as caught:
        syftmesh.login(
            hub.url,
            email="frank@lab.example",
            token_file=token,
            ca_file=hub.ca_file,
            recovery_out=tmp_path / "phrase",
            state=tmp_path / "state",
        )
    assert caught.value.reason == "JOIN_TOKEN_INVALID"


def test_doctor_tells_what_is_wrong_with_a_hub_that_nobody_here_knows(hub: Hub, tmp_path: Path) -> None:
    named = ("doctor", "--json", "--server", hub.url)
    good = hub.program(tmp_path / "none", *named, "--ca-file", str(hub.ca_file))
    found = {item["check"]: item for item in json.loads(good.stdout)["items"]}
    assert list(found) == ["tls", "hub", "parts", "clock", "version"]
    assert {found[name]["status"] for name in ("tls", "hub", "parts")} == {"ok", "warn"}  # holds for a day
    assert "0 more days" in found["tls"]["detail"]
    bad = hub.program(tmp_path / "none", *named)
    (item,) = json.loads(bad.stdout)["items"]
    assert (bad.returncode, item["check"], item["status"]) == (1, "tls", "fail")
    assert "--ca-file" in item["next"]


async def test_doctor_asks_bus_and_store_themselves(nats_url: NatsAddress, s3: S3Config) -> None:
    environ = {
        "NATS_MONITOR": nats_url.monitor_url,
        "NATS_URL": nats_url.url,
        "NATS_USER": nats_url.user,
        "NATS_PASSWORD": nats_url.password,
        "S3_ENDPOINT": s3.endpoint,
        "S3_ACCESS_KEY": s3.access_key,
        "S3_SECRET_KEY": s3.secret_key,
        "S3_BUCKET": s3.bucket,
    }

    async def told(**other: str) -> dict[str, str]:
        given = {f"SYFTMESH_DOCTOR_{name}": value for name, value in (environ | other).items()}
        found = await asyncio.to_thread(cluster_findings, given, SystemClock())
        assert all(f.next for f in found if f.status is not Status.OK)
        return {f.check: f.status.value for f in found}

    checks = ["bus disk", "bus space", "bus", "store"]
    assert await told() == dict.fromkeys(checks, "ok")
    wrong = await told(
        NATS_MONITOR="http://127.0.0.1:9",
        NATS_PASSWORD="wrong",
        S3_ENDPOINT=f"http://127.0.0.1:{_free_port()}",
    )
    assert wrong == dict.fromkeys(checks, "fail")


def test_a_runner_waits_for_a_hub_that_is_away_and_says_so(tmp_path: Path) -> None:
    log = tmp_path / "runner.log"
    account = create_account(ALICE, SystemClock())
    KeyStore.create(tmp_path / "runner/keys", device=account.device, own_root=account.root_public)
    port = _free_port()
    with process(
        log,
        "syftmesh_runner",
        SYFTMESH_RUNNER_STATE_DIR=str(tmp_path / "runner"),
        SYFTMESH_RUNNER_SERVER_URL=f"https://localhost:{_free_port()}",
        SYFTMESH_RUNNER_HEALTH_LISTEN=f"127.0.0.1:{port}",
    ) as child:
        until(lambda: "runner.waiting" in log.read_text(), log)
        assert child.poll() is None
        assert "SERVER_UNREACHABLE" in log.read_text()
        assert not _is_serving(port)


def test_a_hub_that_is_away_is_waited_for_in_vain_with_an_error(hub: Hub, tmp_path: Path) -> None:
    away = Hub(f"https://localhost:{_free_port()}", hub.front, hub.ca_file, hub.admin_socket)
    done = away.program(
        tmp_path,
        *(
            "site",
            "init",
            "--email",
            ALICE,
            "--server",
            away.url,
            "--ca-file",
            str(hub.ca_file),
            "--wait",
            "3",
        ),
    )
    assert done.returncode == Unavailable.exit_code
    assert "error: SERVER_UNREACHABLE: " in done.stderr
