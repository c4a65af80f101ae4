"""A control of the canary scan: a site that does not seal sends the identifiers of its records as an update.

No site of ours does that: what an app answers passes the gate and leaves sealed. So the control plays both parties
itself, over the hub's own Flower routes, in a run with its own datasite: it is the SuperNode that gives away what an
app found, and the aggregator, which refuses it.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import httpx
from flwr.app import ArrayRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto, recorddict_to_proto
from flwr.proto import fleet_pb2, message_pb2
from flwr.proto.node_pb2 import Node
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from mesh.federated.v1 import federated_pb2 as pb
from mesh.federated.v1 import federated_service_pb2 as rpc
from syftmesh.flower_address import FlowerAddress, flower_address
from syftmesh_client.node import Node as MeshNode
from syftmesh_client.trust import HubTrust
from syftmesh_core.errors import IntegrityFailure, Internal
from syftmesh_executor.port import Limits, RunSpec
from syftmesh_executor.process import ProcessExecutor
from syftmesh_flower.app_process import CLIENT_LAUNCHER, AppProcess, add_launchers
from syftmesh_flower.bundle import build_bundle, extract_bundle, read_bundle
from syftmesh_flower.envelope import parse_content, sealed_parts
from syftmesh_flower.launch.syftmesh_channel import READY, REPLY, TASK
from syftmesh_flower.transfer import AGGREGATOR_NODE, Headers, RuntimeLink

from syftmesh_standalone.demo.data import DATASET

APP: Final = Path(__file__).with_name("leak_app")
_TASK_S: Final = 20.0
_DEADLINE_MS: Final = 600_000
_HEARTBEAT_S: Final = 30.0
_PAUSE_S: Final = 0.2


async def send_unsealed(node: MeshNode, server: str, table: bytes) -> tuple[str, str]:
    """Let a leaking app's answer reach the hub unsealed; return the run, which goes on, and why it is refused.

    Args:
        node: Whoever plays both parties.
        server: The hub.
        table: CSV with a column ``record_id`` of hexadecimal identifiers.

    Raises:
        MeshError: The hub did not let it happen.
    """
    bundle = await asyncio.to_thread(build_bundle, APP)
    stub = node.session.federated
    wanted = pb.Run(
        sites=[node.principal],
        dataset=DATASET,
        rounds=1,
        minimum_sites=1,
        run_config_json="{}",
        purpose="a control",
        deadline_unix_ms=node.clock.now_ms() + _DEADLINE_MS,
    )
    run = (await stub.CreateRun(rpc.CreateRunRequest(run=wanted, bundle=bundle))).run
    approved = rpc.ReportSiteRequest(run_id=run.run_id, state=pb.SITE_STATE_APPROVED)
    await stub.ReportSite(approved)
    task = await stub.AcquireServerTask(rpc.AcquireServerTaskRequest(run_id=run.run_id))
    answer = await _leaked(bundle, int(run.run_id), table)
    origin = flower_address(server, node.well_known.flower_address)
    access = await node.session.access_token()
    talk = _Talk(origin, node.trust, access, task.task_token, int(run.run_id))
    return run.run_id, await asyncio.to_thread(talk.exchange, answer)


async def cancel(node: MeshNode, run_id: str) -> None:
    """End the control's run."""
    await node.session.federated.CancelRun(rpc.CancelRunRequest(run_id=run_id, reason="the control is over"))


async def _leaked(bundle: bytes, run_id: int, table: bytes) -> RecordDict:
    """Return what the app answers on a table, run by its own launcher."""
    app_bundle = read_bundle(bundle)
    with tempfile.TemporaryDirectory(prefix="syftmesh-leak-") as text:
        folder = Path(text)
        code, data = folder / "code", folder / "data"
        data.mkdir()
        (data / "table.csv").write_bytes(table)
        extract_bundle(app_bundle, code)
        add_launchers(code)
        spec = RunSpec(
            "leak", code, CLIENT_LAUNCHER, {"table": data}, folder / "output", limits=Limits(wall_s=_TASK_S)
        )
        setup = {
            "run_id": run_id,
            "node_id": 2,
            "component": app_bundle.client_app,
            "run_config": {},
            "node_config": {},
        }
        executor = ProcessExecutor()
        app = await AppProcess.start(executor, spec, setup, limit_bytes=16 << 20)
        try:
            ready, _ = await app.receive(timeout_s=_TASK_S)
            head = {**_metadata(run_id, 2, ""), "message_id": "control"}
            question = recorddict_to_proto(RecordDict()).SerializeToString()
            kind, parts = await app.ask(TASK, [json.dumps(head).encode(), question], timeout_s=_TASK_S)
            if ready != READY or kind != REPLY:
                raise Internal("the leaking app gave no answer", reason="CHECK_FAILED")
            return parse_content(parts[0])
        finally:
            await app.end()
            await executor.close()


