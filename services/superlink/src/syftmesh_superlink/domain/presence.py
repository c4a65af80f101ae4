"""Who was heard when; in memory only: after a restart everybody has a moment to be heard again."""

from __future__ import annotations

from typing import Final

from syftmesh_core.clock import Clock

CONNECTED_S: Final = 30.0


class Presence:
    """When sites and aggregators were heard last.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sites: dict[str, float] = {}
        self._aggregators: dict[str, float] = {}

    def site_heard(self, site: str) -> None:
        """Remember that a site's SuperNode was heard now."""
        self._sites[site] = self._clock.monotonic_s()

    def site_left(self, site: str) -> None:
        """Remember that a site's SuperNode said goodbye."""
        self._sites.pop(site, None)

    def is_connected(self, site: str) -> bool:
        """Return whether a site's SuperNode was heard lately."""
        heard_s = self._sites.get(site)
        return heard_s is not None and self._clock.monotonic_s() - heard_s < CONNECTED_S

    def aggregator_heard(self, run_id: str) -> None:
        """Remember that the aggregator of a run was heard now."""
        self._aggregators[run_id] = self._clock.monotonic_s()

    def silence_s(self, run_id: str) -> float:
        """Return for how long the aggregator of a run was not heard; counting begins with the first question."""
        now_s = self._clock.monotonic_s()
        return now_s - self._aggregators.setdefault(run_id, now_s)

    def forget(self, run_id: str) -> None:
        """Forget a run."""
        self._aggregators.pop(run_id, None)
