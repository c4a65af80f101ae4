"""The way of a site's SuperNode to the hub: a loopback port that adds the site's access token.

Flower's SuperNode knows an address and no path, header or token of ours. It talks to this relay, which lets only
the Fleet routes through and only connections of the own user: a loopback port is open to everybody on the machine.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from syftmesh_client.traffic import Traffic, TrafficKind
from syftmesh_client.trust import HubTrust, rejection
from syftmesh_core.errors import MeshError

_FLEET: Final = "/v1/fleet/{name}"
_MAX_BODY_BYTES: Final = 8 << 20
_TIMEOUT_S: Final = 40.0
_DROPPED: Final = frozenset({"host", "content-length", "connection", "transfer-encoding", "authorization"})
_KEPT: Final = frozenset({"content-type"})

_log: Any = structlog.get_logger("syftmesh.flower.relay")


@asynccontextmanager
async def fleet_relay(
    hub_url: str,
    access_token: Callable[[], Awaitable[str]],
    traffic: Traffic,
    trust: HubTrust | None = None,
) -> AsyncIterator[int]:
    """Serve the relay for the block; yields its port on 127.0.0.1.

    Args:
        hub_url: Base address of the hub.
        access_token: Gives a token of the site that holds now.
        traffic: Counts what goes to the hub and what comes.
        trust: What proves the hub; None: the well-known authorities of the Internet.
    """
    verify = (trust or HubTrust()).verify(hub_url)
    async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=False, verify=verify) as client:
        relay = _Relay(hub_url.rstrip("/"), access_token, traffic, client)
        app = Starlette(routes=[Route(_FLEET, relay.forward, methods=["POST"])])
        # asyncio sends at once (TCP_NODELAY) only on sockets that name their protocol; others may wait 40 ms.
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.bind(("127.0.0.1", 0))
        port = int(bound.getsockname()[1])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws="none", server_header=False
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([bound]))
        try:
            yield port
        finally:
            server.should_exit = server.force_exit = True
            await asyncio.wait({serving}, timeout=2.0)
            serving.cancel()
            bound.close()


class _Relay:
    def __init__(
        self,
        hub_url: str,
        access_token: Callable[[], Awaitable[str]],
        traffic: Traffic,
        client: httpx.AsyncClient,
    ) -> None:
        self._hub_url = hub_url
        self._access_token = access_token
        self._traffic = traffic
        self._client = client

    async def forward(self, request: Request) -> Response:
        """Pass one request on; the hub being away is 503, which Flower tries again."""
        if request.client is None or not _is_own(request.client.port):
            return Response(status_code=403)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return Response(status_code=413)
        headers = {name: value for name, value in request.headers.items() if name not in _DROPPED}
        try:
            headers["authorization"] = f"Bearer {await self._access_token()}"
            answer = await self._client.post(
                f"{self._hub_url}/v1/fleet/{request.path_params['name']}",
                content=bytes(body),
                headers=headers,
            )
        except (httpx.HTTPError, MeshError) as error:
            if rejection(error) is not None:
                _log.warning("flower.hub_untrusted")
            else:
                _log.info("flower.hub_away", kind=type(error).__name__)
            return Response(status_code=503)
        self._traffic.add_sent(TrafficKind.UPDATE, len(body))
        self._traffic.add_received(TrafficKind.UPDATE, len(answer.content))
        kept = {
            name: value for name, value in answer.headers.items() if name in _KEPT or name.startswith("flwr-")
        }
        return Response(answer.content, answer.status_code, kept)


def _is_own(port: int) -> bool:
    """Return whether the other end of a connection to us, at `port` of 127.0.0.1, is of our own user.

    ``/proc/net/tcp`` (proc(5)) has a line per socket: local address in hex, and in column 8 its user.
    """
    wanted, user = f"0100007F:{port:04X}", str(os.geteuid())
    try:
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return False
    fields = (line.split() for line in lines)
    return any(field[1] == wanted and field[7] == user for field in fields)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Any:
        yield
