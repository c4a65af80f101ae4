"""The gRPC face of identity: decode, one use case, encode."""

# ruff: noqa: N802, ARG002, D102 - names and texts of RPCs are the protos'

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, NoReturn

from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.identity.v1 import identity_service_pb2_grpc as grpc_api
from syftmesh_core.clock import Clock
from syftmesh_core.errors import PermissionDenied
from syftmesh_kit.caller import Caller, current_caller

from syftmesh_identity import convert
from syftmesh_identity.domain.code import CodeLogin
from syftmesh_identity.domain.enrolment import Enrolment
from syftmesh_identity.domain.guest import Guests
from syftmesh_identity.domain.join import JoinTokens
from syftmesh_identity.domain.login import LocalLogin
from syftmesh_identity.domain.model import OPERATOR
from syftmesh_identity.domain.page import page_of
from syftmesh_identity.domain.person import Administrators, People
from syftmesh_identity.domain.ports import Stores
from syftmesh_identity.domain.provider_login import ProviderLogins
from syftmesh_identity.domain.refresh import Sessions
from syftmesh_identity.domain.rotation import Rotation
from syftmesh_identity.servicer.address import CallAddress
from syftmesh_identity.servicer.code import CodeHandlers, LoginMethods
from syftmesh_identity.servicer.own_end import past_own_end
from syftmesh_identity.servicer.person import PersonHandlers
from syftmesh_identity.servicer.provider import ProviderHandlers

SERVICE: Final = "mesh.identity.v1.IdentityService"
PUBLIC_METHODS: Final = frozenset(
    f"/{SERVICE}/{name}"
    for name in (
        "LoginLocal",
        "ListLoginMethods",
        "RequestCode",
        "LoginWithCode",
        "StartDeviceLogin",
        "FinishDeviceLogin",
        "LoginAsGuest",
        "Refresh",
        "GetKeySet",
        "RedeemJoinToken",
    )
)
"""Methods by which one gets a token, or learns how tokens are verified: they need none."""

ADMIN_METHODS: Final = (
    "CreateJoinToken",
    "ListJoinTokens",
    "RevokeJoinToken",
    "ListSites",
    "RevokePrincipal",
    "ReinstatePrincipal",
    "ListPrincipals",
    "RotateSigningKey",
)
"""What an operator does on the admin socket, without a login; everything else is a person's."""

