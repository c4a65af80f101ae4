"""Join tokens: made by a principal for itself (or by an administrator), redeemed once by a device.

The answer to a redemption may be lost on its way. So the same secret, e-mail and device get a fresh pair again, within
`REPEAT_S` and the token's life, as long as nothing of the pair before was used; that one is dead then.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Final, NoReturn

from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated
from syftmesh_core.principal import is_principal, normalise_principal
from syftmesh_core.quote import quoted

from syftmesh_identity.domain.enrolment import RACE_TRIES, Enrolment, busy
from syftmesh_identity.domain.model import (
    JoinState,
    JoinToken,
    Stored,
    TokenPair,
    checked_device_id,
    checked_label,
)
from syftmesh_identity.domain.person import Administrators
from syftmesh_identity.domain.ports import Stores
from syftmesh_identity.domain.refresh import Sessions
from syftmesh_identity.domain.secret import digest, is_secret, new_secret

MARK: Final = "smj1"
DEFAULT_TTL_S: Final = 24 * 3600
MAX_TTL_S: Final = 30 * 24 * 3600
REPEAT_S: Final = 24 * 3600
"""Seconds from the first redemption; a refresh family, which tells whether it was used, is kept longer than that."""

MAX_SECRET_CHARACTERS: Final = 256
_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_RETRY: Final = re.compile(r"[A-Za-z0-9_-]{16,128}")


def creator_part(principal: str) -> str:
    """Return the key part under which the join tokens of one creator lie; it stands in secrets too."""
    return hashlib.sha256(principal.encode()).hexdigest()[:16]


def token_key(creator: str, token_id: str) -> str:
    """Return the key of a token; `creator` is a `creator_part`."""
    return f"{creator}/{token_id}"


class JoinTokens:
    """Makes, lists, revokes and redeems join tokens.

    Args:
        stores: The state.
        enrolment: Registers devices.
        sessions: Gives tokens to joined devices.
        administrators: Who may make tokens for others, and for domains.
        clock: Wall time.
        random: Source of secrets and ids.
    """

    def __init__(
        self,
        stores: Stores,
        enrolment: Enrolment,
        sessions: Sessions,
        administrators: Administrators,
        clock: Clock,
        random: Random,
    ) -> None:
        self._stores = stores
        self._enrolment = enrolment
        self._sessions = sessions
        self._administrators = administrators
        self._clock = clock
        self._random = random

    async def create(
        self, creator: str, principal: str, label: str, ttl_s: int, domain: str = ""
    ) -> tuple[JoinToken, str]:
        """Return a new token, for a principal or for a domain, and its secret, which is shown once.

        Raises:
            InvalidInput: PRINCIPAL_INVALID, DOMAIN_INVALID, DEVICE_INVALID (label), TTL_INVALID.
            PermissionDenied: For another principal or a domain, without being an administrator
                (PERMISSION_DENIED); for somebody who was revoked (PRINCIPAL_REVOKED).
        """
        name = "" if domain and not principal else normalise_principal(principal)
        behind, kind = checked_domain(domain, name), checked_label(label)
        if not 0 <= ttl_s <= MAX_TTL_S:
            raise InvalidInput(
                f"A join token lives at most {MAX_TTL_S} s (30 days), not {ttl_s} s.",
                reason="TTL_INVALID",
                metadata={"ttl_seconds": str(ttl_s), "limit": str(MAX_TTL_S)},
            )
        await self._require_right(creator, name, behind)
        now_ms = self._clock.now_ms()
        secret, token_id = new_secret(self._random), uuid7(self._clock, self._random)
        token = JoinToken(
            token_id=token_id,
            principal=name,
            label=kind,
            created_by=creator,
            created_ms=now_ms,
            expires_ms=now_ms + (ttl_s or DEFAULT_TTL_S) * 1000,
            secret_hash=digest(secret),
            domain=behind,
        )
        part = creator_part(creator)
        if not await self._stores.join_tokens.create(token_key(part, token_id), token):
            raise busy()
        return token, f"{MARK}.{part}.{token_id}.{secret}"

    async def list(self, creator: str) -> list[JoinToken]:
        """Return the tokens that `creator` made, newest first."""
        found = await self._stores.join_tokens.list(creator_part(creator))
        own = [token for token in found if token.created_by == creator]
        return sorted(own, key=lambda token: (token.created_ms, token.token_id), reverse=True)

    async def revoke(self, creator: str, token_id: str) -> None:
        """Take an open token back; one that is used, revoked or expired stays as it is.

        Raises:
            NotFound: `creator` made no such token (JOIN_TOKEN_UNKNOWN).
        """
        key = token_key(creator_part(creator), token_id)
        for _ in range(RACE_TRIES):
            found = await self._stores.join_tokens.get(key) if _PART.fullmatch(token_id) else None
            if found is None or found.record.created_by != creator:
                raise NotFound(
                    f"You made no join token {quoted(token_id)}. List yours with `syftmesh site token ls`.",
                    reason="JOIN_TOKEN_UNKNOWN",
                    metadata={"token_id": quoted(token_id)},
                )
            if found.record.state_at(self._clock.now_ms()) is not JoinState.OPEN:
                return
            revoked = replace(found.record, state=JoinState.REVOKED)
            if await self._stores.join_tokens.replace(key, revoked, found.revision):
                return
        raise busy()

    async def redeem(self, secret: str, principal: str, device_id: str, retry_id: str = "") -> TokenPair:
        """Admit a device and return its first pair. Of those that race one wins.

        Args:
            secret: The token's secret.
            principal: Who joins.
            device_id: With which device.
            retry_id: What the device shows when it asks again because the answer was lost; empty: it never does.

        Raises:
            InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID.
            Unauthenticated: Unknown, used, revoked, expired, for another e-mail, or made by somebody who was
                revoked since (JOIN_TOKEN_INVALID).
            AlreadyExists: The device id is another principal's (DEVICE_OF_ANOTHER); the token stays open.
            PermissionDenied: Device or person was revoked (DEVICE_REVOKED, PRINCIPAL_REVOKED); the token stays
                open.
            LimitExceeded: TOO_MANY_DEVICES.
            Conflict: The state changes too quickly (CONFLICT).
        """
        name, device = normalise_principal(principal), checked_device_id(device_id)
        for _ in range(RACE_TRIES):
            key, found = await self._known_token(secret, name)
            await self._require_redeemable(found.record, name, device, retry_id)
            await self._enrolment.check(name, device)
            # Named before it is opened: whatever stops in between, the next try knows what to end.
            used = replace(
                found.record,
                state=JoinState.REDEEMED,
                principal=name,
                redeemed_ms=found.record.redeemed_ms or self._clock.now_ms(),
                device_id=device,
                family_id=self._sessions.new_family_id(),
                retry_hash=digest(retry_id) if _RETRY.fullmatch(retry_id) else "",
            )
            if await self._stores.join_tokens.replace(key, used, found.revision):
                await self._end_family(found.record)
                return await self._admit(key, used)
        raise busy()

    async def _admit(self, key: str, used: JoinToken) -> TokenPair:
        admitted = await self._enrolment.admit(used.principal, used.device_id, used.label)
        pair = await self._sessions.open(admitted, used.family_id)
        now = await self._stores.join_tokens.get(key)
        if now is None or now.record.family_id != used.family_id:
            # The device has asked again meanwhile, and could not end what was not there yet.
            await self._end_family(used)
        return pair

    async def _end_family(self, token: JoinToken) -> None:
        if token.family_id:
            await self._sessions.end(token.family_id)

    async def _known_token(self, secret: str, principal: str) -> tuple[str, Stored[JoinToken]]:
        parts = secret.split(".") if len(secret) <= MAX_SECRET_CHARACTERS else []
        if len(parts) != 4 or parts[0] != MARK or not all(map(_PART.fullmatch, parts)):
            _refuse()
        key = token_key(parts[1], parts[2])
        found = await self._stores.join_tokens.get(key)
        # One answer for every defect: what is wrong with a token helps only who has none.
        if found is None or not is_secret(parts[3], found.record.secret_hash):
            _refuse()
        token = found.record
        named = token.principal == principal if token.principal else principal.endswith(f"@{token.domain}")
        if not named or self._clock.now_ms() >= token.expires_ms:
            _refuse()
        return key, found

    async def _require_redeemable(
        self, token: JoinToken, principal: str, device_id: str, retry_id: str
    ) -> None:
        if token.state is JoinState.REDEEMED:
            same = (token.principal, token.device_id) == (principal, device_id)
            same = same and bool(token.retry_hash) and is_secret(retry_id, token.retry_hash)
            late = self._clock.now_ms() >= token.redeemed_ms + REPEAT_S * 1000
            if not same or late or not await self._sessions.is_unused(token.family_id):
                _refuse()
        elif token.state is not JoinState.OPEN:
            _refuse()
        if await self._enrolment.is_revoked(token.created_by):
            _refuse()

    async def _require_right(self, creator: str, principal: str, domain: str) -> None:
        if (domain or principal != creator) and not self._administrators.includes(creator):
            whom = f"the domain {domain}" if domain else principal
            others = "an administrator" if domain else f"{principal} or an administrator"
            raise PermissionDenied(
                f"Only {others} of the mesh makes join tokens for {whom}.",
                metadata={"domain": domain} if domain else {"principal": principal},
            )
        if principal:
            await self._enrolment.require_not_revoked(principal)


def checked_domain(text: str, principal: str = "") -> str:
    """Return the domain in lower case; empty for a token of `principal`.

    Raises:
        InvalidInput: It cannot stand behind an e-mail's @, or a principal is named too (DOMAIN_INVALID).
    """
    if not text:
        return ""
    domain = text.lower()
    if principal or not is_principal(f"a@{domain}"):
        raise InvalidInput(
            "A join token is for an e-mail or for a domain, not for both."
            if principal
            else f"{quoted(text)} is no domain of e-mails: give what stands behind the @, like example.org.",
            reason="DOMAIN_INVALID",
            metadata={"domain": quoted(text)},
        )
    return domain


def _refuse() -> NoReturn:
    raise Unauthenticated(
        "The join token is unknown, used, revoked, expired, or made for another e-mail. Ask for a new one.",
        reason="JOIN_TOKEN_INVALID",
    )
