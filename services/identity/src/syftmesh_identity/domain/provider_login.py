"""Login by a provider's device flow (RFC 8628): the hub is the OAuth client, and any replica can finish a login."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn

from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import NotFound, Unauthenticated, Unavailable, WrongState
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh_identity.domain.enrolment import Enrolment, busy
from syftmesh_identity.domain.limit import Limiter, Quota
from syftmesh_identity.domain.model import Stored, TokenPair, checked_device_id, checked_label
from syftmesh_identity.domain.ports import CodeSeal, ProviderClient, RecordStore
from syftmesh_identity.domain.provider import (
    DeviceAuthorization,
    PollState,
    ProviderLogin,
    principal_of,
)
from syftmesh_identity.domain.refresh import Sessions
from syftmesh_identity.domain.secret import digest, new_secret

MARK: Final = "sml1"
SLOW_DOWN_S: Final = 5
"""Seconds that a provider's ``slow_down`` adds to the interval (RFC 8628, section 3.5)."""

LONGEST_INTERVAL_S: Final = 60
POLL_HOLD_MS: Final = 25_000
"""For how long one poll keeps the others of its login away, in milliseconds: longer than a poll can last."""

_SECRET: Final = re.compile(rf"{MARK}\.[A-Za-z0-9_-]{{43}}")


@dataclass(frozen=True, slots=True)
class StartedLogin:
    """A login under way, for the device that started it."""

    login_secret: str = field(repr=False)
    authorization: DeviceAuthorization
    expires_ms: int


@dataclass(frozen=True, slots=True)
class FinishedLogin:
    """Whom the provider named, and the tokens."""

    principal: str
    tokens: TokenPair


@dataclass(frozen=True, slots=True)
class PendingLogin:
    """The person has not confirmed yet: ask again after `interval_s` seconds."""

    interval_s: int


class LoginLimits:
    """How many logins by a provider one address may start.

    Args:
        limiter: Counts them.
        per_hour: How many within any hour.
    """

    def __init__(self, limiter: Limiter, per_hour: int) -> None:
        self._limiter = limiter
        self._quota = Quota(
            "provider_login_address",
            per_hour,
            reason="TOO_MANY_LOGINS",
            message="Too many logins were started from your address.",
        )

    async def take(self, address: str) -> None:
        """Count one login.

        Raises:
            LimitExceeded: TOO_MANY_LOGINS.
        """
        await self._limiter.take(self._quota, address)


