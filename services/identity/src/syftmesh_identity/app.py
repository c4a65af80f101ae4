"""Composition of identity: the only place that builds its adapters."""

from __future__ import annotations

import asyncio
from typing import Final

import grpc
from mesh.identity.v1 import identity_service_pb2_grpc as grpc_api
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import Clock, Random, system_random
from syftmesh_core.errors import InvalidInput, MeshError, Unavailable
from syftmesh_core.principal import is_principal
from syftmesh_kit import subject
from syftmesh_kit.bus import Bus
from syftmesh_kit.interceptor import RpcMetrics
from syftmesh_kit.keyset import KeySetPublisher, RevocationPublisher
from syftmesh_kit.token import AUDIENCES
from syftmesh_kit.waiting import Waiting

from syftmesh_identity.adapters.admin_socket import AdminSocket
from syftmesh_identity.adapters.derived_key import derived_key
from syftmesh_identity.adapters.key_ring import KeyRing, KeySet
from syftmesh_identity.adapters.kv_store import declare, stores_on
from syftmesh_identity.adapters.limit_store import code_state_on, limiter_on
from syftmesh_identity.adapters.local_token import LocalTokenFile
from syftmesh_identity.adapters.login_seal import LoginSeal
from syftmesh_identity.adapters.mail import SmtpMailer
from syftmesh_identity.adapters.mail_server import mail_server
from syftmesh_identity.adapters.provider_file import provider_clients, read_providers
from syftmesh_identity.adapters.provider_login import provider_logins_on
from syftmesh_identity.adapters.revocation import PublishedRevocations
from syftmesh_identity.adapters.ring_store import RingFollower, rings_on
from syftmesh_identity.adapters.signing_key import load_or_create
from syftmesh_identity.domain.code import CodeLogin, CodePolicy
from syftmesh_identity.domain.enrolment import Enrolment
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.guest import Guests
from syftmesh_identity.domain.join import JoinTokens
from syftmesh_identity.domain.login import LocalLogin
from syftmesh_identity.domain.model import OPERATOR
from syftmesh_identity.domain.person import Administrators, People
from syftmesh_identity.domain.provider_login import LoginLimits, ProviderLogins
from syftmesh_identity.domain.refresh import Sessions
from syftmesh_identity.domain.rotation import Rotation
from syftmesh_identity.servicer import (
    ADMIN_CALLER,
    PUBLIC_METHODS,
    SERVICE,
    IdentityServicer,
    UseCases,
    admin_servicer,
)
from syftmesh_identity.servicer.address import CallAddress
from syftmesh_identity.servicer.code import LoginMethods
from syftmesh_identity.settings import IdentitySettings

_DAY_S: Final = 24 * 3600
_RETRY_S: Final = 0.5
_LOOK_S: Final = 10.0
"""Seconds between two looks at the ages of signing keys."""


class IdentityModule:
    """Identity as a `syftmesh_kit.server.ServiceModule`; made by `build`."""

    public_methods = PUBLIC_METHODS

    def __init__(
        self,
        bus: Bus,
        servicer: IdentityServicer,
        rotation: Rotation,
        follower: RingFollower,
        admin: AdminSocket | None = None,
        mailer: SmtpMailer | None = None,
    ) -> None:
        self._bus = bus
        self._servicer = servicer
        self._rotation = rotation
        self._follower = follower
        self._admin = admin
        self._mailer = mailer
        self._prepared = False

    @property
    def name(self) -> str:
        """Return the service's name."""
        return "identity"

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the servicer and return its full name."""
        grpc_api.add_IdentityServiceServicer_to_server(self._servicer, server)
        return (SERVICE,)

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Begin to declare the state and to publish the keys; `ready` says when that is done.

        Raises:
            Unavailable: The admin socket cannot be bound (PORT_IN_USE).
        """
        if self._admin is not None:
            await self._admin.start()
        if self._mailer is not None:
            self._mailer.start(tasks)
        tasks.create_task(self._follower.run())
        tasks.create_task(self._keep_keys())

    async def ready(self) -> None:
        """Return when tokens can be given out.

        Raises:
            Unavailable: Not yet (STARTING), or the bus does not answer.
        """
        if not self._prepared:
            raise Unavailable("The state of identity is being declared.", reason="STARTING")
        await self._bus.stream_state(f"KV_{subject.KV_IDENTITY_REFRESH}")

    async def drain(self) -> None:
        """Close the admin socket and hand over the mails that were promised; the host waits for the calls."""
        if self._admin is not None:
            await self._admin.stop()
        if self._mailer is not None:
            await self._mailer.drain()

    async def _keep_keys(self) -> None:
        waiting = Waiting("identity.waiting")
        while True:
            try:
                if self._prepared:
                    await self._rotation.step()
                else:
                    await declare(self._bus)
                    await self._rotation.prepare()
                    self._prepared = True
                waiting.clear()
            except MeshError as error:
                waiting.note(error)
            await asyncio.sleep(_LOOK_S if self._prepared else _RETRY_S)


