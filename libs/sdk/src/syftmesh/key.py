"""Keys: one's own, and what is known of those of others."""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_client.node import Node
from syftmesh_core.identity.safety_number import safety_number
from syftmesh_core.principal import normalise_principal

from syftmesh.device import Device, DeviceEnd, devices_of, end_device


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """Public keys of this profile.

    Attributes:
        email: Whose.
        root: Public key of the account root, hex; what others pin.
        device_id: This device.
        signing_key: Its Ed25519 public key, hex.
        admin: Whether it may sign device lists, rules, approvals and releases.
        phrase_confirmed: Whether the recovery phrase was typed in once.
        known: How many accounts' roots are pinned here, the own one included.
    """

    email: str
    root: str
    device_id: str
    signing_key: str
    admin: bool
    phrase_confirmed: bool
    known: int


class AsyncKeys:
    """Looks at keys, and ends own devices."""

    def __init__(self, node: Node) -> None:
        self._node = node

    async def show(self) -> KeyInfo:
        """Return the own public keys."""
        store = self._node.keystore
        device = store.device.public()
        return KeyInfo(
            email=device.principal,
            root=store.own_root.hex(),
            device_id=device.device_id,
            signing_key=device.signing_key.hex(),
            admin=device.admin,
            phrase_confirmed=store.phrase_confirmed,
            known=len(store.pinned_roots),
        )

    async def verify(self, email: str) -> str:
        """Return the safety number of oneself and `email`: both sides see the same when nobody is in between.

        Raises:
            InvalidInput: PRINCIPAL_INVALID.
            NotFound: PRINCIPAL_UNKNOWN.
            IntegrityFailure: KEY_CHANGED.
        """
        other = normalise_principal(email)
        keys = await self._node.directory.devices_of(other, refresh=True)
        return safety_number(self._node.principal, self._node.keystore.own_root, other, keys.root)

    async def devices(self, email: str | None = None) -> list[Device]:
        """Return the devices of somebody, of oneself by default; raises as `verify`.

        Of others these are the verified devices; of oneself also those that only the hub knows.
        """
        return await devices_of(self._node, email or self._node.principal)

    async def revoke_device(self, device_id: str) -> DeviceEnd:
        """End an own device: nothing is sealed for it from now on, its login and open calls end everywhere.

        Idempotent. After the own device itself the client is of no use any more.

        Raises:
            PermissionDenied: This device may not sign device lists (ADMIN_DEVICE_REQUIRED).
            WrongState: It is the last admin device (LAST_ADMIN_DEVICE).
            NotFound: There is no such device (DEVICE_UNKNOWN).
            Conflict: The device list changes too quickly (DEVICE_LIST_STALE).
        """
        return await end_device(self._node, device_id)
