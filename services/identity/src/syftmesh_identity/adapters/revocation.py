"""Revocations in the bucket that every verifier follows."""

from __future__ import annotations

from syftmesh_core.clock import Clock
from syftmesh_kit.keyset import RevocationPublisher

from syftmesh_identity.domain.ports import Revocations


class PublishedRevocations(Revocations):
    """Publishes to bucket ``identity_revoked``."""

    def __init__(self, publisher: RevocationPublisher, clock: Clock) -> None:
        self._publisher = publisher
        self._clock = clock

    async def revoke_token(self, token_id: str, expires_ms: int) -> None:
        """Refuse one access token; one that has ended by itself needs no announcement."""
        if expires_ms > self._clock.now_ms():
            await self._publisher.revoke(token_id=token_id)

    async def revoke_device(self, device_id: str) -> None:
        """Refuse every access token of a device."""
        await self._publisher.revoke(device_id=device_id)

    async def revoke_principal(self, principal: str) -> None:
        """Refuse every access token of a person."""
        await self._publisher.revoke(principal=principal)