async def build(
    settings: IdentitySettings,
    *,
    bus: Bus,
    clock: Clock,
    random: Random = system_random,
    registry: CollectorRegistry | None = None,
) -> IdentityModule:
    """Return the service with its adapters; nothing is asked of the bus before it is started.

    Key and local token files are made when they are missing.

    Args:
        settings: Settings; those of connections have been used by the caller already.
        bus: The message bus.
        clock: Time.
        random: Source of secrets and ids.
        registry: Where calls on the admin socket are counted; not one that counts other servers' calls.

    Raises:
        InvalidInput: An administrator is no normalised e-mail, or the file of the providers or one of the mail's
            settings is not usable (SETTING_INVALID, TLS_FILES_INVALID).
        IntegrityFailure: The key file is damaged (SIGNING_KEY_DAMAGED).
        WrongState: A secret file is open to others (FILE_NOT_PRIVATE).
    """
    _check(settings)
    key = await asyncio.to_thread(load_or_create, settings.signing_key_file)
    local_token = LocalTokenFile(settings.local_token_file)
    await asyncio.to_thread(local_token.create, random)
    stores = stores_on(bus, clock)
    revoked = RevocationPublisher(bus.kv(subject.KV_IDENTITY_REVOKED), clock)
    revocations = PublishedRevocations(revoked, clock)
    enrolment = Enrolment(stores, revocations, clock)
    ring = KeyRing(key, settings.issuer, clock, random, settings.access_ttl_s)
    published = KeySet(KeySetPublisher(bus.kv(subject.KV_IDENTITY_KEYS)))
    rotation = Rotation(
        rings_on(bus, clock), ring, published, clock, every_s=settings.key_rotation_days * _DAY_S
    )
    sessions = Sessions(
        stores, enrolment, revocations, ring, clock, random, settings.refresh_ttl_s, frozenset(AUDIENCES)
    )
    administrators = Administrators(settings.administrators | {OPERATOR})
    fingerprint = Fingerprint(derived_key(key.key, "fingerprint"))
    mailer = await asyncio.to_thread(_mailer, settings, fingerprint, clock, random)
    state, policy = code_state_on(bus, fingerprint, clock), _code_policy(settings)
    logins = ProviderLogins(
        provider_clients(await asyncio.to_thread(read_providers, settings.providers_file), clock),
        provider_logins_on(bus, clock),
        LoginSeal(derived_key(key.key, "provider-login"), random),
        LoginLimits(limiter_on(bus, fingerprint, clock), settings.provider_logins_per_address_hour),
        enrolment,
        sessions,
        clock,
        random,
    )
    use_cases = UseCases(
        stores=stores,
        enrolment=enrolment,
        sessions=sessions,
        local_login=LocalLogin(local_token, enrolment, sessions),
        join_tokens=JoinTokens(stores, enrolment, sessions, administrators, clock, random),
        rotation=rotation,
        people=People(stores, enrolment, revocations, clock),
        administrators=administrators,
        guests=Guests(ring, limiter_on(bus, fingerprint, clock), is_enabled=settings.guests_enabled),
        codes=CodeLogin(state, mailer, stores, enrolment, sessions, policy, clock, random),
        login_methods=LoginMethods(
            local=settings.local_token_file is not None,
            code=mailer is not None,
            providers=logins.names,
            guests=settings.guests_enabled,
        ),
        address=CallAddress(settings.trusted_proxies),
        provider_logins=logins,
    )
    servicer = IdentityServicer(use_cases, settings.issuer, clock)
    admin = _admin_socket(settings, servicer, registry or CollectorRegistry())
    follower = RingFollower(bus, ring.follow)
    return IdentityModule(bus, servicer, rotation, follower, admin, mailer)


def _mailer(
    settings: IdentitySettings, fingerprint: Fingerprint, clock: Clock, random: Random
) -> SmtpMailer | None:
    server = mail_server(settings)
    if server is None:
        return None
    return SmtpMailer(server, settings.mail_from, settings.issuer, fingerprint, clock, random)


def _code_policy(settings: IdentitySettings) -> CodePolicy:
    return CodePolicy(
        admitted_domains=settings.admitted_domains,
        codes_per_address=settings.codes_per_address_hour,
        tries_per_address=settings.wrong_codes_per_address_hour,
    )


def _admin_socket(
    settings: IdentitySettings, servicer: IdentityServicer, registry: CollectorRegistry
) -> AdminSocket | None:
    if settings.admin_socket is None:
        return None
    admin = admin_servicer(servicer)

    def register(server: grpc.aio.Server) -> None:
        grpc_api.add_IdentityServiceServicer_to_server(admin, server)

    return AdminSocket(settings.admin_socket, register, ADMIN_CALLER, RpcMetrics(registry))


def _check(settings: IdentitySettings) -> None:
    wrong = sorted(name for name in settings.administrators if not is_principal(name))
    if wrong:
        raise InvalidInput(
            f"These administrators are no e-mail addresses in lower case: {', '.join(wrong)}.",
            reason="SETTING_INVALID",
            metadata={"variable": "SYFTMESH_IDENTITY_ADMINISTRATORS"},
        )
