"""Many threads share one Grid over two pipes: in turn, without waiting long, and each gets what is its own."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from types import ModuleType
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
    from flwr.supercore.run import Run
    from flwr.supercore.task_identity import TaskIdentity
    from syftmesh_flower.launch import syftmesh_channel
    from syftmesh_flower.launch.syftmesh_channel import NODES, PULL, PUSH, Channel, ChannelClosed


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The launcher's module, which finds the channel beside itself."""
    monkeypatch.setitem(sys.modules, "syftmesh_channel", syftmesh_channel)
    for name, value in (("run_id", 7), ("node_id", 1), ("task_id", 0)):
        monkeypatch.setattr(TaskIdentity, f"_{name}", value)
    return importlib.import_module("syftmesh_flower.launch.syftmesh_grid")


@dataclass
class Aggregator:
    """The other ends of the pipes, in a thread of its own.

    Attributes:
        grid: The Grid to it.
        asked: The frames in the order in which they came.
        held: Ids whose replies are not there yet.
    """

    channel: Channel
    grid: Any
    asked: list[tuple[int, Any]] = field(default_factory=list)
    contents: list[int] = field(default_factory=list)
    heads: dict[str, dict[str, Any]] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    hold_all: bool = False
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def serve(self) -> None:
        while True:
            try:
                kind, parts = self.channel.receive()
            except (ChannelClosed, OSError):
                return
            self.channel.send(kind, self._answer(kind, parts))

    def _answer(self, kind: int, parts: list[bytes]) -> list[bytes]:
        question = json.loads(parts[0]) if parts else None
        self.asked.append((kind, question))
        if kind == NODES:
            return [b"[11, 22]"]
        if kind == PUSH:
            self.contents.append(len(parts) - 1)
            ids = [f"m{next(self.numbers)}" for _ in question]
            for message_id, head in zip(ids, question, strict=True):
                self.heads[message_id] = {**head, "packed": parts[1 + head["content"]]}
                if self.hold_all:
                    self.held.add(message_id)
            return [json.dumps(ids).encode()]
        assert kind == PULL
        ready = [name for name in question["ids"] if name in self.heads and name not in self.held]
        if not ready:
            time.sleep(min(0.01, question["wait_s"]))
        heads = [
            {
                "id": f"re-{name}",
                "node": self.heads[name]["node"],
                "reply_to": name,
                "group": self.heads[name]["group"],
                "type": self.heads[name]["type"],
                "ttl": self.heads[name]["ttl"],
                "content": number,
            }
            for number, name in enumerate(ready)
        ]
        return [json.dumps(heads).encode(), *(self.heads.pop(name)["packed"] for name in ready)]


@pytest.fixture
def aggregator(module: ModuleType) -> Iterator[Aggregator]:
    their_read, write = os.pipe()
    read, their_write = os.pipe()
    ends = [FileIO(end, mode) for end, mode in ((write, "wb"), (their_write, "wb"))]
    others = [FileIO(end, "rb") for end in (their_read, read)]
    run = Run.create_empty(7)
    shared = module.SharedChannel(Channel(read, write))
    found = Aggregator(Channel(their_read, their_write), module.PipeGrid(shared, run))
    thread = threading.Thread(target=found.serve)
    thread.start()
    yield found
    ends[0].close()
    thread.join(10)
    for end in (*ends, *others):
        end.close()
    assert not thread.is_alive()


def message(node: int, *, number: int = 0, group: str = "1", kind: str = "train", **config: Any) -> Message:
    content = RecordDict({"arrays": ArrayRecord([np.full(3, number)]), "config": ConfigRecord(config)})
    return Message(content, node, kind, group_id=group, ttl=100.0)


def legacy(node: int, group: str, kind: str = "fitins") -> Message:
    content = RecordDict({f"{kind}.config": ConfigRecord({"lr": 0.1})})
    return Message(content, node, "train", group_id=group, ttl=100.0)


def number_in(reply: Message) -> int:
    return int(reply.content.array_records["arrays"].to_numpy_ndarrays()[0][0])


def test_each_of_many_threads_gets_its_own_replies(aggregator: Aggregator) -> None:
    def ask(number: int) -> list[int]:
        found = aggregator.grid.send_and_receive([message(11 + number, number=number)])
        return [number_in(reply) for reply in found] + [reply.metadata.src_node_id for reply in found]

    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(ask, range(100))) == [[number, 11 + number] for number in range(100)]


