"""Starting federated runs, finding them again, and aggregating those of stock Flower clients."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog
from mesh.federated.v1 import federated_pb2
from mesh.federated.v1 import federated_service_pb2 as pb
from syftmesh_client.node import Node
from syftmesh_core.errors import InvalidInput, MeshError, NotFound, Unavailable
from syftmesh_core.principal import normalise_principal
from syftmesh_core.quote import quoted

from syftmesh.flower_address import flower_address
from syftmesh.run import AsyncRun, RunAggregator, Tell
from syftmesh.run_status import RunSnapshot, RunState, run_snapshot

if TYPE_CHECKING:
    from syftmesh_flower.aggregate import RunPlan

AGGREGATOR_FOLDER: Final = "aggregator"
"""Below a profile's folder: what the aggregator keeps of its runs."""
APP_FILE: Final = "pyproject.toml"
_PAGE: Final = 200
_PAUSE_S: Final = 1.0

ConfigValue = str | int | float | bool

_log: Any = structlog.get_logger("syftmesh.sdk")


class RunMaker(RunAggregator, Protocol):
    """A `RunAggregator` that also creates runs."""

    async def create(self, plan: RunPlan) -> federated_pb2.Run:
        """Create a run and ask its sites."""

    async def close(self) -> None:
        """Stop waiting for sites that are away."""


def make_aggregator(node: Node, folder: Path, server: str) -> RunMaker:
    """Return the aggregator of a device, which runs its owner's ServerApps as processes of this machine.

    Args:
        node: The aggregator's device.
        folder: Where it keeps its runs.
        server: The hub's address.
    """
    # Flower takes a second to import: only who aggregates waits for it.
    from syftmesh_executor.process import ProcessExecutor
    from syftmesh_flower.aggregate import Aggregator, RunOrigin

    found = flower_address(server, node.well_known.flower_address)
    origin = RunOrigin(found.address, found.insecure, node.trust.pem)
    return Aggregator(node, ProcessExecutor(clock=node.clock), folder, origin)


class AsyncFederated:
    """The desk of who starts federated runs.

    Args:
        node: The starter's device, which aggregates.
        folder: The profile's folder.
        server: The hub's address.
        make: Makes the aggregator when it is needed first; `make_aggregator` but in tests.
    """

    def __init__(
        self,
        node: Node,
        folder: Path,
        server: str,
        make: Callable[[Node, Path, str], RunMaker] = make_aggregator,
    ) -> None:
        self._node = node
        self._make = partial(make, node, folder / AGGREGATOR_FOLDER, server)
        self._made: RunMaker | None = None

    async def run(
        self,
        app: Path | str,
        sites: Sequence[str],
        dataset: str,
        rounds: int | None = None,
        minimum_sites: int | None = None,
        config: Mapping[str, ConfigValue] | None = None,
        purpose: str = "",
        deadline_s: float | None = None,
    ) -> AsyncRun:
        """Create a run of a Flower app, ask its sites and return it; `AsyncRun.aggregate` does the rest.

        Args:
            app: Folder of the app, with its ``pyproject.toml``.
            sites: E-mails of the sites.
            dataset: The dataset's name, the same at every site.
            rounds: How many; the app's own number when None.
            minimum_sites: The fewest sites that may finish; all when None.
            config: Overrides of the app's run configuration: text, numbers, truth values.
            purpose: What for; owners read it, also that nothing was said.
            deadline_s: When it ends undecided or unfinished, in seconds from now; seven days when None.

        Raises:
            NotFound: There is no such app here (LOCAL_FILE_MISSING).
            InvalidInput: RUN_INVALID, BUNDLE_INVALID, PRINCIPAL_INVALID.
            LimitExceeded: BUNDLE_TOO_LARGE.
            Unavailable: SUPERLINK_AWAY, or the hub does not answer.
        """
        names = _sites(sites)
        _check(dataset, rounds, minimum_sites, len(names), deadline_s)
        values = _config(config or {})
        folder = Path(app)
        await asyncio.to_thread(_check_app, folder)

        from syftmesh_flower.aggregate import RunPlan

        plan = RunPlan(
            app=folder,
            sites=names,
            dataset=dataset,
            rounds=rounds,
            minimum_sites=minimum_sites,
            config=values,
            purpose=purpose,
            deadline_s=deadline_s,
        )
        return self._run(run_snapshot(await self._aggregator().create(plan)))

    async def ls(self) -> list[AsyncRun]:
        """Return the runs that one started and those that the own site was asked to take part in, newest first."""
        found: list[AsyncRun] = []
        token = ""
        while True:
            request = pb.ListRunsRequest(page_size=_PAGE, page_token=token)
            page = await self._node.session.federated.ListRuns(request)
            found += [self._run(run_snapshot(message)) for message in page.runs]
            token = page.next_page_token
            if not token:
                return found

    async def get(self, run_id: str) -> AsyncRun:
        """Return one run.

        Raises:
            NotFound: There is none, or one has no part in it (RUN_UNKNOWN).
        """
        answer = await self._node.session.federated.GetRun(pb.GetRunRequest(run_id=run_id))
        return self._run(run_snapshot(answer.run))

    async def serve(self, stop: asyncio.Event | None = None, tell: Tell | None = None) -> None:
        """Aggregate the runs that stock Flower clients start as this principal, until `stop` is set.

        A run that cannot be aggregated is logged, and the others go on.

        Args:
            stop: Ends it; None: it goes on until it is cancelled.
            tell: Gets every run of a stock client whenever it changes.

        Raises:
            MeshError: The hub refuses to tell of the runs.
        """
        tasks: set[asyncio.Task[None]] = set()
        watching = asyncio.create_task(self._watch_stock(tasks, tell))
        waiting = {watching} if stop is None else {watching, asyncio.create_task(_set(stop))}
        try:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (begun := waiting | tasks):
                task.cancel()
            await asyncio.gather(*begun, return_exceptions=True)

    async def close(self) -> None:
        """Stop asking sites that are away; the hub keeps what was proposed to them."""
        if self._made is not None:
            await self._made.close()

    async def _watch_stock(self, tasks: set[asyncio.Task[None]], tell: Tell | None) -> None:
        begun: set[str] = set()
        while True:
            with suppress(Unavailable):  # the hub may be away
                async for answer in self._node.session.federated.WatchRun(pb.WatchRunRequest()):
                    snapshot = run_snapshot(answer.run)
                    if not snapshot.stock:
                        continue
                    if tell is not None:
                        tell(snapshot)
                    if snapshot.id not in begun and snapshot.state in _OPEN:
                        begun.add(snapshot.id)
                        tasks.add(asyncio.create_task(self._take(snapshot)))
            await asyncio.sleep(_PAUSE_S)

    async def _take(self, run: RunSnapshot) -> None:
        aggregator = self._aggregator()
        try:
            if run.state is RunState.PENDING:
                await aggregator.adopt(run.id)
            await aggregator.aggregate(run.id)
        except MeshError as error:
            _log.warning("run.refused", run_id=run.id, reason=error.reason, message=error.message)
        except Exception:  # noqa: BLE001 - one run must not end the others
            _log.exception("run.broken", run_id=run.id)

    def _run(self, snapshot: RunSnapshot) -> AsyncRun:
        return AsyncRun(self._node, self._aggregator, snapshot)

    def _aggregator(self) -> RunMaker:
        if self._made is None:
            self._made = self._make()
        return self._made


