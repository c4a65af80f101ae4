"""People as administrators see them: listed, ended, let in again."""

from __future__ import annotations

from dataclasses import replace

from syftmesh_core.clock import Clock
from syftmesh_core.errors import NotFound, PermissionDenied
from syftmesh_core.principal import normalise_principal

from syftmesh_identity.domain.enrolment import RACE_TRIES, Enrolment, busy
from syftmesh_identity.domain.model import Account
from syftmesh_identity.domain.ports import Revocations, Stores


class Administrators:
    """Who may administer the mesh.

    Args:
        names: Their e-mails, and the operator's name.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def includes(self, caller: str) -> bool:
        """Return whether `caller` is one."""
        return caller in self._names

    def require(self, caller: str) -> None:
        """Return when `caller` is one.

        Raises:
            PermissionDenied: It is not (PERMISSION_DENIED).
        """
        if not self.includes(caller):
            raise PermissionDenied("This is for the administrators of the mesh. Ask one of them.")


class People:
    """Lists, revokes and reinstates people.

    Args:
        stores: The state.
        enrolment: Revokes devices.
        revocations: Told of each revoked person.
        clock: Wall time.
    """

    def __init__(self, stores: Stores, enrolment: Enrolment, revocations: Revocations, clock: Clock) -> None:
        self._stores = stores
        self._enrolment = enrolment
        self._revocations = revocations
        self._clock = clock

    async def list(self) -> list[Account]:
        """Return everybody who was ever here, by e-mail."""
        return sorted(await self._stores.accounts.list(), key=lambda account: account.principal)

    async def revoke(self, principal: str) -> None:
        """End a person and all their devices; idempotent, and repeats the announcement.

        Somebody who was never here is kept out from the start.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            Conflict: The state changes too quickly (CONFLICT).
        """
        name = normalise_principal(principal)
        await self._mark(name)
        # First stored, then told: no login can slip in behind the announcement, which ends tokens and open calls
        # at once; the devices, one by one, are for the time after a reinstatement.
        await self._revocations.revoke_principal(name)
        for device in await self._enrolment.devices_of(name):
            await self._enrolment.revoke(name, device.device_id)

    async def reinstate(self, principal: str) -> None:
        """Let a person log in again, with new devices: those from before stay revoked. Idempotent.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            NotFound: Nobody of that e-mail was ever here (PRINCIPAL_UNKNOWN).
            Conflict: The state changes too quickly (CONFLICT).
        """
        name = normalise_principal(principal)
        for _ in range(RACE_TRIES):
            found = await self._stores.accounts.get(name)
            if found is None:
                raise NotFound(
                    f"Nobody named {name} was ever at this mesh. List people with `syftmesh admin user ls`.",
                    reason="PRINCIPAL_UNKNOWN",
                    metadata={"principal": name},
                )
            if found.record.revoked_ms is None:
                return
            # A revocation that was cut off has left devices behind.
            for device in await self._enrolment.devices_of(name):
                await self._enrolment.revoke(name, device.device_id)
            back = replace(found.record, revoked_ms=None)
            if await self._stores.accounts.replace(name, back, found.revision):
                return
        raise busy()

    async def _mark(self, name: str) -> None:
        for _ in range(RACE_TRIES):
            found, now_ms = await self._stores.accounts.get(name), self._clock.now_ms()
            if found is None:
                if await self._stores.accounts.create(name, Account(name, (), now_ms)):
                    return
                continue
            revoked = replace(found.record, revoked_ms=now_ms)
            if found.record.revoked_ms is not None or await self._stores.accounts.replace(
                name, revoked, found.revision
            ):
                return
        raise busy()
