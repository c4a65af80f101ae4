"""Revocation of people and devices, everywhere at once; guests; narrow tokens; on a real nats-server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from mesh.identity.v1 import identity_service_pb2 as rpc
from mesh.permissions.v1 import permissions_pb2, permissions_service_pb2, permissions_service_pb2_grpc
from mesh.rpc.v1 import rpc_service_pb2, rpc_service_pb2_grpc
from mesh.sync.v1 import sync_service_pb2, sync_service_pb2_grpc
from syftmesh.cli.__main__ import run
from syftmesh.cli.frame import Surroundings
from syftmesh_client.login import redeem_join_token
from syftmesh_client.session import HubSession
from syftmesh_client.token_file import TokenFile
from syftmesh_client.token_source import TokenSource
from syftmesh_core.errors import (
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    WrongState,
)
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.channel import open_channel
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_permissions.app import build as build_permissions
from syftmesh_permissions.settings import PermissionsSettings
from syftmesh_router.app import build as build_router
from syftmesh_router.settings import RouterSettings
from syftmesh_sync.app import build as build_sync
from syftmesh_sync.settings import SyncSettings

sys.path.insert(0, str(Path(__file__).parent))
from identity_hub import (
    ADMIN,
    ALICE,
    BOB,
    CLOCK,
    Hub,
    hosted,
    is_revoked,
    nats_server,
    refusal,
    running,
    serving,
    until,
)

pytestmark = [
    pytest.mark.integration,
    # Typer 0.20, which Flower dictates, uses names that click 8.5 warns of.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:typer"),
]


class Services:
    """Sync, router and permissions, each on a connection of its own and with checks of its own."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._addresses = addresses

    @asynccontextmanager
    async def stub(self, service: str, token: str) -> AsyncIterator[Any]:
        async def provide() -> str:
            return token

        channel = open_channel(self._addresses[service], token_provider=provide)
        make = {
            "sync": sync_service_pb2_grpc.SyncServiceStub,
            "router": rpc_service_pb2_grpc.RpcServiceStub,
            "permissions": permissions_service_pb2_grpc.PermissionServiceStub,
        }[service]
        try:
            yield make(channel)
        finally:
            await channel.close()


@asynccontextmanager
async def services(hub: Hub, s3: S3Config) -> AsyncIterator[Services]:
    store = S3ObjectStore(s3)

    async def connect(name: str) -> Bus:
        return await Bus.connect(hub.nats.url, name=name, user=hub.nats.user, password=hub.nats.password)

    buses = {name: await connect(name) for name in ("sync", "router", "permissions")}
    await buses["sync"].ensure_stream(topology.FILES)
    try:
        sync = await build_sync(
            SyncSettings(journal=False), bus=buses["sync"], object_store=store, clock=CLOCK
        )
        router = await build_router(RouterSettings(), bus=buses["router"], object_store=store, clock=CLOCK)
        permissions = await build_permissions(
            PermissionsSettings(), bus=buses["permissions"], object_store=store, clock=CLOCK
        )
        async with (
            hosted(sync, buses["sync"]) as at_sync,
            hosted(router, buses["router"]) as at_router,
            hosted(permissions, buses["permissions"]) as at_permissions,
        ):
            yield Services({"sync": at_sync, "router": at_router, "permissions": at_permissions})
    finally:
        for bus in buses.values():
            await bus.close()


async def _watch(stub: Any, opened: asyncio.Event) -> None:
    async for _ in stub.WatchChanges(sync_service_pb2.WatchChangesRequest(prefixes=[ALICE])):
        opened.set()


async def _serve(stub: Any, opened: asyncio.Event) -> None:
    stream = stub.Serve()
    hello = rpc_service_pb2.ServeRequest.Hello(site=ALICE, apps=["*"])
    await stream.write(rpc_service_pb2.ServeRequest(hello=hello))
    async for _ in stream:
        opened.set()


