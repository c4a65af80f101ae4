"""What the domain needs of storage, the hub and the machine."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from syftmesh_core.audit_chain import Checkpoint, Entry
from syftmesh_core.identity.device import DevicePublic
from syftmesh_core.job import JobState

from syftmesh_runner.domain.dataset import Dataset
from syftmesh_runner.domain.job import Job


class Unit(Protocol):
    """All or nothing: what is stored inside one `transaction` is there together, on disk, or not at all."""

    def transaction(self) -> AbstractContextManager[None]:
        """Begin, or join the one that is open; nothing inside may wait."""
        ...


class JobStore(Protocol):
    """Jobs; every method runs inside the transaction that is open, else in one of its own."""

    def get(self, job_id: str) -> Job | None:
        """Return a job, None when there is none."""
        ...

    def save(self, job: Job) -> None:
        """Store a new or changed job; its status then waits to be published."""
        ...

    def page(self, states: Collection[JobState], limit: int, before: str) -> Sequence[Job]:
        """Return at most `limit` jobs, newest first, of any state when none is given, before a job id."""
        ...

    def in_state(self, *states: JobState) -> Sequence[Job]:
        """Return the jobs in these states, oldest first."""
        ...

    def unpublished(self) -> Sequence[tuple[Job, int]]:
        """Return the jobs whose newest status is not published, each with the revision of that status."""
        ...

    def mark_published(self, job_id: str, revision: int) -> None:
        """Remember that this revision of the status is published."""
        ...


class ReleaseStore(Protocol):
    """Releases that were granted: begun before anything leaves, done when all has left."""

    def begin(self, job_id: str, statement: bytes) -> None:
        """Store a granted release."""
        ...

    def get(self, job_id: str) -> tuple[bytes, bool, int] | None:
        """Return statement, whether it is done, and the bytes that left; None when there is none."""
        ...

    def finish(self, job_id: str, bytes_out: int) -> None:
        """Remember that everything has left."""
        ...

    def pending(self) -> Sequence[str]:
        """Return the jobs whose release was begun and not done."""
        ...

    def total_bytes(self) -> int:
        """Return the bytes that left by all releases."""
        ...


class DatasetStore(Protocol):
    """Registered datasets."""

    def get(self, name: str) -> Dataset | None:
        """Return a dataset, None when there is none."""
        ...

    def save(self, dataset: Dataset) -> None:
        """Store a new or changed dataset."""
        ...

    def delete(self, name: str) -> None:
        """Forget a dataset."""
        ...

    def page(self, limit: int, after: str) -> Sequence[Dataset]:
        """Return at most `limit` datasets by name, after a name."""
        ...

    def unpublished(self) -> Sequence[Dataset]:
        """Return the datasets whose card and mock are not at the hub."""
        ...


class AuditStore(Protocol):
    """Entries and checkpoints of the audit chain, as stored."""

    def last(self) -> Entry | None:
        """Return the newest entry."""
        ...

    def add(self, entry: Entry) -> None:
        """Store the next entry."""
        ...

    def add_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Store a signed checkpoint."""
        ...

    def last_checkpoint(self) -> int:
        """Return the sequence of the newest checkpoint, 0 when there is none."""
        ...

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """Give the entries in order of sequence.

        Raises:
            IntegrityFailure: AUDIT_BROKEN for one that cannot be read.
        """
        ...

    def checkpoints(self) -> Sequence[Checkpoint]:
        """Return all checkpoints."""
        ...

    def query(self, *, dataset: str, job_id: str, kind: str, after: int, limit: int) -> Sequence[Entry]:
        """Return at most `limit` entries that name all of what is not empty."""
        ...


class SealStore(Protocol):
    """Which published files are sealed for whom, and for which device list."""

    def note(self, path: str, versions: Mapping[str, int]) -> None:
        """Remember that `path` is sealed for these principals' device lists."""
        ...

    def forget(self, prefix: str) -> None:
        """Forget the files below `prefix`."""
        ...

    def principals(self) -> Sequence[str]:
        """Return everybody for whom a file is sealed."""
        ...

    def outdated(self, principal: str, version: int) -> Sequence[str]:
        """Return the files sealed for an older device list of `principal`."""
        ...


class Keys(Protocol):
    """A principal's verified devices (`syftmesh_client.directory.PrincipalKeys`)."""

    @property
    def principal(self) -> str:
        """The principal."""
        ...

    @property
    def root(self) -> bytes:
        """Account root, 32 bytes, pinned."""
        ...

    @property
    def version(self) -> int:
        """Version of the device list."""
        ...

    @property
    def devices(self) -> tuple[DevicePublic, ...]:
        """Its devices."""
        ...


