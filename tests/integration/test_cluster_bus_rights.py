"""Each service works with its own user at the bus, and no user can do what it does not need."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats.errors
import pytest
import syftmesh
from mesh.federated.v1 import federated_pb2
from mesh.federated.v1 import federated_service_pb2 as federated_rpc
from mesh.identity.v1 import identity_service_pb2 as identity_rpc
from nats.aio.client import Client
from syftmesh.errors import Conflict, NotFound
from syftmesh_client.node import open_node
from syftmesh_client.profile import node_login
from syftmesh_core.clock import SystemClock
from syftmesh_kit import subject, topology
from syftmesh_kit.bus import Bus
from syftmesh_kit.native import NatsAddress
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3Config
from syftmesh_standalone.options import HubPlace, local_token
from syftmesh_standalone.process_mesh import ProcessGroup, hub_specs, site_specs
from syftmesh_standalone.site_maker import make_site

sys.path.insert(0, str(Path(__file__).parent))
from cluster_bus import USERS, Server, bus_server
from superlink_world import tiny_fab

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

ALICE, CAROL = "alice@hospital.example", "carol@lab.example"
SERVICES = tuple(user for user in USERS if user != "tools")
STATUS = f"syft://{ALICE}/app_data/rds/rpc/status"


class _Stores:
    """What `hub_specs` asks for."""

    def __init__(self, bus: NatsAddress, s3: S3Config) -> None:
        self.bus = bus
        self.s3 = s3


@asynccontextmanager
async def hub(server: Server, s3: S3Config, place: HubPlace) -> AsyncIterator[None]:
    """Every service as its own process, each with its own user."""
    address = NatsAddress(server.url, server.monitor, "", "")
    stores: Any = _Stores(address, replace(s3, url_base=place.object_base))
    specs = []
    for spec in hub_specs(place, stores):
        own = {"nats_user": spec.service, "nats_password": ""}
        if spec.service in SERVICES:
            own["nats_password"] = server.password(spec.service)
        more = {"administrators": f'["{ALICE}"]'} if spec.service == "identity" else {}
        specs.append(replace(spec, settings={**spec.settings, **own, **more}))
    async with ProcessGroup(specs, _no_restart).running():
        yield


def _no_restart(name: str, exit_code: int) -> None:
    raise AssertionError(f"{name} ended with {exit_code}")


def _send(place: HubPlace, state: Path) -> str:
    made = syftmesh.login(place.server, email=CAROL, state=state)
    assert made.created
    with syftmesh.connect(place.server, profile=CAROL, state=state) as carol:
        return carol.rpc.send(STATUS, b"")


def _after(place: HubPlace, state: Path, call_id: str) -> None:
    with syftmesh.connect(place.server, profile=CAROL, state=state) as carol:
        for answer in (
            lambda: carol.rpc.result(call_id, timeout_s=30),
            lambda: carol.rpc.call(STATUS, b"", timeout_s=30),
        ):
            with pytest.raises(NotFound) as unknown:
                answer()
            # The agent answers for a runner that is not there yet.
            assert unknown.value.reason in {"JOB_UNKNOWN", "APP_UNKNOWN"}
    with syftmesh.connect(place.server, profile=ALICE, state=state) as alice:
        path = f"{ALICE}/public/note.txt"
        first = alice.files.write(path, b"one")
        alice.files.write(path, b"two", expected_revision=first.revision)
        with pytest.raises(Conflict):
            alice.files.write(path, b"three", expected_revision=first.revision)
        assert alice.permissions.explain(path, as_="anonymous").allowed
        assert alice.files.read(path) == b"two"


async def _runs_and_logins(place: HubPlace, state: Path) -> None:
    login = node_login(state, place.server)
    async with open_node(state / "profiles" / ALICE, place.server, login=login, clock=SystemClock()) as node:
        session = node.session
        run = federated_pb2.Run(sites=[ALICE], dataset="tiny", rounds=1)
        made = await session.federated.CreateRun(federated_rpc.CreateRunRequest(run=run, bundle=tiny_fab()))
        await session.federated.CancelRun(federated_rpc.CancelRunRequest(run_id=made.run.run_id))
        assert len((await session.federated.ListRuns(federated_rpc.ListRunsRequest())).runs) == 1
        token = await session.identity.CreateJoinToken(identity_rpc.CreateJoinTokenRequest(principal=CAROL))
        assert token.join_token
        await session.identity.ListJoinTokens(identity_rpc.ListJoinTokensRequest())
        await session.identity.ListSites(identity_rpc.ListSitesRequest())
        device = node.keystore.device.device_id
        await session.identity.RevokeDevice(identity_rpc.RevokeDeviceRequest(device_id=device))


async def test_services_do_their_work_without_one_refusal(tmp_path, s3):
    state = tmp_path / "state"
    (state / "hub").mkdir(parents=True, mode=0o700)
    state.chmod(0o700)
    place = HubPlace(state / "hub", *free_ports(2))
    async with bus_server(tmp_path / "bus") as server:
        async with hub(server, s3, place):
            await make_site(state, ALICE, place.server, clock=SystemClock(), report=lambda _line: None)
            call_id = await asyncio.to_thread(_send, place, state)
        # Once more, on streams that are there: they are updated, and what was stored is delivered.
        async with hub(server, s3, place):
            specs = site_specs(state, ALICE, place.server, local_token(place.folder))
            async with ProcessGroup(specs, _no_restart).running():
                await asyncio.to_thread(_after, place, state, call_id)
                await _runs_and_logins(place, state)
            async with Bus_of(server, "tools") as bus:
                held = {name: await _last(bus, name) for name in (*_STREAMS, *_DECLARED)}
        assert server.violations() == []
    empty = {name for name, last in held.items() if last == 0}
    assert empty == {"DEAD"}
    logs = b"".join(path.read_bytes() for path in place.folder.glob("*.log"))
    assert b"permission_denied" not in logs
    for user in SERVICES:
        assert server.password(user).encode() not in logs


_STREAMS = tuple(stream.name for stream in topology.STREAMS)
_DECLARED = tuple(
    f"KV_{name}"
    for name in (
        subject.KV_IDENTITY_KEYS,
        subject.KV_IDENTITY_REVOKED,
        subject.KV_IDENTITY_SIGNING,
        subject.KV_IDENTITY_PRINCIPAL,
        subject.KV_IDENTITY_DEVICE,
        subject.KV_IDENTITY_REFRESH,
        subject.KV_IDENTITY_JOIN,
        subject.KV_IDENTITY_SITE,
        subject.KV_CALL,
        subject.KV_LEASE,
        subject.KV_RUNS,
        subject.KV_SYNC_OPERATION,
        subject.KV_JOURNAL,
    )
)


@asynccontextmanager
async def Bus_of(server: Server, user: str) -> AsyncIterator[Bus]:  # noqa: N802
    bus = await Bus.connect(server.url, name=user, user=user, password=server.password(user))
    try:
        yield bus
    finally:
        await bus.close()


async def _last(bus: Bus, stream: str) -> int:
    return (await bus.stream_state(stream)).last_sequence


@asynccontextmanager
async def raw(server: Server, user: str) -> AsyncIterator[tuple[Client, list[str]]]:
    """A connection as `user`, and what the server held against it."""
    refusals: list[str] = []

    async def on_error(error: Exception) -> None:
        refusals.append(str(error).lower())

    client = Client()
    await client.connect(
        server.url,
        user=user,
        password=server.password(user),
        inbox_prefix=f"_INBOX.{user}",
        error_cb=on_error,
        allow_reconnect=False,
    )
    try:
        yield client, refusals
    finally:
        await client.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for the refusals, in a thread with a loop of its own."""
    import threading

    started, ending = threading.Event(), threading.Event()
    found: list[Server] = []

    async def serve() -> None:
        async with bus_server(tmp_path_factory.mktemp("bus")) as server:
            found.append(server)
            started.set()
            await asyncio.to_thread(ending.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(20)
    yield found[0]
    ending.set()
    thread.join(15)


ANYBODY = (
    "$JS.API.STREAM.DELETE.FILES",
    "$JS.API.STREAM.PURGE.FILES",
    "$JS.API.STREAM.PURGE.KEYLOG",
    "$JS.API.STREAM.DELETE.KV_runs",
    "$JS.API.STREAM.SNAPSHOT.KV_identity_refresh",
    "$JS.API.STREAM.RESTORE.FILES",
    "$JS.API.STREAM.CREATE.MINE",
    "$JS.API.STREAM.MSG.DELETE.FILES",
    "$JS.API.STREAM.MSG.DELETE.KEYLOG",
    "$JS.API.DIRECT.GET.KV_identity_refresh",
    "$JS.API.CONSUMER.CREATE.REPLIES",
    "$JS.API.CONSUMER.DELETE.FILES.other",
    "$SYS.REQ.SERVER.PING",
    "$KV.identity_group.x",
    "anything.else",
)
FOREIGN = {
    "identity": ("files.a.b", "keylog.a", "calls.a.b", "$KV.runs.a", "$JS.API.STREAM.MSG.GET.FILES"),
    "sync": (
        "keylog.a",
        "calls.a.b",
        "$KV.identity_keys.a",
        "$KV.journal.other",
        "$JS.API.STREAM.UPDATE.CALLS",
    ),
    "permissions": (
        "files.a.b",
        "$KV.identity_revoked.a",
        "$JS.API.STREAM.UPDATE.FILES",
        "$KV.journal.izeuyrkt",
    ),
    "crypto": ("files.a.b", "$JS.API.STREAM.UPDATE.FILES", "$KV.identity_keys.a", "$KV.journal.izeuyrkt"),
    "router": (
        "files.a.b",
        "keylog.a",
        "$KV.identity_keys.a",
        "$JS.API.STREAM.MSG.GET.KV_identity_refresh",
        "$JS.API.CONSUMER.CREATE.KV_identity_refresh",
        "$JS.API.STREAM.MSG.GET.KV_runs",
    ),
    "superlink": ("files.a.b", "replies.a.b", "$KV.identity_revoked.a", "$JS.API.STREAM.MSG.GET.FILES"),
    "tools": (
        "files.a.b",
        "$KV.runs.a",
        "$KV.identity_keys.a",
        "$JS.API.STREAM.MSG.GET.FILES",
        "$JS.API.CONSUMER.CREATE.FILES",
        "$JS.API.STREAM.CREATE.FILES",
        "$JS.API.STREAM.UPDATE.FILES",
        "rpc.deliver.a",
    ),
}


async def _refused(names: set[str], refusals: list[str], verb: str) -> set[str]:
    """Return those of `names` that the server refuses within five seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while not all(any(f'{verb} to "{name.lower()}"' in line for line in refusals) for name in names):
                await asyncio.sleep(0.01)
    return {name for name in names if any(f'{verb} to "{name.lower()}"' in line for line in refusals)}


@pytest.mark.parametrize("user", USERS)
async def test_foreign_subjects_are_refused(shared, user):
    names = {*ANYBODY, *FOREIGN[user], *(f"_INBOX.{other}.a.b" for other in USERS if other != user)}
    async with raw(shared, user) as (client, refusals):
        for name in names:
            await client.publish(name, b"{}", reply=f"_INBOX.{user}.x")
        assert await _refused(names, refusals, "publish") == names


@pytest.mark.parametrize("user", USERS)
async def test_nobody_listens_to_what_is_not_his(shared, user):
    names = {">", "*", "_INBOX.>", "_INBOX.*.*", "files.>", "$KV.>", "$JS.>", "$SYS.>", "$JS.EVENT.>"}
    names |= {f"_INBOX.{other}.>" for other in USERS if other != user}
    names |= set() if user == "router" else {"rpc.deliver.>", "rpc.deliver.a"}
    async with raw(shared, user) as (client, refusals):
        for name in names:
            await client.subscribe(name)
        assert await _refused(names, refusals, "subscription") == names


async def test_a_reader_that_is_slowed_down_answers_the_flow_control(shared):
    data = federated_pb2.Run(run_config_json="x" * 60_000)
    async with Bus_of(shared, "sync") as writer, Bus_of(shared, "permissions") as reader:
        await writer.ensure_stream(topology.FILES)
        async with asyncio.TaskGroup() as tasks:
            for number in range(400):
                tasks.create_task(writer.publish(f"files.flow.{number:04}", data, timeout_s=60))
        said: list[str] = []
        publish = reader.client.publish

        async def noted(subject: str, *given: Any, **named: Any) -> None:
            said.append(subject)
            await publish(subject, *given, **named)

        reader.client.publish = noted  # type: ignore[method-assign]
        seen = 0
        async with aclosing(reader.ordered_consumer("FILES", subjects=("files.flow.*",))) as messages:
            async for message in messages:
                seen += 1
                if message.pending == 0:
                    break
        await reader.client.flush(5)
    assert seen == 400
    assert any(subject.startswith("$JS.FC.FILES.") for subject in said), said[:3]
    assert [line for line in shared.violations() if "$JS.FC" in line] == []


async def test_routers_reach_each_other(shared):
    async with raw(shared, "router") as (one, refusals), raw(shared, "router") as (other, more):

        async def answer(message: Any) -> None:
            await message.respond(b"there")

        await other.subscribe("rpc.deliver.r2", cb=answer)
        await other.flush(5)
        assert (await one.request("rpc.deliver.r2", b"hop", timeout=5)).data == b"there"
        assert refusals == more == []


@pytest.mark.parametrize(
    ("user", "password"), [("", ""), ("sync", "wrong-password"), ("syftmesh", "x"), ("sync", "")]
)
async def test_who_is_no_user_is_not_let_in(shared, user, password):
    client = Client()
    with pytest.raises((nats.errors.Error, OSError)):
        await client.connect(
            shared.url,
            user=user or None,
            password=password or None,
            allow_reconnect=False,
            max_reconnect_attempts=0,
        )
    with suppress(nats.errors.Error):
        await client.close()
