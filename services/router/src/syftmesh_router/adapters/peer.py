"""The other replicas, by requests over NATS: one hop to the holder of a site's lease, one to a device."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import nats.errors
import structlog
from google.protobuf.message import Message
from google.rpc import status_pb2
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from nats.aio.msg import Msg
from syftmesh_core.errors import InvalidInput, MeshError, Unavailable
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.errors import from_status, internal_error, to_status
from syftmesh_kit.fault import bus_error
from syftmesh_kit.message import TYPE_HEADER, decode_payload, type_headers
from syftmesh_kit.trace import current_traceparent

from syftmesh_router import convert
from syftmesh_router.domain.desk import Desks
from syftmesh_router.domain.dispatch import LocalDeliveries
from syftmesh_router.domain.envelope import CallMessage
from syftmesh_router.domain.ports import DeviceLink
from syftmesh_router.domain.record import CallState

_OPERATION: Final = "mesh-hop"
_SITE: Final = "mesh-site"
_DEVICE: Final = "mesh-device"
_ROUTER: Final = "mesh-router"
_EPOCH: Final = "mesh-epoch"
_ATTEMPT: Final = "mesh-attempt"
_TIMEOUT: Final = "mesh-timeout-ms"
_SUBMIT_S: Final = 10.0
_ATTACH_S: Final = 2.0
_HOP_S: Final = 1.0
_MAX_TIMEOUT_S: Final = 30.0
_INBOX: Final = "_INBOX."

_log: Any = structlog.get_logger("syftmesh.router")


class NatsPeers:
    """`ports.Peers` over the bus.

    Args:
        bus: The bus.
        router: This replica's id.
    """

    def __init__(self, bus: Bus, router: str) -> None:
        self._bus = bus
        self._router = router

    async def submit(self, router: str, message: CallMessage, *, store: bool) -> CallState:
        """Let the replica `router` take the call; raises what it raises, NO_RESPONDER or PEER_TIMEOUT."""
        proto = convert.message_of(message)
        payload: Message = rpc.SendRequest(message=proto) if store else rpc.CallRequest(message=proto)
        headers = {_OPERATION: "submit"}
        answer = await self._ask(router, payload, headers, _SUBMIT_S, rpc.SendResponse)
        return convert.state_of(answer.state)

    async def attach(self, router: str, site: str, link: DeviceLink) -> int:
        """Tell the holder of a device that is connected here; return the holder's epoch."""
        hello = rpc.ServeRequest.Hello(site=site, apps=sorted(link.apps))
        headers = {_OPERATION: "attach", _DEVICE: link.device_id, _ROUTER: self._router}
        answer = await self._ask(router, hello, headers, _ATTACH_S, rpc.ServeResponse.Welcome)
        return int(answer.epoch)

    async def detach(self, router: str, site: str, link: DeviceLink) -> None:
        """Tell the holder that the device is not connected here any more."""
        hello = rpc.ServeRequest.Hello(site=site)
        headers = {_OPERATION: "detach", _DEVICE: link.device_id, _ROUTER: self._router}
        await self._ask(router, hello, headers, _ATTACH_S, rpc.ServeResponse.Welcome)

    def link(self, router: str, site: str, device_id: str, apps: frozenset[str]) -> DeviceLink:
        """Return a link to a device that is connected to the replica `router`."""
        return _RemoteLink(self, router, site, device_id, apps)

    async def deliver(
        self, router: str, site: str, device_id: str, message: CallMessage, headers: dict[str, str]
    ) -> bool:
        """Hand a call to a device of another replica; return whether it said RECEIVED in time."""
        timeout_s = int(headers[_TIMEOUT]) / 1000
        payload = rpc.ServeResponse.Delivery(message=convert.message_of(message))
        headers = {**headers, _OPERATION: "deliver", _SITE: site, _DEVICE: device_id}
        try:
            answer = await self._ask(router, payload, headers, timeout_s + _HOP_S, rpc.ServeRequest.Received)
        except Unavailable:
            return False
        return bool(answer.call_id == message.envelope.call_id)

    async def _ask(
        self, router: str, payload: Message, headers: dict[str, str], timeout_s: float, cls: type[Any]
    ) -> Any:
        where = subject.deliver(router)
        all_headers = {**headers, **type_headers(payload, current_traceparent())}
        try:
            answer = await self._bus.client.request(
                where, payload.SerializeToString(), timeout=timeout_s, headers=all_headers
            )
        except nats.errors.NoRespondersError as error:
            raise Unavailable("The other replica is gone.", reason="NO_RESPONDER") from error
        except (nats.errors.TimeoutError, TimeoutError) as error:
            raise Unavailable("The other replica does not answer.", reason="PEER_TIMEOUT") from error
        except nats.errors.Error as error:
            raise bus_error(error, where) from error
        found = dict(answer.headers or {})
        if found.get(TYPE_HEADER) == status_pb2.Status.DESCRIPTOR.full_name:
            raise from_status(status_pb2.Status.FromString(answer.data)) or internal_error("peer")
        return decode_payload(found, answer.data, cls)


