"""Runs a Flower ServerApp inside the sandbox: its Grid is two pipes to the aggregator, which alone holds keys.

After each round of a strategy the arrays go out as a checkpoint, and what the strategy returns as the result. The
same holds for the servers and workflows of Flower's older API.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from flwr.app import ArrayRecord, Context, RecordDict
from flwr.common import Parameters, parameters_to_ndarrays
from flwr.common.serde import recorddict_to_proto
from flwr.compat.common.recorddict_compat import arrayrecord_to_parameters
from flwr.server.history import History
from flwr.server.server import Server
from flwr.server.workflow import DefaultWorkflow
from flwr.server.workflow.constant import MAIN_PARAMS_RECORD
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from syftmesh_channel import CHECKPOINT, DONE, FAILED, RESULT, Channel, ChannelClosed
from syftmesh_grid import AGGREGATOR_NODE, PipeGrid, SharedChannel

_SET_PARENT_DEATH_SIGNAL: Final = 1


def main() -> int:
    """Run the ServerApp; return the exit code."""
    _end_with_parent()
    pipes = Channel.inherited()
    _, (head,) = pipes.receive()
    channel = SharedChannel(pipes)
    setup: dict[str, Any] = json.loads(head)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = setup["run_id"], AGGREGATOR_NODE, 0
    context = Context(
        run_id=setup["run_id"],
        node_id=AGGREGATOR_NODE,
        node_config={},
        state=RecordDict(),
        run_config=setup["run_config"],
    )
    # What an app writes beside itself is a result.
    os.chdir(os.environ["OUTPUT_DIR"])
    _follow_strategies(channel)
    _follow_servers(channel)
    _follow_workflows(channel)
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


def _end_with_parent() -> None:
    """Let the kernel end this process with the aggregator, also one that never looks at its pipes.

    prctl(2), PR_SET_PDEATHSIG; a system without it has the closed pipes alone.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


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


def _follow_strategies(channel: SharedChannel) -> None:
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
                _tell_round(channel, server_round, arrays)
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
        _tell_result(channel, _metrics(result), result.arrays)
        return result

    Strategy.start = start  # type: ignore[method-assign]


def _follow_servers(channel: SharedChannel) -> None:
    """Tell what a server of the older API, which a strategy is given to, comes to."""
    original_round, original = Server.fit_round, Server.fit

    def fit_round(self: Server, server_round: int, timeout: float | None) -> Any:
        result = original_round(self, server_round, timeout)
        if result is not None and result[0]:
            _tell_round(channel, server_round, _arrays(result[0]))
        return result

    def fit(self: Server, num_rounds: int, timeout: float | None) -> Any:
        result = original(self, num_rounds, timeout)
        _tell_result(channel, _history(result[0]), _arrays(self.parameters))
        return result

    Server.fit_round = fit_round  # type: ignore[method-assign]
    Server.fit = fit  # type: ignore[method-assign]


def _follow_workflows(channel: SharedChannel) -> None:
    original: Callable[..., None] = DefaultWorkflow.__call__

    def call(self: DefaultWorkflow, grid: Grid, context: Any) -> None:
        inner, rounds = self.fit_workflow, iter(range(1, sys.maxsize))

        def fit(grid: Grid, context: Any) -> None:
            inner(grid, context)
            _tell_round(channel, next(rounds), _main_arrays(context))

        self.fit_workflow = fit
        try:
            original(self, grid, context)
        finally:
            self.fit_workflow = inner
        _tell_result(channel, _history(context.history), _main_arrays(context))

    DefaultWorkflow.__call__ = call  # type: ignore[method-assign]


def _tell_round(channel: SharedChannel, number: int, arrays: ArrayRecord | None) -> None:
    channel.send(CHECKPOINT, [json.dumps({"round": number}).encode(), _packed(arrays)])


def _tell_result(channel: SharedChannel, metrics: dict[str, Any], arrays: ArrayRecord | None) -> None:
    channel.send(RESULT, [json.dumps(metrics).encode(), _packed(arrays)])


def _main_arrays(context: Any) -> ArrayRecord | None:
    record = context.state.array_records[MAIN_PARAMS_RECORD]
    return _arrays(arrayrecord_to_parameters(record, keep_input=True))


def _arrays(parameters: Parameters) -> ArrayRecord | None:
    """Return parameters of the older API with their types and shapes; None where they are no arrays."""
    try:
        return ArrayRecord(parameters_to_ndarrays(parameters))
    except (ValueError, EOFError, OSError):  # a strategy may keep what it likes in them, such as trees
        return None


def _packed(arrays: Any) -> bytes:
    content = RecordDict() if arrays is None else RecordDict({"arrays": arrays})
    return recorddict_to_proto(content).SerializeToString()


def _metrics(result: Any) -> dict[str, Any]:
    names = ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp")
    return {
        name: {str(number): dict(record) for number, record in getattr(result, name).items()}
        for name in names
    }


def _history(history: History) -> dict[str, Any]:
    return {
        "train_metrics_clientapp": _by_round(history.metrics_distributed_fit, ()),
        "evaluate_metrics_clientapp": _by_round(history.metrics_distributed, history.losses_distributed),
        "evaluate_metrics_serverapp": _by_round(history.metrics_centralized, history.losses_centralized),
    }


def _by_round(
    metrics: Mapping[str, Iterable[tuple[int, Any]]], losses: Iterable[tuple[int, Any]]
) -> dict[str, dict[str, Any]]:
    rounds: dict[str, dict[str, Any]] = defaultdict(dict)
    for name, values in {"loss": losses, **metrics}.items():
        for number, value in values:
            plain = value.item() if hasattr(value, "item") else value
            if isinstance(plain, bool | int | float | str):
                rounds[str(number)][name] = plain
    return rounds


if __name__ == "__main__":
    sys.exit(main())