class ProviderLogins:
    """Starts and finishes logins by a provider.

    Args:
        providers: The configured providers by name.
        logins: Logins under way, by the digest of their secret.
        seal: Keeps the providers' device codes secret where they are stored.
        limits: Bounds how many logins one address starts.
        enrolment: Registers the device.
        sessions: Gives the tokens.
        clock: Wall time.
        random: Source of secrets.
    """

    def __init__(
        self,
        providers: Mapping[str, ProviderClient],
        logins: RecordStore[ProviderLogin],
        seal: CodeSeal,
        limits: LoginLimits,
        enrolment: Enrolment,
        sessions: Sessions,
        clock: Clock,
        random: Random,
    ) -> None:
        self._providers = providers
        self._logins = logins
        self._seal = seal
        self._limits = limits
        self._enrolment = enrolment
        self._sessions = sessions
        self._clock = clock
        self._random = random

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the providers, sorted."""
        return tuple(sorted(self._providers))

    async def start(
        self, provider: str, device_id: str, label: str, address: str, principal: str = ""
    ) -> StartedLogin:
        """Ask the provider for a code that a person confirms, and return it.

        Whose the device id is, is not looked at: nobody learns anything about devices before they have logged in.

        Args:
            provider: Name of the provider.
            device_id: The device that logs in.
            label: What kind of device it is.
            address: Where the call comes from.
            principal: The only person who may finish the login; empty: whoever confirms.

        Raises:
            NotFound: PROVIDER_UNKNOWN.
            InvalidInput: DEVICE_INVALID, PRINCIPAL_INVALID.
            LimitExceeded: Too many were started from `address` (TOO_MANY_LOGINS).
            Unavailable: PROVIDER_AWAY.
        """
        client = self._providers.get(provider)
        if client is None:
            raise NotFound(
                f"This mesh knows no provider {quoted(provider)}. It knows: {', '.join(self.names) or 'none'}.",
                reason="PROVIDER_UNKNOWN",
                metadata={"provider": quoted(provider)},
            )
        device, kind = checked_device_id(device_id), checked_label(label)
        expected = normalise_principal(principal) if principal else ""
        # Before the provider is asked: nobody makes it shut this mesh out.
        await self._limits.take(address)
        authorization = await client.authorize()
        now_ms = self._clock.now_ms()
        secret = f"{MARK}.{new_secret(self._random)}"
        key = digest(secret)
        record = ProviderLogin(
            provider=provider,
            device_id=device,
            label=kind,
            sealed_code=self._seal.seal(authorization.device_code, key),
            expires_ms=now_ms + authorization.expires_s * 1000,
            interval_s=authorization.interval_s,
            next_poll_ms=now_ms,
            principal=expected,
        )
        if not await self._logins.create(key, record):
            raise busy()
        return StartedLogin(secret, authorization, record.expires_ms)

    async def finish(self, login_secret: str) -> FinishedLogin | PendingLogin:
        """Ask how far the login is, and complete it once the person has confirmed. Works once.

        Raises:
            Unauthenticated: LOGIN_INVALID, EMAIL_NOT_VERIFIED, PROVIDER_TOKEN_INVALID.
            WrongState: The provider names somebody else than the device did (PRINCIPAL_DIFFERS); the login is over.
            PermissionDenied: PRINCIPAL_REVOKED, DEVICE_REVOKED.
            AlreadyExists: DEVICE_OF_ANOTHER.
            LimitExceeded: TOO_MANY_DEVICES.
            Unavailable: PROVIDER_AWAY; the login stays open.
        """
        key, found = await self._open_login(login_secret)
        login, now_ms = found.record, self._clock.now_ms()
        if now_ms < login.next_poll_ms:
            return PendingLogin(min(_whole_s(login.next_poll_ms - now_ms), login.interval_s))
        held = await self._hold(key, found)
        if held is None:
            return PendingLogin(login.interval_s)  # somebody else asks the provider in this very moment
        answer = await self._ask(key, held)
        if isinstance(answer, PendingLogin):
            return answer
        _require_same(login, answer)
        device = await self._enrolment.admit(answer, login.device_id, login.label)
        return FinishedLogin(answer, await self._sessions.open(device))

    async def _ask(self, key: str, held: Stored[ProviderLogin]) -> str | PendingLogin:
        """Ask the provider; return the principal of a login that has ended well, or how long to wait."""
        login = held.record
        client = self._providers.get(login.provider)
        if client is None:
            _refuse()  # the operator took the provider away meanwhile
        try:
            answer = await client.poll(self._seal.open(login.sealed_code, key))
            principal = principal_of(client.provider, answer.claims) if answer.is_confirmed else ""
        except Unavailable as error:
            # RFC 8628, section 3.5: who gets no answer asks half as often.
            paused_s = await self._pause(key, held, login.interval_s * 2)
            error.metadata.setdefault("retry_after_ms", str(paused_s * 1000))
            raise
        except Unauthenticated:
            await self._end(key, held)
            raise
        if answer.state in {PollState.PENDING, PollState.SLOW_DOWN}:
            slower_s = SLOW_DOWN_S if answer.state is PollState.SLOW_DOWN else 0
            return PendingLogin(await self._pause(key, held, login.interval_s + slower_s))
        # Ended before anything is given out: of two that finish one login, one gets the tokens.
        if not await self._end(key, held) or not answer.is_confirmed:
            _refuse()
        return principal

    async def _open_login(self, login_secret: str) -> tuple[str, Stored[ProviderLogin]]:
        if not _SECRET.fullmatch(login_secret):
            _refuse()
        key = digest(login_secret)
        found = await self._logins.get(key)
        if found is None or found.record.ended or self._clock.now_ms() >= found.record.expires_ms:
            _refuse()
        return key, found

    async def _hold(self, key: str, found: Stored[ProviderLogin]) -> Stored[ProviderLogin] | None:
        """Keep other polls of this login away, and return the login as it is then; None: another was quicker."""
        held = replace(found.record, next_poll_ms=self._clock.now_ms() + POLL_HOLD_MS)
        if not await self._logins.replace(key, held, found.revision):
            return None
        stored = await self._logins.get(key)
        return stored if stored is not None and stored.record == held else None

    async def _pause(self, key: str, held: Stored[ProviderLogin], interval_s: int) -> int:
        allowed_s = min(interval_s, LONGEST_INTERVAL_S)
        paused = replace(
            held.record, interval_s=allowed_s, next_poll_ms=self._clock.now_ms() + allowed_s * 1000
        )
        # When this poll has outlived its hold and another has begun, that one counts.
        await self._logins.replace(key, paused, held.revision)
        return allowed_s

    async def _end(self, key: str, held: Stored[ProviderLogin]) -> bool:
        ended = replace(held.record, sealed_code="", ended=True)
        return await self._logins.replace(key, ended, held.revision)


def _whole_s(milliseconds: int) -> int:
    return -(-milliseconds // 1000)


def _require_same(login: ProviderLogin, principal: str) -> None:
    # Before the device is admitted: its id would belong to somebody who never had it, for ever.
    if login.principal not in {"", principal}:
        raise WrongState(
            f"The provider knows you as {principal}, and you log in as {login.principal}.",
            reason="PRINCIPAL_DIFFERS",
            metadata={"principal": principal},
            hint=f"syftmesh login --email {principal} --provider {login.provider}",
        )


def _refuse() -> NoReturn:
    # One answer for every end: what is wrong with a secret helps only who has none.
    raise Unauthenticated(
        "The login is unknown, finished, expired, or was refused at the provider. Start it anew.",
        reason="LOGIN_INVALID",
        hint="syftmesh login",
    )
