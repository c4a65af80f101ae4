"""Settings of services: one frozen class each, from environment variables ``SYFTMESH_<SERVICE>_<FIELD>``."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from syftmesh_core.errors import InvalidInput

S = TypeVar("S", bound="ServiceSettings")


def settings_config(service: str) -> SettingsConfigDict:
    """Return the pydantic configuration of the settings class of `service`."""
    return SettingsConfigDict(env_prefix=f"SYFTMESH_{service.upper()}_", frozen=True, extra="ignore")


class ServiceSettings(BaseSettings):
    """What every service is told; each derives its own with ``model_config = settings_config("name")``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    listen: str = "127.0.0.1:0"
    """gRPC address: ``host:port`` or ``unix:<path>``; a pod says ``0.0.0.0:8081``."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Address of the message bus; several separated by commas."""

    nats_user: str = ""
    """User of this service at the bus; empty for none."""

    nats_password: SecretStr = SecretStr("")
    """Password of that user."""

    issuer: str = "embedded"
    """Issuer that access tokens must name: the hub's address, or ``embedded`` on a laptop."""

    log_level: str = "info"
    """Lowest level logged: debug, info, warning or error."""

    log_json: bool | None = None
    """One JSON object per line; unset: unless standard error is a terminal."""

    drain_s: float = 5.0
    """Longest graceful drain in seconds; a pod's grace period must be longer."""


class S3Settings(BaseSettings):
    """Where the object store is; mixed into the settings of the services that use it."""

    s3_endpoint: str = "http://127.0.0.1:8333"
    """Base URL the service reaches the store by."""

    s3_access_key: SecretStr = SecretStr("")
    """Access key."""

    s3_secret_key: SecretStr = SecretStr("")
    """Secret key."""

    s3_bucket: str = "syftmesh"
    """The one bucket (some stores grow volumes per bucket)."""

    s3_region: str = "us-east-1"
    """Region that signatures name."""

    s3_signing_host: str = ""
    """Host header with which pre-signed requests arrive at the store; empty: the endpoint's."""

    s3_url_base: str = ""
    """Base URL of pre-signed requests as clients see it; empty: the endpoint."""


def load_settings(cls: type[S], **given: Any) -> S:
    """Return the settings: the fields `given`, and the others from the environment.

    Raises:
        InvalidInput: A variable is missing or wrong (SETTING_INVALID, metadata ``variable``); the message
            names every such variable and never shows a value.
    """
    try:
        return cls(**given)
    except ValidationError as error:
        prefix = str(cls.model_config.get("env_prefix", ""))
        found = {
            f"{prefix}{'_'.join(map(str, e['loc']))}".upper(): e["msg"]
            for e in error.errors(include_input=False)
        }
        lines = "; ".join(f"{name}: {text}" for name, text in found.items())
        raise InvalidInput(
            f"The settings are not valid: {lines}.",
            reason="SETTING_INVALID",
            metadata={"variable": ", ".join(found)},
            hint="Set the variables named and start again.",
        ) from None
