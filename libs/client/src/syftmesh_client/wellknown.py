"""Discovery: a hub's address leads to its issuer, its gRPC address and its version."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from syftmesh_core.errors import IntegrityFailure, InvalidInput, Unavailable
from syftmesh_core.quote import quoted

from syftmesh_client.trust import HubTrust, downgrade, rejection, untrusted

PATH: Final = "/.well-known/syftmesh.json"
_MAX_BYTES: Final = 64 * 1024
_TIMEOUT_S: Final = 10.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class WellKnown:
    """What a hub says about itself.

    Attributes:
        issuer: Issuer of its access tokens.
        grpc_address: ``host:port`` of its services.
        version: Version of the hub.
        grpc_tls: Whether the gRPC port speaks TLS.
        flower_address: Address of Flower's services, None where the hub has none.
    """

    issuer: str
    grpc_address: str
    version: str
    grpc_tls: bool = False
    flower_address: str | None = None


async def discover(
    server_url: str, *, trust: HubTrust | None = None, http: httpx.AsyncClient | None = None
) -> WellKnown:
    """Return what the hub at `server_url` says about itself.

    Args:
        server_url: ``http://host[:port]`` or ``https://host[:port]``.
        trust: Whom to take for the hub; None: the well-known authorities of the Internet.
        http: Client to use in place of that trust; None makes one for this request (without proxies for
            loopback addresses).

    Raises:
        InvalidInput: `server_url` is no such URL (INVALID_URL).
        Unavailable: The hub does not answer (SERVER_UNREACHABLE).
        IntegrityFailure: What answers is no SyftMesh hub (SERVER_FOREIGN), its certificate does not prove it
            (SERVER_UNTRUSTED), or it is reached by TLS and its services are not (SERVER_DOWNGRADE).
    """
    base = _base(server_url)
    if http is not None:
        return _parsed(await _fetch(base, http), base)
    trust_env = urlsplit(base).hostname not in _LOOPBACK
    verify = (trust or HubTrust()).verify(base)
    async with httpx.AsyncClient(trust_env=trust_env, timeout=_TIMEOUT_S, verify=verify) as client:
        return _parsed(await _fetch(base, client), base)


def _base(server_url: str) -> str:
    try:
        parts = urlsplit(server_url.strip())
        valid = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
        valid = valid and not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        valid = False
    if not valid or parts.path.strip("/"):
        raise InvalidInput(
            f"{quoted(server_url)} is no hub's address: give one like http://127.0.0.1:8080.",
            reason="INVALID_URL",
            metadata={"server": quoted(server_url)},
        )
    return f"{parts.scheme}://{parts.netloc}"


async def _fetch(base: str, client: httpx.AsyncClient) -> bytes:
    data = bytearray()
    try:
        async with client.stream("GET", f"{base}{PATH}", follow_redirects=False) as answer:
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > _MAX_BYTES:
                    raise _foreign(base)
    except httpx.HTTPError as error:
        if (refused := rejection(error)) is not None:
            raise untrusted(refused, base) from error
        raise _unreachable(base) from error
    if answer.status_code in {502, 503, 504}:
        raise _unreachable(base)
    if answer.status_code != 200:
        raise _foreign(base)
    return bytes(data)


def _parsed(data: bytes, base: str) -> WellKnown:
    try:
        found: Any = json.loads(data)
        issuer, address, version = found["issuer"], found["grpc"], found["version"]
        tls, flower = found.get("grpc_tls", False), found.get("flower")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _foreign(base) from error
    texts = [issuer, address, version, "" if flower is None else flower]
    if not all(isinstance(text, str) for text in texts) or type(tls) is not bool or ":" not in address:
        raise _foreign(base)
    if base.startswith("https://") and not tls:
        raise downgrade("gRPC port")
    return WellKnown(issuer, address, version, tls, flower)


def _unreachable(server: str) -> Unavailable:
    return Unavailable(
        f"The hub at {quoted(server)} does not answer. Check the address, and that the hub runs.",
        reason="SERVER_UNREACHABLE",
        metadata={"server": quoted(server)},
        # Only the mesh of this machine can be started from here.
        hint="syftmesh up"
        if urlsplit(server).hostname in _LOOPBACK
        else f"syftmesh doctor --server {server}",
    )


def _foreign(server: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"What answers at {quoted(server)} is no SyftMesh hub. Check the address.",
        reason="SERVER_FOREIGN",
        metadata={"server": quoted(server)},
    )
