"""The site's datasets: registered from the machine's disk, with a mock that is checked first."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from syftmesh_core.clock import Random
from syftmesh_core.errors import AlreadyExists, IntegrityFailure, NotFound, WrongState
from syftmesh_core.federated import ACTIVE
from syftmesh_core.job import SETTLED, JobState

from syftmesh_runner.domain.dataset import (
    MAX_ENTRIES,
    MAX_TEXT_BYTES,
    Dataset,
    Policy,
    check_audience,
    check_name,
    check_policy,
    dataset_invalid,
    version_digest,
)
from syftmesh_runner.domain.mock import check_mock, generate
from syftmesh_runner.domain.publication import Publication
from syftmesh_runner.domain.state import SiteState
from syftmesh_runner.domain.table import check_same_shape, read_tables, shape_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class NewDataset:
    """What the owner asks for; see `mesh.rds.v1.CreateDatasetRequest`."""

    name: str
    private_path: str
    mock_path: str
    generate_mock: bool
    summary: str = ""
    readme: str = ""
    tags: tuple[str, ...] = ()
    audience: tuple[str, ...] = ()
    policy: Policy = field(default_factory=Policy)


class Catalogue:
    """Registers, lists and deletes datasets.

    Args:
        state: What the site keeps.
        publication: Publishes card and mock.
        random: Source of randomness for mocks.
    """

    def __init__(self, state: SiteState, publication: Publication, random: Random) -> None:
        self._state = state
        self._publication = publication
        self._random = random
        self._creating = asyncio.Lock()

    async def create(self, wanted: NewDataset) -> Dataset:
        """Register a dataset and publish it as soon as the owner's rule file lets its audience read.

        Raises:
            InvalidInput: DATASET_INVALID.
            AlreadyExists: DATASET_EXISTS.
            IntegrityFailure: MOCK_HOLDS_PRIVATE_ROWS.
            Unimplemented: OPEN_READERS.
        """
        _check_texts(wanted)
        audience = check_audience(wanted.audience)
        async with self._creating:
            if self._state.datasets.get(check_name(wanted.name)) is not None:
                raise AlreadyExists(
                    f"There is a dataset {wanted.name!r} already; names are not used twice.",
                    reason="DATASET_EXISTS",
                    metadata={"dataset": wanted.name},
                )
            dataset = await asyncio.to_thread(self._take_in, wanted, audience)
            with self._state.unit.transaction():
                self._state.datasets.save(dataset)
                facts = {
                    "dataset": dataset.name,
                    "private_digest": dataset.private_digest,
                    "mock_digest": dataset.mock_digest,
                    "mock_generated": dataset.mock_generated,
                    "audience": list(audience),
                }
                self._state.audit.append("dataset.created", self._state.owner, facts)
        self._publication.wake()
        return dataset

    def _take_in(self, wanted: NewDataset, audience: tuple[str, ...]) -> Dataset:
        folder = self._state.folder
        private, private_files = folder.take_in(wanted.private_path)
        staged = [private]
        try:
            frames = read_tables(private, sorted(private_files))
            shape = shape_of(sorted(private_files), frames)
            policy = check_policy(wanted.policy, shape)
            mock, mock_files = self._mock(wanted, private_files, frames)
            staged.append(mock)
            mock_frames = read_tables(mock, sorted(mock_files))
            mock_shape = shape_of(sorted(mock_files), mock_frames)
            check_same_shape(shape, mock_shape)
            _check_opaque(private_files, mock_files)
            check_mock(frames, mock_frames, policy, all_identifiers=wanted.generate_mock, encode=_to_csv)
            digest = version_digest(private_files)
            folder.keep_dataset(wanted.name, digest, private, mock)
        finally:
            for place in staged:
                folder.discard(place)
        return Dataset(
            name=wanted.name,
            summary=wanted.summary,
            readme=wanted.readme,
            tags=wanted.tags,
            audience=audience,
            private_digest=digest,
            mock_digest=version_digest(mock_files),
            tables=mock_shape,
            policy=policy,
            created_ms=self._state.clock.now_ms(),
            mock_generated=wanted.generate_mock,
        )

    def _mock(
        self, wanted: NewDataset, private_files: Mapping[str, str], frames: Mapping[str, pd.DataFrame]
    ) -> tuple[Path, dict[str, str]]:
        if not wanted.generate_mock:
            return self._state.folder.take_in(wanted.mock_path)
        opaque = sorted(set(private_files) - set(frames))
        if opaque:
            raise dataset_invalid(
                f"A mock is generated for CSV tables only, not for {opaque[0]!r}: give a mock of your own."
            )
        made = generate(frames, wanted.policy, self._random)
        return self._state.folder.stage({file: _to_csv(frame) for file, frame in made.items()})

    def get(self, name: str) -> Dataset:
        """Return a dataset.

        Raises:
            NotFound: DATASET_UNKNOWN.
        """
        dataset = self._state.datasets.get(name)
        if dataset is None:
            raise NotFound(
                f"There is no dataset {name[:80]!r}.",
                reason="DATASET_UNKNOWN",
                metadata={"dataset": name[:80]},
            )
        return dataset

    def page(self, limit: int, after: str) -> Sequence[Dataset]:
        """Return at most `limit` datasets by name, after a name."""
        return self._state.datasets.page(limit, after)

    async def delete(self, name: str) -> None:
        """Remove a dataset with all its parts, here and at the hub.

        Raises:
            NotFound: DATASET_UNKNOWN.
            WrongState: DATASET_IN_USE: an open job or run names it.
        """
        dataset = self.get(name)
        open_states = [state for state in JobState if state not in SETTLED]
        for job in self._state.jobs.in_state(*open_states):
            if name in {version.name for version in job.datasets}:
                raise WrongState(
                    f"The job {job.job_id} is open and names the dataset {name!r}: end it first.",
                    reason="DATASET_IN_USE",
                    metadata={"dataset": name, "job_id": job.job_id},
                )
        for proposal in self._state.proposals.in_state(*ACTIVE):
            if proposal.dataset.name == name:
                raise WrongState(
                    f"The run {proposal.run_id} is open and names the dataset {name!r}: deny or leave it first.",
                    reason="DATASET_IN_USE",
                    metadata={"dataset": name, "run_id": proposal.run_id},
                )
        with self._state.unit.transaction():
            self._state.datasets.delete(name)
            self._state.audit.append("dataset.deleted", self._state.owner, {"dataset": name})
        await asyncio.to_thread(self._state.folder.drop_dataset, name)
        await self._publication.withdraw_dataset(dataset)


def _check_texts(wanted: NewDataset) -> None:
    if not wanted.private_path:
        raise dataset_invalid("A dataset needs a private part: give its file or folder.")
    if wanted.generate_mock == bool(wanted.mock_path):
        raise dataset_invalid("Give a mock, or ask for one to be generated, and not both.")
    texts = (wanted.summary, wanted.readme, *wanted.tags)
    if len(wanted.tags) > MAX_ENTRIES or sum(len(text.encode()) for text in texts) > MAX_TEXT_BYTES:
        raise dataset_invalid(f"Summary, readme and tags have at most {MAX_TEXT_BYTES} bytes together.")


def _check_opaque(private: Mapping[str, str], mock: Mapping[str, str]) -> None:
    same = sorted(file for file, digest in mock.items() if private.get(file) == digest)
    if same:
        raise IntegrityFailure(
            f"The mock is refused: {same[0]!r} is byte for byte the file of the private part.",
            reason="MOCK_HOLDS_PRIVATE_ROWS",
            metadata={"file": same[0]},
        )


def _to_csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False).encode()
