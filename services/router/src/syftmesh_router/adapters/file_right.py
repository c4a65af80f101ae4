"""Rights to call, decided by the core engine over the file log."""

from __future__ import annotations

from syftmesh_core.clock import Clock
from syftmesh_core.errors import NotFound, PermissionDenied
from syftmesh_core.layout import call_path
from syftmesh_core.permission import Level, Question, decide
from syftmesh_kit.filelog import FileLog

from syftmesh_router.domain.envelope import Envelope


class FileLogRights:
    """`ports.RightCheck` on the file log's read model.

    Args:
        log: The read model; another task keeps it current.
        clock: Wall time.
    """

    def __init__(self, log: FileLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    def check(self, envelope: Envelope) -> None:
        """Check that the site exists and the sender may write on the endpoint's directory.

        Raises:
            NotFound: SITE_UNKNOWN.
            PermissionDenied: PERMISSION_DENIED.
            Unavailable: LOG_LOADING, LOG_BEHIND.
        """
        self._log.check()
        site = self._log.site(envelope.site)
        if not site.live_count and not site.rules_changed_at:
            raise NotFound(
                f"There is no datasite {envelope.site}. Check the address.",
                reason="SITE_UNKNOWN",
                metadata={"site": envelope.site},
            )
        path = call_path(envelope.directory)
        question = Question(envelope.sender, path, Level.WRITE, self._clock.now_ms())
        if not decide(site.tree, question).allowed:
            raise PermissionDenied(
                f"You may not call {envelope.url}: its owner grants it by write on the endpoint's directory.",
                metadata={"url": str(envelope.url)},
            )
