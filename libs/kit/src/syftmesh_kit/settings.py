"""Settings of services: one frozen class each, from environment variables ``SYFTMESH_<SERVICE>_<FIELD>``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from syftmesh_core.errors import InvalidInput

from syftmesh_kit.tls import TlsIdentity

S = TypeVar("S", bound="ServiceSettings")


def _names(given: Any) -> Any:
    """Return the names in a comma-separated or JSON list."""
    if not isinstance(given, str):
        return given
    if given.lstrip().startswith("["):
        return json.loads(given)
    return [name.strip() for name in given.split(",") if name.strip()]


NameSet = Annotated[frozenset[str], NoDecode, BeforeValidator(_names)]
"""A set of names; as a variable a JSON list, or separated by commas."""

OptionalPath = Annotated[Path | None, BeforeValidator(lambda given: given or None)]
"""A path; an empty variable is none."""


def settings_config(service: str) -> SettingsConfigDict:
    """Return the pydantic configuration of the settings class of `service`."""
    return SettingsConfigDict(env_prefix=f"SYFTMESH_{service.upper()}_", frozen=True, extra="ignore")


class ServiceSettings(BaseSettings):
    """What every service is told; each derives its own with ``model_config = settings_config("name")``."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    listen: str = "127.0.0.1:0"
    """gRPC address: ``host:port`` or ``unix:<path>``; a pod says ``0.0.0.0:8081``."""

    health_listen: str = ""
    """``host:port`` of a second gRPC server without TLS that serves ``grpc.health`` and nothing else, for the
    probes of a kubelet, which bring no certificate (``0.0.0.0:8086`` in a pod); empty: none. Its service ``live``
    serves from the first moment until the drain, the empty name while the service is ready."""

    tls_cert_file: OptionalPath = None
    """Certificate chain of this process inside the hub (PEM): shown to callers of its gRPC server and, as a
    client, to bus, other services and superlink. The three TLS files go together; none: no TLS. New content is
    taken without a restart."""

    tls_key_file: OptionalPath = None
    """Private key of that certificate (PEM); private as every secret file, or mounted by kubelet (root, 0440)."""

    tls_ca_file: OptionalPath = None
    """Authorities that the other side's certificate must come from (PEM)."""

    tls_peers: NameSet = frozenset()
    """Subject alternative names of which a caller's certificate must bear one; empty: any of the authorities'."""

    nats_url: str = "nats://127.0.0.1:4222"
    """Address of the message bus, ``tls://host:port`` with TLS; the servers of a cluster separated by commas."""

    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Copies of each stream in a cluster of servers, an odd number: 3 survive the loss of one server."""

    nats_wait_s: float = 60.0
    """Seconds that the service waits for the bus at its start, not ready and saying why, before it gives up."""

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
    """Longest graceful drain in seconds, from SIGTERM: health says NOT_SERVING at once, what was begun is finished,
    then the server ends. A pod's grace period must be longer, by the seconds of its ``preStop`` and two more."""

    @property
    def tls(self) -> TlsIdentity | None:
        """Return the identity that the three files are, None without TLS."""
        if self.tls_cert_file is None or self.tls_key_file is None or self.tls_ca_file is None:
            return None
        return TlsIdentity(self.tls_cert_file, self.tls_key_file, self.tls_ca_file)

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        given = [self.tls_cert_file, self.tls_key_file, self.tls_ca_file]
        if any(given) and not all(given):
            raise ValueError("TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE go together: set all three or none")
        if self.tls_peers and not all(given):
            raise ValueError("TLS_PEERS needs TLS_CERT_FILE, TLS_KEY_FILE and TLS_CA_FILE")
        return self


class S3Settings(BaseSettings):
    """Where the object store is; mixed into the settings of the services that use it."""

    s3_endpoint: str = "http://127.0.0.1:8333"
    """Base URL the service reaches the store by."""

    s3_ca_file: OptionalPath = None
    """Authorities that the store's certificate must come from (PEM); unset: those of the system."""

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
    """Base URL of pre-signed requests as clients see it; a path (``/objects``) stands below whatever address a
    client reaches the hub by; empty: the endpoint."""


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
            f"{prefix}{'_'.join(map(str, e['loc'])) or '*'}".upper(): e["msg"]
            for e in error.errors(include_input=False)
        }
        lines = "; ".join(f"{name}: {text}" for name, text in found.items())
        raise InvalidInput(
            f"The settings are not valid: {lines}.",
            reason="SETTING_INVALID",
            metadata={"variable": ", ".join(found)},
            hint="Set the variables named and start again.",
        ) from None
