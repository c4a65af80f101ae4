"""Settings of the checks, from variables ``SYFTMESH_<FIELD>``: the fields of every service, without its name."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict
from syftmesh_kit.settings import NameSet, S3Settings, ServiceSettings

_CONFIG = SettingsConfigDict(env_prefix="SYFTMESH_", frozen=True, extra="ignore")

Addresses = Annotated[
    NameSet, NoDecode, AfterValidator(lambda given: frozenset(a.rstrip("/") for a in given))
]


class StorageCheckSettings(ServiceSettings, S3Settings):
    """What `storage_check` is told."""

    model_config = _CONFIG

    wait_s: float = Field(default=120.0, ge=0)
    """Seconds to wait for a store that is starting."""

    once: bool = False
    """Take a store that has passed the same checks before as it is: for a pod that starts again and again."""


class BusCheckSettings(ServiceSettings):
    """What `bus_check` is told."""

    model_config = _CONFIG

    nats_monitor_url: Addresses = frozenset()
    """Addresses of the monitoring ports, one per server; separated by commas."""

    nats_replicas: int = Field(default=1, ge=1)
    """Copies of each stream, which take as many servers."""

    wait_s: float = Field(default=120.0, ge=0)
    """Seconds to wait for a bus that is starting."""
