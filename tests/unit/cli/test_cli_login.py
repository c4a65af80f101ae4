"""Logins in which a person takes part: codes typed, from files and from stdin, providers, and what is said without."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh.connection import LoginResult, ProviderLogin
from syftmesh_client.account import create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.login_code import LoginMethods
from syftmesh_client.login_provider import ProviderPrompt
from syftmesh_client.profile import ProfileStore
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import (
    LimitExceeded,
    MeshError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)

CAROL = "carol@lab.example"
SERVER = "https://mesh.example"
CODE = "ABCD-EFGH"
PHRASE = " ".join(f"word{number}" for number in range(24))
PROMPT = ProviderPrompt("https://idp.example/device", "https://idp.example/device?c=WX", "WXYZ", 1)


@dataclass
class Hub:
    """A hub that sends codes and has providers; takes the part of `syftmesh.login` and of `syftmesh.login_way`."""

    code: str = CODE
    has_code: bool = True
    providers: tuple[str, ...] = ()
    reason: str = "NOT_LOGGED_IN"
    error: MeshError | None = None
    sent: list[dict[str, Any]] = field(default_factory=list)
    tried: list[dict[str, Any]] = field(default_factory=list)

    def login(self, server: str | None, **options: Any) -> LoginResult:
        person = {name: options.pop(name) for name in ("code", "provider") if name in options}
        self.tried.append({"server": server, **person})
        if not person:
            raise Unauthenticated("Nobody is logged in.", reason=self.reason, hint="syftmesh login")
        if self.error is not None:
            raise self.error
        if "provider" in person:
            person["provider"].show(PROMPT)
        elif person["code"] != self.code:
            raise Unauthenticated("The code is wrong.", reason="CODE_INVALID")
        # As in the real thing: nothing is made before the person is known.
        options["recovery_out"].parent.mkdir(parents=True, exist_ok=True)
        options["recovery_out"].write_text(PHRASE)
        return LoginResult(options["email"], SERVER, created=True)

    def request_code(self, server: str | None, **options: Any) -> str:
        self.sent.append({"server": server, **options})
        return SERVER

    def ways_in(self, _server: str | None, **_options: Any) -> LoginMethods:
        return LoginMethods(local=False, code=self.has_code, providers=self.providers, guests=False)


@pytest.fixture
def hub(program: Any) -> Hub:
    made = Hub()
    program.more["login"] = made.login
    program.more["before_login"] = {"request_code": made.request_code, "ways_in": made.ways_in}
    return made


ARGUMENTS = ("login", "--email", CAROL, "--server", SERVER)


def test_a_code_is_sent_and_asked_for_on_the_terminal(program: Any, hub: Hub) -> None:
    done = program(*ARGUMENTS, terminal=True, answer=f"  {CODE} \n")
    assert done.code == 0
    assert hub.sent == [{"server": SERVER, "state": program.state, "email": CAROL, "ca_file": None}]
    assert [tried.get("code") for tried in hub.tried] == [None, CODE]
    assert f"{SERVER} has sent a code to {CAROL}" in done.err
    assert "Code: " in done.err
    assert f"Logged in as {CAROL} at {SERVER} with a new account." in done.out


def test_wrong_codes_are_told_and_the_phrase_is_shown_after_the_right_one(program: Any, hub: Hub) -> None:
    done = program(*ARGUMENTS, terminal=True, answer=f"x\ny\n{CODE}\n")
    assert done.code == 0
    assert "4 tries left" in done.err
    assert "3 tries left" in done.err
    assert all(word in done.err for word in PHRASE.split())
    assert not (program.state / "recovery").exists()
    assert len(hub.sent) == 1


def test_json_tells_of_the_account_after_a_wrong_code(program: Any, hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "phrase"
    answer = f"x\n{CODE}\n"
    done = program(*ARGUMENTS, "--json", "--recovery-out", str(out), terminal=True, answer=answer)
    assert done.json == {"email": CAROL, "server": SERVER, "created": True}
    assert str(out) in done.err


def test_five_wrong_codes_are_the_end(program: Any, hub: Hub) -> None:
    done = program(*ARGUMENTS, terminal=True, answer="x\n" * 9)
    assert done.code == 3
    assert "error: CODE_INVALID: " in done.err
    assert f"hint: syftmesh login --email {CAROL}, which sends a new one" in done.err
    assert "recovery" not in done.err
    assert len(hub.tried) == 6


def test_other_refusals_end_the_questions_at_once(program: Any, hub: Hub) -> None:
    hub.error = LimitExceeded("Too many.", reason="TOO_MANY_TRIES")
    done = program(*ARGUMENTS, terminal=True, answer="x\n" * 9)
    assert (done.code, len(hub.tried)) == (6, 2)
    assert "error: TOO_MANY_TRIES: " in done.err


def test_nothing_typed_is_no_code(program: Any, hub: Hub) -> None:
    done = program(*ARGUMENTS, terminal=True, answer="")
    assert done.code == 130
    assert "error: DECLINED: " in done.err
    assert len(hub.tried) == 1


def test_without_a_terminal_no_code_is_sent_and_the_next_command_is_named(program: Any, hub: Hub) -> None:
    hub.providers = ("google",)
    done = program(*ARGUMENTS)
    assert done.code == 2
    assert "error: CODE_MISSING: " in done.err
    assert "--send-code" in done.err
    assert "--provider google" in done.err
    assert hub.sent == []


def test_a_script_has_the_code_sent_and_brings_it_in_a_file(program: Any, hub: Hub, tmp_path: Path) -> None:
    done = program(*ARGUMENTS, "--send-code", "--json")
    assert (done.code, done.json) == (0, {"email": CAROL, "server": SERVER})
    assert len(hub.sent) == 1
    assert hub.tried == []
    place = tmp_path / "code"
    place.write_text(f"{CODE}\n")
    place.chmod(0o600)
    assert program(*ARGUMENTS, "--code-file", str(place)).code == 0
    assert hub.tried[-1]["code"] == CODE
    assert len(hub.sent) == 1


def test_the_code_comes_on_stdin(program: Any, hub: Hub) -> None:
    assert program(*ARGUMENTS, "--code-file", "-", answer=f"{CODE}\n").code == 0
    assert hub.sent == []


def test_a_wrong_code_from_a_file_is_tried_once(program: Any, hub: Hub) -> None:
    done = program(*ARGUMENTS, "--code-file", "-", answer="wrong\nwrong\n")
    assert (done.code, len(hub.tried)) == (3, 2)
    assert "error: CODE_INVALID: " in done.err


def test_a_code_file_that_others_can_read_is_refused(program: Any, hub: Hub, tmp_path: Path) -> None:
    place = tmp_path / "code"
    place.write_text(CODE)
    place.chmod(0o644)
    done = program(*ARGUMENTS, "--code-file", str(place))
    assert done.err.startswith("error: FILE_NOT_PRIVATE: ")
    done = program(*ARGUMENTS, "--code-file", str(tmp_path / "none"))
    assert done.err.startswith("error: LOCAL_FILE_MISSING: ")
    assert len(hub.tried) == 2


def test_the_code_is_in_no_output(program: Any, hub: Hub) -> None:
    hub.error = Unavailable("away")
    for options, answer in ((("--code-file", "-"), CODE), ((), CODE)):
        done = program(*ARGUMENTS, *options, "-v", terminal=not options, answer=f"{answer}\n")
        assert CODE not in done.out + done.err


def test_the_only_provider_is_taken_and_told_what_to_do(program: Any, hub: Hub) -> None:
    hub.has_code, hub.providers = False, ("google",)
    done = program(*ARGUMENTS)
    assert done.code == 0
    login = hub.tried[-1]["provider"]
    assert isinstance(login, ProviderLogin)
    assert login.name == "google"
    for text in (PROMPT.verification_uri, PROMPT.verification_uri_complete, PROMPT.user_code):
        assert text in done.err
    assert "Confirm only if you started this login yourself.\n" in done.err
    assert done.out.startswith("Logged in as")


def test_several_providers_are_a_choice(program: Any, hub: Hub) -> None:
    hub.has_code, hub.providers = False, ("google", "corp")
    done = program(*ARGUMENTS, terminal=True)
    assert done.err.startswith("error: PROVIDER_AMBIGUOUS: ")
    assert "google, corp" in done.err
    assert program(*ARGUMENTS, "--provider", "corp").code == 0
    assert hub.tried[-1]["provider"].name == "corp"


def test_a_provider_that_was_named_comes_before_the_code(program: Any, hub: Hub) -> None:
    hub.providers = ("google",)
    assert program(*ARGUMENTS, "--provider", "google", terminal=True).code == 0
    assert hub.sent == []


def test_a_provider_that_knows_one_as_somebody_else_is_told(program: Any, hub: Hub) -> None:
    hub.error = WrongState("You are dave.", reason="PRINCIPAL_DIFFERS")
    done = program(*ARGUMENTS, "--provider", "google")
    assert done.code == 5
    assert "error: PRINCIPAL_DIFFERS: " in done.err


def test_a_hub_without_any_way_hints_at_a_join_token(program: Any, hub: Hub) -> None:
    hub.has_code = False
    done = program(*ARGUMENTS, terminal=True)
    assert done.code == 3
    assert done.err.startswith("error: NOT_LOGGED_IN: ")
    assert "--token-file" in done.err


@pytest.mark.parametrize("reason", ["REFRESH_INVALID", "REFRESH_REUSED"])
def test_a_login_that_has_ended_is_renewed_by_a_code(program: Any, hub: Hub, reason: str) -> None:
    hub.reason = reason
    assert program(*ARGUMENTS, terminal=True, answer=f"{CODE}\n").code == 0


@pytest.mark.parametrize("reason", ["JOIN_TOKEN_INVALID", "LOCAL_TOKEN_INVALID", "KEYSTORE_LOCKED"])
def test_other_failures_ask_nobody(program: Any, hub: Hub, reason: str) -> None:
    hub.reason = reason
    done = program(*ARGUMENTS, terminal=True, answer=f"{CODE}\n")
    assert done.err.startswith(f"error: {reason}: ")
    assert hub.sent == []


def test_a_join_token_that_does_not_let_in_asks_nobody(program: Any, hub: Hub) -> None:
    done = program(*ARGUMENTS, "--token-file", "t", terminal=True, answer=f"{CODE}\n")
    assert done.err.startswith("error: NOT_LOGGED_IN: ")


@pytest.mark.parametrize(
    "options",
    [
        ("--token-file", "t", "--code-file", "c"),
        ("--code-file", "c", "--provider", "p"),
        ("--send-code", "--code-file", "c"),
        ("--send-code", "--token-file", "t"),
    ],
)
def test_two_logins_at_once_are_none(program: Any, hub: Hub, options: tuple[str, ...]) -> None:
    done = program(*ARGUMENTS, *options)
    assert (done.code, hub.tried) == (2, [])
    assert done.err.startswith("error: USAGE: ")


def test_who_is_already_logged_in_is_asked_nothing(program: Any, hub: Hub) -> None:
    program.more["login"] = lambda _server, **options: LoginResult(options["email"], SERVER, created=False)
    assert program(*ARGUMENTS, terminal=True).err == ""
    assert hub.sent == []


@pytest.fixture
def me(program: Any) -> SimpleNamespace:
    """A profile with tokens, and a hub that says who it is."""
    made = SimpleNamespace(error=None)

    async def who_am_i(_request: Any, **_options: Any) -> Any:
        if made.error is not None:
            raise made.error
        return rpc.WhoAmIResponse(principal=CAROL, issuer=SERVER, administrator=True)

    @asynccontextmanager
    async def open_node(_folder: Path, _server: str, **_options: Any) -> AsyncIterator[Any]:
        identity = SimpleNamespace(WhoAmI=who_am_i)
        yield SimpleNamespace(principal=CAROL, session=SimpleNamespace(identity=identity))

    program.more["open_node"] = open_node
    program.state.mkdir(mode=0o700)
    folder = ProfileStore(program.state).save(CAROL, SERVER).folder
    account = create_account(CAROL, SystemClock())
    KeyStore.create(folder, device=account.device, own_root=account.root_public)
    (folder / "tokens.json").write_text("{}")
    return made


def test_whoami_shows_what_the_hub_says(program: Any, me: SimpleNamespace) -> None:
    found = program("whoami", "--json").json
    assert (found["email"], found["logged_in"]) == (CAROL, True)
    assert (found["issuer"], found["administrator"]) == (SERVER, True)


@pytest.mark.parametrize(
    "error",
    [Unavailable("The hub does not answer."), PermissionDenied("You are ended.", reason="PRINCIPAL_REVOKED")],
)
def test_whoami_works_without_the_hub_and_says_why(
    program: Any, me: SimpleNamespace, error: MeshError
) -> None:
    me.error = error
    done = program("whoami", "--json")
    assert (done.code, done.json["issuer"], done.json["administrator"]) == (0, None, None)
    assert error.message in done.err
    assert "administrator" not in program("whoami").out
