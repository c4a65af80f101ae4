"""What the embedded mesh is told, and where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from syftmesh_client.profile import HUB_FOLDER, LOCAL_TOKEN_FILE
from syftmesh_core.errors import InvalidInput
from syftmesh_core.principal import normalise_principal

DEFAULT_HTTP_PORT: Final = 8080
DEFAULT_GRPC_PORT: Final = 8081
LOOPBACK: Final = "127.0.0.1"
ISSUER: Final = "embedded"
"""Issuer of the tokens of every embedded mesh."""

SIGNING_KEY_FILE: Final = "signing.pem"
SUPERLINK_FOLDER: Final = "superlink"
"""Flower's database and app bundles, in the hub's folder."""

AGENT_SOCKET: Final = "agent.sock"
RUNNER_SOCKET: Final = "runner.sock"
"""Named here as well, because importing a service only for its name would cost seconds; a test compares."""

DOMAINS: Final = ("identity", "sync", "permissions", "crypto", "rpc", "federated")
"""What the gateway knows backends of."""

MAX_SITES: Final = 32
"""Sites of one machine; each is two servers and a sandbox."""


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """How to run an embedded mesh.

    Attributes:
        state: State folder (0700); made when it is missing.
        sites: E-mails, normalised, of sites to make and start; sites that are in the state start anyway.
        processes: Whether each service gets a process of its own.
        http_port: Port of the gateway; 0 picks a free one, kept for the life of the process.
        grpc_port: Port of the services; 0 as above.
    """

    state: Path
    sites: tuple[str, ...] = ()
    processes: bool = False
    http_port: int = DEFAULT_HTTP_PORT
    grpc_port: int = DEFAULT_GRPC_PORT

    @property
    def hub(self) -> Path:
        """Return the folder of the hub."""
        return self.state / HUB_FOLDER


@dataclass(frozen=True, slots=True)
class HubPlace:
    """Where the hub listens and keeps its files.

    Attributes:
        folder: The hub's folder.
        http_port: Port of the gateway.
        grpc_port: Port of the services, or of the gateway's forwarder to them.
    """

    folder: Path
    http_port: int
    grpc_port: int

    @property
    def server(self) -> str:
        """Return the hub's address as people type it."""
        return f"http://{LOOPBACK}:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Return the gRPC address that clients are told."""
        return f"{LOOPBACK}:{self.grpc_port}"

    @property
    def flower(self) -> str:
        """Return the address that Flower's own clients are told."""
        return f"{LOOPBACK}:{self.http_port}"

    @property
    def object_base(self) -> str:
        """Return the address below which the gateway passes pre-signed requests on."""
        return f"{self.server}/objects"


def local_token(hub: Path) -> Path:
    """Return the file whose content lets the programs of this user log in."""
    return hub / LOCAL_TOKEN_FILE


def parse_sites(text: str) -> tuple[str, ...]:
    """Return the e-mails of a comma-separated list, normalised, each once and in order.

    Raises:
        InvalidInput: One is no e-mail (PRINCIPAL_INVALID), or there are too many (TOO_MANY_SITES).
    """
    names = dict.fromkeys(normalise_principal(part.strip()) for part in text.split(",") if part.strip())
    if len(names) > MAX_SITES:
        raise InvalidInput(
            f"{len(names)} sites are named, one machine takes {MAX_SITES}.",
            reason="TOO_MANY_SITES",
            metadata={"count": str(len(names)), "limit": str(MAX_SITES)},
        )
    return tuple(names)
