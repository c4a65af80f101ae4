"""Join tokens: made by a principal for itself (or by an administrator), redeemed once by a device."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Final, NoReturn

from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import InvalidInput, NotFound, PermissionDenied, Unauthenticated
from syftmesh_core.principal import normalise_principal
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
from syftmesh_identity.domain.ports import Stores
from syftmesh_identity.domain.refresh import Sessions
from syftmesh_identity.domain.secret import digest, is_secret, new_secret

MARK: Final = "smj1"
DEFAULT_TTL_S: Final = 24 * 3600
MAX_TTL_S: Final = 30 * 24 * 3600
MAX_SECRET_CHARACTERS: Final = 256
_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


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
        administrators: Principals that may make tokens for others.
        clock: Wall time.
        random: Source of secrets and ids.
    """

    def __init__(
        self,
        stores: Stores,
        enrolment: Enrolment,
        sessions: Sessions,
        administrators: frozenset[str],
        clock: Clock,
        random: Random,
    ) -> None:
        self._stores = stores
        self._enrolment = enrolment
        self._sessions = sessions
        self._administrators = administrators
        self._clock = clock
        self._random = random

    async def create(self, creator: str, principal: str, label: str, ttl_s: int) -> tuple[JoinToken, str]:
        """Return a new token and its secret, which is shown once.

        Raises:
            InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID (label), TTL_INVALID.
            PermissionDenied: For another principal, without being an administrator (PERMISSION_DENIED).
        """
        name, kind = normalise_principal(principal), checked_label(label)
        if not 0 <= ttl_s <= MAX_TTL_S:
            raise InvalidInput(
                f"A join token lives at most {MAX_TTL_S} s (30 days), not {ttl_s} s.",
                reason="TTL_INVALID",
                metadata={"ttl_seconds": str(ttl_s), "limit": str(MAX_TTL_S)},
            )
        if name != creator and creator not in self._administrators:
            raise PermissionDenied(
                f"Only {name} or an administrator of the mesh makes join tokens for {name}.",
                metadata={"principal": name},
            )
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

    async def redeem(self, secret: str, principal: str, device_id: str) -> TokenPair:
        """Admit a device and return its first pair. Of two that race one wins.

        Raises:
            InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID.
            Unauthenticated: Unknown, used, revoked, expired, or another principal's (JOIN_TOKEN_INVALID).
            AlreadyExists: The device id is another principal's (DEVICE_OF_ANOTHER); the token stays open.
            PermissionDenied: The device was revoked (DEVICE_REVOKED); the token stays open.
            LimitExceeded: TOO_MANY_DEVICES.
        """
        name, device = normalise_principal(principal), checked_device_id(device_id)
        key, found = await self._open_token(secret, name)
        await self._enrolment.check(name, device)
        used = replace(found.record, state=JoinState.REDEEMED)
        if not await self._stores.join_tokens.replace(key, used, found.revision):
            _refuse()
        admitted = await self._enrolment.admit(name, device, found.record.label)
        return await self._sessions.open(admitted)

    async def _open_token(self, secret: str, principal: str) -> tuple[str, Stored[JoinToken]]:
        parts = secret.split(".") if len(secret) <= MAX_SECRET_CHARACTERS else []
        if len(parts) != 4 or parts[0] != MARK or not all(map(_PART.fullmatch, parts)):
            _refuse()
        key = token_key(parts[1], parts[2])
        found = await self._stores.join_tokens.get(key)
        # One answer for every defect: what is wrong with a token helps only who has none.
        if (
            found is None
            or not is_secret(parts[3], found.record.secret_hash)
            or found.record.principal != principal
            or found.record.state_at(self._clock.now_ms()) is not JoinState.OPEN
        ):
            _refuse()
        return key, found


def _refuse() -> NoReturn:
    raise Unauthenticated(
        "The join token is unknown, used, revoked, expired, or made for another e-mail. Ask for a new one.",
        reason="JOIN_TOKEN_INVALID",
    )
