"""What the site tells the hub: cards and mocks, the status of jobs, and new seals for readers' new devices.

Everything here repeats until it is done: what is to be published is in the database, and the hub may be away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any, Final

import structlog
from syftmesh_core.errors import MeshError, NotFound

from syftmesh_runner.domain.dataset import EVERYONE, Dataset
from syftmesh_runner.domain.hub_path import CARD, STATUS, dataset_path, result_path
from syftmesh_runner.domain.job import Job
from syftmesh_runner.domain.ledger import RUNNER
from syftmesh_runner.domain.ports import HubFiles, KeyDirectory
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.wake import Wake

RETRY_S: Final = 2.0
MAX_RETRY_S: Final = 60.0
DEFAULT_RESEAL_S: Final = 600.0


class Publication:
    """Publishes, and keeps published files readable.

    Args:
        state: What the site keeps.
        hub: Files of the own datasite.
        keys: Verified device lists.
        encode_card: Writes the card of a dataset.
        encode_status: Writes the status of a job.
        reseal_s: Seconds between two looks at the readers' device lists.
    """

    def __init__(
        self,
        state: SiteState,
        hub: HubFiles,
        keys: KeyDirectory,
        encode_card: Callable[[Dataset], bytes],
        encode_status: Callable[[Job], bytes],
        *,
        reseal_s: float = DEFAULT_RESEAL_S,
    ) -> None:
        self._state = state
        self._hub = hub
        self._keys = keys
        self._encode_card = encode_card
        self._encode_status = encode_status
        self._reseal_s = reseal_s
        self._wake = Wake()
        self._asked: set[str] = set()
        self._reseal_wake = Wake()
        self._publishing = asyncio.Lock()
        self._log: Any = structlog.get_logger("syftmesh.runner")

    def wake(self) -> None:
        """Something is to be published."""
        self._wake.set()

    def ask_reseal(self, principal: str) -> None:
        """Look at the device list of a reader soon: it may have a new device."""
        self._asked.add(principal)
        self._reseal_wake.set()

    async def write(self, path: str, data: bytes, readers: frozenset[str]) -> int:
        """Write a file and remember whose devices it is sealed for; return the bytes that left.

        Args:
            path: Where.
            data: The content.
            readers: Who but the owner reads it; with ``*`` it is not sealed.

        Raises:
            MeshError: It could not be written; the caller repeats.
        """
        versions = (
            {} if EVERYONE in readers else {name: await self._version(name) for name in sorted(readers)}
        )
        left = await self._hub.write(path, data)
        self._state.seals.note(path, versions)
        return left

    async def _version(self, principal: str) -> int:
        # Read before the write: a device that comes in between is then found by the next look.
        try:
            return (await self._keys.devices_of(principal)).version
        except NotFound:
            return 0

    async def serve(self) -> None:
        """Publish what waits, until cancelled."""
        delay_s = RETRY_S
        while True:
            self._wake.clear()
            done = await self._round()
            delay_s = RETRY_S if done else min(MAX_RETRY_S, 2 * delay_s)
            waiting = not done or bool(self._state.datasets.unpublished())
            await self._wake.wait(delay_s if waiting else None)

    async def _round(self) -> bool:
        """Publish everything once; return whether nothing failed."""
        steps: list[Callable[[], Awaitable[object]]] = []
        steps += [partial(self.publish_dataset, dataset) for dataset in self._state.datasets.unpublished()]
        steps += [partial(self._publish_status, *found) for found in self._state.jobs.unpublished()]
        done = True
        for step in steps:
            try:
                await step()
            except MeshError as error:
                self._log.warning("publication.delayed", reason=error.reason)
                done = False
        return done

    async def publish_dataset(self, dataset: Dataset) -> Dataset:
        """Publish card and mock, once the signed rules let exactly the audience read them.

        The rule file is the owner's to sign. Until it is there nothing leaves.
        """
        async with self._publishing:
            current = self._state.datasets.get(dataset.name)
            if current is None or current.published:
                return current or dataset
            card = dataset_path(self._state.owner, dataset.name, CARD)
            if await self._hub.readers(card) != self._readers(dataset):
                return dataset
            part = self._state.folder.mock_part(dataset.name, dataset.private_digest)
            readers = self._readers(dataset)
            for file in sorted(await asyncio.to_thread(self._state.folder.digests, part)):
                path = dataset_path(self._state.owner, dataset.name, f"mock/{file}")
                await self.write(path, await asyncio.to_thread((part / file).read_bytes), readers)
            published = replace(dataset, published=True)
            await self.write(card, self._encode_card(published), readers)
            with self._state.unit.transaction():
                if self._state.datasets.get(dataset.name) is None:
                    return dataset  # deleted meanwhile
                self._state.datasets.save(published)
                facts = {"dataset": dataset.name, "audience": list(dataset.audience)}
                self._state.audit.append("dataset.published", RUNNER, facts)
            return published

    async def withdraw_dataset(self, dataset: Dataset) -> None:
        """Delete card and mock at the hub."""
        root = dataset_path(self._state.owner, dataset.name, "")
        await self._hub.delete(root + CARD)
        for table in dataset.tables:
            await self._hub.delete(f"{root}mock/{table.file}")
        self._state.seals.forget(root)

    def _readers(self, dataset: Dataset) -> frozenset[str]:
        return frozenset(dataset.audience) - {self._state.owner}

    async def _publish_status(self, job: Job, revision: int) -> None:
        path = result_path(self._state.owner, job.submitter, job.job_id, STATUS)
        await self.write(path, self._encode_status(job), frozenset({job.submitter}) - {self._state.owner})
        self._state.jobs.mark_published(job.job_id, revision)

    async def keep_sealed(self) -> None:
        """Follow the readers' device lists and seal anew for new devices, until cancelled."""
        while True:
            if not await self._reseal_wake.wait(self._reseal_s):
                self._asked.update(self._state.seals.principals())
            self._reseal_wake.clear()
            asked, self._asked = sorted(self._asked), set()
            for principal in asked:
                try:
                    await self.reseal_for(principal)
                except MeshError as error:
                    self._log.warning("reseal.delayed", reason=error.reason)

    async def reseal_for(self, principal: str) -> int:
        """Seal anew what is sealed for an older device list of `principal`; return the number of files.

        Raises:
            IntegrityFailure: KEY_CHANGED: nothing is sealed for a new root before a person accepted it.
            MeshError: The hub could not be asked, or a file not be written.
        """
        if principal not in self._state.seals.principals():
            return 0  # nothing is sealed for them, so their calls cost the hub nothing
        version = (await self._keys.devices_of(principal, refresh=True)).version
        count = 0
        for path in self._state.seals.outdated(principal, version):
            try:
                await self._hub.reseal(path)
            except NotFound:
                self._state.seals.forget(path)
                continue
            with self._state.unit.transaction():
                self._state.seals.note(path, {principal: version})
                facts = {"path": path, "reader": principal, "device_list": version}
                self._state.audit.append("file.resealed", RUNNER, facts)
            count += 1
        return count
