"""Guests: a token for whoever asks, that proves a person without saying who."""

from __future__ import annotations

from typing import Final

from syftmesh_core.errors import WrongState

from syftmesh_identity.domain.limit import Limiter, Quota
from syftmesh_identity.domain.model import IssuedAccess
from syftmesh_identity.domain.ports import AccessIssuer

GUESTS: Final = Quota(
    name="guest_address",
    limit=60,
    reason="TOO_MANY_LOGINS",
    message="Too many guests came from this address within an hour.",
)
"""A guest's token ends after minutes and cannot be renewed: a page that is looked at for an hour takes a dozen."""


class Guests:
    """Lets guests in.

    Args:
        issuer: Signs their tokens.
        limiter: Counts them by address.
        is_enabled: Whether this mesh admits any.
    """

    def __init__(self, issuer: AccessIssuer, limiter: Limiter, *, is_enabled: bool) -> None:
        self._issuer = issuer
        self._limiter = limiter
        self._is_enabled = is_enabled

    async def login(self, address: str) -> IssuedAccess:
        """Return a guest's access token; nothing is stored but that one came from `address`.

        Raises:
            WrongState: This mesh admits no guests (GUESTS_DISABLED).
            LimitExceeded: Too many came from there (TOO_MANY_LOGINS).
        """
        if not self._is_enabled:
            raise WrongState(
                "This mesh admits no guests. Log in.", reason="GUESTS_DISABLED", hint="syftmesh login"
            )
        await self._limiter.take(GUESTS, address)
        return self._issuer.issue_guest()
