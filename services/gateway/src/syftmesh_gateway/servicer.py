"""The HTTP face of the gateway: routes, the checks before them and the headers after them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, generate_latest
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import InvalidInput, MeshError, NotFound, PermissionDenied
from syftmesh_kit.errors import internal_error

from syftmesh_gateway.convert import problem
from syftmesh_gateway.domain.host import HostRule, is_loopback
from syftmesh_gateway.domain.presigned import METHODS, PREFIX, ObjectRequest, object_request
from syftmesh_gateway.domain.status import STYLE_SOURCE, Addresses, Health, page

_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    (
        b"content-security-policy",
        f"default-src 'none'; style-src {STYLE_SOURCE}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"cache-control", b"no-store"),
)
_HEALTH: Final = "/healthz"
_WELL_KNOWN: Final = "/.well-known/syftmesh.json"
_METRICS: Final = "/metrics"
_ROUTES: Final = ("/", _HEALTH, _WELL_KNOWN, _METRICS)
_FLOWER: Final = ("/v1/control/", "/v1/fleet/", "/v1/runtime/")
_FLOWER_PATH: Final = re.compile(r"/v1/(control|fleet|runtime)/[a-z-]{1,64}")

_METHODS: Final = frozenset({*METHODS, "POST"})

_Handler = Callable[[Request], Awaitable[Response]]


class HealthSource(Protocol):
    """Knows the state of what is behind the gateway."""

    async def health(self) -> Health:
        """Return the state, at most a second old."""
        ...


class FlowerGate(Protocol):
    """Passes requests of Flower's clients to the superlink service."""

    async def pass_on(
        self,
        path: str,
        headers: Mapping[str, str],
        body: AsyncIterator[bytes],
        receive: Callable[[], Awaitable[Message]],
    ) -> Response:
        """Return its answer as it streams in.

        Raises:
            MeshError: The request is too large, or the service is away.
        """
        ...


class ObjectGate(Protocol):
    """Passes pre-signed requests to the object store."""

    async def pass_on(
        self, request: ObjectRequest, headers: Mapping[str, str], body: AsyncIterator[bytes]
    ) -> Response:
        """Return the store's answer as it streams in.

        Raises:
            MeshError: What the store refuses, or that it is away.
        """
        ...


@dataclass(frozen=True, slots=True)
class Edge:
    """What the routes need."""

    addresses: Addresses
    probe: HealthSource
    objects: ObjectGate
    hosts: HostRule
    registry: CollectorRegistry
    clock: Clock
    random: Random
    max_object_bytes: int
    flower: FlowerGate | None = None


def build_app(edge: Edge) -> ASGIApp:
    """Return the ASGI application."""
    return Guard(Routes(edge), edge)


