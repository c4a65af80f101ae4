"""OIDC providers: which are believed, for what, where they may be asked, and whom an ID token names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

from syftmesh_core.errors import InvalidInput, Unauthenticated
from syftmesh_core.principal import is_principal, normalise_principal
from syftmesh_core.quote import quoted

MAX_URL_CHARACTERS: Final = 2048
MAX_USER_CODE_CHARACTERS: Final = 64
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_PORTS: Final = {"https": 443, "http": 80}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}")
_HOST: Final = re.compile(r"[a-z0-9.-]{1,253}(?::[0-9]{1,5})?|\[[0-9a-f:]{2,39}\](?::[0-9]{1,5})?")
_CLAIM: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,128}")
_CLIENT_ID: Final = re.compile(r"[\x20-\x7e]{1,256}")


@dataclass(frozen=True, slots=True)
class Provider:
    """What the operator says of one provider.

    Attributes:
        name: What people choose it by.
        issuer: Its issuer URL; the discovery document and every ID token must name exactly this.
        client_id: Who the hub is to it.
        client_secret: Proves that; empty for a public client.
        scopes: What is asked for; ``openid`` must be among it.
        email_domains: Domains whose addresses it may vouch for; empty: any.
        hosts: Further ``host`` or ``host:port`` that its discovery document may send the hub to.
        email_claim: Claim of the ID token with the address.
        verified_claim: Claim that must be true for that address to count.

    Raises:
        InvalidInput: One of them is not as it must be (SETTING_INVALID).
    """

    name: str
    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    scopes: tuple[str, ...] = ("openid", "email")
    email_domains: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    email_claim: str = "email"
    verified_claim: str = "email_verified"

    def __post_init__(self) -> None:
        """Refuse what cannot work, or would be unsafe."""
        issuer = urlsplit(self.issuer) if origin_of(self.issuer) else None
        checks = {
            "name": _NAME.fullmatch(self.name) is not None,
            "issuer": issuer is not None and not issuer.query and not issuer.fragment,
            "client_id": _CLIENT_ID.fullmatch(self.client_id) is not None,
            "client_secret": self.client_secret.isascii() and len(self.client_secret) <= 1024,
            "scopes": "openid" in self.scopes and all(map(_SCOPE.fullmatch, self.scopes)),
            "email_domains": all(is_principal(f"a@{domain}") for domain in self.email_domains),
            "hosts": all(_HOST.fullmatch(host) and origin_of(f"https://{host}") for host in self.hosts),
            "email_claim": _CLAIM.fullmatch(self.email_claim) is not None,
            "verified_claim": _CLAIM.fullmatch(self.verified_claim) is not None,
        }
        wrong = [name for name, holds in checks.items() if not holds]
        if wrong:
            raise InvalidInput(
                f"The provider {quoted(self.name)} has no valid {', '.join(wrong)}.",
                reason="SETTING_INVALID",
                metadata={"provider": quoted(self.name), "field": ",".join(wrong)},
            )

    def may_ask(self, url: str) -> bool:
        """Return whether the hub follows `url` of this provider: its own origin, or a host that was named.

        A document from outside must not send the hub to other places, least of all inside its own network.
        """
        origin, own = origin_of(url), origin_of(self.issuer)
        if origin is None or own is None or urlsplit(url).fragment:
            return False
        if origin == own:
            return True
        named = {origin_of(f"{own[0]}://{host}") for host in self.hosts}
        return origin in named


@dataclass(frozen=True, slots=True)
class DeviceAuthorization:
    """What a provider answers to a device authorization request (RFC 8628, section 3.2).

    Attributes:
        device_code: Polls for this login; never leaves the hub.
        user_code: What the person types.
        verification_uri: Where.
        verification_uri_complete: The same with the code filled in, or empty.
        expires_s: Seconds that both codes live.
        interval_s: Least seconds between two polls.
    """

    device_code: str = field(repr=False)
    user_code: str = field(repr=False)
    verification_uri: str
    verification_uri_complete: str = field(repr=False)
    expires_s: int
    interval_s: int


class PollState(Enum):
    """How far a login is at its provider (RFC 8628, section 3.5)."""

    PENDING = "pending"
    SLOW_DOWN = "slow_down"
    ENDED = "ended"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """The answer to one poll; `claims` are those of the verified ID token, once the person has confirmed."""

    state: PollState
    claims: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def is_confirmed(self) -> bool:
        """Return whether the person has confirmed."""
        return self.state is PollState.CONFIRMED


@dataclass(frozen=True, slots=True)
class ProviderLogin:
    """A login under way; it lies at the digest of the secret that its device holds.

    Attributes:
        provider: Name of the provider.
        device_id: The device that logs in.
        label: What kind of device it is.
        sealed_code: The provider's device code, sealed; empty once the login has ended.
        expires_ms: When it can no longer be finished.
        interval_s: Least seconds between two polls.
        next_poll_ms: When the provider may be asked again.
        ended: Whether it was finished or refused: it works once.
        principal: Who the person says they are; empty: whoever confirms.
    """

    provider: str
    device_id: str
    label: str
    sealed_code: str = field(repr=False)
    expires_ms: int
    interval_s: int
    next_poll_ms: int
    ended: bool = False
    principal: str = ""


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of a URL that may be asked or shown; None for any other text.

    That is https, or http on this very machine, in printable ASCII, without a user's name in it.
    """
    if len(url) > MAX_URL_CHARACTERS or not (url.isascii() and url.isprintable()):
        return None
    if " " in url or "\\" in url:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not host or "@" in parts.netloc or port == 0:
        return None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK):
        return None
    return parts.scheme, host, port or _PORTS[parts.scheme]


def is_user_code(text: str) -> bool:
    """Return whether `text` may be shown as what a person types."""
    return 0 < len(text) <= MAX_USER_CODE_CHARACTERS and text.isascii() and text.isprintable()


def principal_of(provider: Provider, claims: Mapping[str, object]) -> str:
    """Return the principal that a verified ID token names.

    The address counts only when the provider says that it has verified it: true, not a text or a number. One that
    is not ASCII is refused before it is brought to lower case: the Kelvin sign would become a ``k``.

    Raises:
        Unauthenticated: The provider does not vouch for an address, or may not for this one
            (EMAIL_NOT_VERIFIED).
    """
    email = claims.get(provider.email_claim)
    if claims.get(provider.verified_claim) is not True or not isinstance(email, str):
        raise _not_verified(provider, "does not vouch for an e-mail address of yours. Verify it there")
    if not email.isascii():
        raise _not_verified(provider, "names an address that cannot be a principal. Use another one")
    try:
        principal = normalise_principal(email)
    except InvalidInput as error:
        raise _not_verified(
            provider, "names an address that cannot be a principal. Use another one"
        ) from error
    if provider.email_domains and principal.rpartition("@")[2] not in provider.email_domains:
        raise _not_verified(
            provider, f"may not vouch for {principal} at this mesh. Ask its operator which addresses it may"
        )
    return principal


def _not_verified(provider: Provider, what: str) -> Unauthenticated:
    return Unauthenticated(
        f"The provider {provider.name} {what}, then log in again.",
        reason="EMAIL_NOT_VERIFIED",
        metadata={"provider": provider.name},
    )