def test_a_thread_that_waits_lets_others_through_in_turn(aggregator: Aggregator) -> None:
    aggregator.hold_all = True
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(aggregator.grid.send_and_receive, [message(11)])
        while not any(kind == PULL for kind, _ in aggregator.asked):
            time.sleep(0.001)
        for _ in range(20):
            before = len(aggregator.asked)
            assert aggregator.grid.get_node_ids() == [11, 22]
            asked = [kind for kind, _ in aggregator.asked[before:]]
            assert asked.index(NODES) <= 2, "whoever came first has at most one question before ours"
        aggregator.held.clear()
        assert len(waiting.result(10)) == 1
    assert max(question["wait_s"] for kind, question in aggregator.asked if kind == PULL) <= 0.25


def test_a_wait_ends_in_time_and_the_reply_can_be_fetched_later(aggregator: Aggregator) -> None:
    aggregator.hold_all = True
    started = time.monotonic()
    assert list(aggregator.grid.send_and_receive([message(11, number=5)], timeout=0.05)) == []
    assert time.monotonic() - started < 5
    assert list(aggregator.grid.pull_messages(["m0"])) == []
    aggregator.held.clear()
    assert [number_in(reply) for reply in aggregator.grid.pull_messages(["m0"])] == [5]


def test_a_reply_that_came_for_a_thread_which_left_is_kept(module: ModuleType) -> None:
    """The one who fetches for another gets what the other does not wait for any more."""
    fetched = threading.Event()
    left = threading.Event()

    def fetch(ids: list[str], wait_s: float) -> list[Any]:
        if "a" not in ids:
            return []
        fetched.set()
        assert left.wait(10)
        return [reply("a"), reply("b")]

    def reply(name: str) -> Any:
        answer = message(11)
        answer.metadata.__dict__["_reply_to_message_id"] = name
        return answer

    mailbox = module.Mailbox(fetch)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(mailbox.wait, {"a"}, time.monotonic() + 10)
        assert fetched.wait(10)
        assert mailbox.wait({"b"}, time.monotonic() + 0.01) == []
        left.set()
        assert [found.metadata.reply_to_message_id for found in first.result(10)] == ["a"]
    assert [found.metadata.reply_to_message_id for found in mailbox.take(["b", "c"])] == ["b"]
    assert mailbox.take(["b"]) == []


def test_a_fetch_that_fails_fails_for_everybody_who_waits(module: ModuleType) -> None:
    def fetch(ids: list[str], wait_s: float) -> list[Any]:
        raise ChannelClosed

    mailbox = module.Mailbox(fetch)
    with ThreadPoolExecutor(4) as threads:
        waits = [threads.submit(mailbox.wait, {str(number)}, time.monotonic() + 30) for number in range(4)]
        for wait in waits:
            with pytest.raises(ChannelClosed):
                wait.result(10)


def test_the_same_content_goes_once_also_as_records_of_their_own(aggregator: Aggregator) -> None:
    one = message(11).content
    aggregator.grid.push_messages([Message(one, node, "train", group_id="1", ttl=9.0) for node in (1, 2)])
    aggregator.grid.push_messages([legacy(11, "1"), legacy(22, "1")])
    aggregator.grid.push_messages([message(11, number=1), message(22, number=2)])
    assert aggregator.contents == [1, 1, 2]
    assert aggregator.grid.push_messages([]) == []
    assert len(aggregator.asked) == 3


@pytest.mark.parametrize(
    ("sent", "number", "joins"),
    [
        (lambda: legacy(11, "4"), 4, True),
        (lambda: legacy(11, "4", "evaluateins"), 4, True),
        (lambda: legacy(11, ""), 0, True),
        (lambda: legacy(11, "x"), 0, True),
        (lambda: message(11, **{"server-round": 3}), 3, None),
        (lambda: message(11), 0, None),
    ],
)
def test_the_round_of_a_message_is_told(
    aggregator: Aggregator, sent: Any, number: int, joins: object
) -> None:
    aggregator.grid.push_messages([sent()])
    ((_, (head,)),) = aggregator.asked
    assert (head["round"], head.get("joins")) == (number, joins)


@pytest.mark.parametrize(
    ("kind", "told"), [("get_parameters", "initial_parameters"), ("get_properties", "properties")]
)
def test_questions_that_no_site_answers_are_refused_before_they_are_sent(
    aggregator: Aggregator, kind: str, told: str
) -> None:
    with pytest.raises(RuntimeError, match=told):
        aggregator.grid.send_and_receive([message(11), message(22, kind=kind)])
    assert aggregator.asked == []
