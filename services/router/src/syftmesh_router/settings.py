"""Settings of the router: environment variables ``SYFTMESH_ROUTER_<FIELD>``."""

from __future__ import annotations

from syftmesh_kit.settings import S3Settings, ServiceSettings, settings_config


class RouterSettings(ServiceSettings, S3Settings):
    """What the router is told."""

    model_config = settings_config("router")

    lease_s: float = 10.0
    """Seconds of a site's lease: after a crash, its calls are stored until a replica takes over."""

    direct_ms: int = 200
    """Milliseconds for RECEIVED on the direct path; after them the call is stored."""

    received_s: float = 5.0
    """Seconds for RECEIVED of a stored call; after them the delivery counts as failed."""

    attempts: int = 5
    """Failed deliveries of a call after which it is a dead letter."""

    sender_per_s: float = 50.0
    """Calls a second of one sender in the long run."""

    sender_burst: int = 200
    """Calls of one sender at once."""

    app_per_s: float = 500.0
    """Calls a second to one app in the long run."""

    app_burst: int = 2000
    """Calls to one app at once."""
