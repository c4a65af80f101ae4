"""Settings of identity, from ``SYFTMESH_IDENTITY_*``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from syftmesh_kit.settings import NameSet, OptionalPath, ServiceSettings, settings_config

from syftmesh_identity.mail_settings import MailSettings


class IdentitySettings(ServiceSettings, MailSettings):
    """What the identity service is told."""

    model_config = settings_config("identity")

    signing_key_file: Path
    """Private key (PEM, 0600, or mounted from a Secret); made when it is missing, kept for ever: the first that signs
    tokens, and what all later ones are sealed under at the bus. Without it access tokens and codes that were given out
    count no more. Replicas need one and the same, hence one that is given."""

    local_token_file: OptionalPath = None
    """Token of the embedded mesh (0600, made when missing): whoever reads it may log in as anybody. Unset: no
    local login, as everywhere but on a laptop."""

    admin_socket: OptionalPath = None
    """Unix socket (0600) on which whoever opens it counts as the hub's operator and may do what administrators may,
    without a login: the way to the first join token. Unset: none. Give it to nobody but the operator; in a pod,
    to a container that is reached by ``kubectl exec`` alone, which Kubernetes guards."""

    administrators: NameSet = frozenset()
    """E-mails, lower case, of those who may make join tokens for others and for domains, end and reinstate people, and
    rotate the signing key; empty: nobody but the operator at the admin socket."""

    guests_enabled: bool = False
    """Whether whoever asks gets a guest's token, by which what is open to guests can be read. Off: one must log in."""

    key_rotation_days: int = Field(default=30, ge=0, le=3650)
    """Days after which tokens are signed with a fresh key; 0: only when an administrator rotates it."""

    providers_file: OptionalPath = None
    """OIDC providers by which people may log in: a file (0600, or mounted from a Secret), TOML when its name ends in
    ``.toml``, else JSON; docs/operations/identity.md describes it. Read at the start. Unset: none."""

    provider_logins_per_address_hour: int = Field(default=60, ge=1, le=10_000)
    """Logins by a provider that may be started from one network address within an hour; more where many people share
    one."""

    access_ttl_s: int = Field(default=15 * 60, ge=30, le=3600)
    """Life of an access token in seconds; an hour at most, because revocations are announced that long."""

    refresh_ttl_s: int = Field(default=30 * 24 * 3600, ge=60)
    """Life of a refresh token in seconds from its last use: a month away keeps a laptop logged in."""
