"""A real ClientApp behind its launcher, as a child process: what it answers, and every way in which it fails."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as Content
from syftmesh_executor import EndReason, Limits, ProcessExecutor, RunSpec
from syftmesh_flower.app_process import CLIENT_LAUNCHER, AppFailure, AppProcess, add_launchers
from syftmesh_flower.launch.syftmesh_channel import FAILED, READY, REPLY, TASK

_APP = """
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()
not_an_app = 7

@app.train()
def train(message, context):
    context.state["count"] = MetricRecord({"n": context.state.metric_records.get("count", {"n": 0})["n"] + 1})
    arrays = ArrayRecord([array + 1 for array in message.content["arrays"].to_numpy_ndarrays()])
    metrics = MetricRecord({"n": context.state["count"]["n"], "partition": context.node_config["partition-id"]})
    print("training")
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

@app.evaluate()
def evaluate(message, context):
    raise ValueError("patient=Jane Doe")

@app.query()
def query(message, context):
    import os, time
    what = context.run_config["query"]
    if what == "exit":
        os._exit(5)
    if what == "sleep":
        time.sleep(60)
    if what == "big":
        return Message(RecordDict({"a": ArrayRecord([__import__("numpy").zeros(1 << 20)])}), reply_to=message)
    raise SystemExit(3)
"""

Start = Callable[..., Awaitable[AppProcess]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    executor = ProcessExecutor()
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text(_APP)
    add_launchers(code)

    async def make(component: str = "app:app", limit_bytes: int = 1 << 20, **config: str) -> AppProcess:
        spec = RunSpec(
            "app", code, CLIENT_LAUNCHER, {}, tmp_path / "output", limits=Limits(wall_s=60, open_files=256)
        )
        setup = {
            "run_id": 7,
            "node_id": 9,
            "component": component,
            "run_config": config,
            "node_config": {"partition-id": 1},
        }
        return await AppProcess.start(executor, spec, setup, limit_bytes=limit_bytes)

    yield make
    await executor.close()


def _task(kind: str) -> list[bytes]:
    content = RecordDict({"arrays": ArrayRecord([np.zeros(3)]), "config": MetricRecord({"lr": 0.1})})
    head = {
        "run_id": 7,
        "message_id": "m",
        "src_node_id": 1,
        "dst_node_id": 9,
        "reply_to_message_id": "",
        "group_id": "1",
        "created_at": time.time(),
        "ttl": 100.0,
        "message_type": kind,
    }
    return [json.dumps(head).encode(), recorddict_to_proto(content).SerializeToString()]


async def test_an_app_stays_for_all_rounds_and_keeps_its_state(start: Start) -> None:
    app = await start()
    assert await app.receive(timeout_s=30) == (READY, [])
    for number in (1, 2):
        kind, (answer,) = await app.ask(TASK, _task("train"), timeout_s=30)
        reply = recorddict_from_proto(Content.FromString(answer))
        assert kind == REPLY
        assert reply.array_records["arrays"].to_numpy_ndarrays()[0].tolist() == [1, 1, 1]
        assert dict(reply.metric_records["metrics"]) == {"n": number, "partition": 1}
    outcome = await app.end()
    assert outcome is not None
    assert outcome.stdout == b"training\ntraining\n"


async def test_what_an_app_raises_stays_in_its_log(start: Start) -> None:
    app = await start()
    await app.receive(timeout_s=30)
    assert await app.ask(TASK, _task("evaluate"), timeout_s=30) == (FAILED, [b"APP_RAISED"])
    kind, _ = await app.ask(TASK, _task("train"), timeout_s=30)
    assert kind == REPLY, "it goes on after an error"
    outcome = await app.end()
    assert outcome is not None
    assert b"Jane Doe" in outcome.stderr


async def test_an_app_that_exits_by_the_interpreter_has_raised(start: Start) -> None:
    app = await start(query="")
    await app.receive(timeout_s=30)
    assert await app.ask(TASK, _task("query"), timeout_s=30) == (FAILED, [b"APP_RAISED"])
    await app.end()


@pytest.mark.parametrize("component", ["app:missing", "missing:app", "app:not_an_app"])
async def test_an_app_that_cannot_be_loaded_says_so(start: Start, component: str) -> None:
    app = await start(component)
    assert await app.receive(timeout_s=30) == (FAILED, [b"APP_NOT_LOADED"])
    await app.end()


async def test_a_process_that_dies_is_told(start: Start) -> None:
    app = await start(query="exit")
    await app.receive(timeout_s=30)
    with pytest.raises(AppFailure) as failure:
        await app.ask(TASK, _task("query"), timeout_s=30)
    assert (failure.value.reason, failure.value.is_over) == ("APP_ENDED", True)
    assert app.is_over
    with pytest.raises(AppFailure):
        await app.ask(TASK, _task("train"), timeout_s=30)


async def test_an_app_that_hangs_is_ended(start: Start) -> None:
    app = await start(query="sleep")
    await app.receive(timeout_s=30)
    with pytest.raises(AppFailure) as failure:
        await app.ask(TASK, _task("query"), timeout_s=0.5)
    assert failure.value.reason == "APP_TIMEOUT"
    assert app.is_over
    assert app.outcome is not None
    assert app.outcome.reason is EndReason.CANCELLED


async def test_an_answer_that_is_too_large_ends_the_app(start: Start) -> None:
    app = await start(query="big")
    await app.receive(timeout_s=30)
    with pytest.raises(AppFailure) as failure:
        await app.ask(TASK, _task("query"), timeout_s=30)
    assert failure.value.reason == "UPDATE_TOO_LARGE"
    assert app.is_over


async def test_a_run_that_the_executor_refuses_is_told_at_once(tmp_path: Path) -> None:
    spec = RunSpec("app", tmp_path, "missing.py", {}, tmp_path / "output")
    app = await AppProcess.start(ProcessExecutor(), spec, {}, limit_bytes=1 << 20)
    with pytest.raises(AppFailure) as failure:
        await app.receive(timeout_s=20)
    assert failure.value.reason == "ISOLATION_FAILED"
