"""Profiles of the people who use this machine: one folder each, with keys, tokens and the hub's address."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from syftmesh_core.errors import InvalidInput, MeshError, NotFound, WrongState
from syftmesh_core.principal import normalise_principal
from syftmesh_kit.private_file import replace_private

from syftmesh_client.node import NodeLogin
from syftmesh_client.trust import CA_FILE, HubTrust

STATE_VARIABLE: Final = "SYFTMESH_STATE"
PROFILE_VARIABLE: Final = "SYFTMESH_PROFILE"
PROFILE_FILE: Final = "profile.json"
HUB_FOLDER: Final = "hub"
MESH_FILE: Final = "mesh.json"
LOCAL_TOKEN_FILE: Final = "local.token"  # noqa: S105 - the name of a file
_LAST_FILE: Final = "last"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_LOGIN_HINT: Final = "syftmesh login --email you@example.org"


def default_state() -> Path:
    """Return the state folder: ``SYFTMESH_STATE``, else ``.syftmesh`` in the home folder."""
    named = os.environ.get(STATE_VARIABLE)
    return Path(named) if named else Path.home() / ".syftmesh"


@dataclass(frozen=True, slots=True)
class Profile:
    """One person at one hub.

    Attributes:
        email: Who.
        server: The hub's address, ``http(s)://host[:port]``.
        folder: Private folder of keys and tokens.
    """

    email: str
    server: str
    folder: Path


class ProfileStore:
    """The profiles below a state folder.

    Args:
        state: See `default_state`.
    """

    def __init__(self, state: Path) -> None:
        self._folder = state / "profiles"

    def list(self) -> list[Profile]:
        """Return all profiles by e-mail; folders that hold none are left out."""
        if not self._folder.is_dir():
            return []
        found = [self._read(entry.name) for entry in sorted(self._folder.iterdir()) if entry.is_dir()]
        return [profile for profile in found if profile is not None]

    def find(self, email: str) -> Profile | None:
        """Return the profile of `email`, None without one.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            WrongState: PROFILE_DAMAGED.
        """
        return self._read(normalise_principal(email), strict=True)

    def choose(self, email: str | None) -> Profile:
        """Return the profile of `email`, or of ``SYFTMESH_PROFILE``, or the only one, or the one used last.

        Raises:
            NotFound: PROFILE_UNKNOWN for a name without a profile, PROFILE_MISSING when there is none at all.
            InvalidInput: PRINCIPAL_INVALID; PROFILE_AMBIGUOUS when there are several and none was used yet.
            WrongState: PROFILE_DAMAGED.
        """
        named = email or os.environ.get(PROFILE_VARIABLE)
        if named:
            found = self.find(named)
            if found is None:
                raise NotFound(
                    f"There is no profile {normalise_principal(named)} on this machine.",
                    reason="PROFILE_UNKNOWN",
                    metadata={"profile": normalise_principal(named)},
                    hint=f"syftmesh login --email {normalise_principal(named)}",
                )
            return found
        profiles = self.list()
        if not profiles:
            raise NotFound(
                "Nobody has logged in on this machine.", reason="PROFILE_MISSING", hint=_LOGIN_HINT
            )
        last = self._last()
        for profile in profiles:
            if len(profiles) == 1 or profile.email == last:
                return profile
        names = ", ".join(profile.email for profile in profiles)
        raise InvalidInput(
            f"There are several profiles: {names}. Say which one.",
            reason="PROFILE_AMBIGUOUS",
            metadata={"profiles": names},
            hint=f"--profile {profiles[0].email}",
        )

    def save(self, email: str, server: str) -> Profile:
        """Make or change the profile of `email` and return it.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            WrongState: STATE_UNUSABLE when the folder cannot be written.
        """
        name = normalise_principal(email)
        folder = self._folder / name
        try:
            for place in (self._folder.parent, self._folder, folder):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
            replace_private(folder / PROFILE_FILE, json.dumps({"server": server}).encode())
        except OSError as error:
            raise _unusable() from error
        return Profile(name, server, folder)

    def note_used(self, profile: Profile) -> None:
        """Remember `profile` as the one used last."""
        try:
            replace_private(self._folder / _LAST_FILE, profile.email.encode())
        except OSError as error:
            raise _unusable() from error

    def _read(self, email: str, *, strict: bool = False) -> Profile | None:
        folder = self._folder / email
        try:
            server = json.loads((folder / PROFILE_FILE).read_bytes())["server"]
            if normalise_principal(email) != email or not isinstance(server, str):
                raise ValueError
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, MeshError) as error:
            if not strict:
                return None
            raise WrongState(
                f"The profile {email} cannot be read.",
                reason="PROFILE_DAMAGED",
                metadata={"profile": email},
                hint=f"syftmesh login --email {email}",
            ) from error
        return Profile(email, server, folder)

    def _last(self) -> str | None:
        try:
            return (self._folder / _LAST_FILE).read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return None


def node_login(
    state: Path, server: str, *, label: str = "profile", join_token_file: Path | None = None
) -> NodeLogin:
    """Return how a device on this machine logs in at `server`.

    The local token of an embedded mesh lets whoever knows it log in as anybody, so it is offered to that mesh
    alone: a loopback address, and the one that ``hub/mesh.json`` names when it is there.
    """
    token = state / HUB_FOLDER / LOCAL_TOKEN_FILE
    usable = token.is_file() and _is_embedded(state, server)
    return NodeLogin(token if usable else None, join_token_file, label)


def embedded_server(state: Path) -> str | None:
    """Return the address of the embedded mesh that runs on `state`, None when none does."""
    try:
        server = json.loads((state / HUB_FOLDER / MESH_FILE).read_bytes())["server"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return server if isinstance(server, str) else None


def keep_trust(folder: Path, trust: HubTrust) -> None:
    """Keep what proves the hub in the folder of a device, which goes by it from then on.

    Raises:
        WrongState: STATE_UNUSABLE.
    """
    place = folder / CA_FILE
    try:
        if trust.pem is None:
            place.unlink(missing_ok=True)
        else:
            replace_private(place, trust.pem)
    except OSError as error:
        raise _unusable() from error


def _is_embedded(state: Path, server: str) -> bool:
    try:
        host = urlsplit(server).hostname
    except ValueError:
        return False
    running = embedded_server(state)
    return host in _LOOPBACK and (running is None or running.rstrip("/") == server.rstrip("/"))


def _unusable() -> WrongState:
    return WrongState(
        "The state folder cannot be written.",
        reason="STATE_UNUSABLE",
        hint="Give another one with --state, or mend its owner and mode.",
    )
