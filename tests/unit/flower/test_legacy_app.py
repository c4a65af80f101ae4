"""An app of Flower's older API, as its templates wrote it, runs unmodified: both halves, the desk and the gate."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.app import Context, Message, Metadata, RecordDict
    from flwr.app.error import Error
    from flwr.app.message import make_message
    from flwr.common.serde import recorddict_to_proto
    from mesh.federated.v1 import federated_pb2 as pb
    from syftmesh_executor import Limits, ProcessExecutor, RunSpec
    from syftmesh_flower.app_process import SERVER_LAUNCHER, AppProcess, add_launchers
    from syftmesh_flower.bundle import build_bundle, extract_bundle, read_bundle
    from syftmesh_flower.envelope import (
        InnerHeader,
        pack_plain,
        parse_content,
        sealed_contents,
        sealed_parts,
        unpack_plain,
    )
    from syftmesh_flower.gate import GateLimits, check_update
    from syftmesh_flower.grid_desk import GridDesk, RunAborted
    from syftmesh_flower.launch.syftmesh_channel import (
        CHECKPOINT,
        DONE,
        FAILED,
        NODES,
        PULL,
        PUSH,
        RESULT,
    )
    from syftmesh_flower.seal import TO_AGGREGATOR, TO_SITE, RunKey, open_content, seal_content
    from syftmesh_flower.update import read_update

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

APP = Path(__file__).parent / "legacy_app"
RUN_ID = "7"
NODE_SITES = {11: "bob@y.example", 22: "carl@z.example"}
KEYS = {site: RunKey.generate() for site in NODE_SITES.values()}
LIMITS = GateLimits(max_update_bytes=10_000, max_norm=0, min_rows=5, max_metrics=8)
CONFIG = {"num-server-rounds": 3, "learning-rate": 0.1, "initial": True}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the ClientApp, imported here."""
    monkeypatch.syspath_prepend(str(APP))
    import line.client_app

    yield line.client_app
    for name in [name for name in sys.modules if name.partition(".")[0] == "line"]:
        del sys.modules[name]


@dataclass
class Sites:
    """The hub and two sites behind it: each opens, runs the ClientApp, holds back and seals.

    Attributes:
        app: The ClientApp.
        together: How many replies are asked for at once before any of them is given.
        failing: Nodes that answer with an error.
    """

    app: Any
    together: int = 1
    failing: frozenset[int] = frozenset()
    answers: dict[str, Message] = field(default_factory=dict)
    pushes: list[list[Message]] = field(default_factory=list)

    def nodes(self) -> list[int]:
        return list(NODE_SITES)

    def push(self, messages: list[Message]) -> list[str]:
        self.pushes.append(messages)
        return [self._answer(message) for message in messages]

    def pull(self, ids: list[str]) -> list[Message]:
        if len(ids) < self.together:
            return []
        return [self.answers.pop(message_id) for message_id in ids if message_id in self.answers]

    def _answer(self, message: Message) -> str:
        node = message.metadata.dst_node_id
        message_id = f"m{len(self.answers)}-{time.monotonic_ns()}"
        old = message.metadata
        metadata = Metadata(
            run_id=old.run_id,
            message_id=f"re-{message_id}",
            src_node_id=node,
            dst_node_id=1,
            reply_to_message_id=message_id,
            group_id=old.group_id,
            created_at=time.time(),
            ttl=old.ttl,
            message_type=old.message_type,
        )
        if node in self.failing:
            reply = make_message(metadata=metadata, error=Error(code=200, reason="ROWS_TOO_FEW"))
        else:
            content = self._work(message, node, message_id)
            reply = make_message(metadata=metadata, content=content)
        self.answers[message_id] = reply
        return message_id

    def _work(self, message: Message, node: int, message_id: str) -> RecordDict:
        site, kind = NODE_SITES[node], message.metadata.message_type
        ciphertext, wrap = sealed_parts(message.content)
        plain = open_content(
            ciphertext, wrap, KEYS[site], run_id=RUN_ID, direction=TO_SITE, site=site, context=b""
        )
        _, sent = unpack_plain(plain)
        task = make_message(metadata=message.metadata, content=parse_content(sent))
        reply = self.app(task, context_of(node))
        result = check_update(
            reply.content, parse_content(sent), kind=kind, limits=LIMITS, rows=rows_of(node)
        )
        assert result.content is not None, result
        header = InnerHeader(kind, message.metadata.group_id, time.time_ns())
        sealed = seal_content(
            pack_plain(header, recorddict_to_proto(result.content).SerializeToString()),
            {site: KEYS[site]},
            run_id=RUN_ID,
            direction=TO_AGGREGATOR,
            context=message_id.encode(),
        )
        return sealed_contents(sealed.ciphertext, sealed.wraps)[site]


