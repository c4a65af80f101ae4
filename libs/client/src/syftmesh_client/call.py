"""Calls to `syft://` addresses: sealed for the site's devices, the reply verified against the site's keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1 import rpc_service_pb2_grpc as grpc_api
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import (
    Cancelled,
    DeadlineExceeded,
    IntegrityFailure,
    InvalidInput,
    MeshError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from syftmesh_core.principal import normalise_principal
from syftmesh_core.url import SyftUrl, parse_url

from syftmesh_client.call_seal import MAX_BODY_BYTES, CallSeal, Devices
from syftmesh_client.keystore import KeyStore
from syftmesh_client.problem import problem_error
from syftmesh_client.traffic import Traffic, TrafficKind

__all__ = ["MAX_BODY_BYTES", "CallClient", "CallResult"]

_GRACE_S: Final = 2.0
"""Added to a call's RPC, so that the router's word on its expiry arrives before the transport's deadline."""

_SLICE_S: Final = 30.0
_MAX_REMEMBERED: Final = 10_000
_VERSION: Final = 1
_SUITE: Final = 1

_ENDED: Final[Mapping[int, tuple[type[MeshError], str, str]]] = {
    pb.CALL_STATE_FAILED: (Unavailable, "CALL_FAILED", "The site could not answer the call"),
    pb.CALL_STATE_REJECTED: (PermissionDenied, "PERMISSION_DENIED", "The site refused the call"),
    pb.CALL_STATE_NOT_FOUND: (NotFound, "APP_UNKNOWN", "The site serves no such app or endpoint"),
    pb.CALL_STATE_EXPIRED: (DeadlineExceeded, "CALL_EXPIRED", "The call expired unanswered"),
    pb.CALL_STATE_CANCELLED: (Cancelled, "CANCELLED", "The call was withdrawn"),
}
_INTEGRITY: Final = frozenset({"SEAL_INVALID", "NO_KEY_FOR_DEVICE"})


class CallSession(Protocol):
    """The part of `session.HubSession` that is needed here."""

    @property
    def rpc(self) -> grpc_api.RpcServiceAsyncStub:
        """The stub of the router."""
        ...


@dataclass(frozen=True, slots=True)
class CallResult:
    """Where a call is.

    Attributes:
        state: Its state now.
        content: The reply when the state is COMPLETED.
        failure_reason: Constant of ErrorReason where it ended otherwise.
    """

    state: pb.CallState.ValueType
    content: ReplyContent | None = None
    failure_reason: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self.state not in {pb.CALL_STATE_PENDING, pb.CALL_STATE_DELIVERED}