ADMIN_CALLER: Final = Caller(OPERATOR, device_id="", token_id="", kind="service")
"""Who every call on the admin socket counts as."""


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the servicer calls."""

    stores: Stores
    enrolment: Enrolment
    sessions: Sessions
    local_login: LocalLogin
    join_tokens: JoinTokens
    rotation: Rotation
    people: People
    administrators: Administrators
    guests: Guests
    codes: CodeLogin
    login_methods: LoginMethods
    address: CallAddress
    provider_logins: ProviderLogins


class IdentityServicer(CodeHandlers, ProviderHandlers, PersonHandlers, grpc_api.IdentityServiceServicer):
    """Serves `mesh.identity.v1.IdentityService`."""

    def __init__(self, use_cases: UseCases, issuer: str, clock: Clock) -> None:
        self._use = use_cases
        self._issuer = issuer
        self._clock = clock

    async def LoginLocal(self, request: rpc.LoginLocalRequest, context: Any) -> rpc.LoginLocalResponse:
        pair = await self._use.local_login.login(
            request.local_token, request.principal, request.device_id, request.label
        )
        return rpc.LoginLocalResponse(tokens=convert.token_pair(pair))

    async def Refresh(self, request: rpc.RefreshRequest, context: Any) -> rpc.RefreshResponse:
        work = self._use.sessions.renew(request.refresh_token, tuple(request.audiences))
        pair = await past_own_end(work, ends_caller=False)
        return rpc.RefreshResponse(tokens=convert.token_pair(pair))

    async def Logout(self, request: rpc.LogoutRequest, context: Any) -> rpc.LogoutResponse:
        current_caller()
        await past_own_end(self._use.sessions.close(request.refresh_token), ends_caller=True)
        return rpc.LogoutResponse()

    async def WhoAmI(self, request: rpc.WhoAmIRequest, context: Any) -> rpc.WhoAmIResponse:
        caller = current_caller()
        return rpc.WhoAmIResponse(
            principal=caller.principal,
            device_id=caller.device_id,
            issuer=self._issuer,
            audiences=caller.audiences,
            administrator=self._use.administrators.includes(caller.principal),
        )

    async def GetKeySet(self, request: rpc.GetKeySetRequest, context: Any) -> rpc.GetKeySetResponse:
        keys = [convert.verifying_key(key, end_ms) for key, end_ms in await self._use.rotation.key_set()]
        return rpc.GetKeySetResponse(issuer=self._issuer, keys=keys)

    async def ListDevices(self, request: rpc.ListDevicesRequest, context: Any) -> rpc.ListDevicesResponse:
        devices = await self._use.enrolment.devices_of(current_caller().principal)
        return rpc.ListDevicesResponse(devices=[convert.device(device) for device in devices])

    async def RevokeDevice(self, request: rpc.RevokeDeviceRequest, context: Any) -> rpc.RevokeDeviceResponse:
        caller = current_caller()
        work = self._use.enrolment.revoke(caller.principal, request.device_id)
        await past_own_end(work, ends_caller=request.device_id == caller.device_id)
        return rpc.RevokeDeviceResponse()

    async def CreateJoinToken(
        self, request: rpc.CreateJoinTokenRequest, context: Any
    ) -> rpc.CreateJoinTokenResponse:
        token, secret = await self._use.join_tokens.create(
            current_caller().principal,
            request.principal,
            request.label,
            request.ttl_seconds,
            request.domain,
        )
        return rpc.CreateJoinTokenResponse(
            join_token=convert.join_token(token, self._clock.now_ms()), secret=secret
        )

    async def ListJoinTokens(
        self, request: rpc.ListJoinTokensRequest, context: Any
    ) -> rpc.ListJoinTokensResponse:
        page, following = page_of(
            await self._use.join_tokens.list(current_caller().principal),
            lambda token: token.token_id,
            kind="join-token",
            page_size=request.page_size,
            page_token=request.page_token,
        )
        now_ms = self._clock.now_ms()
        return rpc.ListJoinTokensResponse(
            join_tokens=[convert.join_token(token, now_ms) for token in page], next_page_token=following
        )

    async def RevokeJoinToken(
        self, request: rpc.RevokeJoinTokenRequest, context: Any
    ) -> rpc.RevokeJoinTokenResponse:
        await self._use.join_tokens.revoke(current_caller().principal, request.token_id)
        return rpc.RevokeJoinTokenResponse()

    async def RedeemJoinToken(
        self, request: rpc.RedeemJoinTokenRequest, context: Any
    ) -> rpc.RedeemJoinTokenResponse:
        pair = await self._use.join_tokens.redeem(
            request.secret, request.principal, request.device_id, request.retry_id
        )
        return rpc.RedeemJoinTokenResponse(tokens=convert.token_pair(pair))

    async def ListSites(self, request: rpc.ListSitesRequest, context: Any) -> rpc.ListSitesResponse:
        sites = sorted(await self._use.stores.sites.list(), key=lambda site: site.principal)
        page, following = page_of(
            sites,
            lambda site: site.principal,
            kind="site",
            page_size=request.page_size,
            page_token=request.page_token,
        )
        return rpc.ListSitesResponse(sites=[convert.site(site) for site in page], next_page_token=following)


def admin_servicer(servicer: IdentityServicer) -> Any:
    """Return `servicer` with its `ADMIN_METHODS` alone; any other is refused (ADMIN_SOCKET_LIMITED)."""
    methods = [method.name for method in rpc.DESCRIPTOR.services_by_name["IdentityService"].methods]
    allowed = {name: getattr(servicer, name) for name in ADMIN_METHODS}
    return SimpleNamespace(**{name: allowed.get(name) or _not_for_admin(name) for name in methods})


def _not_for_admin(name: str) -> Callable[[Any, Any], Awaitable[NoReturn]]:
    async def refuse(_request: Any, _context: Any) -> NoReturn:
        raise PermissionDenied(
            f"{name} is not for the admin socket, which serves {', '.join(ADMIN_METHODS)}. Log in for it.",
            reason="ADMIN_SOCKET_LIMITED",
            metadata={"method": name},
        )

    return refuse