class KeyDirectory(Protocol):
    """Verified device lists."""

    async def devices_of(self, principal: str, *, refresh: bool = False) -> Keys:
        """Return the devices of `principal`; from the hub when `refresh` says so.

        Raises:
            IntegrityFailure: KEY_CHANGED or DEVICE_LIST_ROLLBACK.
            NotFound: The principal has no keys.
            Unavailable: The hub cannot be reached.
        """
        ...


class HubFiles(Protocol):
    """Files of the own datasite at the hub."""

    async def write(self, path: str, data: bytes) -> int:
        """Write a file, sealed for its readers by the signed rules; return the bytes that left, as stored."""
        ...

    async def delete(self, path: str) -> None:
        """Delete a file; nothing happens when there is none."""
        ...

    async def reseal(self, path: str) -> None:
        """Seal a file anew for its readers' devices of now."""
        ...

    async def readers(self, path: str) -> frozenset[str]:
        """Return who but the owner may read `path` by the signed rules: entries as written, or ``*``."""
        ...


class Folder(Protocol):
    """The site's own folder: parts of datasets, code, outputs; 0700 and 0600, never through links."""

    def take_in(self, source: str) -> tuple[Path, dict[str, str]]:
        """Copy a file or folder into a new staging folder; return that and SHA-256 (hex) by name.

        Raises:
            InvalidInput: DATASET_INVALID: not there, a link or special file in it, too large, or empty.
        """
        ...

    def stage(self, files: Mapping[str, bytes]) -> tuple[Path, dict[str, str]]:
        """Write files into a new staging folder; return it and SHA-256 (hex) by name."""
        ...

    def discard(self, staged: Path) -> None:
        """Remove a staging folder."""
        ...

    def keep_dataset(self, name: str, digest: str, private: Path, mock: Path) -> None:
        """Move staged parts to their place."""
        ...

    def private_part(self, name: str, digest: str) -> Path:
        """Return the folder of a version's private part."""
        ...

    def mock_part(self, name: str, digest: str) -> Path:
        """Return the folder of a version's mock."""
        ...

    def digests(self, part: Path) -> dict[str, str]:
        """Return SHA-256 (hex) by name of what lies in a part now.

        Raises:
            IntegrityFailure: DATASET_CHANGED: it is gone, or holds something that is no regular file.
        """
        ...

    def drop_dataset(self, name: str) -> None:
        """Remove all parts of a dataset."""
        ...

    def keep_code(self, job_id: str, archive: bytes) -> Sequence[tuple[str, bytes]]:
        """Unpack code in quarantine, keep archive and files; return the files by name.

        Raises:
            InvalidInput: ARCHIVE_INVALID.
            LimitExceeded: ARCHIVE_TOO_LARGE.
        """
        ...

    def code_archive(self, job_id: str) -> bytes:
        """Return the archive as it lies on disk; empty when it is gone."""
        ...

    def code_files(self, job_id: str) -> Sequence[tuple[str, bytes]]:
        """Return the files of the code by name."""
        ...

    def prepare_run(self, job_id: str, archive: bytes) -> tuple[Path, Path]:
        """Unpack code for a run and return its folder and the folder for output, empty."""
        ...

    def resume_run(self, job_id: str) -> tuple[Path, Path]:
        """Return the folders of a run that goes on since before a restart; that for output is empty again."""
        ...

    def keep_log(self, job_id: str, name: str, data: bytes) -> None:
        """Keep a log of a run."""
        ...

    def output(self, job_id: str, name: str) -> bytes:
        """Return the bytes of an output or log.

        Raises:
            IntegrityFailure: OUTPUT_CHANGED: it is gone or no regular file.
        """
        ...

    def end_run(self, job_id: str) -> None:
        """Remove what a run needed and nobody reads any more."""
        ...

    def keep_bundle(self, run_id: str, digest: str, data: bytes) -> None:
        """Keep the app bundle of a federated run; its run id and SHA-256, hex, name it."""
        ...

    def bundle(self, run_id: str, digest: str) -> bytes:
        """Return an app bundle as it lies on disk; empty when it is gone."""
        ...

    def keep_run_log(self, run_id: str, stdout: bytes, stderr: bytes) -> None:
        """Keep what the app of a federated run printed, in place of what it printed before."""
        ...

    def bundle_path(self, run_id: str, digest: str) -> Path:
        """Return the file of an app bundle."""
        ...


class RuntimeIdentity(Protocol):
    """The Python runtime that jobs run in."""

    def digest(self) -> str:
        """Return its digest, hex, from what is installed now."""
        ...
