"""What is closed on the HTTP face, and what Flower's own command line does through it and the gateway."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from flwr.proto.control_pb2 import StartRunRequest, StopRunRequest, StreamLogsRequest
from flwr.proto.fab_pb2 import Fab, GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    Message,
    Metadata,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.node_pb2 import Node as NodeProto
from flwr.proto.run_pb2 import GetRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh_core.clock import SystemClock
from syftmesh_gateway.app import build as build_gateway
from syftmesh_gateway.settings import GatewaySettings
from syftmesh_superlink.domain.federation_name import federation_name

sys.path.insert(0, str(Path(__file__).parent))
from superlink_world import (
    ANNA,
    BOB,
    CARL,
    EVE,
    PROJECT,
    Aggregator,
    Hub,
    Node,
    acquire,
    approved_run,
    hub,
    nats_server,
    report,
    token_of,
)

pytestmark = pytest.mark.integration

ME = NodeProto(node_id=1)


@pytest.fixture
async def found(tmp_path: Path) -> AsyncIterator[Hub]:
    """The service on a bus of its own."""
    async with nats_server(tmp_path) as nats, hub(nats, tmp_path / "state") as running:
        yield running


def reason(answer: httpx.Response) -> str:
    return str(answer.json()["reason"])


@asynccontextmanager
async def gateway(found: Hub) -> AsyncIterator[str]:
    """A gateway in front of the service; gives its host and port."""
    settings = GatewaySettings(
        http_port=0,
        s3_endpoint="http://127.0.0.1:9",
        superlink_http=f"http://{found.http}",
        advertised_flower="hub.example:80",
        drain_s=1.0,
    )
    module = await build_gateway(settings, clock=SystemClock())
    async with asyncio.TaskGroup() as tasks:
        await module.start(tasks)
        try:
            yield f"127.0.0.1:{module.http_port}"
        finally:
            await module.drain()


async def test_nothing_else_exists_on_the_port(found: Hub) -> None:
    await approved_run(found, BOB)
    async with httpx.AsyncClient(base_url=f"http://{found.http}", trust_env=False) as client:
        for path in (
            "/",
            "/docs",
            "/openapi.json",
            "/health",
            "/private/claim",
            "/v1/",
            "/v1/fleet/../private/claim",
        ):
            for method in ("GET", "POST"):
                answer = await client.request(
                    method, path, headers={"authorization": f"Bearer {token_of(BOB)}"}
                )
                assert answer.status_code == 404, path
        assert (await client.get("/v1/fleet/pull-messages")).status_code == 404
    for path in (
        "/v1/fleet/nothing",
        "/v1/fleet/",
        "/v1/fleet//private/claim",
        "/v1/runtime/acquire-task",
        "/v1/runtime/create-task",
        "/v1/runtime/start-automation",
        "/v1/runtime/get-connector",
        "/v1/runtime/push-task-message",
        "/v1/control/list-nodes",
        "/v1/control/register-node",
        "/v1/control/create-federation",
        "/v1/control/list-federations",
        "/v1/control/start-automation",
        "/v1/control/pull-artifacts",
    ):
        for principal in (BOB, ANNA):
            answer = await found.post(path, AcquireTaskRequest(supported_task_types=["serverapp"]), principal)
            assert (answer.status_code, reason(answer)) == (404, "ROUTE_UNKNOWN"), path


async def test_who_shows_no_token_or_a_wrong_one_is_refused_everywhere(found: Hub) -> None:
    await approved_run(found, BOB)
    for path in ("/v1/fleet/register-node", "/v1/runtime/get-nodes", "/v1/control/list-runs"):
        answer = await found.post(path)
        assert (answer.status_code, reason(answer)) == (401, "TOKEN_MISSING")
        assert answer.headers["www-authenticate"] == "Bearer"
        for wrong in ("Basic x", "Bearer", "Bearer x.y.z", f"Bearer {token_of(BOB)[:-4]}AAAA"):
            answer = await found.post(path, authorization=wrong)
            assert answer.status_code == 401, wrong


async def test_a_task_is_its_aggregators_only(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    token = await acquire(found, run_id)
    for principal, shown in ((BOB, token), (EVE, token), (ANNA, "x" * len(token)), (ANNA, "")):
        headers = {"flwr_task_token": shown} if shown else {}
        answer = await found.post("/v1/runtime/get-nodes", GetNodesRequest(), principal, **headers)
        assert (answer.status_code, reason(answer)) == (403, "TASK_FOREIGN")
    answer = await found.post("/v1/runtime/get-nodes", GetNodesRequest(), ANNA, flwr_task_token=token)
    assert answer.status_code == 200


async def test_a_site_speaks_for_its_own_node_and_runs_only(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    other = await approved_run(found, CARL)
    bob, carl = Node(found, BOB), Node(found, CARL)
    for node in (bob, carl):
        await asyncio.to_thread(node.register)
    theirs, own = NodeProto(node_id=carl.node_id), NodeProto(node_id=bob.node_id)

    def pushed(run: str, source: int) -> Message:
        return Message(metadata=Metadata(run_id=int(run), src_node_id=source))

    for route, message in (
        ("activate-node", ActivateNodeRequest(public_key=carl.public_key, heartbeat_interval=30)),
        ("send-node-heartbeat", SendNodeHeartbeatRequest(node=theirs, heartbeat_interval=30)),
        ("unregister-node", UnregisterNodeFleetRequest(node_id=carl.node_id)),
        ("pull-messages", PullMessagesRequest(node=theirs)),
        ("pull-messages", PullMessagesRequest()),
        ("get-run", GetRunRequest(node=own, run_id=int(other))),
        ("get-run", GetRunRequest(node=theirs, run_id=int(run_id))),
        ("get-fab", GetFabRequest(node=own, run_id=int(other), hash_str="x")),
        ("pull-object", PullObjectRequest(node=own, run_id=int(other), object_id="x")),
        ("push-object", PushObjectRequest(node=own, run_id=int(other), object_id="x")),
        ("confirm-message-received", ConfirmMessageReceivedRequest(node=own, run_id=int(other))),
        ("push-messages", PushMessagesRequest(node=own, messages_list=[pushed(other, bob.node_id)])),
        ("push-messages", PushMessagesRequest(node=own, messages_list=[pushed(run_id, carl.node_id)])),
    ):
        answer = await found.post(f"/v1/fleet/{route}", message, BOB)
        assert (answer.status_code, reason(answer)) == (403, "NODE_FOREIGN"), route
    empty = await found.post("/v1/fleet/push-messages", PushMessagesRequest(node=own), BOB)
    assert reason(empty) == "MESSAGE_MALFORMED"


async def test_the_fleet_is_open_to_sites_that_approved_only(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    request = RegisterNodeFleetRequest(public_key=b"x")
    for principal in (ANNA, EVE, CARL):
        answer = await found.post("/v1/fleet/register-node", request, principal)
        assert (answer.status_code, reason(answer)) == (403, "NOT_A_MEMBER")
    node = Node(found, BOB)
    await asyncio.to_thread(node.register)
    async with found.stub(BOB) as bob:
        await report(bob, run_id, pb.SITE_STATE_WITHDRAWN)
    answer = await found.post("/v1/fleet/pull-messages", PullMessagesRequest(node=ME), BOB)
    assert (answer.status_code, reason(answer)) == (403, "NOT_A_MEMBER")
    await asyncio.to_thread(node.unregister)


async def test_what_is_no_message_or_too_large_is_refused(found: Hub) -> None:
    await approved_run(found, BOB)
    headers = {"authorization": f"Bearer {token_of(BOB)}", "content-type": "application/protobuf"}
    async with httpx.AsyncClient(base_url=f"http://{found.http}", trust_env=False) as client:
        answer = await client.post("/v1/fleet/get-run", content=b"\xff\xff\xff", headers=headers)
        assert (answer.status_code, reason(answer)) == (400, "MESSAGE_MALFORMED")
        answer = await client.post("/v1/fleet/get-run", content=b"x" * (8 * 1024 * 1024 + 1), headers=headers)
        assert (answer.status_code, reason(answer)) == (413, "BODY_TOO_LARGE")
        twice = [*headers.items(), ("authorization", f"Bearer {token_of(EVE)}")]
        assert (await client.post("/v1/fleet/get-run", headers=twice)).status_code == 400


async def test_the_gateway_passes_flower_on_and_nothing_besides(found: Hub) -> None:
    await approved_run(found, BOB)
    async with (
        gateway(found) as address,
        httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as client,
    ):
        document = (await client.get("/.well-known/syftmesh.json")).json()
        assert document["flower"] == "hub.example:80"
        answer = await client.post("/v1/fleet/register-node", content=b"")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        headers = {"authorization": f"Bearer {token_of(EVE)}"}
        answer = await client.post("/v1/fleet/register-node", content=b"", headers=headers)
        assert (answer.status_code, reason(answer)) == (403, "NOT_A_MEMBER")
        for path in ("/v1/fleet/a/b", "/v1/private/claim", "/v1/fleet/%2e%2e", "/docs", "/openapi.json"):
            answer = await client.post(path, headers=headers)
            assert answer.status_code in (404, 405), path
        assert (await client.get("/v1/fleet/register-node")).status_code == 404
        answer = await client.post("/v1/fleet/get-run", content=b"x" * (8 * 1024 * 1024 + 1), headers=headers)
        assert (answer.status_code, reason(answer)) == (413, "BODY_TOO_LARGE")


async def test_a_client_that_goes_away_takes_no_message_with_it(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    node = Node(found, BOB)
    await asyncio.to_thread(node.register)
    aggregator = Aggregator(found, run_id, await acquire(found, run_id))
    await asyncio.to_thread(aggregator.begin)
    body = PullMessagesRequest(node=NodeProto(node_id=node.node_id)).SerializeToString()
    headers = {**_headers_of(node), "authorization": f"Bearer {token_of(BOB)}"}
    async with gateway(found) as address:
        async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.post(f"http://{address}/v1/fleet/pull-messages", content=body, headers=headers)
        await asyncio.sleep(0.2)
        messages = await asyncio.to_thread(aggregator.push, node.node_id)
        pulled = await asyncio.to_thread(node.pull)
    assert pulled is not None
    assert pulled[0].metadata.message_id == messages[0]


def _headers_of(node: Node) -> dict[str, str]:
    """Return what Flower's own client adds to a request."""
    sent = httpx.Request("POST", "http://x/", headers={"content-type": "application/protobuf"})

    class _Context:
        request = sent

    for interceptor in node.client._interceptors[:2]:
        interceptor.intercept(_Context(), lambda _: httpx.Response(200))
    return {k: v for k, v in sent.headers.items() if k.startswith("flwr-") or k == "content-type"}


