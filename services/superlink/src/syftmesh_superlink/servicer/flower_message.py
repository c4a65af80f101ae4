"""Flower's messages. Its modules are imported with the first request and in a thread: they take 0.7 s."""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any, Final

from syftmesh_core.errors import InvalidInput

FLEET: Final = {
    "register-node": ("fleet_pb2", "RegisterNodeFleetRequest"),
    "activate-node": ("fleet_pb2", "ActivateNodeRequest"),
    "deactivate-node": ("fleet_pb2", "DeactivateNodeRequest"),
    "unregister-node": ("fleet_pb2", "UnregisterNodeFleetRequest"),
    "send-node-heartbeat": ("heartbeat_pb2", "SendNodeHeartbeatRequest"),
    "pull-messages": ("fleet_pb2", "PullMessagesRequest"),
    "push-messages": ("fleet_pb2", "PushMessagesRequest"),
    "get-run": ("run_pb2", "GetRunRequest"),
    "get-fab": ("fab_pb2", "GetFabRequest"),
    "push-object": ("message_pb2", "PushObjectRequest"),
    "pull-object": ("message_pb2", "PullObjectRequest"),
    "confirm-message-received": ("message_pb2", "ConfirmMessageReceivedRequest"),
}
"""Request by route of the Fleet API."""

RUNTIME: Final = {
    "send-task-heartbeat": ("runtime_pb2", "SendTaskHeartbeatRequest"),
    "pull-task-input": ("runtime_pb2", "PullTaskInputRequest"),
    "push-task-output": ("runtime_pb2", "PushTaskOutputRequest"),
    "push-object": ("message_pb2", "PushObjectRequest"),
    "pull-object": ("message_pb2", "PullObjectRequest"),
    "confirm-message-received": ("message_pb2", "ConfirmMessageReceivedRequest"),
    "push-logs": ("log_pb2", "PushLogsRequest"),
    "push-messages": ("runtime_pb2", "PushAppMessagesRequest"),
    "pull-messages": ("runtime_pb2", "PullAppMessagesRequest"),
    "get-nodes": ("runtime_pb2", "GetNodesRequest"),
}
"""Request by route of the Runtime API that an aggregator may use."""

CONTROL: Final = {
    "start-run": ("control_pb2", "StartRunRequest"),
    "list-runs": ("control_pb2", "ListRunsRequest"),
    "stop-run": ("control_pb2", "StopRunRequest"),
    "stream-logs": ("control_pb2", "StreamLogsRequest"),
}
"""Request by route of the Control API that stock clients need."""

MessageName = tuple[str, str]


async def message_class(name: MessageName) -> Any:
    """Return a class of Flower's messages."""
    module = await asyncio.to_thread(import_module, f"flwr.proto.{name[0]}")
    return getattr(module, name[1])


async def parse(name: MessageName, data: bytes) -> Any:
    """Return the message in `data`.

    Raises:
        InvalidInput: It is none (MESSAGE_MALFORMED).
    """
    from google.protobuf.message import DecodeError

    cls = await message_class(name)
    try:
        return cls.FromString(data)
    except DecodeError:
        raise InvalidInput(
            f"The request is no {name[1]} of Flower 1.41.",
            reason="MESSAGE_MALFORMED",
            metadata={"type": name[1]},
        ) from None


def node_ids(message: Any) -> set[int]:
    """Return every node id by which a request of the Fleet API says who it is."""
    found: set[int] = set()
    fields = message.DESCRIPTOR.fields_by_name
    if "node_id" in fields:
        found.add(message.node_id)
    if "node" in fields:
        found.add(message.node.node_id)
    if "messages_list" in fields:
        found |= {item.metadata.src_node_id for item in message.messages_list}
    return found


def run_ids(message: Any) -> set[str]:
    """Return every run that a request of the Fleet API names."""
    found: set[str] = set()
    fields = message.DESCRIPTOR.fields_by_name
    if "run_id" in fields:
        found.add(str(message.run_id))
    if "messages_list" in fields:
        found |= {str(item.metadata.run_id) for item in message.messages_list}
    return found
