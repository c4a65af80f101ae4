"""Verbs of people and sites on profiles that lie on this disk, with a login and a node that are simulated."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from mesh.identity.v1 import identity_pb2, identity_service_pb2
from syftmesh.cli.diagnosis import (
    HubAnswer,
    Status,
    clock_finding,
    hub_findings,
    sites_finding,
    state_finding,
)
from syftmesh_client.account import create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.profile import ProfileStore
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import InvalidInput, Unauthenticated, Unavailable
from syftmesh_kit.testing import FakeClock

CAROL, DAVE = "carol@lab.example", "dave@lab.example"
SERVER = "http://127.0.0.1:8080"
PHRASE = tuple(f"word{number}" for number in range(24))
CLOCK = FakeClock(now_ms=1_767_225_600_000)


def _profile(state: Path, email: str) -> Path:
    state.mkdir(exist_ok=True, mode=0o700)
    folder = ProfileStore(state).save(email, SERVER).folder
    account = create_account(email, SystemClock())
    KeyStore.create(folder, device=account.device, own_root=account.root_public)
    return folder


@dataclass
class Login:
    """Takes the part of `syftmesh.login`."""

    created: bool = True
    asked: list[Any] = field(default_factory=list)
    error: Exception | None = None

    def __call__(self, server: str | None, **options: Any) -> Any:
        self.asked.append((server, options))
        out = options["recovery_out"]
        if self.created:
            out.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            out.write_text(" ".join(PHRASE))
        if self.error:
            raise self.error
        return SimpleNamespace(
            email=options["email"],
            server=server or SERVER,
            created=self.created,
            phrase=None,
        )


def test_login_shows_the_phrase_once_on_a_terminal_and_never_in_json(program: Any, tmp_path: Path) -> None:
    program.more["login"] = login = Login()
    done = program("login", "--email", CAROL, terminal=True)
    assert done.code == 0
    assert all(word in done.err for word in PHRASE)
    assert "word1" not in done.out
    assert login.asked[0][1]["recovery_out"].parent == program.state / "recovery"
    assert not (program.state / "recovery").exists()
    out = tmp_path / "phrase"
    done = program("login", "--email", CAROL, "--recovery-out", str(out), "--json", terminal=True)
    assert done.json == {"email": CAROL, "server": SERVER, "created": True}
    assert "word1" not in done.err
    assert str(out) in done.err


def test_login_without_a_terminal_keeps_the_phrase_in_the_state(program: Any) -> None:
    program.more["login"] = login = Login()
    done = program("login", "--email", CAROL, "--server", "http://h:1", "--token-file", "t")
    assert done.code == 0
    assert login.asked == [
        (
            "http://h:1",
            {
                "email": CAROL,
                "token_file": Path("t"),
                "recovery_out": program.state / "recovery" / f"{CAROL}.txt",
                "ca_file": None,
                "state": program.state,
            },
        )
    ]
    assert "word1" not in done.err + done.out
    assert (program.state / "recovery").stat().st_mode & 0o777 == 0o700


def test_a_login_that_is_cut_off_tells_where_the_phrase_is(program: Any) -> None:
    program.more["login"] = Login(error=Unavailable("The hub does not answer."))
    for name in (f"{CAROL}.txt", f"{CAROL}.2.txt"):
        done = program("login", "--email", CAROL, terminal=True)
        assert done.code == 6
        assert (program.state / "recovery" / name).read_text().split() == list(PHRASE)
        assert f"recovery/{name}" in done.err
        assert "word1" not in done.err


def test_login_again_tells_no_phrase(program: Any) -> None:
    program.more["login"] = Login(created=False)
    done = program("login", "--profile", CAROL)
    assert (done.code, done.err) == (0, "")


def test_login_needs_a_name_and_takes_the_only_profile(program: Any) -> None:
    program.more["login"] = login = Login(created=False)
    assert program("login").err.startswith("error: EMAIL_MISSING: ")
    _profile(program.state, CAROL)
    assert program("login").code == 0
    assert login.asked[0][1]["email"] == CAROL


def test_profiles_and_whoami(program: Any) -> None:
    assert program("whoami").err.startswith("error: PROFILE_MISSING: ")
    folder = _profile(program.state, CAROL)
    _profile(program.state, DAVE)
    items = program("profiles", "--json", "--profile", DAVE).json["items"]
    assert items == [
        {"email": CAROL, "server": SERVER, "current": False},
        {"email": DAVE, "server": SERVER, "current": True},
    ]
    assert program("whoami").err.startswith("error: PROFILE_AMBIGUOUS: ")
    found = program("whoami", "--profile", CAROL, "--json").json
    assert found == {
        "email": CAROL,
        "server": SERVER,
        "device_id": KeyStore.open(folder).device.device_id,
        "logged_in": False,
        "issuer": None,
        "administrator": None,
    }
    assert program("whoami", "--profile", "x").code == 2


@dataclass
class Session:
    error: Exception | None = None
    ended: int = 0
    requests: list[Any] = field(default_factory=list)

    @property
    def identity(self) -> Any:
        return self

    async def logout(self) -> None:
        if self.error:
            raise self.error
        self.ended += 1

    async def CreateJoinToken(self, request: Any) -> Any:  # noqa: N802 - name of the RPC
        self.requests.append(request)
        token = identity_pb2.JoinToken(token_id="t1", principal=request.principal, label=request.label)
        token.expires_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
        return identity_service_pb2.CreateJoinTokenResponse(join_token=token, secret="s3cret")

    async def WhoAmI(self, _request: Any) -> Any:  # noqa: N802 - name of the RPC
        if self.error:
            raise self.error
        return identity_service_pb2.WhoAmIResponse(principal=CAROL)


@pytest.fixture
def session(program: Any) -> Session:
    made = Session()

    @asynccontextmanager
    async def open_node(_folder: Path, server: str, **_options: Any) -> AsyncIterator[Any]:
        assert server == SERVER
        yield SimpleNamespace(principal=CAROL, session=made)

    program.more["open_node"] = open_node
    _profile(program.state, CAROL)
    return made


def test_logout_ends_the_login_and_says_when_the_hub_was_away(program: Any, session: Session) -> None:
    assert program("logout", "--json").json == {"email": CAROL, "server": SERVER, "hub_told": True}
    assert session.ended == 1
    tokens = program.state / "profiles" / CAROL / "tokens.json"
    tokens.write_text("{}")
    session.error = Unavailable("The hub does not answer.")
    done = program("logout", "--json")
    assert (done.code, done.json["hub_told"], tokens.exists()) == (0, False, False)
    session.error = Unauthenticated("Log in.", reason="NOT_LOGGED_IN")
    assert program("logout").code == 0


def test_a_join_token_is_shown_once_or_written_for_the_owner_alone(
    program: Any, session: Session, tmp_path: Path
) -> None:
    done = program("site", "token", "create", "--label", "runner", "--ttl", "2h", "--json")
    assert done.json == {
        "token_id": "t1",
        "email": CAROL,
        "label": "runner",
        "expires": "2026-01-02T00:00:00Z",
        "token": "s3cret",
    }
    assert session.requests[0].ttl_seconds == 7200
    out = tmp_path / "token"
    done = program("site", "token", "create", "--out", str(out))
    assert "s3cret" not in done.out + done.err
    assert (out.read_text(), out.stat().st_mode & 0o777) == ("s3cret\n", 0o600)


def test_site_ls_tells_which_programs_answer(program: Any) -> None:
    assert program("site", "ls").out == "There is no site on this machine.\n"
    (program.state / "sites" / CAROL / "agent").mkdir(parents=True)
    items = program("site", "ls", "--json").json["items"]
    assert items == [{"site": CAROL, "agent": False, "runner": False}]


def _doctor(program: Any, ask: Any) -> tuple[int, dict[str, dict[str, str]]]:
    program.more["ask_hub"] = ask
    done = program("doctor", "--json")
    return done.code, {item["check"]: item for item in done.json["items"]}


def test_doctor_is_content_with_a_mesh_that_is_well(program: Any, session: Session) -> None:
    from importlib.metadata import version

    answer = HubAnswer(version("syftmesh"), "Thu, 01 Jan 2026 00:00:00 GMT")
    code, found = _doctor(program, lambda _server: answer)
    assert {name: found[name]["status"] for name in ("state", "hub", "clock", "version", "login")} == {
        "state": "ok",
        "hub": "ok",
        "clock": "ok",
        "version": "ok",
        "login": "ok",
    }
    assert code == (1 if found["sandbox"]["status"] == "fail" else 0)


def test_doctor_names_what_fails_and_the_next_command(program: Any, session: Session, raising: Any) -> None:
    program.state.chmod(0o755)
    code, found = _doctor(program, raising(httpx.ConnectError("refused")))
    assert code == 1
    assert (found["state"]["status"], found["hub"]["status"]) == ("fail", "fail")
    assert found["state"]["next"] == f"chmod 700 {program.state}"
    assert found["hub"]["next"] == "syftmesh up"
    assert all(item["next"] for item in found.values() if item["status"] != "ok")
    session.error = Unauthenticated("The login has ended.", reason="REFRESH_INVALID")
    code, found = _doctor(program, lambda _server: HubAnswer("9", "Thu, 01 Jan 2026 00:02:00 GMT"))
    assert (found["clock"]["status"], found["version"]["status"], found["login"]["status"]) == (
        "fail",
        "warn",
        "fail",
    )
    assert "behind the hub" in found["clock"]["detail"]


@pytest.mark.parametrize(
    ("date", "status"),
    [
        ("Thu, 01 Jan 2026 00:00:05 GMT", Status.OK),
        ("Wed, 31 Dec 2025 23:59:50 GMT", Status.WARN),
        ("Thu, 01 Jan 2026 00:00:30 GMT", Status.WARN),
        ("Thu, 01 Jan 2026 01:00:00 GMT", Status.FAIL),
        ("", Status.WARN),
        ("yesterday", Status.WARN),
        ("Thu, 01 Jan 2026 00:00:00", Status.WARN),
    ],
)
def test_the_clock_is_compared_with_the_hub(date: str, status: Status) -> None:
    assert clock_finding(date, CLOCK).status is status


def test_what_is_no_hub_fails(raising: Any) -> None:
    found, answers = hub_findings(SERVER, raising(ValueError("not a hub")), CLOCK, "1")
    assert ([f.status for f in found], answers) == ([Status.FAIL], False)


def test_sites_and_state_that_are_not_there(tmp_path: Path) -> None:
    assert state_finding(tmp_path / "none").status is Status.WARN
    assert sites_finding({}) is None
    found = sites_finding({CAROL: {"agent": True, "runner": False}})
    assert found is not None
    assert (found.status, found.next) == (Status.WARN, f"syftmesh up --sites {CAROL}")


def test_wrong_emails_are_refused_before_anything_is_made(program: Any) -> None:
    program.more["login"] = Login()
    done = program("login", "--email", "../../etc")
    assert (done.code, done.err.split(":")[1]) == (InvalidInput.exit_code, " PRINCIPAL_INVALID")
    assert not (program.state / "recovery").exists()
