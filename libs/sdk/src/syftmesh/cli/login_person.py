"""Logins in which a person takes part: a code from an e-mail, typed or in a file, or a page of a provider."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from syftmesh_core.errors import InvalidInput, Unauthenticated, WrongState

from syftmesh.cli.frame import Frame
from syftmesh.cli.local import read_file

if TYPE_CHECKING:
    from syftmesh_client.login_code import LoginMethods
    from syftmesh_client.login_provider import ProviderPrompt

STDIN: Final = Path("-")
CODE_TRIES: Final = 5
_MAX_CODE_BYTES: Final = 64
_NEEDS_PERSON: Final = frozenset({"NOT_LOGGED_IN", "REFRESH_INVALID", "REFRESH_REUSED"})


@dataclass(frozen=True, slots=True)
class PersonEntry:
    """What a person chose.

    Attributes:
        email: Who.
        ca_file: What proves the hub.
        code_file: Where a code that came already stands.
        provider: The OIDC provider.
    """

    email: str
    ca_file: Path | None = None
    code_file: Path | None = None
    provider: str | None = None


def needs_person(error: Unauthenticated) -> bool:
    """Return whether a login failed because nothing on this machine lets anybody in."""
    return error.reason in _NEEDS_PERSON


def send_code(frame: Frame, entry: PersonEntry) -> str:
    """Have a code sent and return the hub's address; raises as `syftmesh.request_code`."""
    where: str = frame.at_hub("request_code", email=entry.email, ca_file=entry.ca_file)
    return where


def log_in_person(
    frame: Frame, entry: PersonEntry, log_in: Callable[..., Any], cause: Unauthenticated
) -> Any:
    """Log in by what the person brings and return what `log_in` returns.

    Args:
        frame: Terminal and hub.
        entry: What was chosen.
        log_in: Logs in with the arguments `code` or `provider`.
        cause: Why it cannot be done without a person.

    Raises:
        InvalidInput: There is no terminal to ask for the code at (CODE_MISSING), or several providers to choose
            from (PROVIDER_AMBIGUOUS).
        Cancelled: The input ended (DECLINED).
        MeshError: As `syftmesh.login`, and `cause` where the hub offers nothing that a person could do.
    """
    if entry.provider is not None:
        return _by_provider(frame, entry.provider, log_in)
    if entry.code_file is not None:
        return log_in(code=_code_in(frame, entry.code_file))
    ways: LoginMethods = frame.at_hub("ways_in", email=entry.email, ca_file=entry.ca_file)
    if ways.code:
        return _by_code(frame, entry, log_in, ways)
    if len(ways.providers) == 1:
        return _by_provider(frame, ways.providers[0], log_in)
    if ways.providers:
        raise InvalidInput(
            f"This hub has several providers: {', '.join(ways.providers)}. Choose one.",
            reason="PROVIDER_AMBIGUOUS",
            hint=f"syftmesh login --email {entry.email} --provider {ways.providers[0]}",
        )
    cause.hint = (
        f"Ask the hub's operator for a join token for {entry.email}, and give its file by --token-file."
    )
    raise cause


def _by_code(frame: Frame, entry: PersonEntry, log_in: Callable[..., Any], ways: LoginMethods) -> Any:
    if not frame.can_ask:
        other = f", or --provider {ways.providers[0]}" if ways.providers else ""
        raise InvalidInput(
            "This hub sends a code by e-mail, and there is no terminal to type it at.",
            reason="CODE_MISSING",
            hint=f"syftmesh login --email {entry.email} --send-code, then the same with --code-file FILE{other}",
        )
    where = send_code(frame, entry)
    frame.note(f"{where} has sent a code to {entry.email}. It holds for 10 minutes.")
    for left in reversed(range(CODE_TRIES)):
        try:
            return log_in(code=frame.ask("Code:"))
        except Unauthenticated as error:
            if error.reason != "CODE_INVALID":
                raise
            if not left:
                error.hint = f"syftmesh login --email {entry.email}, which sends a new one"
                raise
            frame.note(f"That is not the code. {left} {'try' if left == 1 else 'tries'} left.")
    raise AssertionError("the last try returns or raises")


def _by_provider(frame: Frame, provider: str, log_in: Callable[..., Any]) -> Any:
    def show(prompt: ProviderPrompt) -> None:
        frame.note(
            f"Open {prompt.verification_uri} in a browser, on any device, and type {prompt.user_code}."
        )
        if prompt.verification_uri_complete:
            frame.note(f"Or open {prompt.verification_uri_complete}")
        # Who is sent a code by somebody else, and confirms it, lets that one in as oneself (RFC 8628, section 5.4).
        frame.note("Confirm only if you started this login yourself.")
        frame.note("Waiting until you have confirmed; Ctrl-C gives up.")

    from syftmesh.connection import ProviderLogin

    return log_in(provider=ProviderLogin(provider, show))


def _code_in(frame: Frame, place: Path) -> str:
    """Return the code in a file of the owner alone, or in the first line of stdin."""
    if place == STDIN:
        return frame.surroundings.stdin.readline(_MAX_CODE_BYTES + 1).strip()
    data = read_file(place)
    if place.stat().st_mode & 0o077:
        raise WrongState(
            "The file with the code can be read by others.", reason="FILE_NOT_PRIVATE", hint="chmod 600 on it"
        )
    return data[: _MAX_CODE_BYTES + 1].decode("ascii", "replace").strip()
