"""Looking up the chain of a principal's device lists."""

from __future__ import annotations

from typing import Final

from syftmesh_core.errors import NotFound
from syftmesh_core.principal import normalise_principal

from syftmesh_crypto.domain.ports import DeviceListLog

PAGE_BYTES: Final = 2 * 1024 * 1024
"""An answer ends with the list that reaches this size, in bytes: it stays below the 4 MiB of a message."""


class LookUpDevices:
    """Gives chains; everybody may ask, for everybody verifies what comes."""

    def __init__(self, log: DeviceListLog) -> None:
        self._log = log

    async def lists(self, principal: str, from_version: int) -> list[bytes]:
        """Return signed lists in order, from `from_version` (0 and 1: the first) on.

        An answer of `PAGE_BYTES` or more may have been cut: ask again from the version behind it. From a
        version that is not there yet, the answer is empty.

        Raises:
            InvalidInput: Malformed e-mail (PRINCIPAL_INVALID).
            NotFound: Nothing was published (PRINCIPAL_UNKNOWN).
        """
        name = normalise_principal(principal)
        chain = await self._log.chain(name)
        if chain is None:
            raise NotFound(
                f"{name} has published no devices. Ask its owner to log in once.",
                reason="PRINCIPAL_UNKNOWN",
                metadata={"principal": name},
            )
        page: list[bytes] = []
        size_bytes = 0
        for found in chain.lists[max(from_version, 1) - 1 :]:
            page.append(found.encoded)
            size_bytes += len(found.encoded)
            if size_bytes >= PAGE_BYTES:
                break
        return page