@pytest.mark.parametrize("what", ["device", "person"])
async def test_open_streams_of_every_service_end_at_once_and_nothing_opens_again(tmp_path, s3, what):
    async with running(tmp_path, administrators=frozenset({ADMIN})) as hub, services(hub, s3) as found:
        alice, admin = await hub.login(device_id="dev-1"), await hub.login(ADMIN)
        other = await hub.login(device_id="dev-2")
        async with (
            found.stub("sync", alice.access_token) as sync,
            found.stub("router", alice.access_token) as router,
            hub.client(admin.access_token) as boss,
            hub.client(other.access_token) as own,
        ):
            opened = [asyncio.Event(), asyncio.Event()]
            streams = [
                asyncio.create_task(_watch(sync, opened[0])),
                asyncio.create_task(_serve(router, opened[1])),
            ]
            async with asyncio.timeout(20):
                await asyncio.gather(*(event.wait() for event in opened))
            if what == "person":
                await boss.RevokePrincipal(rpc.RevokePrincipalRequest(principal=ALICE))
            else:
                await own.RevokeDevice(rpc.RevokeDeviceRequest(device_id="dev-1"))
            async with asyncio.timeout(5):
                ends = await asyncio.gather(*streams, return_exceptions=True)
            assert [getattr(end, "reason", end) for end in ends] == ["TOKEN_REVOKED"] * 2
            again = sync.ListFiles(sync_service_pb2.ListFilesRequest(prefix=ALICE))
            assert await refusal(again, Unauthenticated) == "TOKEN_REVOKED"
        async with hub.client() as stub:
            renewing = stub.Refresh(rpc.RefreshRequest(refresh_token=alice.refresh_token))
            assert await refusal(renewing, Unauthenticated) == "REFRESH_INVALID"
        async with found.stub("sync", other.access_token) as sync:
            call = sync.ListFiles(sync_service_pb2.ListFilesRequest(prefix=ALICE))
            if what == "person":
                assert await refusal(call, Unauthenticated) == "TOKEN_REVOKED"
            else:
                await call


async def _forget_announcements(hub: Hub) -> None:
    """Do what an hour does."""
    kv = hub.bus.kv(subject.KV_IDENTITY_REVOKED)
    for key in await kv.keys():
        await kv.purge(key)


async def test_a_revoked_person_stays_out_after_a_restart_and_when_the_announcement_has_ended(tmp_path):
    options = {"administrators": frozenset({ADMIN})}
    async with nats_server(tmp_path) as nats:
        async with serving(nats, tmp_path, **options) as hub:
            alice, admin = await hub.login(device_id="dev-1"), await hub.login(ADMIN)
            async with hub.client(admin.access_token) as boss, hub.client(alice.access_token) as own:
                invited = await boss.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE))
                for denied in (
                    own.RevokePrincipal(rpc.RevokePrincipalRequest(principal=BOB)),
                    own.ReinstatePrincipal(rpc.ReinstatePrincipalRequest(principal=BOB)),
                    own.ListPrincipals(rpc.ListPrincipalsRequest()),
                    own.RotateSigningKey(rpc.RotateSigningKeyRequest()),
                ):
                    assert await refusal(denied, PermissionDenied) == "PERMISSION_DENIED"
                await boss.RevokePrincipal(rpc.RevokePrincipalRequest(principal=ALICE))
                await until(lambda: is_revoked(own))
            await _forget_announcements(hub)
        async with serving(nats, tmp_path, **options) as hub:
            async with hub.client() as stub:
                renewing = stub.Refresh(rpc.RefreshRequest(refresh_token=alice.refresh_token))
                assert await refusal(renewing, Unauthenticated) == "REFRESH_INVALID"
            for entering in (
                hub.login(device_id="dev-1"),
                hub.login(device_id="dev-9"),
                redeem_join_token(hub.address, secret=invited.secret, principal=ALICE, device_id="dev-8"),
            ):
                assert await refusal(entering, PermissionDenied) == "PRINCIPAL_REVOKED"
            admin = await hub.login(ADMIN)
            async with hub.client(admin.access_token) as boss:
                people = (await boss.ListPrincipals(rpc.ListPrincipalsRequest())).principals
                assert [(p.principal, p.revoked) for p in people] == [(ADMIN, False), (ALICE, True)]
                assert (await boss.WhoAmI(rpc.WhoAmIRequest())).administrator
                unknown = boss.ReinstatePrincipal(rpc.ReinstatePrincipalRequest(principal=BOB))
                assert await refusal(unknown, NotFound) == "PRINCIPAL_UNKNOWN"
                await boss.ReinstatePrincipal(rpc.ReinstatePrincipalRequest(principal=ALICE))
                await boss.ReinstatePrincipal(rpc.ReinstatePrincipalRequest(principal=ALICE))
            assert await refusal(hub.login(device_id="dev-1"), PermissionDenied) == "DEVICE_REVOKED"
            back = await hub.login(device_id="dev-9")
            async with hub.client(back.access_token) as stub:
                me = await stub.WhoAmI(rpc.WhoAmIRequest())
                assert (me.principal, me.administrator) == (ALICE, False)