def partition_of(node: int) -> int:
    return list(NODE_SITES).index(node)


def rows_of(node: int) -> int:
    return 20 + 10 * partition_of(node)


def context_of(node: int) -> Context:
    return Context(
        run_id=int(RUN_ID),
        node_id=node,
        node_config={"partition-id": partition_of(node)},
        state=RecordDict(),
        run_config=CONFIG,
    )


@dataclass
class Outcome:
    """What a ServerApp came to."""

    end: int
    word: bytes
    checkpoints: dict[int, list[np.ndarray]]
    metrics: dict[str, Any]
    model: list[np.ndarray]
    reports: list[pb.RoundReport]
    log: str


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    executor = ProcessExecutor()
    code = tmp_path / "code"
    extract_bundle(read_bundle(build_bundle(APP)), code)
    add_launchers(code)

    async def run(
        sites: Sites, component: str = "line.server_app:app", minimum: int = 2, **config: Any
    ) -> Outcome:
        spec = RunSpec(
            "app",
            code,
            SERVER_LAUNCHER,
            {},
            tmp_path / "output",
            limits=Limits(wall_s=60, memory_bytes=2 << 30, open_files=256),
        )
        setup = {
            "run_id": int(RUN_ID),
            "component": component,
            "run_config": {**CONFIG, **config},
            "app_digest": "a" * 64,
        }
        app = await AppProcess.start(executor, spec, setup, limit_bytes=1 << 20)
        try:
            outcome = await converse(app, sites, minimum)
        finally:
            ended = await app.end()
        assert ended is not None
        outcome.log = (ended.stdout + ended.stderr).decode()
        return outcome

    yield run
    await executor.close()


async def converse(app: AppProcess, sites: Sites, minimum: int) -> Outcome:
    """Serve the app as the aggregator does, until it is done."""
    outcome = Outcome(0, b"", {}, {}, [], [], "")

    async def report(report: pb.RoundReport) -> None:
        outcome.reports.append(report)

    async def off(work: Callable[[], Any]) -> Any:
        return work()

    desk = GridDesk(
        sites,  # type: ignore[arg-type]
        RUN_ID,
        KEYS,
        lambda: NODE_SITES,
        minimum_sites=minimum,
        now_ms=lambda: 1,
        report=report,
        off=off,
    )
    while True:
        kind, parts = await app.receive(timeout_s=30)
        if kind == NODES:
            await app.send(NODES, await desk.nodes())
        elif kind in (PUSH, PULL):
            await app.send(kind, await (desk.push if kind == PUSH else desk.pull)(parts))
        elif kind == CHECKPOINT:
            outcome.checkpoints[json.loads(parts[0])["round"]] = arrays_of(parts[1])
        elif kind == RESULT:
            outcome.metrics, outcome.model = json.loads(parts[0]), arrays_of(parts[1])
        else:
            outcome.end, outcome.word = kind, b"".join(parts)
            if kind == DONE:
                await desk.close_phase()
            return outcome


def arrays_of(packed: bytes) -> list[np.ndarray]:
    return list(read_update(parse_content(packed)).array_records["arrays"].values())


def expected_model(module: Any, rounds: int = 3) -> list[np.ndarray]:
    """Federated averaging by hand."""
    model = [np.zeros(2), np.zeros(1)]
    clients = [module.LineClient(partition, 0.1) for partition in range(2)]
    for _ in range(rounds):
        fits = [client.fit(model, {"local_steps": 5}) for client in clients]
        total = sum(count for _, count, _ in fits)
        model = [sum(arrays[n] * count for arrays, count, _ in fits) / total for n in range(2)]
    return model


