"""Refresh tokens: rotated at each use, and a used one ends its whole family (RFC 9700, section 4.14.2).

One exception: an answer that is lost on its way would else end an honest login. So the token that was used last may be
used once more within `REPEAT_S`, as long as the one that it was exchanged for was not used; that one is dead then.
Whoever stole a token still gives themselves away: thief and owner hold different successors, of which one is dead,
and its use ends the family.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import InvalidInput, Unauthenticated
from syftmesh_core.quote import quoted

from syftmesh_identity.domain.enrolment import RACE_TRIES, Enrolment, busy
from syftmesh_identity.domain.model import AccessRecord, Device, Family, Stored, TokenPair
from syftmesh_identity.domain.ports import AccessIssuer, Revocations, Stores
from syftmesh_identity.domain.secret import digest, is_secret, new_secret

MARK: Final = "smr1"
MAX_TOKEN_CHARACTERS: Final = 256
_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
REPEAT_S: Final = 30
"""Seconds in which a used token may be shown once more: a client's deadline, and its second try."""

MAX_LIVE_ACCESS: Final = 32
"""Access tokens of one family alive at once; the oldest is revoked when there would be more."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """A refresh token taken apart: ``smr1.<family id>.<proof>.<secret>``."""

    family_id: str
    proof: str = field(repr=False)
    secret: str = field(repr=False)

    def text(self) -> str:
        """Return the token as it is given out."""
        return f"{MARK}.{self.family_id}.{self.proof}.{self.secret}"


def parse_refresh_token(text: str) -> RefreshToken:
    """Return the parts of a refresh token.

    Raises:
        Unauthenticated: It is none (REFRESH_INVALID).
    """
    parts = text.split(".") if len(text) <= MAX_TOKEN_CHARACTERS else []
    if len(parts) != 4 or parts[0] != MARK or not all(map(_PART.fullmatch, parts)):
        raise _invalid()
    return RefreshToken(*parts[1:])


class Sessions:
    """Opens, renews and ends refresh families.

    Args:
        stores: The state.
        enrolment: Knows which devices are revoked.
        revocations: Told of access tokens that end before their time.
        issuer: Signs access tokens.
        clock: Wall time.
        random: Source of secrets and ids.
        refresh_ttl_s: Life of a refresh token, in seconds; each use starts it anew.
        services: The audiences that an access token may be narrowed to.
    """

    def __init__(
        self,
        stores: Stores,
        enrolment: Enrolment,
        revocations: Revocations,
        issuer: AccessIssuer,
        clock: Clock,
        random: Random,
        refresh_ttl_s: int,
        services: frozenset[str] = frozenset(),
    ) -> None:
        self._stores = stores
        self._enrolment = enrolment
        self._revocations = revocations
        self._issuer = issuer
        self._clock = clock
        self._random = random
        self._refresh_ttl_s = refresh_ttl_s
        self._services = services

    def new_family_id(self) -> str:
        """Return a fresh name for a family, for whoever must know it before it is opened."""
        return uuid7(self._clock, self._random)

    async def open(self, device: Device, family_id: str = "") -> TokenPair:
        """Return the first pair of a new family for `device`, which was admitted."""
        access = self._issuer.issue(device.principal, device.device_id)
        token = RefreshToken(
            family_id or self.new_family_id(), new_secret(self._random), new_secret(self._random)
        )
        family = Family(
            family_id=token.family_id,
            principal=device.principal,
            device_id=device.device_id,
            proof_hash=digest(token.proof),
            secret_hash=digest(token.secret),
            expires_ms=self._expiry_ms(),
            access=(AccessRecord(access.token_id, access.expires_ms),),
        )
        if not await self._stores.families.create(token.family_id, family):
            raise busy()
        # A device revoked while its login ran: its token was signed after the revocation was announced.
        await self._enrolment.check(device.principal, device.device_id)
        return TokenPair(access.token, access.expires_ms, token.text(), family.expires_ms)

    async def renew(self, refresh_token: str, audiences: Sequence[str] = ()) -> TokenPair:
        """Exchange a refresh token for a new pair; the old one is dead afterwards, but for `REPEAT_S`.

        Args:
            refresh_token: The newest one of its family, or the one before when the answer to that was lost.
            audiences: Services that the access token is for; none: all of the hub's.

        Raises:
            InvalidInput: There is no such service (AUDIENCE_INVALID); the token was not used.
            Unauthenticated: Unknown, expired or revoked (REFRESH_INVALID); used before, which revokes the
                family (REFRESH_REUSED).
            Conflict: The state changes too quickly (CONFLICT).
        """
        token = parse_refresh_token(refresh_token)
        self._require_services(audiences)
        for _ in range(RACE_TRIES):
            found = await self._stores.families.get(token.family_id)
            if found is None or not is_secret(token.proof, found.record.proof_hash):
                raise _invalid()
            family = found.record
            if family.revoked or self._clock.now_ms() >= family.expires_ms:
                raise _invalid()
            repeats = self._may_repeat(token, family)
            if not repeats and not is_secret(token.secret, family.secret_hash):
                await self.end(token.family_id)
                raise _reused()
            await self._refuse_revoked(family)
            pair = await self._rotated(token, found, audiences, repeats=repeats)
            if pair is not None:
                return pair
        raise busy()

    async def close(self, refresh_token: str) -> None:
        """Revoke the family of `refresh_token`; one that is gone already is no error.

        Raises:
            Unauthenticated: It is no refresh token (REFRESH_INVALID).
        """
        token = parse_refresh_token(refresh_token)
        found = await self._stores.families.get(token.family_id)
        if found is None:
            return
        if not is_secret(token.proof, found.record.proof_hash):
            raise _invalid()
        await self.end(token.family_id)

    async def is_unused(self, family_id: str) -> bool:
        """Return whether no token of the family was used or revoked yet; one that is not there was not."""
        found = await self._stores.families.get(family_id)
        return found is None or (not found.record.revoked and not found.record.renewed_ms)

    async def end(self, family_id: str) -> None:
        """Revoke a family and its access tokens; one that is gone already is no error.

        Raises:
            Conflict: The state changes too quickly (CONFLICT).
        """
        for _ in range(RACE_TRIES):
            found = await self._stores.families.get(family_id)
            if found is None:
                return
            ended = replace(found.record, revoked=True)
            if found.record.revoked or await self._stores.families.replace(family_id, ended, found.revision):
                for record in found.record.access:
                    if record.expires_ms > self._clock.now_ms():
                        await self._revocations.revoke_token(record.token_id, record.expires_ms)
                return
        raise busy()

    async def _rotated(
        self, token: RefreshToken, found: Stored[Family], audiences: Sequence[str], *, repeats: bool
    ) -> TokenPair | None:
        """Write the family's next state and return the pair of it; None when the family changed meanwhile."""
        family = found.record
        access = self._issuer.issue(family.principal, family.device_id, audiences)
        fresh = replace(token, secret=new_secret(self._random))
        # Of an answer that was lost, or went to somebody else, the access token is not to be used either.
        lost = family.access[-1:] if repeats else ()
        before = family.access[:-1] if repeats else family.access
        live, surplus = self._live(before, AccessRecord(access.token_id, access.expires_ms))
        renewed = replace(
            family,
            secret_hash=digest(fresh.secret),
            expires_ms=self._expiry_ms(),
            access=live,
            prior_hash=family.prior_hash if repeats else family.secret_hash,
            renewed_ms=family.renewed_ms if repeats else self._clock.now_ms(),
            repeated=repeats,
        )
        if not await self._stores.families.replace(token.family_id, renewed, found.revision):
            return None
        for record in (*lost, *surplus):
            await self._revocations.revoke_token(record.token_id, record.expires_ms)
        return TokenPair(access.token, access.expires_ms, fresh.text(), renewed.expires_ms)

    def _may_repeat(self, token: RefreshToken, family: Family) -> bool:
        # The token before the newest is known only until the newest is used: then another is before it.
        if not family.prior_hash or family.repeated or not is_secret(token.secret, family.prior_hash):
            return False
        return self._clock.now_ms() < family.renewed_ms + REPEAT_S * 1000

    def _require_services(self, audiences: Sequence[str]) -> None:
        unknown = sorted(set(audiences) - self._services)
        if unknown:
            raise InvalidInput(
                f"{quoted(unknown[0])} is no service that takes tokens: give some of "
                f"{', '.join(sorted(self._services))}, or none for all of them.",
                reason="AUDIENCE_INVALID",
                metadata={"audience": quoted(unknown[0])},
            )

    async def _refuse_revoked(self, family: Family) -> None:
        device = await self._stores.devices.get(family.device_id)
        person = await self._stores.accounts.get(family.principal)
        if device is None or device.record.revoked_ms is not None:
            raise _invalid()
        # Asked for at each use: the announcement of a revocation is forgotten after an hour.
        if person is not None and person.record.revoked_ms is not None:
            raise _invalid()

    def _live(
        self, access: Sequence[AccessRecord], newest: AccessRecord
    ) -> tuple[tuple[AccessRecord, ...], tuple[AccessRecord, ...]]:
        now_ms = self._clock.now_ms()
        live = (*(record for record in access if record.expires_ms > now_ms), newest)
        return live[-MAX_LIVE_ACCESS:], live[:-MAX_LIVE_ACCESS]

    def _expiry_ms(self) -> int:
        return self._clock.now_ms() + self._refresh_ttl_s * 1000


def _invalid() -> Unauthenticated:
    return Unauthenticated(
        "The refresh token is unknown, expired or revoked. Log in again.",
        reason="REFRESH_INVALID",
        hint="syftmesh login",
    )


def _reused() -> Unauthenticated:
    return Unauthenticated(
        "The refresh token was used before, so every token of this login is revoked now. Log in again, and "
        "if it was not you who used it, revoke the device.",
        reason="REFRESH_REUSED",
        hint="syftmesh login",
    )