async def test_an_administrator_who_ends_themselves_is_told_that_it_worked(tmp_path):
    async with running(tmp_path, administrators=frozenset({ADMIN})) as hub:
        admin = await hub.login(ADMIN)
        async with hub.client(admin.access_token) as boss:
            await boss.RevokePrincipal(rpc.RevokePrincipalRequest(principal=ADMIN))
            await until(lambda: is_revoked(boss))


async def test_a_guest_reads_what_is_open_and_does_nothing_else(tmp_path, s3):
    async with running(tmp_path, guests_enabled=True) as hub, services(hub, s3) as found:
        async with hub.client() as stub:
            answer = await stub.LoginAsGuest(rpc.LoginAsGuestRequest())
            assert (await stub.ListLoginMethods(rpc.ListLoginMethodsRequest())).guests
        guest = answer.access_token
        async with hub.client(guest) as stub:
            me = await stub.WhoAmI(rpc.WhoAmIRequest())
            assert (me.principal, me.administrator) == ("guest", False)
            for denied in (
                stub.ListDevices(rpc.ListDevicesRequest()),
                stub.CreateJoinToken(rpc.CreateJoinTokenRequest(principal=ALICE)),
                stub.ListSites(rpc.ListSitesRequest()),
                stub.RevokePrincipal(rpc.RevokePrincipalRequest(principal=ALICE)),
                stub.Logout(rpc.LogoutRequest()),
            ):
                assert await refusal(denied, PermissionDenied) == "GUEST_NOT_ALLOWED"
        async with found.stub("sync", guest) as sync:
            await sync.ListFiles(sync_service_pb2.ListFilesRequest(prefix=ALICE))
            writing = sync.OpenUpload(sync_service_pb2.OpenUploadRequest(operation_id="o", site=ALICE))
            assert await refusal(writing, PermissionDenied) == "GUEST_NOT_ALLOWED"
        async with found.stub("permissions", guest) as permissions:
            question = permissions_pb2.Question(path=f"{ALICE}/public/a", level=permissions_pb2.LEVEL_READ)
            asked = permissions_service_pb2.CheckPermissionRequest(question=question)
            assert not (await permissions.CheckPermission(asked)).decision.allowed
            question.requester = BOB
            other = permissions_service_pb2.CheckPermissionRequest(question=question)
            with pytest.raises(MeshError):
                await permissions.CheckPermission(other)
        async with found.stub("router", guest) as router:
            calling = router.Call(rpc_service_pb2.CallRequest())
            assert await refusal(calling, Unauthenticated) == "TOKEN_INVALID"


async def test_guests_are_limited_and_off_by_default(tmp_path):
    async with nats_server(tmp_path) as nats:
        async with serving(nats, tmp_path) as hub, hub.client() as stub:
            refused = stub.LoginAsGuest(rpc.LoginAsGuestRequest())
            assert await refusal(refused, WrongState) == "GUESTS_DISABLED"
        async with serving(nats, tmp_path, guests_enabled=True) as hub, hub.client() as stub:
            for _ in range(60):
                await stub.LoginAsGuest(rpc.LoginAsGuestRequest())
            refused = stub.LoginAsGuest(rpc.LoginAsGuestRequest())
            assert await refusal(refused, LimitExceeded) == "TOO_MANY_LOGINS"


