"""Settings of the sync service: ``SYFTMESH_SYNC_<FIELD>``."""

from __future__ import annotations

from syftmesh_kit.settings import S3Settings, ServiceSettings, settings_config


class SyncSettings(S3Settings, ServiceSettings):
    """What the sync service is told."""

    model_config = settings_config("sync")

    heartbeat_s: float = 10.0
    """Seconds after which an idle change feed says that it lives; usual proxies cut silence after 60 s."""

    journal: bool = True
    """Whether this process contends for the lease of the journal of file records."""
