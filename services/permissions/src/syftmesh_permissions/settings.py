"""Settings of the permission service: ``SYFTMESH_PERMISSIONS_<FIELD>``."""

from __future__ import annotations

from syftmesh_kit.settings import S3Settings, ServiceSettings, settings_config


class PermissionsSettings(S3Settings, ServiceSettings):
    """What the permission service is told; the store is where the content of rule files is."""

    model_config = settings_config("permissions")