class _RemoteLink:
    """A device that is connected to another replica; a `ports.DeviceLink`."""

    def __init__(
        self, peers: NatsPeers, router: str, site: str, device_id: str, apps: frozenset[str]
    ) -> None:
        self._peers = peers
        self._router = router
        self._site = site
        self._device_id = device_id
        self._apps = apps

    @property
    def device_id(self) -> str:
        """The device."""
        return self._device_id

    @property
    def apps(self) -> frozenset[str]:
        """The apps it takes."""
        return self._apps

    async def deliver(self, message: CallMessage, epoch: int, attempt: int, timeout_s: float) -> bool:
        """Hand the call over; see `ports.DeviceLink.deliver`."""
        headers = {_EPOCH: str(epoch), _ATTEMPT: str(attempt), _TIMEOUT: str(int(timeout_s * 1000))}
        return await self._peers.deliver(self._router, self._site, self._device_id, message, headers)


class PeerServer:
    """Answers the other replicas.

    Args:
        bus: The bus.
        router: This replica's id.
        local: Sites delivered to here.
        desks: Devices connected here.
    """

    def __init__(self, bus: Bus, router: str, local: LocalDeliveries, desks: Desks) -> None:
        self._bus = bus
        self._router = router
        self._local = local
        self._desks = desks
        self._tasks: asyncio.TaskGroup | None = None

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Answer from now on."""
        self._tasks = tasks
        await self._bus.subscribe(subject.deliver(self._router), self._take)
        await self._bus.ready()

    async def _take(self, message: Msg) -> None:
        # The broker delivers any reply subject that a publisher names: ours go to request inboxes only.
        if self._tasks is None or not message.reply.startswith(_INBOX):
            return
        # Tasks start in the order in which they are made, so calls of one sender stay in order.
        self._tasks.create_task(self._answer(message))

    async def _answer(self, message: Msg) -> None:
        headers = dict(message.headers or {})
        try:
            answer = await self._handle(headers, message.data)
        except MeshError as error:
            answer = to_status(error)
        except Exception:  # noqa: BLE001 - a consumer loop: the other replica gets an answer in any case
            _log.exception("peer.failed", operation=headers.get(_OPERATION, "")[:20])
            answer = to_status(internal_error("peer"))
        try:
            await self._bus.client.publish(
                message.reply, answer.SerializeToString(), headers=type_headers(answer, "")
            )
        except nats.errors.Error:
            _log.info("peer.answer_lost")

    async def _handle(self, headers: dict[str, str], data: bytes) -> Message:
        operation = headers.get(_OPERATION, "")
        if operation == "submit":
            return await self._submit(headers, data)
        if operation == "deliver":
            return await self._deliver(headers, data)
        if operation not in {"attach", "detach"}:
            raise InvalidInput("The hop is not known.", reason="FRAME_INVALID")
        hello = decode_payload(headers, data, rpc.ServeRequest.Hello)
        device_id, router = headers.get(_DEVICE, ""), headers.get(_ROUTER, "")
        desk = self._desks.find(hello.site)
        if desk is None:
            raise Unavailable("This replica does not deliver to the site.", reason="NOT_HOLDER")
        if operation == "detach":
            desk.detach(router, device_id)
            return rpc.ServeResponse.Welcome()
        return rpc.ServeResponse.Welcome(epoch=await desk.attach(router, device_id, frozenset(hello.apps)))

    async def _submit(self, headers: dict[str, str], data: bytes) -> Message:
        store = headers.get(TYPE_HEADER) == rpc.SendRequest.DESCRIPTOR.full_name
        request: Any = decode_payload(headers, data, rpc.SendRequest if store else rpc.CallRequest)
        message = convert.call_of(request.message)
        delivery = self._local.find(message.envelope.site)
        if delivery is None:
            raise Unavailable("This replica does not deliver to the site.", reason="NOT_HOLDER")
        record = await delivery.submit(message, store=store)
        return rpc.SendResponse(call_id=record.call_id, state=convert.state_value(record.state))

    async def _deliver(self, headers: dict[str, str], data: bytes) -> Message:
        frame = decode_payload(headers, data, rpc.ServeResponse.Delivery)
        desk = self._desks.find(headers.get(_SITE, ""))
        link = desk.find(headers.get(_DEVICE, "")) if desk is not None else None
        if link is None:
            raise Unavailable("The device is not connected here.", reason="DEVICE_AWAY")
        timeout_s = min(int(headers[_TIMEOUT]) / 1000, _MAX_TIMEOUT_S)
        message = convert.call_of(frame.message)
        done = await link.deliver(message, int(headers[_EPOCH]), int(headers[_ATTEMPT]), timeout_s)
        return rpc.ServeRequest.Received(call_id=message.envelope.call_id if done else "")
