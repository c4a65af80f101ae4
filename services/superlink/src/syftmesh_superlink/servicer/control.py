"""The Control API: what stock ``flwr run``, ``ls``, ``log`` and ``stop`` need, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from syftmesh_core.bundle import read_bundle
from syftmesh_core.errors import InvalidInput, NotFound, PermissionDenied

from syftmesh_superlink.domain.draft import Draft
from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.federation_name import parse_federation
from syftmesh_superlink.servicer import flower_message
from syftmesh_superlink.servicer.upstream import Answer, Upstream, passed

PREFIX: Final = "/v1/control/"
_ROUNDS: Final = "num-server-rounds"
_DEFAULT_ROUNDS: Final = 3
"""Flower's own default of `Strategy.start`."""

_LOGIN: Final = frozenset({"get-login-details", "get-auth-tokens", "refresh-auth-tokens"})


class Control:
    """Handles requests below `PREFIX` for a principal, who is the account at Flower.

    Args:
        upstream: Flower's SuperLink.
        federation: Creates and cancels runs.
    """

    def __init__(self, upstream: Upstream, federation: Federation) -> None:
        self._upstream = upstream
        self._federation = federation

    async def answer_to(self, principal: str, route: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to a request of a stock client.

        Raises:
            NotFound: No such route (ROUTE_UNKNOWN), or no run of the caller's (RUN_UNKNOWN).
            PermissionDenied: Flower's own login is asked for (LOGIN_ELSEWHERE).
            MeshError: What creating or cancelling a run says.
        """
        if route in _LOGIN:
            raise login_elsewhere()
        name = flower_message.CONTROL.get(route)
        if name is None:
            raise NotFound("This hub does not offer that to Flower's own client.", reason="ROUTE_UNKNOWN")
        message = await flower_message.parse(name, body)
        if route == "start-run":
            return await self._started(principal, message)
        if route == "stop-run":
            return await self._stopped(principal, message)
        if route == "stream-logs" or message.HasField("run_id"):
            self._require_own(principal, str(message.run_id))
        path = PREFIX + route
        if route == "list-runs":
            return await passed(self._upstream, path, headers, body, principal)
        head, chunks = await self._upstream.stream(path, headers, body, principal)
        return Answer(head.status, head.content_type, b"", chunks)

    async def _started(self, principal: str, message: Any) -> Answer:
        if message.app_spec or not message.fab.content or message.connector_ids or message.connector_refs:
            raise InvalidInput(
                "Give the folder of an app: this hub runs no apps from Flower's own hub, and no connectors.",
                reason="BUNDLE_INVALID",
            )
        dataset, sites = parse_federation(message.federation)
        config = {
            key: getattr(v, v.WhichOneof("scalar") or "string") for key, v in message.override_config.items()
        }
        bundle = read_bundle(message.fab.content)
        rounds = config.get(_ROUNDS, bundle.config.get(_ROUNDS, _DEFAULT_ROUNDS))
        draft = Draft(
            sites=sites,
            dataset=dataset,
            rounds=rounds if type(rounds) is int else _DEFAULT_ROUNDS,
            run_config_json=_json(config),
            purpose="Started with Flower's own client.",
            stock=True,
        )
        run = await self._federation.create(principal, draft, message.fab.content)
        response = await flower_message.message_class(("control_pb2", "StartRunResponse"))
        return Answer.of(response(run_id=int(run.run_id), federation=message.federation))

    async def _stopped(self, principal: str, message: Any) -> Answer:
        await self._federation.cancel_run(principal, str(message.run_id), "")
        response = await flower_message.message_class(("control_pb2", "StopRunResponse"))
        return Answer.of(response(success=True))

    def _require_own(self, principal: str, run_id: str) -> None:
        if self._federation.get(principal, run_id).aggregator != principal:
            raise PermissionDenied("Only the aggregator of the run may do this.", reason="NOT_THE_AGGREGATOR")


def login_elsewhere() -> PermissionDenied:
    """Return the answer to Flower's own login."""
    return PermissionDenied(
        "Log in with `syftmesh login --flwr`, which writes the token for Flower's own client; it has none, or it "
        "has expired.",
        reason="LOGIN_ELSEWHERE",
    )


def _json(config: Mapping[str, Any]) -> str:
    try:
        return json.dumps(config, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise InvalidInput(
            "The configuration is made of texts, numbers and truth values.",
            reason="RUN_INVALID",
            metadata={"field": "override_config"},
        ) from None
