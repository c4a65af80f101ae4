"""Login by an OIDC provider: a person confirms in any browser, while this program asks the hub how far it is.

The device flow of RFC 8628; the hub is its OAuth client, so that neither the provider's device code nor any of its
tokens reach this machine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from mesh.identity.v1 import identity_pb2
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as grpc_api
from syftmesh_core.errors import DeadlineExceeded, IntegrityFailure, MeshError, Unauthenticated, Unavailable
from syftmesh_core.principal import is_principal
from syftmesh_core.quote import quoted

LONGEST_S: Final = 3600.0
"""Seconds after which a login is given up whatever the hub says. The hub ends it sooner, by its own clock, and
this machine's clock may be wrong."""

AWAY_S: Final = 60.0
"""Seconds for which a hub or provider may be away in the middle of a login: a hub restarts in less."""

_TIMEOUT_S: Final = 30.0
_INTERVAL_S: Final = (1.0, 60.0)
_MAX_URI_CHARACTERS: Final = 2048
_MAX_CODE_CHARACTERS: Final = 64
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class ProviderPrompt:
    """What the person is shown. Every text is printable ASCII, every address one that a browser may open.

    Attributes:
        verification_uri: The page to open.
        verification_uri_complete: The same with the code filled in; empty when the provider has none.
        user_code: What to type there.
        expires_ms: When the login can no longer be finished, Unix milliseconds by the hub's clock.
    """

    verification_uri: str
    verification_uri_complete: str = field(repr=False)
    user_code: str = field(repr=False)
    expires_ms: int


async def login_by_provider(
    stub: grpc_api.IdentityServiceAsyncStub,
    provider: str,
    device_id: str,
    label: str,
    show: Callable[[ProviderPrompt], None],
    sleep: Sleep,
    *,
    principal: str,
) -> tuple[str, identity_pb2.TokenPair]:
    """Log a device in and return whom the provider named, and the tokens.

    Nothing is left behind when the task is cancelled: the hub forgets a login that nobody finishes.

    Args:
        stub: The identity service; needs no token.
        provider: One of the names of `ListLoginMethods`.
        device_id: Id of the device's keys.
        label: ``profile``, ``agent`` or ``runner``.
        show: Called once, with what the person has to do.
        sleep: Waits that many seconds between two questions.
        principal: Who the person says they are: the hub admits the device for nobody else.

    Raises:
        NotFound: The mesh has no such provider (PROVIDER_UNKNOWN).
        InvalidInput: DEVICE_INVALID, PRINCIPAL_INVALID.
        WrongState: The person is somebody else there (PRINCIPAL_DIFFERS).
        LimitExceeded: TOO_MANY_LOGINS, TOO_MANY_DEVICES.
        Unauthenticated: The person said no, or not in time (LOGIN_INVALID); EMAIL_NOT_VERIFIED,
            PROVIDER_TOKEN_INVALID.
        PermissionDenied: PRINCIPAL_REVOKED, DEVICE_REVOKED.
        AlreadyExists: DEVICE_OF_ANOTHER.
        Unavailable: Hub or provider (PROVIDER_AWAY) do not answer.
        DeadlineExceeded: They answer too slowly.
        IntegrityFailure: The hub's answer has not the form agreed (ANSWER_INVALID).
    """
    request = rpc.StartDeviceLoginRequest(
        provider=provider, device_id=device_id, label=label, principal=principal
    )
    started = await stub.StartDeviceLogin(request, timeout=_TIMEOUT_S)
    show(_prompt(started))
    answer = await _Poll(stub, started.login_secret, sleep).until_done(started.interval_seconds)
    if not is_principal(answer.principal) or not answer.tokens.access_token:
        raise _not_as_agreed("names no principal, or has no tokens")
    return answer.principal, answer.tokens


class _Poll:
    """Asks for the end of one login, never sooner than the hub allows."""

    def __init__(self, stub: grpc_api.IdentityServiceAsyncStub, login_secret: str, sleep: Sleep) -> None:
        self._stub = stub
        self._request = rpc.FinishDeviceLoginRequest(login_secret=login_secret)
        self._sleep = sleep

    async def until_done(self, interval_seconds: int) -> rpc.FinishDeviceLoginResponse:
        interval_s, waited_s, away_s = _allowed(interval_seconds), 0.0, 0.0
        while waited_s < LONGEST_S:
            await self._sleep(interval_s)
            waited_s += interval_s
            try:
                answer = await self._stub.FinishDeviceLogin(self._request, timeout=_TIMEOUT_S)
            except (Unavailable, DeadlineExceeded) as error:
                away_s += interval_s
                if away_s >= AWAY_S:
                    raise
                interval_s = _after_failure(interval_s, error)
                continue
            if not answer.pending:
                return answer
            # What slows the provider down comes here as a longer interval.
            interval_s, away_s = _allowed(answer.interval_seconds), 0.0
        raise Unauthenticated(
            "Nobody has confirmed the login in time. Start it anew.", reason="LOGIN_INVALID"
        )


def _allowed(interval_seconds: float) -> float:
    shortest_s, longest_s = _INTERVAL_S
    return min(max(float(interval_seconds), shortest_s), longest_s)


def _after_failure(interval_s: float, error: MeshError) -> float:
    """Return a longer interval, at least what the error asks for (RFC 8628, section 3.5, on timeouts)."""
    asked = error.metadata.get("retry_after_ms", "")
    asked_s = int(asked) / 1000 if asked.isascii() and asked.isdigit() and len(asked) < 9 else 0.0
    return _allowed(max(interval_s * 1.5, asked_s))


def _prompt(started: rpc.StartDeviceLoginResponse) -> ProviderPrompt:
    """Return what the hub passes on from the provider; it comes to a terminal and to a browser."""
    if not is_web_page(started.verification_uri):
        raise _not_as_agreed(f"sends people to {quoted(started.verification_uri)}")
    complete = started.verification_uri_complete
    if complete and not is_web_page(complete):
        raise _not_as_agreed(f"sends people to {quoted(complete)}")
    code = started.user_code
    if not 0 < len(code) <= _MAX_CODE_CHARACTERS or not (code.isascii() and code.isprintable()):
        raise _not_as_agreed("has no code that one could type")
    if not started.login_secret:
        raise _not_as_agreed("has no secret to finish the login with")
    at = started.expires_at
    return ProviderPrompt(started.verification_uri, complete, code, at.seconds * 1000 + at.nanos // 1_000_000)


def is_web_page(uri: str) -> bool:
    """Return whether `uri` may be shown and opened: https, or http on this machine, in printable ASCII."""
    if len(uri) > _MAX_URI_CHARACTERS or not (uri.isascii() and uri.isprintable()) or " " in uri:
        return False
    try:
        parts = urlsplit(uri)
        host = parts.hostname
    except ValueError:
        return False
    if not host or "@" in parts.netloc:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK)


def _not_as_agreed(what: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"The hub's answer to a login {what}. Nothing of it is used; the hub may be of another version.",
        reason="ANSWER_INVALID",
    )
