"""Access tokens: EdDSA JSON Web Tokens (RFC 7519, RFC 8037), issued by identity, verified by every service.

Claims: ``iss``, ``sub`` (e-mail, service name, or ``guest``), ``did`` (device id), ``aud`` (list of the services
that take it), ``iat``, ``exp``, ``jti``, ``kind`` (``user``, ``service`` or ``guest``). The header carries ``kid``; no
algorithm but EdDSA is accepted.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.types import Options
from syftmesh_core.clock import Clock, Random, system_random, uuid7
from syftmesh_core.errors import Unauthenticated

from syftmesh_kit.caller import Caller, CallerKind

ALGORITHM: Final = "EdDSA"
AUDIENCES: Final = ("identity", "sync", "permissions", "crypto", "router", "superlink", "gateway")
"""Every service that takes access tokens; each takes those alone that name it."""

GUEST_AUDIENCES: Final = ("identity", "sync", "permissions", "gateway")
"""The services that have something for guests."""

ACCESS_TTL_S: Final = 15 * 60
LONGEST_TTL_S: Final = 3600
"""No issuer's access tokens live longer, in seconds."""

LEEWAY_S: Final = 5
"""How far clocks may differ, in seconds."""

MAX_TOKEN_BYTES: Final = 4096
_REQUIRED: Final = ["iss", "sub", "did", "aud", "iat", "exp", "jti", "kind"]
_OPTIONS: Final[Options] = {
    "require": _REQUIRED,
    # Times are checked by the injected clock, the audience for each call: one process may serve many services.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
    "verify_aud": False,
}
_KINDS: Final = frozenset(get_args(CallerKind))
_SERVICES: Final = {"rpc": "router", "federated": "superlink"}
_HINT: Final = "Log in with `syftmesh login`."


def audience_of(method: str) -> str:
    """Return the audience that a token needs for an RPC (``/mesh.<domain>.v1.<Service>/<Method>``).

    It is the service that owns the domain. A method of nobody's has the empty audience, which no token names.
    """
    package, _, rest = method.removeprefix("/").partition(".")
    domain = rest.partition(".")[0] if package == "mesh" else ""
    return _SERVICES.get(domain, domain)


class KeySet(Protocol):
    """Where a verifier finds the issuer's public keys."""

    def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the public key named `kid`, or None when it is not (or no longer) in the set."""
        ...


@dataclass(frozen=True, slots=True)
class StaticKeySet:
    """A fixed set of keys by kid, for tests and for verifiers that fetched the set once."""

    keys: dict[str, Ed25519PublicKey]

    def public_key(self, kid: str) -> Ed25519PublicKey | None:
        """Return the public key named `kid`, or None."""
        return self.keys.get(kid)


@dataclass(frozen=True, slots=True)
class Revocation:
    """What is revoked; empty fields do not match.

    Attributes:
        token_id: One token, for ever.
        device_id: Every token of a device issued at or before `before_s`.
        principal: Every token of a principal issued at or before `before_s`.
        before_s: Unix seconds; tokens issued later (after a new login) hold. For `token_id` it only says
            when this may be forgotten: `LONGEST_TTL_S` later nothing it covers is alive.
    """

    token_id: str = ""
    device_id: str = ""
    principal: str = ""
    before_s: int = 2**62

    def covers(self, caller: Caller, issued_at_s: int) -> bool:
        """Return whether the token of `caller`, issued at `issued_at_s`, is revoked by this."""
        if self.token_id:
            return self.token_id == caller.token_id
        named = (self.device_id and self.device_id == caller.device_id) or (
            self.principal and self.principal == caller.principal
        )
        return bool(named) and issued_at_s <= self.before_s


class TokenIssuer:
    """Makes access tokens. Used by identity (and by tests).

    Args:
        signing_key: Signs them.
        kid: Its name in the key set.
        issuer: Value of ``iss``.
        clock: Wall time.
        audiences: Services that take them, unless `issue` says which.
        ttl_s: Their life, in seconds.
        random: Source of ids.
    """

    def __init__(
        self,
        signing_key: Ed25519PrivateKey,
        kid: str,
        issuer: str,
        clock: Clock,
        *,
        audiences: Iterable[str] = AUDIENCES,
        ttl_s: int = ACCESS_TTL_S,
        random: Random = system_random,
    ) -> None:
        self._key = signing_key
        self._kid = kid
        self._issuer = issuer
        self._clock = clock
        self._audiences = tuple(audiences)
        self._ttl_s = ttl_s
        self._random = random

    def issue(
        self, principal: str, device_id: str, *, kind: CallerKind = "user", audiences: Iterable[str] = ()
    ) -> tuple[str, Caller]:
        """Return a signed access token and the caller it stands for; without `audiences` for all of the issuer's."""
        now_s = self._clock.now_ms() // 1000
        services = tuple(audiences) or self._audiences
        token_id = uuid7(self._clock, self._random)
        claims = {
            "iss": self._issuer,
            "sub": principal,
            "did": device_id,
            "aud": list(services),
            "iat": now_s,
            "exp": now_s + self._ttl_s,
            "jti": token_id,
            "kind": kind,
        }
        token = jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"kid": self._kid})
        return token, Caller(principal, device_id, token_id, kind, now_s + self._ttl_s, services)


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    issued_at_s: int
    kid: str


