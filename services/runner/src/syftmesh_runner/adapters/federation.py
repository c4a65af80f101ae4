"""Federated runs at the hub, through `mesh.federated.v1.FederationService`."""

from __future__ import annotations

import re
from typing import Any, Final

from mesh.federated.v1 import federated_pb2, federated_service_pb2
from syftmesh_core.errors import Unavailable
from syftmesh_core.federated import ProposalEvent

from syftmesh_runner.domain.federated_port import HubRun, SitePart

TIMEOUT_S: Final = 8.0
"""Of a question; below the ten seconds in which a cancelled run has to end here."""
BUNDLE_TIMEOUT_S: Final = 30.0

_ENDS: Final = {
    federated_pb2.RUN_STATE_SUCCEEDED: ProposalEvent.FINISH,
    federated_pb2.RUN_STATE_PARTIAL: ProposalEvent.FINISH,
    federated_pb2.RUN_STATE_FAILED: ProposalEvent.FINISH,
    federated_pb2.RUN_STATE_CANCELLED: ProposalEvent.CANCEL,
}
_CONSTANT: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}", re.ASCII)
_KNOWN_STATES: Final = frozenset(federated_pb2.RunState.values())


class FederationRuns:
    """See `syftmesh_runner.domain.federated_port.HubRuns`.

    Args:
        stub: Of the service, as `syftmesh_client.session.HubSession` has it: it raises our own errors.
    """

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    async def get(self, run_id: str) -> HubRun:
        """Return a run that this site has a part in."""
        request = federated_service_pb2.GetRunRequest(run_id=run_id)
        run = (await self._stub.GetRun(request, timeout=TIMEOUT_S)).run
        name = federated_pb2.RunState.Name(run.state) if run.state in _KNOWN_STATES else ""
        return HubRun(
            aggregator=run.aggregator,
            state=name.removeprefix("RUN_STATE_").lower() or "unknown",
            end=_ENDS.get(run.state),
            end_reason=run.reason if _CONSTANT.fullmatch(run.reason) else "",
        )

    async def bundle(self, run_id: str) -> bytes:
        """Return the app bundle as the hub has it."""
        request = federated_service_pb2.GetRunBundleRequest(run_id=run_id)
        answer = await self._stub.GetRunBundle(request, timeout=BUNDLE_TIMEOUT_S)
        return bytes(answer.bundle)

    async def report(self, run_id: str, part: SitePart, end_reason: str) -> None:
        """Tell the hub what became of a run here."""
        state = federated_pb2.SiteState.Value(f"SITE_STATE_{part.value.upper()}")
        request = federated_service_pb2.ReportSiteRequest(run_id=run_id, state=state)
        request.reason = end_reason
        await self._stub.ReportSite(request, timeout=TIMEOUT_S)


class NoFederation:
    """Stands for the hub of a runner that has none."""

    async def get(self, run_id: str) -> HubRun:
        """Refuse."""
        del run_id
        raise _away()

    async def bundle(self, run_id: str) -> bytes:
        """Refuse."""
        del run_id
        raise _away()

    async def report(self, run_id: str, part: SitePart, end_reason: str) -> None:
        """Refuse."""
        del run_id, part, end_reason
        raise _away()


def _away() -> Unavailable:
    return Unavailable("The site's runner is not connected to a hub.", reason="HUB_AWAY")
