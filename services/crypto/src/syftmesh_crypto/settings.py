"""Settings of the key directory, from ``SYFTMESH_CRYPTO_*``."""

from __future__ import annotations

from pydantic import Field
from syftmesh_kit.settings import S3Settings, ServiceSettings, settings_config


class CryptoSettings(ServiceSettings, S3Settings):
    """What the key directory is told."""

    model_config = settings_config("crypto")

    journal: bool = True
    """Copy the key log to the object store; off only where nothing needs to outlive the message bus."""

    journal_wait_s: float = Field(default=15.0, ge=0, le=60)
    """Seconds a publish waits until the journal has it, which is before it is acknowledged; 0: acknowledge
    once the bus has it on disk, and let the journal follow."""
