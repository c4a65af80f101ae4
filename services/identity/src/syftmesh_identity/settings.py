"""Settings of identity, from ``SYFTMESH_IDENTITY_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self

from pydantic import Field, model_validator
from pydantic_settings import BaseSettings
from syftmesh_core.principal import is_principal
from syftmesh_kit.settings import NameSet, OptionalPath, ServiceSettings, settings_config

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS: Final = {"tls": 465, "starttls": 587, "none": 25}


class MailSettings(BaseSettings):
    """How codes are sent, to whom, and how often."""

    smtp_host: str = ""
    """Mail server that takes the codes; its certificate must bear this name. Empty: nobody logs in by code."""

    smtp_port: int = Field(default=0, ge=0, le=65535)
    """Its port; 0: 465 with ``tls``, 587 with ``starttls``, 25 with ``none``."""

    smtp_security: Literal["tls", "starttls", "none"] = "starttls"
    """``tls``: from the first byte. ``starttls``: the server must offer it, nothing is said before. ``none``: for a
    server on this machine alone."""

    smtp_user: str = ""
    """User at the mail server; empty: it takes mail from this host without one."""

    smtp_password_file: OptionalPath = None
    """File (0600, or mounted from a Secret) with that user's password; read at the start."""

    smtp_ca_file: OptionalPath = None
    """Authorities that the mail server's certificate must come from (PEM); unset: those of the system."""

    smtp_timeout_s: float = Field(default=10.0, gt=0, le=60)
    """Longest wait in seconds for the mail server to let us in, which the person waits too, and then for it to take
    the mail."""

    mail_from: str = ""
    """Address that codes come from, lower case; one of a domain for which the mail server may send."""

    admitted_domains: NameSet = frozenset({"*"})
    """Domains of the e-mails that may come here first by a code, exactly what stands behind the ``@``; ``*`` is
    everybody who can read an e-mail, an empty list nobody. Whoever was let in before, by a join token for example,
    may log in by code in any case; the others get the same answer and no mail."""

    codes_per_address_hour: int = Field(default=5, ge=1, le=10_000)
    """Codes that may be asked for from one network address within an hour; more where many people share one. For one
    e-mail it is 5 always."""

    wrong_codes_per_address_hour: int = Field(default=50, ge=1, le=10_000)
    """Wrong codes that may come from one network address within an hour."""

    trusted_proxies: NameSet = frozenset()
    """Names of which the certificate of a caller must bear one for its header ``x-real-ip`` to say where a call comes
    from, which limits per address count by. Name a proxy only if it overwrites that header. Empty: whoever is
    connected counts, hence everybody behind one proxy as one."""

    @property
    def mail_port(self) -> int:
        """Return the port of the mail server."""
        return self.smtp_port or _PORTS[self.smtp_security]

    @model_validator(mode="after")
    def _check_mail(self) -> Self:
        if not self.smtp_host:
            return self
        if not is_principal(self.mail_from):
            raise ValueError("MAIL_FROM must be an e-mail address in lower case where SMTP_HOST is set")
        if self.smtp_security == "none" and self.smtp_host not in _LOOPBACK:
            raise ValueError(
                "SMTP_SECURITY none is for a mail server on this machine alone: use tls or starttls"
            )
        if bool(self.smtp_user) != (self.smtp_password_file is not None):
            raise ValueError("SMTP_USER and SMTP_PASSWORD_FILE go together: set both or none")
        return self


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