class CallClient:
    """Makes calls as one device.

    Args:
        session: The hub.
        directory: Verified devices.
        keystore: The own device.
        clock: Time.
        random: Content keys and ids.
        traffic: Where bytes are counted.
    """

    def __init__(
        self,
        session: CallSession,
        directory: Devices,
        keystore: KeyStore,
        clock: Clock,
        random: Random,
        *,
        traffic: Traffic | None = None,
    ) -> None:
        self._session = session
        self._directory = directory
        self._device = keystore.device
        self._clock = clock
        self._random = random
        self._seal = CallSeal(keystore, directory, clock, random)
        self._traffic = traffic or Traffic()
        self._sites: OrderedDict[str, str] = OrderedDict()

    async def call(self, url: str, request: RequestContent, *, timeout_s: float = 30.0) -> ReplyContent:
        """Call `url` and return the site's reply; its query goes sealed, in `request`.

        Args:
            url: ``syft://<e-mail>/app_data/<app>/rpc/<endpoint>[?k=v]``.
            request: What is asked.
            timeout_s: Seconds until the call expires, at the site too.

        Raises:
            MeshError: The one that the site's framework answered with; an app's own reply is returned
                whatever its status.
            InvalidInput: INVALID_URL.
            NotFound: SITE_UNKNOWN, APP_UNKNOWN, ENDPOINT_UNKNOWN, SITE_HAS_NO_DEVICE.
            PermissionDenied: No right to call.
            LimitExceeded: BODY_TOO_LARGE, RATE_LIMITED.
            DeadlineExceeded: CALL_EXPIRED.
            IntegrityFailure: KEY_CHANGED before anything was sent; SEAL_INVALID for a forged reply.
            Unavailable: The hub or the site could not do it now.
        """
        message = await self._message(url, request, timeout_s)
        answer = await self._session.rpc.Call(rpc.CallRequest(message=message), timeout=timeout_s + _GRACE_S)
        return _content(await self._result(answer.reply, message.envelope.site))

    async def send(self, url: str, request: RequestContent, *, expires_s: float = 86_400.0) -> str:
        """Store a call to `url` durably and return its id; await the reply by `wait`.

        Args:
            url: As in `call`.
            request: What is asked.
            expires_s: Seconds until the call expires, at most 30 days.

        Raises:
            MeshError: As `call`, as far as the hub can tell now.
        """
        message = await self._message(url, request, expires_s)
        await self._session.rpc.Send(rpc.SendRequest(message=message))
        return message.envelope.call_id

    async def reply(self, call_id: str, *, site: str | None = None) -> CallResult:
        """Return where a call is now.

        Args:
            call_id: From `send`.
            site: The datasite that was called; needed for a call of another process, because only with it
                the reply can be told from a forged one.

        Raises:
            InvalidInput: SITE_NEEDED.
            NotFound: CALL_UNKNOWN.
            IntegrityFailure: SEAL_INVALID, KEY_CHANGED.
        """
        called = self._site_of(call_id, site)
        answer = await self._session.rpc.GetReply(rpc.GetReplyRequest(call_id=call_id))
        if not answer.HasField("reply"):
            return CallResult(answer.state)
        return await self._result(answer.reply, called)

    async def wait(self, call_id: str, timeout_s: float, *, site: str | None = None) -> ReplyContent:
        """Return the reply to a call, waiting for it.

        Args:
            call_id: From `send`.
            timeout_s: Longest wait in seconds.
            site: As in `reply`.

        Raises:
            DeadlineExceeded: No reply yet (DEADLINE_EXCEEDED), or never (CALL_EXPIRED).
            MeshError: As `call` and `reply`.
        """
        called = self._site_of(call_id, site)
        deadline_s = self._clock.monotonic_s() + timeout_s
        while True:
            left_s = deadline_s - self._clock.monotonic_s()
            slice_s = min(max(left_s, 0.1), _SLICE_S)
            try:
                answer = await self._session.rpc.AwaitReply(
                    rpc.AwaitReplyRequest(call_id=call_id), timeout=slice_s
                )
            except DeadlineExceeded:
                if left_s > slice_s:
                    continue
                raise
            return _content(await self._result(answer.reply, called))

    async def _message(self, address: str, request: RequestContent, life_s: float) -> pb.Message:
        url = parse_url(address)
        _, separator, query = address.partition("?")
        if separator:
            request = _with_query(request, query)
        bare = SyftUrl(url.site, url.app, url.endpoint)
        keys = await self._directory.devices_of(url.site)
        readers = [device for device in keys.devices if device.serves]
        if not readers:
            raise NotFound(
                f"{url.site} has no device that takes calls yet.",
                reason="SITE_HAS_NO_DEVICE",
                metadata={"site": url.site},
            )
        call_id, now_ms = uuid7(self._clock, self._random), self._clock.now_ms()
        expires_ms = now_ms + int(life_s * 1000)
        body = await self._seal.seal_call(bare, call_id, expires_ms, request, readers)
        self._remember(call_id, url.site)
        self._traffic.add_sent(TrafficKind.MESSAGE, len(body))
        envelope = pb.Envelope(
            call_id=call_id,
            site=url.site,
            app=url.app,
            endpoint=url.endpoint,
            sender=self._device.principal,
            sender_device=self._device.device_id,
            created_unix_ms=now_ms,
            expires_unix_ms=expires_ms,
            version=_VERSION,
            suite=_SUITE,
        )
        return pb.Message(envelope=envelope, body=body)

    async def _result(self, reply: pb.Reply, site: str) -> CallResult:
        self._traffic.add_received(TrafficKind.MESSAGE, len(reply.body))
        if reply.state != pb.CALL_STATE_COMPLETED:
            return CallResult(reply.state, failure_reason=reply.failure_reason)
        return CallResult(reply.state, await self._seal.open_reply(site, reply))

    def _remember(self, call_id: str, site: str) -> None:
        self._sites[call_id] = site
        if len(self._sites) > _MAX_REMEMBERED:
            self._sites.popitem(last=False)

    def _site_of(self, call_id: str, site: str | None) -> str:
        known = normalise_principal(site) if site is not None else self._sites.get(call_id)
        if known is None:
            raise InvalidInput(
                "The call was made by another process: name the site that was called.", reason="SITE_NEEDED"
            )
        return known


def _content(result: CallResult) -> ReplyContent:
    if result.content is not None:
        error = problem_error(result.content)
        if error is not None:
            raise error
        return result.content
    kind, reason, text = _ENDED.get(result.state, (Unavailable, "CALL_FAILED", "The call has no reply"))
    found = result.failure_reason or reason
    if found in _INTEGRITY:
        kind = IntegrityFailure
    raise kind(f"{text} ({found}).", reason=found)


def _with_query(request: RequestContent, query: str) -> RequestContent:
    changed = RequestContent()
    changed.CopyFrom(request)
    changed.query = query
    return changed
