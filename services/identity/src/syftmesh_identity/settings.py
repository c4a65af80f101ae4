"""Settings of identity, from ``SYFTMESH_IDENTITY_*``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from syftmesh_kit.settings import ServiceSettings, settings_config


class IdentitySettings(ServiceSettings):
    """What the identity service is told."""

    model_config = settings_config("identity")

    signing_key_file: Path
    """Private signing key (PEM, 0600); made at first start, kept for ever: losing it ends all logins."""

    local_token_file: Path | None = None
    """Token of the embedded mesh (0600, made when missing): whoever reads it may log in as anybody. Unset: no
    local login, as everywhere but on a laptop."""

    administrators: frozenset[str] = frozenset()
    """E-mails, lower case, that may make join tokens for others; empty: everybody for themselves only."""

    access_ttl_s: int = Field(default=15 * 60, ge=30, le=3600)
    """Life of an access token in seconds; an hour at most, because revocations are announced that long."""

    refresh_ttl_s: int = Field(default=30 * 24 * 3600, ge=60)
    """Life of a refresh token in seconds from its last use: a month away keeps a laptop logged in."""