class Routes:
    """The handlers by path; what they raise is for `Guard` to answer."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._fixed: dict[str, _Handler] = {
            "/": self.index,
            _HEALTH: self.healthz,
            _WELL_KNOWN: self.well_known,
            _METRICS: self.metrics,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises:
            MeshError: What the handler refuses; no such route (ROUTE_UNKNOWN) or method (METHOD_REFUSED).
        """
        path = scope["path"]
        if path.startswith(_FLOWER):
            await self.flower(scope, receive, send)
            return
        handler = self.objects if path.startswith(f"{PREFIX}/") else self._fixed.get(path)
        if handler is None:
            raise NotFound("There is nothing at this address.", reason="ROUTE_UNKNOWN")
        if scope["method"] not in (METHODS if handler == self.objects else ("GET", "HEAD")):
            raise InvalidInput("This address does not take this method.", reason="METHOD_REFUSED")
        response = await handler(Request(scope, receive))
        await response(scope, receive, send)

    async def index(self, request: Request) -> Response:
        """Tell people what this is."""
        return HTMLResponse(page(self._addresses(request), await self._edge.probe.health()))

    async def healthz(self, _request: Request) -> Response:
        """Tell programs whether everything behind the gateway is ready: 200, or 503."""
        health = await self._edge.probe.health()
        return JSONResponse(health.document(), status_code=200 if health.is_ready else 503)

    async def well_known(self, request: Request) -> Response:
        """Tell clients where the services are."""
        return JSONResponse(self._addresses(request).document())

    def _addresses(self, request: Request) -> Addresses:
        return self._edge.addresses.seen_at(request.headers["host"])  # `Guard` has checked it

    async def metrics(self, request: Request) -> Response:
        """Give the metrics of this process to whoever is on this machine.

        Behind a proxy everybody seems to be: nobody gets them then.

        Raises:
            PermissionDenied: LOOPBACK_ONLY.
        """
        is_near = request.client is not None and is_loopback(request.client.host)
        if not is_near or self._edge.addresses.is_behind_proxy:
            raise PermissionDenied("Metrics are read on this machine only.", reason="LOOPBACK_ONLY")
        return Response(generate_latest(self._edge.registry), media_type=CONTENT_TYPE_LATEST)

    async def flower(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request of one of Flower's clients on.

        Raises:
            NotFound: There is no such route here (ROUTE_UNKNOWN).
        """
        gate, path = self._edge.flower, scope["path"]
        if gate is None or scope["method"] != "POST" or not _FLOWER_PATH.fullmatch(path):
            raise NotFound("There is nothing at this address.", reason="ROUTE_UNKNOWN")
        request = Request(scope, receive)
        response = await gate.pass_on(path, request.headers, request.stream(), receive)
        await response(scope, receive, send)

    async def objects(self, request: Request) -> Response:
        """Pass a pre-signed request to the object store."""
        checked = object_request(
            request.method,
            request.scope["raw_path"].decode("ascii", "replace"),
            request.scope["query_string"].decode("ascii", "replace"),
            length=request.headers.get("content-length"),
            authorised="authorization" in request.headers,
            max_bytes=self._edge.max_object_bytes,
        )
        return await self._edge.objects.pass_on(checked, request.headers, request.stream())


class Guard:
    """Around every request: Host and Origin, errors as problems, headers, one line in the log, one count."""

    def __init__(self, app: ASGIApp, edge: Edge) -> None:
        self._app = app
        self._edge = edge
        self._log: Any = structlog.get_logger("syftmesh.http")
        self._handled = Counter(
            "syftmesh_http_handled",
            "HTTP requests answered, by route, method and status.",
            ["route", "method", "status"],
            registry=edge.registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            return
        sent = _Sent(send)
        started_s, reason = self._edge.clock.monotonic_s(), ""
        try:
            self._check(scope)
            await self._app(scope, receive, sent)
        except MeshError as error:
            reason = error.reason
            await _answer(error, scope, receive, sent)
        except (ClientDisconnect, asyncio.CancelledError):
            reason = "CLIENT_GONE"
            raise
        except Exception as error:  # noqa: BLE001 - the outermost frame of a request, like the gRPC interceptor
            failure = internal_error(uuid7(self._edge.clock, self._edge.random))
            reason = failure.reason
            self._log.error("http.failed", error_id=failure.metadata["error_id"], exc_info=error)
            await _answer(failure, scope, receive, sent)
        finally:
            self._record(scope, sent.status, reason, self._edge.clock.monotonic_s() - started_s)

    def _check(self, scope: Scope) -> None:
        if scope["path"] == _HEALTH:  # a probe asks by address and learns nothing that a page could use
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if [name for name, _ in scope["headers"]].count(b"host") != 1:
            raise InvalidInput("The request names no host, or several.", reason="HOST_INVALID")
        self._edge.hosts.check(headers.get(b"host"), headers.get(b"origin"))

    def _record(self, scope: Scope, status: int, reason: str, duration_s: float) -> None:
        path = scope["path"]
        route, method = _route(path), scope["method"] if scope["method"] in _METHODS else "other"
        self._handled.labels(route, method, str(status)).inc()
        is_common = path == _HEALTH or route in _FLOWER
        emit = self._log.debug if is_common else self._log.info
        # Never path or query of an object: together they are the right to it.
        emit(
            "http.handled",
            route=route,
            method=method,
            status=status,
            reason=reason,
            duration_ms=round(duration_s * 1000, 3),
        )


def _route(path: str) -> str:
    if path.startswith(f"{PREFIX}/"):
        return PREFIX
    flower = next((prefix for prefix in _FLOWER if path.startswith(prefix)), "")
    return flower or (path if path in _ROUTES else "other")


class _Sent:
    """Adds the headers and remembers what was sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            present = {name.lower() for name, _ in message.get("headers", ())}
            extra = [item for item in _HEADERS if item[0] not in present]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)


async def _answer(error: MeshError, scope: Scope, receive: Receive, sent: _Sent) -> None:
    if not sent.status:  # once an answer has begun, all that is left is to end it early
        await problem(error)(scope, receive, sent)
