"""The site's own check of a caller's right, from rule files that the owner's admin devices have signed."""

from __future__ import annotations

from syftmesh_core.clock import Clock
from syftmesh_core.errors import PermissionDenied
from syftmesh_core.layout import call_path
from syftmesh_core.permission import Level, Question, decide

from syftmesh_client.incoming import IncomingCall
from syftmesh_client.rules import SiteRules


class SignedRights:
    """A `call_worker.RightCheck` that believes no hub.

    Args:
        rules: Verified rules.
        clock: The moment of decisions.
    """

    def __init__(self, rules: SiteRules, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    async def __call__(self, call: IncomingCall) -> None:
        """Return when the caller may write on the endpoint's directory.

        Raises:
            PermissionDenied: PERMISSION_DENIED.
            IntegrityFailure: A rule file does not verify.
            Unavailable: Hub or store cannot be asked.
        """
        if call.sender == call.site:
            return
        path = call_path(call.url.path)
        question = Question(call.sender, path, Level.WRITE, self._clock.now_ms())
        if not decide(await self._rules.tree(path), question).allowed:
            raise PermissionDenied("The caller has no right to this endpoint.")
