"""Verification of ID tokens (OpenID Connect Core 1.0, section 3.1.3.7) with a closed list of algorithms."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jwt
from joserfc.errors import ClaimError, JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from syftmesh_core.errors import Unauthenticated

from syftmesh_identity.adapters.provider_http import json_object
from syftmesh_identity.domain.provider import Provider

PublicKey = RSAKey | ECKey | OKPKey

KEY_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "RS256": ("RSA", ""),
    "RS384": ("RSA", ""),
    "RS512": ("RSA", ""),
    "PS256": ("RSA", ""),
    "PS384": ("RSA", ""),
    "PS512": ("RSA", ""),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""The algorithms that are taken, each with type and curve of its keys; no secret-key one, and never ``none``."""

LEEWAY_S: Final = 60
"""Seconds that the provider's clock may differ from ours."""

MAX_TOKEN_CHARACTERS: Final = 32 * 1024
_MAX_KID_CHARACTERS: Final = 256
_HEADER_MEMBERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})


@dataclass(frozen=True, slots=True)
class TokenHeader:
    """What the header of a token says about its signature, before anything of it is believed."""

    alg: str
    kid: str | None


class _Registry(JWSRegistry):
    """The algorithms of `KEY_TYPES`, without the library's warning that EdDSA has a newer name (RFC 9864)."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]


def header_of(token: object) -> TokenHeader:
    """Return the header of an ID token.

    Raises:
        Unauthenticated: It is no signed token, of another algorithm, or demands more than a signature
            (PROVIDER_TOKEN_INVALID).
    """
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARACTERS or token.count(".") != 2:
        raise invalid("form")
    encoded = token.partition(".")[0]
    try:
        found = json_object(base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True))
    except ValueError:
        found = None
    # Header members that name keys or change what is signed (jwk, jku, x5u, crit, b64) are none of ours.
    if found is None or not _HEADER_MEMBERS.issuperset(found):
        raise invalid("form")
    alg, kid = found.get("alg"), found.get("kid")
    if not isinstance(alg, str) or alg not in KEY_TYPES:
        raise invalid("algorithm")
    if kid is not None and not (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_CHARACTERS):
        raise invalid("form")
    return TokenHeader(alg, kid)


def verify(token: str, header: TokenHeader, key: PublicKey, provider: Provider, now_s: int) -> dict[str, Any]:
    """Return the claims of a token that holds: signed with `key`, of this issuer, for this client, at this time.

    A nonce is not asked for: the device flow has none, and the token came over the hub's own connection in exchange
    for a code that nobody else has.

    Args:
        token: The token.
        header: Its header, from `header_of`.
        key: The provider's key of that name and algorithm.
        provider: Who must have issued it, to whom.
        now_s: Unix seconds.

    Raises:
        Unauthenticated: It does not hold (PROVIDER_TOKEN_INVALID); metadata ``check`` names what not.
    """
    try:
        claims = jwt.decode(token, key, registry=_Registry(algorithms=[header.alg])).claims
    except (JoseError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise invalid("signature") from error
    required = jwt.JWTClaimsRegistry(
        now=now_s,
        leeway=LEEWAY_S,
        iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": provider.client_id},
        sub={"essential": True},
        exp={"essential": True},
        iat={"essential": True},
    )
    try:
        required.validate(claims)
    except ClaimError as error:
        raise invalid(error.claim) from error
    except (JoseError, ValueError, TypeError, OverflowError) as error:
        raise invalid("claims") from error
    _check_party(claims, provider.client_id)
    return claims


def _check_party(claims: Mapping[str, Any], client_id: str) -> None:
    """Refuse a token made for another client, or for several without saying which (section 2, ``azp``)."""
    audience, party = claims["aud"], claims.get("azp")
    is_shared = isinstance(audience, list) and len(audience) > 1
    if (party is not None or is_shared) and party != client_id:
        raise invalid("azp")


def invalid(check: str) -> Unauthenticated:
    """Return the error for an ID token that does not hold, for what reason ever."""
    return Unauthenticated(
        f"What the provider sent does not hold (check: {check}). Nothing of it is used; tell the mesh's operator.",
        reason="PROVIDER_TOKEN_INVALID",
        metadata={"check": check},
    )
