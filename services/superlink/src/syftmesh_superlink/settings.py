"""Settings of the superlink service, from ``SYFTMESH_SUPERLINK_*``."""

from __future__ import annotations

from pathlib import Path

from syftmesh_kit.settings import ServiceSettings, settings_config


class SuperlinkSettings(ServiceSettings):
    """What the superlink service is told."""

    model_config = settings_config("superlink")

    state_dir: Path
    """Folder (0700, made when missing) of Flower's database and of what belongs to it; one process at a time,
    on a disk of the machine: SQLite's log is not safe on a network file system."""

    http_listen: str = "127.0.0.1:0"
    """``host:port`` of Flower's HTTP APIs, to which the gateway forwards; port 0 picks a free one. With the TLS
    files set it speaks TLS and takes requests of `tls_peers` only, as the gRPC port does."""
