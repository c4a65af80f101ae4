"""The Runtime API: what a run's aggregator may do with the task that it was given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from syftmesh_core.errors import NotFound, PermissionDenied

from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.presence import Presence
from syftmesh_superlink.domain.wake import Wakes
from syftmesh_superlink.servicer import flower_message
from syftmesh_superlink.servicer.holding import Hold, held
from syftmesh_superlink.servicer.push_session import PushSessions
from syftmesh_superlink.servicer.upstream import Answer, Upstream, passed

PREFIX: Final = "/v1/runtime/"
TASK_HEADER: Final = "flwr-task-token"
HOLD: Final = Hold(longest_s=10.0, again_s=2.0)

_PULLED: Final = ("runtime_pb2", "PullAppMessagesResponse")
_PUSHED: Final = ("runtime_pb2", "PushAppMessagesResponse")


class Runtime:
    """Handles requests below `PREFIX`; tasks are never acquired here.

    Args:
        upstream: Flower's SuperLink.
        federation: Knows whose task is which.
        presence: Is told who was heard.
        wakes: Who waits.
    """

    def __init__(self, upstream: Upstream, federation: Federation, presence: Presence, wakes: Wakes) -> None:
        self._upstream = upstream
        self._federation = federation
        self._presence = presence
        self._wakes = wakes
        self._sessions = PushSessions(wakes)

    async def answer_to(self, principal: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to a request of an aggregator.

        Raises:
            NotFound: No such route (ROUTE_UNKNOWN).
            PermissionDenied: The task token is not the caller's (TASK_FOREIGN).
            InvalidInput: MESSAGE_MALFORMED.
            Unavailable: SUPERLINK_AWAY.
        """
        name = flower_message.RUNTIME.get(route)
        if name is None:
            raise NotFound("There is nothing at this address.", reason="ROUTE_UNKNOWN")
        run = self._federation.of_task(principal, headers.get(TASK_HEADER, ""))
        if run is None:
            raise PermissionDenied("This task is not yours.", reason="TASK_FOREIGN")
        self._presence.aggregator_heard(run.run_id)
        if route == "pull-messages":
            return await self._pulled(run.run_id, headers, body)
        answer = await passed(self._upstream, PREFIX + route, headers, body)
        if answer.status == 200 and route == "push-messages":
            await self._pushed(name, body, answer)
        elif answer.status == 200 and route == "push-object":
            message = await flower_message.parse(name, body)
            self._sessions.arrived(message.session_id, message.object_id)
        return answer

    async def _pushed(self, name: flower_message.MessageName, body: bytes, answer: Answer) -> None:
        message = await flower_message.parse(name, body)
        pushed = await flower_message.parse(_PUSHED, answer.body)
        nodes = {item.metadata.dst_node_id for item in message.messages_list}
        self._sessions.await_objects(
            pushed.session_id, pushed.objects_to_push, [("node", node) for node in nodes]
        )

    async def _pulled(self, run_id: str, headers: Mapping[str, str], body: bytes) -> Answer:
        response = await flower_message.message_class(_PULLED)

        def is_empty(answer: Answer) -> bool:
            return answer.status == 200 and not response.FromString(answer.body).messages_list

        async def ask() -> Answer:
            self._presence.aggregator_heard(run_id)
            return await passed(self._upstream, f"{PREFIX}pull-messages", headers, body)

        return await held(self._wakes, ("run", run_id), HOLD, ask, is_empty)
