"""Routes of the SuperLink's process for the hub only: what Flower does not offer by HTTP.

Imported in the SuperLink's process only.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from flwr.common.constant import NOOP_FLWR_AID, Status, SubStatus
from flwr.common.serde import user_config_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.server.superlink.linkstate import LinkState
from flwr.supercore.auth.typing import AccountInfo
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.superlink.servicer.control import control_handlers
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PREFIX: Final = "/private"
LOST: Final = "lost"
_NO_HEARTBEAT: Final = "heartbeat"

Answer = dict[str, Any]


def private_routes(state: Callable[[], LinkState], fleet_api_type: str) -> list[Route]:
    """Return the routes.

    Args:
        state: Gives Flower's state.
        fleet_api_type: Passed on to Flower.
    """
    actions: dict[str, Callable[[LinkState, Answer, bytes], Answer]] = {
        "start": lambda found, document, data: _start(found, document, data, fleet_api_type),
        "claim": _claim,
        "stop": _stop,
        "status": _statuses,
        "forget-node": _forget_node,
    }
    return [
        Route(f"{PREFIX}/{name}", _endpoint(state, action), methods=["POST"])
        for name, action in actions.items()
    ]


def _start(state: LinkState, document: Answer, data: bytes, fleet_api_type: str) -> Answer:
    request = StartRunRequest(
        fab=Fab(content=data),
        override_config=user_config_to_proto(document["config"]),
        federation=document["federation"],
    )
    account = AccountInfo(flwr_aid=document["account"], account_name=document["account"])
    try:
        answer = control_handlers.start_run(request, account, state, fleet_api_type)
    except FlowerError as error:
        if error.code != ApiErrorCode.INVALID_RUN_CONFIG:
            raise
        return {"refused": str(error.__cause__)[:500]}
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # of a bundle that Flower cannot read
        return {"refused": type(error).__name__}
    return {"run_id": str(answer.run_id)} if answer.run_id else {"refused": "Flower takes no such bundle"}


def _claim(state: LinkState, document: Answer, _data: bytes) -> Answer:
    for task in state.get_tasks(run_ids=[int(document["run_id"])], statuses=[Status.PENDING]):
        token = state.claim_task(task.task_id)
        if token is not None:
            return {"token": token}
    return {}


def _stop(state: LinkState, document: Answer, _data: bytes) -> Answer:
    run_id = int(document["run_id"])
    for run in state.get_run_info(run_ids=[run_id]):
        if run.status.status != Status.FINISHED:
            state.stop_run(run_id)
        state.cleanup_run(run_id)
    return {}


def _statuses(state: LinkState, document: Answer, _data: bytes) -> Answer:
    runs = state.get_run_info(run_ids=[int(run_id) for run_id in document["run_ids"]])
    return {str(run.run_id): _status(run.status) for run in runs}


def _forget_node(state: LinkState, document: Answer, _data: bytes) -> Answer:
    node_id = int(document["node_id"])
    with suppress(ValueError):  # it is not there any more
        state.deactivate_node(node_id)
        state.delete_node(NOOP_FLWR_AID, node_id)
    return {}


def _endpoint(
    state: Callable[[], LinkState], action: Callable[[LinkState, Answer, bytes], Answer]
) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> JSONResponse:
        # The body is one line of JSON, then bytes: a header would be too small for a configuration.
        head, _, data = (await request.body()).partition(b"\n")
        return JSONResponse(await run_in_threadpool(action, state(), json.loads(head), data))

    return endpoint


def _status(found: Any) -> str:
    if found.status != Status.FINISHED:
        return str(found.status)
    if found.sub_status == SubStatus.FAILED and _NO_HEARTBEAT in found.details.lower():
        return LOST
    return str(found.sub_status)
