"""Who calls: the principal and device that the server's interceptor has verified."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from syftmesh_core.errors import Unauthenticated
from syftmesh_core.principal import ANONYMOUS, GUEST

CallerKind = Literal["user", "service", "guest"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller.

    Attributes:
        principal: E-mail address, lower case; the service's name for kind ``service``; ``guest`` for a guest.
        device_id: Device that holds the token (claim ``did``).
        token_id: Id of the access token (claim ``jti``).
        kind: ``user``, ``service``, or ``guest``: a person, not known who.
        expires_at_s: End of the token's life, Unix seconds; 0 when it is not known.
        audiences: Services that take the token.
    """

    principal: str
    device_id: str
    token_id: str
    kind: CallerKind = "user"
    expires_at_s: int = 0
    audiences: tuple[str, ...] = ()

    @property
    def requester(self) -> str:
        """Who asks in the sense of rules: a principal, a guest; a service has no rights of its own."""
        if self.kind == "user":
            return self.principal
        return GUEST if self.kind == "guest" else ANONYMOUS


_CALLER: ContextVar[Caller | None] = ContextVar("syftmesh_caller", default=None)


def current_caller() -> Caller:
    """Return the verified caller of the RPC that runs now.

    Raises:
        Unauthenticated: The method is public and the caller showed no valid token (TOKEN_MISSING).
    """
    caller = _CALLER.get()
    if caller is None:
        raise Unauthenticated(
            "This call needs an access token.", reason="TOKEN_MISSING", hint="Log in with `syftmesh login`."
        )
    return caller


def optional_caller() -> Caller | None:
    """Return the verified caller, or None in a public method called without a valid token."""
    return _CALLER.get()


def bind_caller(caller: Caller | None) -> None:
    """Make `caller` the current caller of this task; called by the interceptor (and by tests of handlers)."""
    _CALLER.set(caller)