class _Talk:
    """The SuperNode's and the aggregator's requests, blocking."""

    def __init__(self, origin: FlowerAddress, trust: HubTrust, access: str, task: str, run_id: int) -> None:
        self._private, self._public = generate_key_pairs()
        # Flower's SuperNodes sign every request, and our hub asks for the site's own token beside that.
        signing = NodeAuthHttpInterceptor(self._private, self._public)
        url = f"{'http' if origin.insecure else 'https'}://{origin.address}"
        headers = Headers(access_token=lambda: access)
        self._fleet = FleetHttpClient(url, interceptors=[signing, headers], verify=trust.verify(url))
        self._link = RuntimeLink(
            origin.address,
            Headers(task, lambda: access),
            run_id=run_id,
            tls_root=trust.pem,
            insecure=origin.insecure,
        )
        self._run_id = run_id

    def exchange(self, answer: RecordDict) -> str:
        """Ask the node, answer for it unsealed, and return why an aggregator refuses that."""
        try:
            node_id = self._join()
            self._link.pull_input()
            question = RecordDict({"arrays": ArrayRecord()})
            asked = make_message(metadata=Metadata(**_metadata(self._run_id, node_id, "")), content=question)
            (message_id,) = self._link.push([asked])
            self._fleet.PullMessages(fleet_pb2.PullMessagesRequest(node=Node(node_id=node_id)))
            reply = _metadata(self._run_id, AGGREGATOR_NODE, message_id) | {"src_node_id": node_id}
            reply["ttl"] /= 2  # an answer must not outlive its question
            self._answer(node_id, make_message(metadata=Metadata(**reply), content=answer))
            found = self._received(message_id)
        except httpx.HTTPStatusError as error:
            raise Internal(
                f"the hub refuses {error.request.url.path} of the control ({error.response.status_code})",
                reason="CHECK_FAILED",
            ) from error
        finally:
            self._link.close()
            self._fleet.close()
        try:
            sealed_parts(found.content)
        except IntegrityFailure as error:
            return error.reason
        return "it was taken"

    def _received(self, message_id: str) -> Message:
        end = time.monotonic() + _TASK_S
        while time.monotonic() < end:
            if found := self._link.pull([message_id]):
                return found[0]
            time.sleep(_PAUSE_S)
        raise Internal("the control's answer did not arrive", reason="CHECK_FAILED")

    def _join(self) -> int:
        key = public_key_to_bytes(self._public)
        registered = self._fleet.RegisterNode(fleet_pb2.RegisterNodeFleetRequest(public_key=key))
        self._fleet.ActivateNode(
            fleet_pb2.ActivateNodeRequest(public_key=key, heartbeat_interval=_HEARTBEAT_S)
        )
        return int(registered.node_id)

    def _answer(self, node_id: int, message: Message) -> None:
        message.metadata.__dict__["_message_id"] = message.object_id
        objects = {name: thing.deflate() for name, thing in get_all_nested_objects(message).items()}
        request = fleet_pb2.PushMessagesRequest(
            node=Node(node_id=node_id),
            messages_list=[message_to_proto(remove_content_from_message(message))],
            message_object_trees=[get_object_tree(message)],
        )
        pushed = self._fleet.PushMessages(request)
        for name in pushed.objects_to_push:
            push = message_pb2.PushObjectRequest(
                node=Node(node_id=node_id),
                run_id=self._run_id,
                object_id=name,
                object_content=objects[name],
                session_id=pushed.session_id,
            )
            self._fleet.PushObject(push)


def _metadata(run_id: int, node_id: int, reply_to: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "message_id": "",
        "src_node_id": AGGREGATOR_NODE,
        "dst_node_id": node_id,
        "reply_to_message_id": reply_to,
        "group_id": "1",
        "created_at": time.time(),
        "ttl": 600.0,
        "message_type": "train",
    }
