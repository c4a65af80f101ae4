"""`site init` on a laptop and headless in a pod, and join tokens by the owner and by the hub's operator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.identity.v1 import identity_pb2, identity_service_pb2
from syftmesh.cli import site_making
from syftmesh.cli.site_making import wait_s
from syftmesh.site_socket import SiteSockets
from syftmesh_client import site, site_join, volume
from syftmesh_client.profile import HUB_FOLDER, LOCAL_TOKEN_FILE, ProfileStore
from syftmesh_client.site import SiteFolders
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound, Unauthenticated, Unavailable
from syftmesh_kit.testing import FakeClock

ALICE = "alice@hospital.example"
HUB = "https://hub.example"


@dataclass
class World:
    """A hub that answers as it is told, and what was done at it."""

    program: Any
    clock: FakeClock
    login_errors: list[Exception] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    invited: list[str] = field(default_factory=lambda: ["agent", "runner"])
    provision_errors: list[Exception] = field(default_factory=list)
    rounds: int = 0

    def log_in(self, server: str | None, **options: Any) -> Any:
        self.asked.append((server, options))
        if self.login_errors:
            raise self.login_errors.pop(0)
        self.program.state.mkdir(exist_ok=True, mode=0o700)
        ProfileStore(self.program.state).save(options["email"], server or HUB)
        return SimpleNamespace(email=options["email"], server=server or HUB, created=False)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.advance(seconds)


@pytest.fixture
def world(program: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    clock = FakeClock()
    made = World(program, clock)

    @asynccontextmanager
    async def open_node(_folder: Path, _server: str, **_options: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace()

    async def provision(_node: Any, folders: SiteFolders) -> None:
        made.rounds += 1
        if made.provision_errors:
            raise made.provision_errors.pop(0)
        folders.agent.mkdir(parents=True, exist_ok=True)
        (folders.agent.parent / "site.json").write_bytes(b"{}")

    async def invite(_node: Any, _folders: SiteFolders) -> list[str]:
        return made.invited

    monkeypatch.setattr(site, "provision_site", provision)
    monkeypatch.setattr(site_join, "invite_programs", invite)
    program.more |= {"login": made.log_in, "open_node": open_node, "sleep": made.sleep}
    program.clock = clock
    return made


def _init(program: Any, *more: str) -> Any:
    return program("site", "init", "--email", ALICE, "--server", HUB, "--json", *more)


def test_a_site_elsewhere_is_made_with_token_and_certificate_and_invites_its_programs(
    program: Any, world: World
) -> None:
    done = _init(program, "--token-file", "t", "--ca-file", "ca.pem")
    assert done.code == 0
    assert done.json == {
        "site": ALICE,
        "server": HUB,
        "created": True,
        "account_created": False,
        "invited": ["agent", "runner"],
        "is_local": False,
    }
    options = world.asked[0][1]
    assert (options["token_file"], options["ca_file"]) == (Path("t"), Path("ca.pem"))
    assert (program.state / "incoming").stat().st_mode & 0o777 == 0o700
    assert "syftmesh up" not in done.err


def test_a_second_run_says_that_the_site_is_there(program: Any, world: World) -> None:
    _init(program)
    world.invited = []
    done = _init(program)
    assert (done.json["created"], done.json["invited"]) == (False, [])
    assert "syftmesh up" not in done.err


def test_a_site_beside_its_mesh_needs_no_invitation(program: Any, world: World) -> None:
    server = "http://127.0.0.1:8080"
    (program.state / HUB_FOLDER).mkdir(parents=True)
    (program.state / HUB_FOLDER / LOCAL_TOKEN_FILE).write_text("t")
    done = program("site", "init", "--email", ALICE, "--server", server, "--json")
    assert done.json["invited"] == []
    assert not (program.state / "incoming").exists()
    assert f"next: syftmesh up --sites {ALICE}" in done.err


AWAY = Unavailable("The hub does not answer.", reason="SERVER_UNREACHABLE")


def test_a_hub_that_is_away_is_waited_for_and_said_once(program: Any, world: World) -> None:
    world.login_errors = [AWAY, AWAY]
    world.provision_errors = [Unavailable("No store.", reason="OBJECT_STORE_AWAY")]
    done = _init(program, "--wait", "60")
    assert (done.code, len(world.slept), world.rounds) == (0, 3, 2)
    assert done.err.count("waiting: The hub does not answer.") == 1


@pytest.mark.parametrize(("wait", "tries"), [("0", 1), ("5s", 3), ("1", 1)])
def test_a_hub_that_stays_away_is_an_error_after_the_time_given(
    program: Any, world: World, wait: str, tries: int
) -> None:
    world.login_errors = [AWAY] * 100
    done = _init(program, "--wait", wait)
    assert (done.code, len(world.asked)) == (6, tries)
    assert done.err.splitlines()[-1].startswith("error: SERVER_UNREACHABLE: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unauthenticated("used", reason="JOIN_TOKEN_INVALID", hint="Ask the hub's operator."), 3),
        (IntegrityFailure("no", reason="SERVER_UNTRUSTED"), 7),
        (Unavailable("disk", reason="KEYSTORE_UNWRITABLE"), 6),
    ],
)
def test_what_waiting_does_not_mend_ends_at_once_with_one_line(
    program: Any, world: World, error: Any, code: int
) -> None:
    world.login_errors = [error]
    done = _init(program, "--wait", "60")
    assert (done.code, world.slept) == (code, [])
    assert done.err.splitlines()[0].startswith(f"error: {error.reason}: ")
    assert done.out == ""


def test_the_modes_of_a_pods_volume_are_mended_first(
    program: Any, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, int]] = []

    def tighten(state: Path) -> bool:
        seen.append((state, len(world.asked)))
        return True

    monkeypatch.setattr(volume, "tighten_volume", tighten)
    assert "owner's alone" in _init(program, "-v").err
    assert seen == [(program.state, 0)]


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("90", 90.0), ("2m", 120.0), ("500ms", 0.5)])
def test_waiting_is_a_duration_or_plain_seconds(text: str, seconds: float) -> None:
    assert wait_s(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1e3", "soon", "٣", "9999999999"])
def test_what_is_no_time_to_wait_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        wait_s(text)


def test_only_reasons_of_the_hub_are_waited_for() -> None:
    assert "KEYSTORE_UNWRITABLE" not in site_making._AWAY
    assert "SERVER_UNREACHABLE" in site_making._AWAY


@dataclass
class Identity:
    """The identity service's side of join tokens."""

    requests: list[Any] = field(default_factory=list)
    pages: list[list[str]] = field(default_factory=lambda: [["t1", "t2"], ["t3"]])

    async def CreateJoinToken(self, request: Any) -> Any:  # noqa: N802 - name of the RPC
        self.requests.append(request)
        token = self._token("t1", request.principal, request.label)
        return identity_service_pb2.CreateJoinTokenResponse(join_token=token, secret="s3cret")

    async def ListJoinTokens(self, request: Any) -> Any:  # noqa: N802 - name of the RPC
        page = int(request.page_token or 0)
        following = str(page + 1) if page + 1 < len(self.pages) else ""
        return identity_service_pb2.ListJoinTokensResponse(
            join_tokens=[self._token(name, ALICE, "agent") for name in self.pages[page]],
            next_page_token=following,
        )

    async def RevokeJoinToken(self, request: Any) -> Any:  # noqa: N802 - name of the RPC
        if request.token_id != "t1":
            raise NotFound("You made no such token.", reason="JOIN_TOKEN_UNKNOWN")
        self.requests.append(request)
        return identity_service_pb2.RevokeJoinTokenResponse()

    def _token(self, name: str, principal: str, label: str) -> identity_pb2.JoinToken:
        token = identity_pb2.JoinToken(token_id=name, principal=principal, label=label, state=1)
        token.expires_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
        return token


