"""Looks after runs as time passes: held and lost aggregators, deadlines, and the end at Flower."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from syftmesh_core.clock import Clock
from syftmesh_core.errors import MeshError

from syftmesh_superlink.domain.federation import Federation
from syftmesh_superlink.domain.liveness import Sight, TaskEnd, seen
from syftmesh_superlink.domain.ports import Flower, FlowerStatus
from syftmesh_superlink.domain.presence import Presence
from syftmesh_superlink.domain.register import Register
from syftmesh_superlink.domain.run import UNDER_WAY, Run

CLOSE_MS: Final = 30_000
"""How long the ServerApp of a run whose end was reported may take to tell Flower."""

_ENDS: Final = {
    FlowerStatus.COMPLETED: TaskEnd.COMPLETED,
    FlowerStatus.FAILED: TaskEnd.FAILED,
    FlowerStatus.STOPPED: TaskEnd.FAILED,
    FlowerStatus.LOST: TaskEnd.LOST,
}


class Keeper:
    """Applies the rules of `liveness` to every run.

    Args:
        register: The runs.
        federation: Ends them at Flower.
        flower: Flower's SuperLink.
        presence: Who was heard.
        clock: Time.
    """

    def __init__(
        self, register: Register, federation: Federation, flower: Flower, presence: Presence, clock: Clock
    ) -> None:
        self._register = register
        self._federation = federation
        self._flower = flower
        self._presence = presence
        self._clock = clock
        self._ended_s: dict[str, tuple[TaskEnd, float]] = {}
        self._connected: dict[str, frozenset[str]] = {}

    def has_work(self) -> bool:
        """Return whether Flower has to run: a run is not over, or Flower does not know yet that it is."""
        return any(not run.closed for run in self._register.all())

    async def look(self) -> None:
        """Look at every run once."""
        runs = [run for run in self._register.all() if not run.closed]
        await self._ask([run.run_id for run in runs if run.state in UNDER_WAY])
        for run in runs:
            with suppress(MeshError):  # the next look tries again
                await self._look_at(run)

    async def _look_at(self, run: Run) -> None:
        sight = self._sight(run)
        if not run.is_final and seen(run, sight) != run:
            run = await self._register.change(run.run_id, lambda found: seen(found, sight))
        elif self._connected.get(run.run_id, frozenset()) != sight.connected:
            self._register.touch(run)
        self._connected[run.run_id] = frozenset(sight.connected)
        if run.is_final:
            await self._end(run)

    async def _end(self, run: Run) -> None:
        reported = run.state.value in {"succeeded", "partial"} or run.reason == "SERVER_APP_FAILED"
        if reported and self._clock.now_ms() - run.ended_ms < CLOSE_MS:
            return
        await self._federation.close(run)
        self._ended_s.pop(run.run_id, None)
        self._connected.pop(run.run_id, None)
        self._presence.forget(run.run_id)

    def _sight(self, run: Run) -> Sight:
        end, since_s = self._ended_s.get(run.run_id, (None, 0.0))
        return Sight(
            now_ms=self._clock.now_ms(),
            connected={site for site in run.approved if self._presence.is_connected(site)},
            silence_s=self._presence.silence_s(run.run_id) if run.state in UNDER_WAY else 0.0,
            end=end,
            ended_for_s=self._clock.monotonic_s() - since_s,
        )

    async def _ask(self, run_ids: list[str]) -> None:
        if not run_ids:
            return
        try:
            statuses = await self._flower.statuses(run_ids)
        except MeshError:
            return  # it is being restarted
        now_s = self._clock.monotonic_s()
        for run_id in run_ids:
            status = statuses.get(run_id)
            end = TaskEnd.UNKNOWN if status is None else _ENDS.get(status)
            if end is None:
                self._ended_s.pop(run_id, None)
            elif run_id not in self._ended_s:
                self._ended_s[run_id] = (end, now_s)
