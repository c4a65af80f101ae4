"""Settings of the superlink service, from ``SYFTMESH_SUPERLINK_*``."""

from __future__ import annotations

from syftmesh_kit.settings import ServiceSettings, settings_config


class SuperlinkSettings(ServiceSettings):
    """What the superlink service is told."""

    model_config = settings_config("superlink")
