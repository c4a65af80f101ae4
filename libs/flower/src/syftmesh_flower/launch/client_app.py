"""Runs a Flower ClientApp inside the sandbox: messages come by a pipe and replies go by another.

The process stays for all rounds of one run, so that modules are imported once and `Context.state` lives as long as
the run does at this site. What the app prints or raises goes to its own output, which the site's owner keeps.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from syftmesh_channel import FAILED, READY, REPLY, Channel, ChannelClosed


def main() -> int:
    """Serve tasks until the pipe closes; return the exit code."""
    channel = Channel.inherited()
    _, (head,) = channel.receive()
    setup: dict[str, Any] = json.loads(head)
    # Flower is imported only now: how long that takes must not delay the frame above.
    from flwr.app import Context, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = setup["run_id"], setup["node_id"], 0
    context = Context(
        run_id=setup["run_id"],
        node_id=setup["node_id"],
        node_config=setup["node_config"],
        state=RecordDict(),
        run_config=setup["run_config"],
    )
    try:
        app = _load(setup["component"])
    except (Exception, SystemExit):  # noqa: BLE001 - whatever the app does is told by a constant
        traceback.print_exc()
        channel.send(FAILED, [b"APP_NOT_LOADED"])
        return 1
    channel.send(READY)
    while True:
        try:
            _, parts = channel.receive()
        except ChannelClosed:
            return 0
        channel.send(*_answer(app, context, parts))


def _load(component: str) -> Any:
    from flwr.clientapp import ClientApp

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    module, _, attribute = component.partition(":")
    app = getattr(importlib.import_module(module), attribute)
    if not isinstance(app, ClientApp):
        raise TypeError(f"{component} is {type(app).__name__} and no ClientApp")
    return app


def _answer(app: Any, context: Any, parts: list[bytes]) -> tuple[int, list[bytes]]:
    from flwr.app import Metadata
    from flwr.app.message import make_message
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
    from flwr.proto.recorddict_pb2 import RecordDict as Content

    message = make_message(
        metadata=Metadata(**json.loads(parts[0])),
        content=recorddict_from_proto(Content.FromString(parts[1])),
    )
    try:
        reply = app(message, context)
        if reply.has_error():
            return FAILED, [b"APP_ANSWERED_ERROR"]
        return REPLY, [recorddict_to_proto(reply.content).SerializeToString()]
    except (Exception, SystemExit):  # noqa: BLE001 - whatever the app does is told by a constant
        traceback.print_exc()
        return FAILED, [b"APP_RAISED"]
    finally:
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
