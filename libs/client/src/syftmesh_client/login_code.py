"""Logins by what a person brings where no mesh of this machine lets them in: a code from an e-mail, or a provider."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import grpc
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_core.errors import WrongState
from syftmesh_core.quote import quoted

from syftmesh_client.login import identity_stub, stored_tokens
from syftmesh_client.login_provider import ProviderPrompt, login_by_provider
from syftmesh_client.token_file import StoredTokens

CODE_TRIES: Final = 5
"""Codes that the hub compares before a new one is needed."""

_TIMEOUT_S: Final = 10.0
_MAIL_TIMEOUT_S: Final = 90.0
"""The hub's own wait for its mail server is at most a minute."""


@dataclass(frozen=True, slots=True)
class LoginMethods:
    """How one can log in at a hub.

    Attributes:
        local: By the local token of an embedded mesh.
        code: By a code that is sent by e-mail.
        providers: By these OIDC providers.
        guests: As a guest.
    """

    local: bool
    code: bool
    providers: tuple[str, ...]
    guests: bool


class PersonLogin(Protocol):
    """Logs a device in by what a person brings; see `by_code` and `by_provider`."""

    async def __call__(
        self, address: str, *, principal: str, device_id: str, label: str, tls: grpc.ChannelCredentials | None
    ) -> StoredTokens:
        """Return the device's tokens.

        Args:
            address: gRPC address of the hub.
            principal: Whose device it is.
            device_id: Id of the device's keys.
            label: ``profile``, ``agent`` or ``runner``.
            tls: As `session.HubSession`.
        """
        ...


async def login_methods(address: str, *, tls: grpc.ChannelCredentials | None = None) -> LoginMethods:
    """Return how one can log in at the hub.

    Raises:
        Unavailable: The hub does not answer.
    """
    async with identity_stub(address, tls) as stub:
        found = await stub.ListLoginMethods(rpc.ListLoginMethodsRequest(), timeout=_TIMEOUT_S)
    return LoginMethods(found.local, found.code, tuple(found.providers), found.guests)


async def request_code(address: str, *, principal: str, tls: grpc.ChannelCredentials | None = None) -> None:
    """Let the hub send a code to an e-mail; the code before it ends.

    Raises:
        WrongState: The hub sends no mail (CODE_LOGIN_DISABLED).
        InvalidInput: PRINCIPAL_INVALID.
        LimitExceeded: TOO_MANY_CODES; metadata `retry_after_ms` says when there is one again.
        Unavailable: The hub does not answer, or its mail server does not (MAIL_AWAY).
    """
    async with identity_stub(address, tls) as stub:
        await stub.RequestCode(rpc.RequestCodeRequest(principal=principal), timeout=_MAIL_TIMEOUT_S)


def by_code(code: str) -> PersonLogin:
    """Return the login with a code from an e-mail; dashes, spaces and case do not matter.

    It raises Unauthenticated (CODE_INVALID), LimitExceeded (TOO_MANY_TRIES), and what `login_local` raises of
    devices. It is made once: whether a code was used whose answer got lost is not known.
    """

    async def log_in(
        address: str, *, principal: str, device_id: str, label: str, tls: grpc.ChannelCredentials | None
    ) -> StoredTokens:
        request = rpc.LoginWithCodeRequest(principal=principal, code=code, device_id=device_id, label=label)
        async with identity_stub(address, tls) as stub:
            answer = await stub.LoginWithCode(request, timeout=_TIMEOUT_S)
        return stored_tokens(answer.tokens, principal, device_id)

    return log_in


def by_provider(provider: str, show: Callable[[ProviderPrompt], None]) -> PersonLogin:
    """Return the login by an OIDC provider of the hub.

    It raises as `login_by_provider`.

    Args:
        provider: Name of the provider.
        show: Called once, with what the person has to do.
    """

    async def log_in(
        address: str, *, principal: str, device_id: str, label: str, tls: grpc.ChannelCredentials | None
    ) -> StoredTokens:
        async with identity_stub(address, tls) as stub:
            found, pair = await login_by_provider(
                stub, provider, device_id, label, show, asyncio.sleep, principal=principal
            )
        if found != principal:  # a hub that does not look at it itself
            raise WrongState(
                f"The provider knows you as {quoted(found)}, and you log in as {principal}.",
                reason="PRINCIPAL_DIFFERS",
                metadata={"principal": quoted(found)},
                hint=f"syftmesh login --email {found} --provider {provider}",
            )
        return stored_tokens(pair, principal, device_id)

    return log_in
