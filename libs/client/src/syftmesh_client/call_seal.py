"""Sealed bodies of calls and replies: who seals what for whom, and what the other side checks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

from google.protobuf.message import DecodeError
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import IntegrityFailure, LimitExceeded, MeshError
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.sealed import SealHeader, open_sealed, peek, seal
from syftmesh_core.url import SyftUrl

from syftmesh_client.directory import PrincipalKeys
from syftmesh_client.incoming import IncomingCall
from syftmesh_client.keystore import KeyStore

KIND_CALL: Final = "call"
KIND_REPLY: Final = "reply"
MAX_BODY_BYTES: Final = 256 * 1024
"""Limit of the router on a sealed body."""


class Devices(Protocol):
    """The part of `directory.DeviceDirectory` that is needed here."""

    async def devices_of(self, principal: str, *, refresh: bool = False) -> PrincipalKeys:
        """Return the verified devices of `principal`."""
        ...


class CallSeal:
    """Seals and opens with the keys of one device.

    Args:
        keystore: The own device.
        devices: Verified devices of others.
        clock: Wall time.
        random: Source of content keys.
    """

    def __init__(self, keystore: KeyStore, devices: Devices, clock: Clock, random: Random) -> None:
        self._keystore = keystore
        self._devices = devices
        self._clock = clock
        self._random = random

    async def seal_call(
        self,
        url: SyftUrl,
        call_id: str,
        expires_ms: int,
        request: RequestContent,
        readers: Sequence[DevicePublic],
    ) -> bytes:
        """Return `request` sealed for the devices that serve the site.

        Raises:
            LimitExceeded: BODY_TOO_LARGE.
        """
        header = self._header(KIND_CALL, str(url), call_id, expires_ms)
        return await asyncio.to_thread(self._sealed, request.SerializeToString(), header, readers)

    async def open_call(self, envelope: pb.Envelope, body: bytes) -> IncomingCall:
        """Return the call in a delivered message, after every check.

        Raises:
            IntegrityFailure: SEAL_INVALID and the like: it is no call of that sender to this site under this
                id; KEY_CHANGED.
            PermissionDenied: NO_KEY_FOR_DEVICE.
            NotFound: The sender has no keys.
            Unavailable: The key directory does not answer.
        """
        url = SyftUrl(envelope.site, envelope.app, envelope.endpoint)
        header = peek(body).header
        named = (header.sender, header.sender_device, header.ids, header.expires_ms)
        wanted = (envelope.sender, envelope.sender_device, (envelope.call_id,), envelope.expires_unix_ms)
        if envelope.site != self._keystore.device.principal or named != wanted:
            raise seal_invalid()
        keys, sender = await self._device(envelope.sender, envelope.sender_device)
        data = await self._open(body, keys, sender, KIND_CALL, str(url))
        try:
            request = RequestContent.FromString(data)
        except DecodeError:
            raise seal_invalid() from None
        return IncomingCall(
            call_id=envelope.call_id,
            sender=envelope.sender,
            sender_root=keys.root,
            sender_device=envelope.sender_device,
            site=envelope.site,
            app=envelope.app,
            endpoint=envelope.endpoint,
            request=request,
            expires_ms=envelope.expires_unix_ms,
        )

    async def reply_reader(self, call: IncomingCall) -> DevicePublic:
        """Return the device that called, for `seal_reply`.

        Raises:
            IntegrityFailure: The device is the caller's no more (SEAL_INVALID), or KEY_CHANGED.
            Unavailable: The key directory does not answer.
        """
        keys, device = await self._device(call.sender, call.sender_device)
        if keys.root != call.sender_root:
            raise seal_invalid()
        return device

    def seal_reply(self, call: IncomingCall, content: ReplyContent, reader: DevicePublic) -> bytes:
        """Return `content` sealed for the device that called; computes for about a millisecond.

        Raises:
            LimitExceeded: BODY_TOO_LARGE.
        """
        header = self._header(KIND_REPLY, call.sender, call.call_id, None)
        return self._sealed(content.SerializeToString(), header, [reader])

    async def open_reply(self, site: str, reply: pb.Reply) -> ReplyContent:
        """Return the content of a reply, after every check that it is the reply of `site` to this call.

        Raises:
            IntegrityFailure: SEAL_INVALID, KEY_CHANGED.
            PermissionDenied: NO_KEY_FOR_DEVICE.
            Unavailable: The key directory does not answer.
        """
        header = peek(reply.body).header
        own = self._keystore.device.principal
        if (reply.replier, header.sender, header.ids) != (site, site, (reply.call_id,)):
            raise seal_invalid()
        keys, device = await self._device(site, header.sender_device)
        if not device.serves:
            raise seal_invalid()
        data = await self._open(reply.body, keys, device, KIND_REPLY, own)
        try:
            return ReplyContent.FromString(data)
        except DecodeError:
            raise seal_invalid() from None

    async def _device(self, principal: str, device_id: str) -> tuple[PrincipalKeys, DevicePublic]:
        keys = await self._devices.devices_of(principal)
        device = keys.find(device_id)
        if device is None:  # it may have been added since the list was fetched
            keys = await self._devices.devices_of(principal, refresh=True)
            device = keys.find(device_id)
        if device is None:
            raise seal_invalid()
        return keys, device

    def _header(self, kind: str, receiver: str, call_id: str, expires_ms: int | None) -> SealHeader:
        own = self._keystore.device
        return SealHeader(
            kind=kind,
            sender_root=self._keystore.own_root,
            sender=own.principal,
            sender_device=own.device_id,
            receiver=receiver,
            ids=(call_id,),
            expires_ms=expires_ms,
        )

    def _sealed(self, data: bytes, header: SealHeader, readers: Sequence[DevicePublic]) -> bytes:
        if len(data) > MAX_BODY_BYTES:
            raise _too_large(len(data))
        blob = seal(data, header=header, readers=readers, signer=self._keystore.device, random=self._random)
        if len(blob) > MAX_BODY_BYTES:
            raise _too_large(len(blob))
        return blob

    async def _open(
        self, body: bytes, keys: PrincipalKeys, sender: DevicePublic, kind: str, receiver: str
    ) -> bytes:
        opened = await asyncio.to_thread(
            open_sealed,
            body,
            device=self._keystore.device,
            sender=sender,
            sender_root=keys.root,
            expect_kind=kind,
            expect_receiver=receiver,
            now_ms=self._clock.now_ms(),
        )
        return opened.plaintext


def seal_invalid() -> MeshError:
    """Return the one answer to all that does not hold."""
    return IntegrityFailure(
        "The sealed content does not hold: it was changed, or is not what it is said to be.",
        reason="SEAL_INVALID",
    )


def _too_large(size_bytes: int) -> LimitExceeded:
    return LimitExceeded(
        f"The sealed body has {size_bytes} bytes, allowed are {MAX_BODY_BYTES}. Send a file instead.",
        reason="BODY_TOO_LARGE",
        metadata={"size_bytes": str(size_bytes), "limit_bytes": str(MAX_BODY_BYTES)},
    )