def phases_of(outcome: Outcome) -> list[tuple[str, int, list[tuple[str, bool, str]]]]:
    return [
        (report.phase, report.round, [(reply.site, reply.ok, reply.reason) for reply in report.replies])
        for report in outcome.reports
    ]


BOTH = [(site, True, "") for site in sorted(NODE_SITES.values())]
PHASES = [(phase, number, BOTH) for number in (1, 2, 3) for phase in ("train", "evaluate")]


@pytest.mark.parametrize("component", ["line.server_app:app", "line.workflow_app:app"])
async def test_a_server_of_the_older_api_trains_over_both_sites(
    serve: Callable[..., Any], client: Any, component: str
) -> None:
    outcome = await serve(Sites(client.app), component)
    assert (outcome.end, outcome.word) == (DONE, b""), outcome.log
    model = expected_model(client)
    for found, wanted in zip(outcome.model, model, strict=True):
        np.testing.assert_allclose(found, wanted)
    assert list(outcome.checkpoints) == [1, 2, 3]
    for found, wanted in zip(outcome.checkpoints[1], expected_model(client, 1), strict=True):
        np.testing.assert_allclose(found, wanted)
    assert phases_of(outcome) == PHASES
    told = outcome.metrics
    assert list(told["train_metrics_clientapp"]) == ["1", "2", "3"]
    assert set(told["train_metrics_clientapp"]["1"]) == {"train_loss", "is_done"}
    assert set(told["evaluate_metrics_clientapp"]["3"]) == {"loss", "max_error"}
    losses = [told["evaluate_metrics_serverapp"][str(number)]["loss"] for number in range(4)]
    assert losses == sorted(losses, reverse=True)
    assert told["evaluate_metrics_serverapp"]["3"]["bias"] == pytest.approx(model[1][0])


async def test_threads_that_wait_for_their_site_do_not_hold_up_the_others(
    serve: Callable[..., Any], client: Any
) -> None:
    # Each message is sent by a thread that then waits. No reply is given before somebody asks for both: the second
    # thread has to get through while the first one waits, and one of them has to ask for the other.
    sites = Sites(client.app, together=2)
    outcome = await serve(sites)
    assert outcome.end == DONE, outcome.log
    assert {len(messages) for messages in sites.pushes} == {1}
    assert phases_of(outcome) == PHASES


async def test_a_workflow_sends_the_content_of_a_round_once(serve: Callable[..., Any], client: Any) -> None:
    sites = Sites(client.app)
    await serve(sites, "line.workflow_app:app")
    assert {len(messages) for messages in sites.pushes} == {2}
    first, second = (sealed_parts(message.content)[0] for message in sites.pushes[0])
    assert first == second


@pytest.mark.parametrize("component", ["line.server_app:app", "line.workflow_app:app"])
async def test_first_parameters_from_a_site_are_refused_with_a_word(
    serve: Callable[..., Any], client: Any, component: str
) -> None:
    sites = Sites(client.app)
    outcome = await serve(sites, component, initial=False)
    assert (outcome.end, outcome.word) == (FAILED, b"APP_RAISED")
    assert "give the strategy initial_parameters" in outcome.log
    assert sites.pushes == []


async def test_a_site_that_fails_ends_a_run_that_needs_it(serve: Callable[..., Any], client: Any) -> None:
    with pytest.raises(RunAborted) as aborted:
        await serve(Sites(client.app, failing=frozenset({22})))
    assert aborted.value.reason == "TOO_FEW_SITES"
    assert "carl@z.example: ROWS_TOO_FEW" in aborted.value.message


async def test_a_run_goes_on_without_a_site_that_it_does_not_need(
    serve: Callable[..., Any], client: Any
) -> None:
    outcome = await serve(Sites(client.app, failing=frozenset({22})), minimum=1)
    assert outcome.end == DONE, outcome.log
    mixed = [("bob@y.example", True, ""), ("carl@z.example", False, "ROWS_TOO_FEW")]
    assert phases_of(outcome) == [(phase, number, mixed) for phase, number, _ in PHASES]