@pytest.fixture
def identity(program: Any) -> Identity:
    made = Identity()

    @asynccontextmanager
    async def open_node(_folder: Path, _server: str, **_options: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(principal=ALICE, session=SimpleNamespace(identity=made))

    program.more["open_node"] = open_node
    program.state.mkdir(mode=0o700)
    ProfileStore(program.state).save(ALICE, HUB)
    return made


@pytest.mark.parametrize("way", [("--quiet",), ("-q",), ("--out", "-")])
def test_the_token_alone_goes_to_stdout(program: Any, identity: Identity, way: tuple[str, ...]) -> None:
    done = program("site", "token", "create", *way)
    assert (done.code, done.out, done.err) == (0, "s3cret\n", "")
    assert (identity.requests[0].principal, identity.requests[0].label) == (ALICE, "agent")


def test_tokens_are_listed_over_all_pages_and_never_shown(program: Any, identity: Identity) -> None:
    items = program("site", "token", "ls", "--json").json["items"]
    assert [item["token_id"] for item in items] == ["t1", "t2", "t3"]
    assert items[0] == {
        "token_id": "t1",
        "email": ALICE,
        "label": "agent",
        "state": "open",
        "expires": "2026-01-02T00:00:00Z",
    }
    identity.pages = [[]]
    assert program("site", "token", "ls").out == "There are no join tokens.\n"


def test_a_token_is_taken_back(program: Any, identity: Identity) -> None:
    assert program("site", "token", "revoke", "t1", "--json").json == {"token_id": "t1"}
    done = program("site", "token", "revoke", "t9")
    assert (done.code, done.err.splitlines()[0]) == (4, "error: JOIN_TOKEN_UNKNOWN: You made no such token.")


def test_an_operator_says_for_whom(program: Any) -> None:
    program.environ["SYFTMESH_ADMIN_SOCKET"] = str(program.state / "admin.sock")
    done = program("site", "token", "create")
    assert (done.code, done.err.splitlines()[0]) == (2, "error: EMAIL_MISSING: Say for whom the token is.")
    assert program("site", "token", "create", "--email", "../x").err.startswith("error: PRINCIPAL_INVALID: ")


def test_a_token_is_for_an_email_or_for_a_domain(program: Any, identity: Identity) -> None:
    both = program("site", "token", "create", "--email", ALICE, "--domain", "x.example")
    assert (both.code, both.err.splitlines()[0].split(": ")[1]) == (2, "DOMAIN_INVALID")
    assert program("site", "token", "create", "--domain", "x.example", "-q").code == 0
    assert (identity.requests[-1].principal, identity.requests[-1].domain) == ("", "x.example")


def test_sockets_of_a_pod_lie_where_the_environment_says(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    (program.state / "sites" / ALICE / "agent").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(tmp_path / "agent.sock"))
        server.listen()
        program.environ["SYFTMESH_SITE_SOCKETS"] = str(tmp_path)
        items = program("site", "ls", "--json").json["items"]
        monkeypatch.setenv("SYFTMESH_SITE_SOCKETS", str(tmp_path))
        sockets = SiteSockets(SiteFolders.of(program.state, ALICE), ALICE)
        with pytest.raises(NotFound) as caught:
            _ = sockets.jobs
    assert items == [{"site": ALICE, "agent": True, "runner": False}]
    assert (caught.value.reason, caught.value.hint) == ("SITE_NOT_RUNNING", "syftmesh doctor")
