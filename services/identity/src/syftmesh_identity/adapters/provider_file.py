"""The file in which the operator names the providers: TOML or JSON, private, because it holds client secrets."""

from __future__ import annotations

import json
import ssl
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from syftmesh_core.clock import Clock
from syftmesh_core.errors import InvalidInput
from syftmesh_core.quote import quoted
from syftmesh_kit.private_file import read_private

from syftmesh_identity.adapters.oidc import OidcProvider
from syftmesh_identity.adapters.provider_http import ProviderHttp
from syftmesh_identity.domain.ports import ProviderClient
from syftmesh_identity.domain.provider import Provider

VARIABLE: Final = "SYFTMESH_IDENTITY_PROVIDERS_FILE"
MAX_PROVIDERS: Final = 16


class _Entry(BaseModel):
    """One provider as it stands in the file; `Provider` says what each field means."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    issuer: str
    client_id: str
    client_secret: SecretStr = SecretStr("")
    client_secret_file: str = ""
    scopes: list[str] = ["openid", "email"]
    email_domains: list[str] = []
    hosts: list[str] = []
    email_claim: str = "email"
    verified_claim: str = "email_verified"
    ca_file: str = ""

    def provider(self) -> Provider:
        """Return the provider, its fields checked."""
        return Provider(
            name=self.name,
            issuer=self.issuer,
            client_id=self.client_id,
            client_secret=_client_secret(self),
            scopes=tuple(self.scopes),
            email_domains=frozenset(self.email_domains),
            hosts=frozenset(self.hosts),
            email_claim=self.email_claim,
            verified_claim=self.verified_claim,
        )


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    providers: list[_Entry] = Field(max_length=MAX_PROVIDERS)


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """A provider and the authorities that its certificate must come from."""

    provider: Provider
    trust: ssl.SSLContext = field(repr=False)


def read_providers(path: Path | None) -> list[ConfiguredProvider]:
    """Return the providers of the file; none without one.

    Args:
        path: The file: TOML when its name ends in ``.toml``, else JSON.

    Raises:
        InvalidInput: It is missing or wrong (SETTING_INVALID), or a CA file is (TLS_FILES_INVALID); no value of
            a secret is shown.
        WrongState: Others may read it (FILE_NOT_PRIVATE).
    """
    if path is None:
        return []
    data = read_private(path)
    if data is None:
        _refuse(f"The file {path.name} of the providers is missing.")
    try:
        found = _File.model_validate(_parsed(path, data))
    except ValidationError as error:
        places = sorted({".".join(map(str, item["loc"])) for item in error.errors(include_input=False)})
        raise _wrong(f"The file {path.name} of the providers is wrong at: {', '.join(places)}.") from None
    twice = [name for name, count in Counter(entry.name for entry in found.providers).items() if count > 1]
    if twice:
        _refuse(f"The file {path.name} names these providers twice: {', '.join(sorted(twice))}.")
    return [ConfiguredProvider(entry.provider(), _trust(entry)) for entry in found.providers]


def provider_clients(configured: list[ConfiguredProvider], clock: Clock) -> dict[str, ProviderClient]:
    """Return what asks the providers, by name; nothing is asked yet."""
    return {
        item.provider.name: OidcProvider(item.provider, ProviderHttp(item.provider, item.trust), clock)
        for item in configured
    }


def _parsed(path: Path, data: bytes) -> Any:
    try:
        if path.suffix == ".toml":
            return tomllib.loads(data.decode())
        return json.loads(data)
    except (ValueError, RecursionError):
        # Without its cause, which quotes from the file.
        raise _wrong(f"The file {path.name} of the providers is neither TOML (.toml) nor JSON.") from None


def _client_secret(entry: _Entry) -> str:
    if not entry.client_secret_file:
        return entry.client_secret.get_secret_value()
    path = Path(entry.client_secret_file)
    data = read_private(path)
    if data is None or entry.client_secret.get_secret_value():
        _refuse(
            f"The provider {quoted(entry.name)} needs its client_secret, or a client_secret_file that is there: one "
            "of both."
        )
    return data.decode("ascii", "replace").strip()


def _trust(entry: _Entry) -> ssl.SSLContext:
    if not entry.ca_file:
        return httpx.create_ssl_context()
    try:
        return ssl.create_default_context(cafile=entry.ca_file)
    except (OSError, ValueError) as error:
        name = Path(entry.ca_file).name
        raise InvalidInput(
            f"The file {name} with the authorities of provider {entry.name} is missing or holds no certificate.",
            reason="TLS_FILES_INVALID",
            metadata={"files": name, "provider": entry.name},
        ) from error


def _refuse(message: str) -> NoReturn:
    raise _wrong(message)


def _wrong(message: str) -> InvalidInput:
    return InvalidInput(message, reason="SETTING_INVALID", metadata={"variable": VARIABLE})
