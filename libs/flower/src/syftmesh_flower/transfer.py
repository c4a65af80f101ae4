"""Messages over Flower's Runtime API: of the SuperLink for an aggregator, of a SuperNode for its executor.

Flower's own client of that API lives in programs that own their process (signals, exits, a process-wide identity).
These functions use its parts and leave the process alone. Everything here blocks: call it from a thread.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import httpx
from flwr.app import Message
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.log_pb2 import PushLogsRequest
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    AcquireTaskResponse,
    GetNodesRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PullTaskInputResponse,
    PushAppMessagesRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import TASK_TOKEN_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_objects,
)
from flwr.supercore.interceptors import SuperExecAuthHttpInterceptor
from flwr.supercore.protobuf.client import ProtobufCall, ProtobufRequestContext
from flwr.supercore.runtime import RuntimeHttpClient

AGGREGATOR_NODE: Final = 1
"""The node id of the SuperLink itself, which is that of whoever runs the ServerApp."""

_ACQUIRE: Final = "/flwr.proto.Runtime/AcquireTask"
_CLIENT_TASK: Final = "flwr-clientapp"
_AGAIN_S: Final = 0.03
_AGAIN_CAP_S: Final = 0.5
"""A message shows before its objects have come, as a rule a moment before: Flower's own second is most of a phase."""


@dataclass(frozen=True, slots=True)
class Headers:
    """Adds headers to every request.

    Attributes:
        task_token: Of the task, empty without one.
        access_token: Gives the caller's own token at the hub; None at a SuperNode.
    """

    task_token: str = ""
    access_token: Callable[[], str] | None = None

    def intercept(self, context: ProtobufRequestContext, call_next: ProtobufCall) -> httpx.Response:
        """Flower's hook around a request."""
        if self.task_token:
            context.request.headers[TASK_TOKEN_HEADER] = self.task_token
        if self.access_token is not None:
            context.request.headers["authorization"] = f"Bearer {self.access_token()}"
        return call_next(context)


class RuntimeLink:
    """One task's talk with a Runtime API.

    Args:
        address: ``host:port``.
        headers: Who talks.
        run_id: The run; 0 when there is none yet.
        node_id: The own node.
        tls_root: Certificates (PEM) that the server's must come from; None: the well-known authorities.
        insecure: Whether the connection is plaintext.
        timeout_s: Of one request.
    """

    def __init__(
        self,
        address: str,
        headers: Headers | SuperExecAuthHttpInterceptor,
        *,
        run_id: int = 0,
        node_id: int = AGGREGATOR_NODE,
        tls_root: bytes | None = None,
        insecure: bool = True,
        timeout_s: float = 40.0,
    ) -> None:
        scheme = "http" if insecure else "https"
        verify: ssl.SSLContext | bool = True
        if tls_root is not None and not insecure:
            verify = ssl.create_default_context(cadata=tls_root.decode("ascii"))
        elif insecure:
            # Trusts nobody: reading all certificates of the system takes 15 ms, and a site links for each task.
            verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = RuntimeHttpClient(f"{scheme}://{address}", interceptors=[headers], verify=verify)
        self._client.close()
        # Flower's own follows redirects and asks the environment for a proxy: neither is for private data.
        self._client._client = httpx.Client(verify=verify, timeout=timeout_s, trust_env=False)  # noqa: SLF001
        self.run_id = run_id
        self.node = Node(node_id=node_id)

    def acquire(self) -> AcquireTaskResponse | None:
        """Return the ClientApp task that waits longest, None when none waits; for executors."""
        answer = self._client.AcquireTask(AcquireTaskRequest(supported_task_types=[_CLIENT_TASK]))
        return answer if answer.token else None

    def pull_input(self) -> PullTaskInputResponse:
        """Return what the task is about; works once for a task."""
        return self._client.PullTaskInput(PullTaskInputRequest())

    def heartbeat(self) -> bool:
        """Say that the task is worked on; return whether it still counts."""
        return bool(self._client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)

    def finish(self, sub_status: str, details: str = "") -> None:
        """End the task: `sub_status` is Flower's word, ``completed`` or ``failed``."""
        self._client.PushTaskOutput(PushTaskOutputRequest(sub_status=sub_status, details=details))

    def nodes(self) -> list[int]:
        """Return the nodes that may be sent to now."""
        return [node.node_id for node in self._client.GetNodes(GetNodesRequest()).nodes]

    def log(self, lines: Sequence[str]) -> None:
        """Add lines to the run's log at the SuperLink, which reads them."""
        self._client.PushLogs(PushLogsRequest(run_id=self.run_id, logs=list(lines)))

    def push(self, messages: Sequence[Message]) -> list[str]:
        """Send messages with their objects and return their ids; an object that several share goes once."""
        with no_object_id_recompute():
            protos, trees = [], []
            objects: dict[str, InflatableObject] = {}
            for message in messages:
                message.metadata.__dict__["_message_id"] = message.object_id
                protos.append(message_to_proto(remove_content_from_message(message)))
                objects.update(get_all_nested_objects(message))
                trees.append(get_object_tree(message))
            answer = self._client.PushMessages(
                PushAppMessagesRequest(messages_list=protos, message_object_trees=trees)
            )
            send = make_push_object_fn_protobuf(
                self._client.PushObject, self.node, run_id=self.run_id, session_id=answer.session_id
            )
            push_objects(objects, send, object_ids_to_push=set(answer.objects_to_push))
        return list(answer.message_ids) or [message.metadata.message_id for message in messages]

    def pull(self, message_ids: Sequence[str] = ()) -> list[Message]:
        """Return the messages that are there: replies to `message_ids`, or the task's own message."""
        answer = self._client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        fetch = make_pull_object_fn_protobuf(self._client.PullObject, self.node, run_id=self.run_id)
        messages = []
        for tree in answer.message_object_trees:
            contents = pull_objects(
                [node.object_id for node in iterate_object_tree(tree)],
                fetch,
                max_tries_per_object=None,
                initial_backoff=_AGAIN_S,
                backoff_cap=_AGAIN_CAP_S,
            )
            self._client.ConfirmMessageReceived(
                ConfirmMessageReceivedRequest(
                    node=self.node, run_id=self.run_id, message_object_id=tree.object_id
                )
            )
            message = inflate_object_from_contents(tree.object_id, contents)
            if not isinstance(message, Message):
                raise httpx.DecodingError("the object tree is none of a message")
            message.metadata.__dict__["_message_id"] = tree.object_id
            messages.append(message)
        return messages

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def executor_headers(secret: bytes) -> SuperExecAuthHttpInterceptor:
    """Return what an executor shows to acquire tasks of a SuperNode that was started with `secret`."""
    return SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=[_ACQUIRE])
