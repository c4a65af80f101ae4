"""Who calls: the principal and device that the server's interceptor has verified."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

from syftmesh_core.errors import Unauthenticated

CallerKind = Literal["user", "service"]


@dataclass(frozen=True, slots=True)
class Caller:
    """A verified caller.

    Attributes:
        principal: E-mail address, lower case, or the service's name for kind ``service``.
        device_id: Device that holds the token (claim ``did``).
        token_id: Id of the access token (claim ``jti``).
        kind: ``user`` or ``service``.
        expires_at_s: End of the token's life, Unix seconds; 0 when it is not known.
    """

    principal: str
    device_id: str
    token_id: str
    kind: CallerKind = "user"
    expires_at_s: int = 0


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
