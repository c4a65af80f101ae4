"""Runs a Flower ServerApp inside the sandbox: its Grid is two pipes to the aggregator, which alone holds keys.

After each round of a strategy the arrays go out as a checkpoint, and what the strategy returns as the result.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, Metadata, RecordDict
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.recorddict_pb2 import RecordDict as Content
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from syftmesh_channel import (
    CHECKPOINT,
    DONE,
    FAILED,
    NODES,
    PULL,
    PUSH,
    RESULT,
    Channel,
    ChannelClosed,
)

_WAIT_S = 1.0
"""How long one question for replies may wait at the aggregator."""

_AGGREGATOR_NODE = 1


class PipeGrid(Grid):
    """Flower's Grid over the channel."""

    def __init__(self, channel: Channel, run: Run) -> None:
        self._channel = channel
        self._run = run

    def set_run(self, run: Run) -> None:
        """Do nothing: a process serves one run."""

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message; deprecated in Flower, as is."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Return the sites' nodes."""
        _, (answer,) = self._channel.ask(NODES)
        nodes: list[int] = json.loads(answer)
        return nodes

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the sites' nodes."""
        return [NodeInfo(node_id=node_id) for node_id in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and return their ids; one content that many share goes once."""
        heads: list[dict[str, Any]] = []
        contents: dict[int, bytes] = {}
        order: list[int] = []
        kept = list(messages)
        for message in kept:
            content, metadata = message.content, message.metadata
            if id(content) not in contents:
                contents[id(content)] = recorddict_to_proto(content).SerializeToString()
                order.append(id(content))
            heads.append(
                {
                    "node": metadata.dst_node_id,
                    "type": metadata.message_type,
                    "group": metadata.group_id,
                    "ttl": metadata.ttl,
                    "round": _round_of(message),
                    "content": order.index(id(content)),
                }
            )
        if not heads:
            return []
        _, (answer,) = self._channel.ask(
            PUSH, [json.dumps(heads).encode(), *(contents[key] for key in order)]
        )
        ids: list[str] = json.loads(answer)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        return self._pull(list(message_ids), 0.0)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return what came back until all did or `timeout` seconds were over."""
        waiting = set(self.push_messages(messages))
        end = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (end is None or time.monotonic() < end):
            left = _WAIT_S if end is None else min(_WAIT_S, max(0.0, end - time.monotonic()))
            came = self._pull(list(waiting), left)
            replies += came
            waiting.difference_update(reply.metadata.reply_to_message_id for reply in came)
        return replies

    def _pull(self, message_ids: list[str], wait_s: float) -> list[Message]:
        question = json.dumps({"ids": message_ids, "wait_s": wait_s}).encode()
        _, (heads, *contents) = self._channel.ask(PULL, [question])
        return [self._message(head, contents) for head in json.loads(heads)]

    def _message(self, head: dict[str, Any], contents: list[bytes]) -> Message:
        metadata = Metadata(
            run_id=self._run.run_id,
            message_id=head["id"],
            src_node_id=head["node"],
            dst_node_id=_AGGREGATOR_NODE,
            reply_to_message_id=head["reply_to"],
            group_id=head["group"],
            created_at=time.time(),
            ttl=head["ttl"],
            message_type=head["type"],
        )
        if "content" not in head:
            return make_message(metadata=metadata, error=Error(code=head["code"], reason=head["reason"]))
        content = recorddict_from_proto(Content.FromString(contents[head["content"]]))
        return make_message(metadata=metadata, content=content)


def main() -> int:
    """Run the ServerApp; return the exit code."""
    channel = Channel.inherited()
    _, (head,) = channel.receive()
    setup: dict[str, Any] = json.loads(head)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = setup["run_id"], _AGGREGATOR_NODE, 0
    context = Context(
        run_id=setup["run_id"],
        node_id=_AGGREGATOR_NODE,
        node_config={},
        state=RecordDict(),
        run_config=setup["run_config"],
    )
    # What an app writes beside itself is a result.
    os.chdir(os.environ["OUTPUT_DIR"])
    _follow_strategies(channel)
    try:
        app = _load(setup["component"])
    except (Exception, SystemExit):  # noqa: BLE001 - whatever the app does is told by a constant
        traceback.print_exc()
        channel.send(FAILED, [b"APP_NOT_LOADED"])
        return 1
    try:
        app(grid=PipeGrid(channel, _run(setup)), context=context)
    except ChannelClosed:
        return 1
    except (Exception, SystemExit):  # noqa: BLE001 - whatever the app does is told by a constant
        traceback.print_exc()
        channel.send(FAILED, [b"APP_RAISED"])
        return 1
    sys.stdout.flush()
    channel.send(DONE)
    return 0


def _run(setup: dict[str, Any]) -> Run:
    run = Run.create_empty(setup["run_id"])
    run.fab_hash = setup["app_digest"]
    return run


def _load(component: str) -> ServerApp:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    module, _, attribute = component.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    if not isinstance(app, ServerApp):
        raise TypeError(f"{component} is {type(app).__name__} and no ServerApp")
    return app


def _round_of(message: Message) -> int:
    for record in message.content.config_records.values():
        value = record.get("server-round")
        if isinstance(value, int):
            return value
    return 0


def _follow_strategies(channel: Channel) -> None:
    original: Callable[..., Any] = Strategy.start

    def start(
        self: Strategy,
        grid: Grid,
        initial_arrays: Any,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: Any = None,
        evaluate_config: Any = None,
        evaluate_fn: Any = None,
    ) -> Any:
        def checkpoint(server_round: int, arrays: Any) -> Any:
            if server_round > 0:
                channel.send(CHECKPOINT, [json.dumps({"round": server_round}).encode(), _packed(arrays)])
            return evaluate_fn(server_round, arrays) if evaluate_fn is not None else None

        result = original(
            self,
            grid=grid,
            initial_arrays=initial_arrays,
            num_rounds=num_rounds,
            timeout=timeout,
            train_config=train_config,
            evaluate_config=evaluate_config,
            evaluate_fn=checkpoint,
        )
        channel.send(RESULT, [json.dumps(_metrics(result)).encode(), _packed(result.arrays)])
        return result

    Strategy.start = start  # type: ignore[method-assign]


def _packed(arrays: Any) -> bytes:
    content = RecordDict() if arrays is None else RecordDict({"arrays": arrays})
    return recorddict_to_proto(content).SerializeToString()


def _metrics(result: Any) -> dict[str, Any]:
    names = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
    return {
        name: {str(number): dict(record) for number, record in getattr(result, name).items()}
        for name in names
    }


if __name__ == "__main__":
    sys.exit(main())
