"""Publishing a device list: verified against everything before it, then appended, then acknowledged."""

from __future__ import annotations

from typing import Final

from syftmesh_core.errors import Conflict, IntegrityFailure, InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.identity.device_list import DeviceList, parse_list, verify_first, verify_successor
from syftmesh_core.principal import is_principal

from syftmesh_crypto.domain.ports import DeviceListLog

MAX_VERSIONS: Final = 4096
"""Versions of one principal's list; a chain is kept for ever, so nobody may grow it without end."""


class PublishDeviceList:
    """Appends the next version of the caller's own list."""

    def __init__(self, log: DeviceListLog) -> None:
        self._log = log

    async def publish(self, caller: str, data: bytes) -> int:
        """Return the version that is now newest.

        Args:
            caller: The authenticated principal.
            data: The signed list.

        Raises:
            InvalidInput: The bytes are no device list (ENCODING_INVALID).
            PermissionDenied: The list is of another principal (PERMISSION_DENIED).
            IntegrityFailure: Signature, chain or a device does not hold (DEVICE_LIST_INVALID), or the account
                root is another than the one published before (KEY_CHANGED).
            Conflict: Another version is newest (DEVICE_LIST_STALE).
            LimitExceeded: 4,096 versions are there (DEVICE_LIST_LIMIT).
            DeadlineExceeded: Stored, and the journal has not confirmed it yet (JOURNAL_LAGS): publish again.
        """
        new = _parsed(data)
        if new.principal != caller or not is_principal(new.principal):
            raise PermissionDenied(
                f"You are {caller} and publish the device list of {caller} only.",
                metadata={"principal": caller},
            )
        chain = await self._log.chain(caller)
        if chain is None:
            verify_first(data)
            sequence = await self._append(new, 0)
        elif chain.newest.encoded == new.encoded:
            sequence = chain.sequence
        else:
            _check_follows(chain.newest, new)
            sequence = await self._append(new, chain.sequence)
        await self._log.wait_durable(sequence)
        return new.version

    async def _append(self, new: DeviceList, expected_sequence: int) -> int:
        try:
            return await self._log.append(new, expected_sequence)
        except Conflict as error:
            raise _stale(new.version, new.version) from error


def _parsed(data: bytes) -> DeviceList:
    try:
        return parse_list(data)
    except IntegrityFailure as error:
        if error.reason == "ENCODING_INVALID":
            raise InvalidInput(
                "The bytes are no signed device list.", reason="ENCODING_INVALID", metadata=error.metadata
            ) from error
        raise IntegrityFailure(error.message, reason="DEVICE_LIST_INVALID") from error


def _check_follows(newest: DeviceList, new: DeviceList) -> None:
    if new.root_key == newest.root_key and new.version <= newest.version:
        raise _stale(new.version, newest.version)
    if newest.version >= MAX_VERSIONS:
        raise LimitExceeded(
            f"{newest.principal} has published {MAX_VERSIONS} device lists, which is the limit.",
            reason="DEVICE_LIST_LIMIT",
            metadata={"limit": str(MAX_VERSIONS)},
        )
    verify_successor(newest, new)


def _stale(version: int, newest: int) -> Conflict:
    return Conflict(
        f"Version {version} does not replace the newest list: another one was published in between. "
        f"Fetch the newest list, then sign anew.",
        reason="DEVICE_LIST_STALE",
        metadata={"version": str(version), "newest": str(newest)},
    )
