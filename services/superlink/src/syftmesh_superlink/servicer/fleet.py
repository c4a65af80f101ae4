"""The Fleet API: what SuperNodes of approved sites may say, each for itself only."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from syftmesh_core.errors import InvalidInput, MeshError, NotFound, PermissionDenied

from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.presence import Presence
from syftmesh_superlink.domain.register import Register
from syftmesh_superlink.domain.wake import Wakes
from syftmesh_superlink.servicer import flower_message
from syftmesh_superlink.servicer.holding import Hold, held
from syftmesh_superlink.servicer.push_session import PushSessions
from syftmesh_superlink.servicer.upstream import Answer, NodeKeeper, Upstream, passed

PREFIX: Final = "/v1/fleet/"
HOLD: Final = Hold(longest_s=20.0, again_s=5.0)
"""A SuperNode waits 30 s for an answer."""

_LEAVING: Final = frozenset({"deactivate-node", "unregister-node"})
_PULLED: Final = ("fleet_pb2", "PullMessagesResponse")
_PUSHED: Final = ("fleet_pb2", "PushMessagesResponse")
_REGISTERED: Final = ("fleet_pb2", "RegisterNodeFleetResponse")


class Fleet:
    """Handles requests below `PREFIX`.

    Args:
        upstream: Flower's SuperLink.
        federation: Knows who takes part in what.
        register: Keeps federations in step with nodes.
        nodes: Whose node is which.
        presence: Is told who was heard.
        wakes: Who waits.
    """

    def __init__(
        self,
        upstream: Upstream,
        federation: Federation,
        register: Register,
        nodes: NodeKeeper,
        presence: Presence,
        wakes: Wakes,
    ) -> None:
        self._upstream = upstream
        self._federation = federation
        self._register = register
        self._nodes = nodes
        self._presence = presence
        self._wakes = wakes
        self._sessions = PushSessions(wakes)
        self._registering: dict[str, asyncio.Lock] = {}

    async def answer_to(self, site: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to a request of a site.

        Raises:
            NotFound: No such route (ROUTE_UNKNOWN).
            PermissionDenied: The site takes part in no run (NOT_A_MEMBER), or speaks for a node or a run that
                is not its own (NODE_FOREIGN).
            InvalidInput: MESSAGE_MALFORMED.
            Unavailable: SUPERLINK_AWAY.
        """
        name = flower_message.FLEET.get(route)
        if name is None:
            raise NotFound("There is nothing at this address.", reason="ROUTE_UNKNOWN")
        runs = {run.run_id for run in self._federation.active_at(site)}
        if not runs and route not in _LEAVING:
            raise PermissionDenied("This site takes part in no run now.", reason="NOT_A_MEMBER")
        message = await flower_message.parse(name, body)
        if route == "register-node":
            return await self._registered(site, message, headers, body)
        self._check(site, route, message, runs)
        self._presence.site_heard(site)
        if route == "pull-messages":
            return await self._pulled(site, message.node.node_id, headers, body)
        answer = await passed(self._upstream, PREFIX + route, headers, body)
        if answer.status == 200:
            await self._passed(site, route, message, answer)
        return answer

    def _check(self, site: str, route: str, message: Any, runs: set[str]) -> None:
        if route == "activate-node":
            if not self._nodes.has_key(site, message.public_key):
                raise _foreign()
            return
        if flower_message.node_ids(message) != {self._nodes.of(site)}:
            raise _foreign()
        if not flower_message.run_ids(message) <= runs:
            raise _foreign()
        if route == "push-messages" and len(message.messages_list) != 1:
            raise InvalidInput("A SuperNode pushes one message at a time.", reason="MESSAGE_MALFORMED")

    async def _registered(self, site: str, message: Any, headers: Mapping[str, str], body: bytes) -> Answer:
        async with self._registering.setdefault(site, asyncio.Lock()):
            answer = await passed(self._upstream, f"{PREFIX}register-node", headers, body)
            if answer.status != 200:
                return answer
            node_id = (await flower_message.parse(_REGISTERED, answer.body)).node_id
            before = self._nodes.of(site)
            await self._nodes.set(site, node_id, message.public_key)
            concerned = await self._register.node_changed(site)
            if before is not None and before != node_id:
                await self._gone(before, concerned)
        self._presence.site_heard(site)
        return answer

    async def _gone(self, node_id: int, runs: list[str]) -> None:
        # What was sent to the process before fails now and not after a minute of silence.
        with suppress(MeshError):
            await self._upstream.forget_node(node_id)
        for run_id in runs:
            self._wakes.wake(("run", run_id))

    async def _pulled(self, site: str, node_id: int, headers: Mapping[str, str], body: bytes) -> Answer:
        response = await flower_message.message_class(_PULLED)

        def is_empty(answer: Answer) -> bool:
            is_own = self._nodes.of(site) == node_id and self._federation.active_at(site)
            return (
                answer.status == 200 and bool(is_own) and not response.FromString(answer.body).messages_list
            )

        async def ask() -> Answer:
            self._presence.site_heard(site)
            return await passed(self._upstream, f"{PREFIX}pull-messages", headers, body)

        return await held(self._wakes, ("node", node_id), HOLD, ask, is_empty)

    async def _passed(self, site: str, route: str, message: Any, answer: Answer) -> None:
        if route == "push-messages":
            pushed = await flower_message.parse(_PUSHED, answer.body)
            keys = [("run", run_id) for run_id in flower_message.run_ids(message)]
            self._sessions.await_objects(pushed.session_id, pushed.objects_to_push, keys)
        elif route == "push-object":
            self._sessions.arrived(message.session_id, message.object_id)
        elif route in _LEAVING:
            self._presence.site_left(site)


def _foreign() -> PermissionDenied:
    return PermissionDenied("This SuperNode or run is not this site's.", reason="NODE_FOREIGN")
