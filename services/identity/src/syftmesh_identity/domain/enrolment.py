"""Enrolment: a device becomes known, belongs to one principal for ever, and may make it a site."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import AlreadyExists, Conflict, LimitExceeded, NotFound, PermissionDenied
from syftmesh_core.identity.device import is_device_id
from syftmesh_core.quote import quoted

from syftmesh_identity.domain.model import MAX_DEVICES, SITE_LABELS, Account, Device, Site
from syftmesh_identity.domain.ports import Revocations, Stores

RACE_TRIES: Final = 8


class Enrolment:
    """Registers, lists and revokes devices.

    Args:
        stores: The state.
        revocations: Told of each revoked device.
        clock: Wall time.
    """

    def __init__(self, stores: Stores, revocations: Revocations, clock: Clock) -> None:
        self._stores = stores
        self._revocations = revocations
        self._clock = clock

    async def check(self, principal: str, device_id: str) -> Device | None:
        """Return the device when it is known, None when it is new.

        Raises:
            AlreadyExists: It belongs to another principal (DEVICE_OF_ANOTHER).
            PermissionDenied: It, or the person, was revoked (DEVICE_REVOKED, PRINCIPAL_REVOKED).
        """
        await self.require_not_revoked(principal)
        found = await self._stores.devices.get(device_id)
        if found is None:
            return None
        if found.record.principal != principal:
            raise AlreadyExists(
                f"The device id {device_id} belongs to another principal. Make a new device.",
                reason="DEVICE_OF_ANOTHER",
                metadata={"device_id": device_id},
            )
        if found.record.revoked_ms is not None:
            raise PermissionDenied(
                f"The device {device_id} was revoked. Make new keys and log in with them.",
                reason="DEVICE_REVOKED",
                metadata={"device_id": device_id},
            )
        return found.record

    async def require_not_revoked(self, principal: str) -> None:
        """Return when the person may log in; nobody knows somebody who never did.

        Raises:
            PermissionDenied: An administrator has ended the person (PRINCIPAL_REVOKED).
        """
        if await self.is_revoked(principal):
            raise _person_revoked(principal)

    async def is_revoked(self, principal: str) -> bool:
        """Return whether an administrator has ended the person."""
        found = await self._stores.accounts.get(principal)
        return found is not None and found.record.revoked_ms is not None

    async def admit(self, principal: str, device_id: str, label: str) -> Device:
        """Make the device known (it may be already; its first label stays) and return it.

        The id is claimed before the account names it, so whatever stops in between is completed by the next
        login.

        Raises:
            AlreadyExists: DEVICE_OF_ANOTHER.
            PermissionDenied: DEVICE_REVOKED, PRINCIPAL_REVOKED.
            LimitExceeded: The principal has 32 devices that are not revoked (TOO_MANY_DEVICES).
            Conflict: The state changes too quickly (CONFLICT).
        """
        device = await self.check(principal, device_id)
        if device is None:
            fresh = Device(device_id, principal, label, self._clock.now_ms())
            await self._stores.devices.create(device_id, fresh)
            device = await self.check(principal, device_id) or fresh
        await self._enlist(principal, device_id)
        if device.label in SITE_LABELS:
            await self._stores.sites.create(principal, Site(principal, principal, self._clock.now_ms()))
        return device

    async def devices_of(self, principal: str) -> list[Device]:
        """Return the devices of `principal`, oldest first."""
        found = await self._stores.accounts.get(principal)
        if found is None:
            return []
        devices = [await self._stores.devices.get(device_id) for device_id in found.record.device_ids]
        own = [item.record for item in devices if item is not None and item.record.principal == principal]
        return sorted(own, key=lambda device: (device.created_ms, device.device_id))

    async def revoke(self, principal: str, device_id: str) -> None:
        """Revoke a device of `principal` for ever; idempotent, and repeats the announcement.

        Raises:
            NotFound: The principal has no such device (DEVICE_UNKNOWN).
            Conflict: The state changes too quickly (CONFLICT).
        """
        for _ in range(RACE_TRIES):
            found = await self._stores.devices.get(device_id) if is_device_id(device_id) else None
            if found is None or found.record.principal != principal:
                raise NotFound(
                    f"You have no device {quoted(device_id)}. List yours with `syftmesh keys devices`.",
                    reason="DEVICE_UNKNOWN",
                    metadata={"device_id": quoted(device_id)},
                )
            revoked = replace(found.record, revoked_ms=self._clock.now_ms())
            if found.record.revoked_ms is not None or await self._stores.devices.replace(
                device_id, revoked, found.revision
            ):
                # First stored, then told: no login can slip in behind the announcement.
                await self._revocations.revoke_device(device_id)
                return
        raise busy()

    async def _enlist(self, principal: str, device_id: str) -> None:
        for _ in range(RACE_TRIES):
            found = await self._stores.accounts.get(principal)
            if found is None:
                if await self._stores.accounts.create(principal, Account(principal, (device_id,))):
                    return
                continue
            if found.record.revoked_ms is not None:  # since it was looked at
                raise _person_revoked(principal)
            if device_id in found.record.device_ids:
                return
            kept = await self._with_room(found.record)
            account = replace(found.record, device_ids=(*kept, device_id))
            if await self._stores.accounts.replace(principal, account, found.revision):
                return
        raise busy()

    async def _with_room(self, account: Account) -> tuple[str, ...]:
        if len(account.device_ids) < MAX_DEVICES:
            return account.device_ids
        for place, device_id in enumerate(account.device_ids):
            found = await self._stores.devices.get(device_id)
            if found is None or found.record.revoked_ms is not None:
                return account.device_ids[:place] + account.device_ids[place + 1 :]
        raise LimitExceeded(
            f"{account.principal} has {MAX_DEVICES} devices already. Revoke one first.",
            reason="TOO_MANY_DEVICES",
            metadata={"limit": str(MAX_DEVICES)},
            hint="syftmesh keys devices revoke ID",
        )


def _person_revoked(principal: str) -> PermissionDenied:
    return PermissionDenied(
        f"{principal} may not log in at this mesh any more. Ask its administrators.",
        reason="PRINCIPAL_REVOKED",
        metadata={"principal": principal},
    )


def busy() -> Conflict:
    """Return the error for a compare-and-set that lost again and again."""
    return Conflict("The same record is being changed by many at once. Try again.", reason="CONFLICT")