class Stock:
    """Flower's own command line, with the token that `syftmesh login --flwr` writes."""

    def __init__(self, folder: Path, address: str, principal: str) -> None:
        self._home = folder / f"flwr-{principal}"
        self._home.mkdir(parents=True)
        (self._home / "config.toml").write_text(
            f'[superlink]\ndefault = "hub"\n[superlink.hub]\naddress = "{address}"\ninsecure = true\n'
        )
        key = f"flower.account-auth.{address}"
        credentials = {
            f"{key}.authn-type": "oidc",
            f"{key}.oidc-access-token": token_of(principal),
            f"{key}.oidc-refresh-token": "none",
        }
        encoded = {name: base64.b64encode(text.encode()).decode() for name, text in credentials.items()}
        (self._home / "credentials.yaml").write_text(json.dumps(encoded))
        self.app = folder / "app"
        if not self.app.exists():
            (self.app / "tiny").mkdir(parents=True)
            (self.app / "pyproject.toml").write_text(
                f'[build-system]\nrequires = ["hatchling"]\n{PROJECT}'.replace(
                    "dependencies = []",
                    'description = "d"\nlicense = "Apache-2.0"\ndependencies = ["flwr>=1.41"]',
                )
            )
            for name in ("__init__", "server", "client"):
                (self.app / "tiny" / f"{name}.py").write_text('"""Tiny."""\napp = None\n')

    async def __call__(self, *arguments: str) -> tuple[int, str]:
        """Run it and return exit code and output."""
        program = Path(sys.executable).parent / "flwr"
        environment = {
            **os.environ,
            "FLWR_HOME": str(self._home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "COLUMNS": "200",
        }
        process = await asyncio.create_subprocess_exec(
            str(program),
            *arguments,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(process.communicate(), 60)
        return process.returncode or 0, output.decode()


async def test_stock_flwr_runs_lists_follows_and_stops_through_the_gateway(
    found: Hub, tmp_path: Path
) -> None:
    async with gateway(found) as address, found.stub(ANNA) as anna:
        flwr = Stock(tmp_path, address, ANNA)
        federation = federation_name("tiny", (BOB, CARL))
        code, output = await flwr("run", str(flwr.app), "hub", "--federation", federation, "--format", "json")
        assert code == 0, output
        run_id = json.loads(output)["run-id"]
        run = (await anna.GetRun(rpc.GetRunRequest(run_id=run_id))).run
        assert (run.stock, run.rounds, run.minimum_sites, run.dataset) == (True, 2, 2, "tiny")
        assert list(run.sites) == [BOB, CARL]
        code, output = await flwr("ls", "hub", "--format", "json")
        assert code == 0, output
        assert run_id in output
        following = asyncio.create_task(flwr("log", run_id, "hub", "--stream"))
        await asyncio.sleep(3.0)
        code, output = await flwr("stop", run_id, "hub")
        assert code == 0, output
        code, output = await following
        assert code == 0, output
        run = (await anna.GetRun(rpc.GetRunRequest(run_id=run_id))).run
        assert run.state == pb.RUN_STATE_CANCELLED
        eve = Stock(tmp_path, address, EVE)
        for arguments in (("stop", run_id, "hub"), ("log", run_id, "hub"), ("ls", "hub", "--run-id", run_id)):
            code, output = await eve(*arguments)
            assert code != 0
            assert "no such run among yours" in output
        code, output = await flwr("run", str(flwr.app), "hub", "--federation", "@tiny/nobody")
        assert code != 0
        assert "not an e-mail address" in output


async def test_a_stock_client_gets_no_run_of_others_and_no_connector(found: Hub) -> None:
    run_id = await approved_run(found, BOB)
    for route, message in (
        ("stop-run", StopRunRequest(run_id=int(run_id))),
        ("stream-logs", StreamLogsRequest(run_id=int(run_id))),
    ):
        assert (await found.post(f"/v1/control/{route}", message, EVE)).status_code == 404
        answer = await found.post(f"/v1/control/{route}", message, BOB)
        assert (answer.status_code, reason(answer)) == (403, "NOT_THE_AGGREGATOR")
    federation = federation_name("tiny", (BOB,))
    for message in (
        StartRunRequest(app_spec="@flwrlabs/x", federation=federation),
        StartRunRequest(fab=Fab(content=b"x"), connector_refs=["github"], federation=federation),
        StartRunRequest(fab=Fab(content=b"x"), federation=federation),
        StartRunRequest(federation=federation),
    ):
        answer = await found.post("/v1/control/start-run", message, ANNA)
        assert (answer.status_code, reason(answer)) == (400, "BUNDLE_INVALID")
    for route in ("get-login-details", "get-auth-tokens", "refresh-auth-tokens"):
        answer = await found.post(f"/v1/control/{route}", None, ANNA)
        assert (answer.status_code, reason(answer)) == (403, "LOGIN_ELSEWHERE")
        assert "syftmesh login --flwr" in answer.json()["detail"]