class TokenVerifier:
    """Verifies access tokens and remembers the verified ones by SHA-256 digest until expiry or revocation.

    Args:
        keys: The issuer's public keys (`keyset.KeySetWatcher` in a service).
        issuer: Accepted value of ``iss``.
        clock: Wall time.
        leeway_s: Allowed difference of clocks, in seconds.
        max_cached: Tokens remembered; the least recently used goes first.
    """

    def __init__(
        self,
        keys: KeySet,
        issuer: str,
        clock: Clock,
        *,
        leeway_s: int = LEEWAY_S,
        max_cached: int = 10_000,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._clock = clock
        self._leeway_s = leeway_s
        self._max_cached = max_cached
        self._cache: OrderedDict[bytes, _Verified] = OrderedDict()
        self._revocations: dict[Revocation, None] = {}
        self._listeners: list[Callable[[Revocation], None]] = []

    def verify(self, token: str, audience: str) -> Caller:
        """Return the caller that `token` proves to the service `audience`.

        Raises:
            Unauthenticated: TOKEN_INVALID (malformed, foreign key, algorithm, issuer or audience),
                TOKEN_EXPIRED, TOKEN_REVOKED.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        known = self._cache.get(digest)
        if known is None:
            known = self._verify_fully(token)
            self._cache[digest] = known
            if len(self._cache) > self._max_cached:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(digest)
        if known.caller.expires_at_s + self._leeway_s <= self._clock.now_ms() / 1000:
            self._cache.pop(digest, None)
            raise _refused("The access token has expired.", "TOKEN_EXPIRED", "Refresh it or log in again.")
        if audience not in known.caller.audiences:
            raise _refused("The access token is for other services.", "TOKEN_INVALID")
        return known.caller

    def revoke(self, revocation: Revocation) -> None:
        """Refuse from now on what `revocation` covers and end the open calls made with it."""
        alive_s = self._clock.now_ms() // 1000 - LONGEST_TTL_S - 2 * self._leeway_s
        kept = {known: None for known in self._revocations if known.before_s > alive_s}
        self._revocations = {**kept, revocation: None}
        for digest in [d for d, v in self._cache.items() if revocation.covers(v.caller, v.issued_at_s)]:
            del self._cache[digest]
        for listener in self._listeners:
            listener(revocation)

    def forget_key(self, kid: str) -> None:
        """Verify again every remembered token signed by `kid`, which has left the key set."""
        for digest in [d for d, v in self._cache.items() if v.kid == kid]:
            del self._cache[digest]

    def on_revoked(self, listener: Callable[[Revocation], None]) -> None:
        """Call `listener` at each revocation; the server's interceptor ends open calls by it."""
        self._listeners.append(listener)

    def _verify_fully(self, token: str) -> _Verified:
        if not token or len(token) > MAX_TOKEN_BYTES:
            raise _refused("The access token is not well formed.", "TOKEN_INVALID")
        claims, kid = self._decode(token)
        for name in ("sub", "did", "jti", "kind"):
            if not isinstance(claims.get(name), str) or not claims[name]:
                raise _refused("The access token lacks a claim.", "TOKEN_INVALID")
        if claims["kind"] not in _KINDS or not all(type(claims[n]) is int for n in ("iat", "exp")):
            raise _refused("The access token has a claim of the wrong type.", "TOKEN_INVALID")
        if claims["iat"] - self._leeway_s > self._clock.now_ms() / 1000:
            raise _refused("The access token is not valid yet. Check the clock.", "TOKEN_INVALID")
        caller = Caller(
            claims["sub"],
            claims["did"],
            claims["jti"],
            claims["kind"],
            claims["exp"],
            _audiences(claims["aud"]),
        )
        if any(r.covers(caller, claims["iat"]) for r in self._revocations):
            raise _refused("The access token has been revoked.", "TOKEN_REVOKED")
        return _Verified(caller, claims["iat"], kid)

    def _decode(self, token: str) -> tuple[dict[str, Any], str]:
        # One sentence for every defect: which check failed helps only who forges tokens.
        refused = _refused("The access token does not hold.", "TOKEN_INVALID")
        try:
            header = jwt.get_unverified_header(token)
            kid = header.get("kid")
            key = self._keys.public_key(kid) if isinstance(kid, str) else None
            if key is None or header.get("alg") != ALGORITHM:
                raise refused
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                options=_OPTIONS,
            )
        except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
            raise refused from error
        return claims, str(kid)


def _audiences(claim: object) -> tuple[str, ...]:
    if not isinstance(claim, list) or not claim or not all(isinstance(name, str) and name for name in claim):
        raise _refused("The access token has a claim of the wrong type.", "TOKEN_INVALID")
    return tuple(claim)


def _refused(message: str, reason: str, hint: str = _HINT) -> Unauthenticated:
    return Unauthenticated(message, reason=reason, hint=hint)
