"""Flower's Grid over two pipes to the aggregator, for a ServerApp of one thread or of many.

The servers of Flower's older API send each message from a thread of its own, and look for nodes from another. All of
them share the pipes: one question is on them at a time, and one thread asks for the replies of all.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from flwr.app import Message, Metadata, RecordDict
from flwr.app.error import Error
from flwr.app.message import make_message
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.node_pb2 import NodeInfo
from flwr.proto.recorddict_pb2 import RecordDict as Content
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from syftmesh_channel import NODES, PULL, PUSH, Channel, Frame

AGGREGATOR_NODE: Final = 1

_WAIT_S: Final = 0.25
"""How long one question for replies may wait at the aggregator: as long others wait for the pipes."""

_REFUSED: Final = {
    "get_parameters": "Sites give no parameters of their own accord, so the first ones have to come from the server: "
    "give the strategy initial_parameters, as flwr.common.ndarrays_to_parameters makes them.",
    "get_properties": "Sites answer no questions for properties: give what the app needs as its configuration.",
}
_LEGACY_CONFIG: Final = ("fitins.config", "evaluateins.config")


class SharedChannel:
    """A channel that threads use in the order in which they come.

    A lock alone would let the thread that waits for replies take the channel again and again.

    Args:
        channel: The channel, which nobody else uses any more.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._moved = threading.Condition()
        self._last = 0
        self._now = 0

    def ask(self, kind: int, parts: Sequence[bytes | memoryview] = ()) -> Frame:
        """Write a frame and read the answer; raises as `Channel.ask`."""
        with self._turn():
            return self._channel.ask(kind, parts)

    def send(self, kind: int, parts: Sequence[bytes | memoryview] = ()) -> None:
        """Write one frame; raises as `Channel.send`."""
        with self._turn():
            self._channel.send(kind, parts)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._moved:
            mine = self._last
            self._last += 1
            self._moved.wait_for(lambda: self._now == mine)
        try:
            yield
        finally:
            with self._moved:
                self._now += 1
                self._moved.notify_all()


class Mailbox:
    """Replies on their way to the threads that wait for them; one of these asks for all.

    Args:
        fetch: Returns the replies to messages of these ids that come within some seconds.
    """

    def __init__(self, fetch: Callable[[list[str], float], list[Message]]) -> None:
        self._fetch = fetch
        self._changed = threading.Condition()
        self._wanted: set[str] = set()
        self._came: dict[str, Message] = {}
        self._is_fetching = False

    def take(self, ids: Iterable[str]) -> list[Message]:
        """Return the replies to `ids` that came already."""
        with self._changed:
            return [self._came.pop(message_id) for message_id in list(ids) if message_id in self._came]

    def wait(self, ids: set[str], end: float) -> list[Message]:
        """Return replies to `ids` as soon as there is one, or none at the time `end` (of `time.monotonic`)."""
        with self._changed:
            self._wanted |= ids
        try:
            while not (came := self.take(ids)) and (left_s := end - time.monotonic()) > 0:
                self._step(ids, min(_WAIT_S, left_s))
            return came
        finally:
            with self._changed:
                self._wanted -= ids

    def _step(self, ids: set[str], wait_s: float) -> None:
        """Fetch for everybody, or wait while another thread does."""
        with self._changed:
            if not ids.isdisjoint(self._came):
                return
            if self._is_fetching:
                self._changed.wait(wait_s)
                return
            self._is_fetching = True
            wanted = sorted(self._wanted)
        came: list[Message] = []
        try:
            came = self._fetch(wanted, wait_s)
        finally:
            with self._changed:
                self._is_fetching = False
                self._came |= {reply.metadata.reply_to_message_id: reply for reply in came}
                self._changed.notify_all()


class PipeGrid(Grid):
    """Flower's Grid over the channel; threads may share it.

    Args:
        channel: To the aggregator.
        run: The run.
    """

    def __init__(self, channel: SharedChannel, run: Run) -> None:
        self._channel = channel
        self._run = run
        self._mailbox = Mailbox(self._pull)

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
        kept = list(messages)
        for message in kept:
            if (problem := _REFUSED.get(message.metadata.message_type)) is not None:
                raise RuntimeError(problem)
        if not kept:
            return []
        packed: dict[int, bytes] = {}
        contents: dict[bytes, int] = {}
        heads: list[dict[str, Any]] = []
        for message in kept:
            content = message.content
            if id(content) not in packed:
                packed[id(content)] = recorddict_to_proto(content).SerializeToString()
            # The older API makes a content of its own for each site, with the same in it.
            number = contents.setdefault(packed[id(content)], len(contents))
            heads.append({**_head(message), "content": number})
        _, (answer,) = self._channel.ask(PUSH, [json.dumps(heads).encode(), *contents])
        ids: list[str] = json.loads(answer)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that are there."""
        ids = list(message_ids)
        came = self._mailbox.take(ids)
        left = set(ids) - {reply.metadata.reply_to_message_id for reply in came}
        return came + self._pull(sorted(left), 0.0)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages and return what came back until all did or `timeout` seconds were over."""
        waiting = set(self.push_messages(messages))
        end = math.inf if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (came := self._mailbox.wait(waiting, end)):
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
            dst_node_id=AGGREGATOR_NODE,
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


def _head(message: Message) -> dict[str, Any]:
    metadata = message.metadata
    head: dict[str, Any] = {
        "node": metadata.dst_node_id,
        "type": metadata.message_type,
        "group": metadata.group_id,
        "ttl": metadata.ttl,
        "round": _round_of(message),
    }
    if _is_legacy(message):
        # The messages of one round come one by one, and the number of the round is that of their group.
        number = metadata.group_id
        head |= {"joins": True, "round": int(number) if number.isdecimal() else 0}
    return head


def _is_legacy(message: Message) -> bool:
    return any(name in message.content.config_records for name in _LEGACY_CONFIG)


def _round_of(message: Message) -> int:
    for record in message.content.config_records.values():
        value = record.get("server-round")
        if isinstance(value, int):
            return value
    return 0
