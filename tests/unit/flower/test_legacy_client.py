"""The client half of an app of Flower's older API: as a process in the sandbox, through the gate, read by Flower."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.app import RecordDict
    from flwr.common import EvaluateIns, FitIns, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
    from flwr.compat.common import recorddict_compat as compat
    from flwr.proto.recorddict_pb2 import RecordDict as Content
    from syftmesh_executor import Limits, ProcessExecutor, RunSpec
    from syftmesh_flower.app_process import CLIENT_LAUNCHER, AppProcess, add_launchers
    from syftmesh_flower.bundle import build_bundle, extract_bundle, read_bundle
    from syftmesh_flower.gate import GateLimits, check_update
    from syftmesh_flower.launch.syftmesh_channel import READY, REPLY, TASK

pytestmark = pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")

APP = Path(__file__).parent / "legacy_app"
LIMITS = GateLimits(max_update_bytes=10_000, max_norm=0, min_rows=5, max_metrics=8)
CONFIG = {"num-server-rounds": 3, "learning-rate": 0.1, "initial": True}
RUN_ID = "7"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the ClientApp, imported here."""
    monkeypatch.syspath_prepend(str(APP))
    import line.client_app

    yield line.client_app
    for name in [name for name in sys.modules if name.partition(".")[0] == "line"]:
        del sys.modules[name]


@pytest.fixture
async def start_client(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    executor = ProcessExecutor()
    code = tmp_path / "code"
    extract_bundle(read_bundle(build_bundle(APP)), code)
    add_launchers(code)

    async def start() -> AppProcess:
        spec = RunSpec(
            "app", code, CLIENT_LAUNCHER, {}, tmp_path / "output", limits=Limits(wall_s=60, open_files=256)
        )
        setup = {
            "run_id": int(RUN_ID),
            "node_id": 22,
            "component": "line.client_app:app",
            "run_config": CONFIG,
            "node_config": {"partition-id": 1},
        }
        app = await AppProcess.start(executor, spec, setup, limit_bytes=1 << 20)
        assert await app.receive(timeout_s=30) == (READY, [])
        return app

    yield start
    await executor.close()


def task(kind: str, content: RecordDict) -> list[bytes]:
    head = {
        "run_id": int(RUN_ID),
        "message_id": "m",
        "src_node_id": 1,
        "dst_node_id": 22,
        "reply_to_message_id": "",
        "group_id": "1",
        "created_at": time.time(),
        "ttl": 100.0,
        "message_type": kind,
    }
    return [json.dumps(head).encode(), recorddict_to_proto(content).SerializeToString()]


async def test_a_client_of_the_older_api_answers_in_the_sandbox_and_passes_the_gate(
    start_client: Callable[..., Any], client: Any
) -> None:
    app = await start_client()
    model = [np.zeros(2), np.zeros(1)]
    fit = compat.fitins_to_recorddict(FitIns(ndarrays_to_parameters(model), {"local_steps": 5}), True)
    evaluate = compat.evaluateins_to_recorddict(EvaluateIns(ndarrays_to_parameters(model), {}), True)
    answers: dict[str, RecordDict] = {}
    for kind, content in (("train", fit), ("evaluate", evaluate)):
        answer, parts = await app.ask(TASK, task(kind, content), timeout_s=30)
        assert answer == REPLY
        reply = recorddict_from_proto(Content.FromString(parts[0]))
        result = check_update(reply, content, kind=kind, limits=LIMITS, rows=30)
        assert result.content is not None, result
        answers[kind] = result.content
    arrays, count, metrics = client.LineClient(1, 0.1).fit(model, {"local_steps": 5})
    found = compat.recorddict_to_fitres(answers["train"], keep_input=False)
    assert (found.num_examples, found.status.message) == (count, "Success")
    assert found.metrics == pytest.approx(metrics)
    for array, wanted in zip(parameters_to_ndarrays(found.parameters), arrays, strict=True):
        np.testing.assert_allclose(array, wanted)
    loss, count, metrics = client.LineClient(1, 0.1).evaluate(model, {})
    seen = compat.recorddict_to_evaluateres(answers["evaluate"])
    assert (seen.loss, seen.num_examples) == (pytest.approx(loss), count)
    assert seen.metrics == pytest.approx(metrics)
    await app.end()