async def test_a_narrow_token_works_at_its_services_alone(tmp_path, s3):
    async with running(tmp_path) as hub, services(hub, s3) as found:
        source = TokenSource(TokenFile(tmp_path / "profile"), CLOCK)
        await source.store(await hub.login(device_id="dev-1"))
        async with HubSession(hub.address, source, CLOCK) as session:
            narrow = await session.token_for("sync")
            assert await refusal(session.token_for("nothing"), InvalidInput) == "AUDIENCE_INVALID"
            me = await session.identity.WhoAmI(rpc.WhoAmIRequest())
            assert {*me.audiences} > {"sync", "identity", "superlink"}
        async with found.stub("sync", narrow) as sync:
            await sync.ListFiles(sync_service_pb2.ListFilesRequest(prefix=ALICE))
        async with found.stub("router", narrow) as router:
            calling = router.Call(rpc_service_pb2.CallRequest())
            assert await refusal(calling, Unauthenticated) == "TOKEN_INVALID"
        async with hub.client(narrow) as stub:
            assert await refusal(stub.WhoAmI(rpc.WhoAmIRequest()), Unauthenticated) == "TOKEN_INVALID"


async def test_a_token_of_a_domain_admits_one_of_its_people_and_a_lost_answer_comes_again(tmp_path):
    async with running(tmp_path, administrators=frozenset({ADMIN})) as hub:
        admin = await hub.login(ADMIN)
        async with hub.client(admin.access_token) as boss:
            request = rpc.CreateJoinTokenRequest(domain="x.example", label="profile")
            made = await boss.CreateJoinToken(request)
            assert (made.join_token.domain, made.join_token.principal) == ("x.example", "")

            async def redeem(principal: str, device_id: str) -> Any:
                return await redeem_join_token(
                    hub.address, secret=made.secret, principal=principal, device_id=device_id
                )

            assert await refusal(redeem(BOB, "dev-9"), Unauthenticated) == "JOIN_TOKEN_INVALID"
            lost = await redeem(ALICE, "dev-1")
            held = await redeem(ALICE, "dev-1")
            assert await refusal(redeem(ALICE, "dev-2"), Unauthenticated) == "JOIN_TOKEN_INVALID"
            (listed,) = (await boss.ListJoinTokens(rpc.ListJoinTokensRequest())).join_tokens
            assert (listed.principal, listed.domain) == (ALICE, "x.example")
        async with hub.client() as stub:
            dead = stub.Refresh(rpc.RefreshRequest(refresh_token=lost.refresh_token))
            assert await refusal(dead, Unauthenticated) == "REFRESH_INVALID"
            await stub.Refresh(rpc.RefreshRequest(refresh_token=held.refresh_token))
        assert await refusal(redeem(ALICE, "dev-1"), Unauthenticated) == "JOIN_TOKEN_INVALID"


def _program(socket: Path, state: Path, *arguments: str) -> tuple[int, str, str]:
    out, err = (TextIOWrapper(BytesIO(), encoding="utf-8") for _ in range(2))
    environ = {"SYFTMESH_ADMIN_SOCKET": str(socket), "SYFTMESH_STATE": str(state)}
    code = run([*arguments], Surroundings(stdout=out, stderr=err, environ=environ))
    texts = []
    for stream in (out, err):
        stream.flush()
        buffer: Any = stream.buffer
        texts.append(buffer.getvalue().decode())
    return code, *texts


async def test_the_operator_administers_at_the_socket_and_waits_until_it_is_there(tmp_path):
    socket = tmp_path / "admin.sock"

    async def program(*arguments: str) -> Any:
        code, out, err = await asyncio.to_thread(_program, socket, tmp_path / "state", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    async with nats_server(tmp_path) as nats:
        early = asyncio.create_task(program("site", "token", "create", "--email", ALICE))
        await asyncio.sleep(0.7)  # it looks for the socket, which nobody has bound
        assert not early.done()
        async with serving(nats, tmp_path, admin_socket=socket) as hub:
            secret = (await early)["token"]
            await redeem_join_token(hub.address, secret=secret, principal=ALICE, device_id="dev-1")
            assert (await program("admin", "user", "revoke", ALICE, "--yes"))["revoked"]
            assert (await program("admin", "user", "ls"))["items"] == [
                {"email": ALICE, "devices": 1, "revoked": True}
            ]
            assert not (await program("admin", "user", "reinstate", ALICE))["revoked"]
            key_id = (await program("admin", "keys", "rotate"))["key_id"]
            async with hub.client() as stub:
                found = (await stub.GetKeySet(rpc.GetKeySetRequest())).keys
            assert {key.key_id for key in found} > {key_id}
            made = await program("site", "token", "create", "--domain", "x.example")
            assert (made["domain"], made["label"]) == ("x.example", "profile")
