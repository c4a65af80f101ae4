"""Settings of the gateway, from ``SYFTMESH_GATEWAY_*``."""

from __future__ import annotations

from pydantic import Field
from syftmesh_kit.settings import NameSet, OptionalPath, ServiceSettings, settings_config


class GatewaySettings(ServiceSettings):
    """What the gateway is told."""

    model_config = settings_config("gateway")

    http_host: str = "127.0.0.1"
    """Address the HTTP port binds to; a pod says ``0.0.0.0``."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """HTTP port; 0 picks a free one."""

    allowed_hosts: NameSet = frozenset()
    """Host headers answered besides the loopback names of the port: ``hub.example.org`` at any port,
    ``hub.example.org:8443`` at that one; any other is refused, so that no foreign page reaches a laptop's hub by a
    rebound name."""

    advertised_grpc: str = "127.0.0.1:8081"
    """gRPC address that clients are told; ``self``: the one they reached the hub at (the Host header, which is
    among the allowed), for a hub behind a proxy that serves everything at one port under several names."""

    advertised_grpc_tls: bool = False
    """Whether that address speaks TLS; on a laptop it is loopback and does not."""

    backends: dict[str, str] = Field(default_factory=dict)
    """gRPC address by domain (``identity``, ``sync``, ``permissions``, ``crypto``, ``rpc``, ``federated``):
    what `/healthz` asks and where the forwarder sends calls."""

    forward_listen: str = ""
    """Address on which calls are forwarded to the backends; empty: no forwarder, as where all services sit on
    one server or a proxy in front knows them."""

    superlink_http: str = ""
    """Base URL of the superlink service's HTTP APIs, to which ``/v1/control``, ``/v1/fleet`` and ``/v1/runtime``
    are passed; empty: this hub runs no federated apps."""

    advertised_flower: str = ""
    """``host:port`` under which Flower's clients reach this gateway; ``self`` as for gRPC; empty: clients are told
    of none."""

    s3_endpoint: str = "http://127.0.0.1:8333"
    """Base URL the object store is reached by."""

    s3_ca_file: OptionalPath = None
    """Authorities that the store's certificate must come from (PEM); unset: those of the system."""

    s3_signing_host: str = ""
    """Host header that pre-signed requests were signed for; empty: the endpoint's."""

    max_object_bytes: int = Field(default=17 * 1024 * 1024, ge=1)
    """Largest body of an upload in bytes; objects have 16 MiB at most, and a seal adds to its content."""

    object_timeout_s: float = Field(default=60.0, gt=0)
    """Seconds without progress after which a transfer is given up."""