_OPEN: Final = frozenset({RunState.PENDING, RunState.AWAITING_APPROVAL, RunState.HELD})
"""States in which a stock client's run waits for an aggregator; the later ones, when the last one has ended."""


async def _set(stop: asyncio.Event) -> None:
    await stop.wait()


def _sites(sites: Sequence[str]) -> tuple[str, ...]:
    names = tuple(normalise_principal(site) for site in ([sites] if isinstance(sites, str) else sites))
    if not names:
        raise _invalid("A run has at least one site.", "sites")
    if len(set(names)) != len(names):
        raise _invalid("A site is named twice.", "sites")
    return names


def _check(
    dataset: str, rounds: int | None, minimum_sites: int | None, sites: int, deadline_s: float | None
) -> None:
    if not dataset.strip() or "/" in dataset:
        raise _invalid("Give the dataset by its name alone, which is the same at every site.", "dataset")
    if rounds is not None and rounds < 1:
        raise _invalid("A run has at least one round.", "rounds")
    if minimum_sites is not None and not 1 <= minimum_sites <= sites:
        raise _invalid(f"The minimum is from 1 to the number of sites, {sites}.", "minimum_sites")
    if deadline_s is not None and not deadline_s > 0:
        raise _invalid("The deadline lies in the future.", "deadline")


def _config(config: Mapping[str, ConfigValue]) -> dict[str, object]:
    for name, value in config.items():
        if not isinstance(value, str | int | float | bool):
            raise _invalid(
                f"The value of {quoted(name)} is neither text nor a number nor a truth value.", "config"
            )
    return dict(config)


def _check_app(app: Path) -> None:
    if not (app / APP_FILE).is_file():
        raise NotFound(
            f"There is no Flower app {quoted(str(app))} on this machine: a folder with a {APP_FILE}.",
            reason="LOCAL_FILE_MISSING",
            metadata={"file": quoted(str(app))},
        )


def _invalid(message: str, field: str) -> InvalidInput:
    return InvalidInput(message, reason="RUN_INVALID", metadata={"field": field})
