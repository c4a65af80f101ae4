"""How a program becomes somebody: log in once, then connect by profile."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from syftmesh_client.login_code import PersonLogin, by_code, by_provider
from syftmesh_client.login_provider import ProviderPrompt
from syftmesh_client.profile import (
    PROFILE_FILE,
    Profile,
    ProfileStore,
    default_state,
    embedded_server,
    keep_trust,
    node_login,
)
from syftmesh_client.site import open_account
from syftmesh_client.trust import CA_FILE, REASON_UNTRUSTED, HubTrust
from syftmesh_client.wellknown import WellKnown, discover
from syftmesh_core.errors import AlreadyExists, IntegrityFailure, Unauthenticated, WrongState
from syftmesh_core.principal import normalise_principal
from syftmesh_kit.private_file import replace_private

from syftmesh.async_client import AsyncClient
from syftmesh.client import Client
from syftmesh.portal import Portal

SERVER_VARIABLE: Final = "SYFTMESH_SERVER"
DEFAULT_SERVER: Final = "http://127.0.0.1:8080"
_PHRASE_FILE: Final = "recovery-phrase.pending"


@dataclass(frozen=True, slots=True)
class LoginResult:
    """What a login did.

    Attributes:
        email: Who.
        server: Where.
        created: Whether the account was made now.
        phrase: The recovery phrase of a new account, 24 words, kept nowhere from now on; None when it is in a
            file. A login that was cut off after it had made the account leaves it to the next one.
    """

    email: str
    server: str
    created: bool
    phrase: tuple[str, ...] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class ProviderLogin:
    """How to log in by an OIDC provider.

    Attributes:
        name: One of those that the hub names.
        show: Told once what the person has to do there.
    """

    name: str
    show: Callable[[ProviderPrompt], None]


@dataclass(frozen=True, slots=True)
class FoundHub:
    """A hub that has answered and proven itself.

    Attributes:
        address: Where it is.
        known: The profile that was there before, None without.
        trust: By what it has proven itself.
        said: What it says of itself.
    """

    address: str
    known: Profile | None
    trust: HubTrust
    said: WellKnown


def connect(
    server: str | None = None, *, profile: str | None = None, state: Path | str | None = None
) -> Client:
    """Return a client of a profile, connected; close it, or use it with ``with``.

    Args:
        server: The hub's address; ``SYFTMESH_SERVER``, else the profile's own.
        profile: E-mail; ``SYFTMESH_PROFILE``, else the only profile or the one used last.
        state: State folder; ``SYFTMESH_STATE``, else ``~/.syftmesh``.

    Raises:
        NotFound: PROFILE_UNKNOWN, PROFILE_MISSING, KEYSTORE_MISSING.
        InvalidInput: PROFILE_AMBIGUOUS, PRINCIPAL_INVALID, INVALID_URL.
        Unauthenticated: NOT_LOGGED_IN, or the login has ended.
        Unavailable: The hub does not answer.
    """
    return Client.opened(connect_async(server, profile=profile, state=state))


def connect_async(
    server: str | None = None, *, profile: str | None = None, state: Path | str | None = None
) -> AsyncClient:
    """Return an asynchronous client, which ``async with`` opens; arguments and errors as `connect`."""
    base = _state(state)
    chosen = ProfileStore(base).choose(profile)
    return AsyncClient(chosen, server or os.environ.get(SERVER_VARIABLE) or chosen.server, base)


def login(
    server: str | None = None,
    *,
    email: str,
    token_file: Path | str | None = None,
    recovery_out: Path | str | None = None,
    ca_file: Path | str | None = None,
    state: Path | str | None = None,
    code: str | None = None,
    provider: ProviderLogin | None = None,
) -> LoginResult:
    """Log in on this machine and make the account when there is none.

    Args:
        server: The hub; ``SYFTMESH_SERVER``, else the profile's own, else the embedded mesh of `state`.
        email: Who.
        token_file: File (0600) with a join token; not needed at an embedded mesh of this user.
        recovery_out: New file (0600) for the recovery phrase of a new account; None: it is returned.
        ca_file: Certificates (PEM) that the hub's must come from; kept in the profile, which trusts only them from
            then on. None: those of the profile, else the well-known authorities of the Internet.
        state: As `connect`.
        code: From the e-mail that `request_code` had sent; used when the tokens that lie here let nobody in.
        provider: An OIDC provider of the hub, used likewise; the login waits until the person has confirmed there.

    Raises:
        AlreadyExists: `recovery_out` is there (RECOVERY_FILE_EXISTS).
        NotFound: CA_FILE_MISSING.
        InvalidInput: CA_FILE_INVALID.
        IntegrityFailure: The hub does not prove itself (SERVER_UNTRUSTED, SERVER_DOWNGRADE), or is none
            (SERVER_FOREIGN).
        Unauthenticated: NOT_LOGGED_IN without a way to log in, JOIN_TOKEN_INVALID, LOCAL_TOKEN_INVALID,
            CODE_INVALID, LOGIN_INVALID.
        LimitExceeded: TOO_MANY_TRIES.
        WrongState: The provider says that the person is somebody else (PRINCIPAL_DIFFERS).
        MeshError: As `connect`, and `login_by_provider` of `syftmesh_client`.
    """
    portal = Portal()  # a loop of its own: a notebook has one that is running already
    try:
        return portal.run(
            login_async(
                server,
                email=email,
                token_file=token_file,
                recovery_out=recovery_out,
                ca_file=ca_file,
                state=state,
                code=code,
                provider=provider,
            )
        )
    finally:
        portal.close()


async def login_async(
    server: str | None = None,
    *,
    email: str,
    token_file: Path | str | None = None,
    recovery_out: Path | str | None = None,
    ca_file: Path | str | None = None,
    state: Path | str | None = None,
    code: str | None = None,
    provider: ProviderLogin | None = None,
) -> LoginResult:
    """Log in; as `login`."""
    base, name = _state(state), normalise_principal(email)
    store = ProfileStore(base)
    # Nothing is made for a hub that does not answer, or does not prove itself, or lets nobody in.
    hub = await find_hub(server, store, name, ca_file, base)
    login = replace(
        node_login(base, hub.address, join_token_file=None if token_file is None else Path(token_file)),
        person=_person(code, provider),
    )
    if hub.known is None and not login.has_way:
        raise Unauthenticated(
            f"{name} has never logged in from here, and this hub needs more than a name.",
            reason="NOT_LOGGED_IN",
            hint=f"syftmesh login --email {name}",
        )
    profile = store.save(name, hub.address)
    keep_trust(profile.folder, hub.trust)
    phrase: list[tuple[str, ...]] = []

    pending = profile.folder / _PHRASE_FILE

    def keep(words: tuple[str, ...]) -> None:
        if recovery_out is not None:
            _write_phrase(Path(recovery_out), words)
        else:
            replace_private(pending, " ".join(words).encode())
        phrase.append(words)

    try:
        created = await open_account(profile, login, keep_phrase=keep)
    except BaseException:
        if not phrase:
            _undo(profile, hub.known)
        raise
    with suppress(WrongState):  # another program may note itself at the same moment
        store.note_used(profile)
    return LoginResult(name, hub.address, created, _taken(pending))


async def find_hub(
    server: str | None, store: ProfileStore, email: str, ca_file: Path | str | None, base: Path
) -> FoundHub:
    """Return the hub that a login is for, proven; arguments and errors as `login`."""
    known = _known(store, email)
    address = (
        server
        or os.environ.get(SERVER_VARIABLE)
        or (known.server if known is not None else None)
        or embedded_server(base)
        or DEFAULT_SERVER
    )
    trust, said = await _proven(address, known, None if ca_file is None else Path(ca_file))
    return FoundHub(address, known, trust, said)


async def _proven(address: str, known: Profile | None, ca_file: Path | None) -> tuple[HubTrust, WellKnown]:
    """Return the trust by which the hub at `address` has answered, and what it says of itself.

    A profile that moves to another hub may find one that the well-known authorities vouch for; at the hub of before
    only the certificates count that were given for it.
    """
    trust = HubTrust.of_file(ca_file) if ca_file is not None else HubTrust()
    if ca_file is None and known is not None:
        trust = HubTrust.of_folder(known.folder)
    try:
        return trust, await discover(address, trust=trust)
    except IntegrityFailure as error:
        moves = ca_file is None and known is not None and known.server.rstrip("/") != address.rstrip("/")
        if error.reason != REASON_UNTRUSTED or trust.pem is None or not moves:
            raise
        trust = HubTrust()
        return trust, await discover(address, trust=trust)


def _person(code: str | None, provider: ProviderLogin | None) -> PersonLogin | None:
    if code is not None:
        return by_code(code)
    return None if provider is None else by_provider(provider.name, provider.show)


def _taken(pending: Path) -> tuple[str, ...] | None:
    """Return the phrase that waits to be shown, for the last time; also that of a login that was cut off."""
    try:
        words = tuple(pending.read_text("ascii").split())
    except FileNotFoundError:
        return None
    pending.unlink()
    return words


def _known(store: ProfileStore, email: str) -> Profile | None:
    try:
        return store.find(email)
    except WrongState:
        return None  # damaged: logging in again is what mends it


def _undo(profile: Profile, before: Profile | None) -> None:
    """Forget a profile that has come to nothing; one that has keys, or was there, stays."""
    if before is None and {p.name for p in profile.folder.iterdir()} <= {PROFILE_FILE, CA_FILE}:
        for name in (PROFILE_FILE, CA_FILE):
            (profile.folder / name).unlink(missing_ok=True)
        profile.folder.rmdir()


def _write_phrase(path: Path, words: tuple[str, ...]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise AlreadyExists(
            "The file for the recovery phrase is there already: name a new one.",
            reason="RECOVERY_FILE_EXISTS",
            hint="--recovery-out FILE",
        ) from error
    except OSError as error:
        raise WrongState(
            "The file for the recovery phrase cannot be written.", reason="RECOVERY_FILE_UNUSABLE"
        ) from error
    with os.fdopen(descriptor, "w") as file:
        file.write(" ".join(words) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _state(state: Path | str | None) -> Path:
    return Path(state).expanduser().absolute() if state is not None else default_state()
