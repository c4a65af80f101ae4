"""Channels to the hub's services, one for each address; with mutual TLS they follow the certificate's files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
import structlog
from syftmesh_core.clock import Clock
from syftmesh_core.errors import MeshError
from syftmesh_kit.address import grpc_target
from syftmesh_kit.channel import channel_options
from syftmesh_kit.tls import FOLLOW_S, TlsIdentity

_log: Any = structlog.get_logger("syftmesh.gateway")


class Backends:
    """Knows the channel of each domain.

    Args:
        addresses: gRPC address by domain.
        tls: Who the gateway is towards them; None is plaintext.
        clock: Time.

    Raises:
        InvalidInput: The TLS files are damaged (TLS_FILES_INVALID).
    """

    def __init__(self, addresses: Mapping[str, str], tls: TlsIdentity | None, clock: Clock) -> None:
        self._addresses = dict(addresses)
        self._tls = tls
        self._clock = clock
        self._digest = tls.read().digest if tls is not None else ""
        self._looked_s = clock.monotonic_s()
        self._channels = self._opened()
        self._old: list[grpc.aio.Channel] = []

    @property
    def domains(self) -> tuple[str, ...]:
        """Return the domains that have a backend."""
        return tuple(self._addresses)

    def channel(self, domain: str) -> grpc.aio.Channel:
        """Return the channel of `domain`, which must have a backend.

        Do not keep it: the next call may get another, after the certificate was renewed.
        """
        self._follow()
        return self._channels[self._addresses[domain]]

    async def close(self) -> None:
        """Close the channels."""
        for channel in [*self._channels.values(), *self._old]:
            await channel.close()

    def _follow(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._tls is None or now_s - self._looked_s < FOLLOW_S:
            return
        self._looked_s = now_s
        try:
            digest = self._tls.read().digest
            if digest == self._digest:
                return
            fresh = self._opened()
        except MeshError as error:  # while the files are replaced the old channels hold
            _log.warning("tls.files_refused", reason=error.reason)
            return
        self._digest = digest
        # Open calls go on over the old channels, which carry nothing new and close with the process.
        self._old += self._channels.values()
        self._channels = fresh

    def _opened(self) -> dict[str, grpc.aio.Channel]:
        options = channel_options()
        credentials = self._tls.channel_credentials() if self._tls is not None else None
        return {
            address: grpc.aio.insecure_channel(grpc_target(address), options=options)
            if credentials is None
            else grpc.aio.secure_channel(grpc_target(address), credentials, options=options)
            for address in set(self._addresses.values())
        }
