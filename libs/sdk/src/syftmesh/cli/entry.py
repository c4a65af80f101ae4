"""How a command makes its caller somebody: by what lies on this machine, else by what they bring."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from syftmesh_core.errors import InvalidInput, Unauthenticated
from syftmesh_core.principal import normalise_principal

from syftmesh.cli.frame import Frame
from syftmesh.cli.login_person import PersonEntry, log_in_person, needs_person


@dataclass(frozen=True, slots=True)
class Entry:
    """What somebody brings to a login.

    Attributes:
        token_file: A join token.
        ca_file: What proves the hub.
        recovery_out: Where the phrase of a new account goes.
        code_file: A code from an e-mail.
        provider: An OIDC provider of the hub.
    """

    token_file: Path | None = None
    ca_file: Path | None = None
    recovery_out: Path | None = None
    code_file: Path | None = None
    provider: str | None = None

    def of_person(self, email: str) -> PersonEntry:
        """Return what of it concerns a login in which a person takes part."""
        return PersonEntry(email, self.ca_file, self.code_file, self.provider)


def enter(frame: Frame, email: str | None, entry: Entry) -> Any:
    """Log in by `syftmesh.login`, see to the recovery phrase and return the LoginResult.

    Raises:
        InvalidInput: EMAIL_MISSING, PRINCIPAL_INVALID.
        MeshError: As `syftmesh.login` and `log_in_person`.
    """
    from syftmesh.cli.log import quiet_logs

    who = named_email(frame, email)
    quiet_logs(frame.surroundings.stderr, verbose=frame.verbose)
    # Always by way of a file: a login that is cut off after the keys were made must not take the phrase along.
    target = entry.recovery_out or _phrase_file(frame, who)
    before = target.exists()
    try:
        result = _log_in(frame, who, entry, target)
    except BaseException:
        if not before and target.exists():
            _note_phrase(frame, who, target)
        raise
    if result.created and entry.recovery_out is None and frame.can_ask and not frame.json:
        _show_phrase(frame, target)
    elif result.created:
        _note_phrase(frame, who, target)
    return result


def _log_in(frame: Frame, who: str, entry: Entry, phrase: Path) -> Any:
    """Log in by what lies on this machine, else by what the person brings."""

    def log_in(**person: Any) -> Any:
        return frame.log_in(
            frame.server,
            email=who,
            token_file=entry.token_file,
            recovery_out=phrase,
            ca_file=entry.ca_file,
            state=frame.state,
            **person,
        )

    try:
        return log_in()
    except Unauthenticated as error:
        if entry.token_file is not None or not needs_person(error):
            raise
        cause = error
    return log_in_person(frame, entry.of_person(who), log_in, cause)


def named_email(frame: Frame, email: str | None) -> str:
    """Return who a login is for: the e-mail given, the profile named, or the only profile.

    Raises:
        InvalidInput: EMAIL_MISSING, PRINCIPAL_INVALID.
    """
    named = email or frame.profile or _only_profile(frame)
    if named is None:
        raise InvalidInput(
            "Say who you are.", reason="EMAIL_MISSING", hint="syftmesh login --email you@example.org"
        )
    return normalise_principal(named)


def _only_profile(frame: Frame) -> str | None:
    from syftmesh_client.profile import ProfileStore

    found = ProfileStore(frame.state).list()
    return found[0].email if len(found) == 1 else None


def _phrase_file(frame: Frame, email: str) -> Path:
    folder = frame.state / "recovery"
    names = itertools.chain([f"{email}.txt"], (f"{email}.{number}.txt" for number in itertools.count(2)))
    return next(folder / name for name in names if not (folder / name).exists())


def _note_phrase(frame: Frame, email: str, place: Path) -> None:
    frame.note(f"The recovery phrase of {email} is in {place}: move it to a safe place off this machine.")


def _show_phrase(frame: Frame, place: Path) -> None:
    words = place.read_text("ascii").split()
    frame.note("Recovery phrase, shown once. Write it down and keep it off this machine:")
    for start in range(0, len(words), 6):
        numbered = (f"{at + 1:2}. {words[at]:<9}" for at in range(start, min(start + 6, len(words))))
        frame.note("  " + " ".join(numbered))
    place.unlink()
    with suppress(OSError):  # it holds the phrases of others
        place.parent.rmdir()
