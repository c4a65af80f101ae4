"""The site's own folder.

``datasets/<name>/<digest>/{private,mock}``, ``jobs/<job id>/{code.tar,code,run,output,logs}``,
``runs/<run id>/{<digest>.fab,stdout.txt,stderr.txt}``, ``staging``. Folders are 0700, files 0600. Job ids, run
ids, digests and dataset names are checked before they get here and are plain names.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from syftmesh_core.clock import Random
from syftmesh_core.errors import IntegrityFailure, Unavailable
from syftmesh_executor.archive import unpack_code

from syftmesh_runner.adapters import part
from syftmesh_runner.adapters.part import PartInvalid
from syftmesh_runner.domain.dataset import dataset_invalid
from syftmesh_runner.domain.job import LOG_FOLDER

_ARCHIVE = "code.tar"


class StateFolder:
    """See `syftmesh_runner.domain.ports.Folder`.

    Args:
        root: The folder; made with 0700 when it is not there.
        random: Source of staging names.

    Raises:
        Unavailable: STATE_UNUSABLE: it cannot be made; STATE_IN_USE: another runner has it.
    """

    def __init__(self, root: Path, random: Random) -> None:
        self.root = root
        self._random = random
        try:
            part.make_folders(root)
            root.chmod(0o700)
            self._lock = os.open(root / "runner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in ("datasets", "jobs", "runs"):
                (root / name).mkdir(mode=0o700, exist_ok=True)
            # What a crash left half done is of no use to anybody.
            shutil.rmtree(root / "staging", ignore_errors=True)
            (root / "staging").mkdir(mode=0o700)
        except BlockingIOError as error:
            os.close(self._lock)
            raise Unavailable(
                "Another runner uses this site's state folder: stop it first.", reason="STATE_IN_USE"
            ) from error
        except OSError as error:
            raise Unavailable(
                "The site's state folder cannot be used; look at its owner and its disk.",
                reason="STATE_UNUSABLE",
            ) from error

    def close(self) -> None:
        """Let another runner use the folder."""
        os.close(self._lock)

    def take_in(self, source: str) -> tuple[Path, dict[str, str]]:
        """Copy a file or folder into a new staging folder; return that and SHA-256 (hex) by name."""
        path = Path(source).expanduser()
        staged = self._stage()
        try:
            digests = self._copy(path, staged)
        except PartInvalid as problem:
            self.discard(staged)
            where = f" (in it {problem.args[1]!r})" if problem.args[1] not in ("", path.name) else ""
            raise dataset_invalid(f"{path.name!r}{where} {problem.args[0]}.") from None
        except OSError as error:
            self.discard(staged)
            raise Unavailable(
                "The part cannot be copied into the site's state; look at its disk.", reason="STATE_UNUSABLE"
            ) from error
        if not digests:
            self.discard(staged)
            raise dataset_invalid(f"{path.name!r} holds no file.")
        return staged, digests

    def _copy(self, path: Path, staged: Path) -> dict[str, str]:
        if path.is_dir() and not path.is_symlink():
            return {name: part.copy(source, staged / name)[1] for name, source in part.walk(path)}
        source = part.open_file(path)
        try:
            return {path.name: part.copy(source, staged / path.name)[1]}
        finally:
            os.close(source)

    def stage(self, files: Mapping[str, bytes]) -> tuple[Path, dict[str, str]]:
        """Write files into a new staging folder; return it and SHA-256 (hex) by name."""
        staged = self._stage()
        for name, content in files.items():
            _write(staged / name, content)
        return staged, self.digests(staged)

    def discard(self, staged: Path) -> None:
        """Remove a staging folder."""
        shutil.rmtree(staged, ignore_errors=True)

    def keep_dataset(self, name: str, digest: str, private: Path, mock: Path) -> None:
        """Move staged parts to their place."""
        place = self.root / "datasets" / name
        shutil.rmtree(place, ignore_errors=True)  # of a registration that did not come to its end
        version = place / digest
        part.make_folders(version)
        private.rename(version / "private")
        mock.rename(version / "mock")
        _sync_folder(version)

    def private_part(self, name: str, digest: str) -> Path:
        """Return the folder of a version's private part."""
        return self.root / "datasets" / name / digest / "private"

    def mock_part(self, name: str, digest: str) -> Path:
        """Return the folder of a version's mock."""
        return self.root / "datasets" / name / digest / "mock"

    def digests(self, part_folder: Path) -> dict[str, str]:
        """Return SHA-256 (hex) by name of what lies in a part now."""
        try:
            return {name: part.sha256(source) for name, source in part.walk(part_folder)}
        except (PartInvalid, OSError):
            raise IntegrityFailure(
                "A part of a dataset is not as it was registered any more.", reason="DATASET_CHANGED"
            ) from None

    def drop_dataset(self, name: str) -> None:
        """Remove all parts of a dataset."""
        shutil.rmtree(self.root / "datasets" / name, ignore_errors=True)

    def keep_code(self, job_id: str, archive: bytes) -> Sequence[tuple[str, bytes]]:
        """Unpack code in quarantine, keep archive and files; return the files by name."""
        staged = self._stage()
        try:
            unpack_code(archive, staged / "code")
            files = _contents(staged / "code")
            _write(staged / _ARCHIVE, archive)
            place = self._job(job_id)
            shutil.rmtree(place, ignore_errors=True)  # of a submission that was not stored
            staged.rename(place)
            _sync_folder(place.parent)
        except BaseException:
            self.discard(staged)
            raise
        return files

    def code_archive(self, job_id: str) -> bytes:
        """Return the archive as it lies on disk; empty when it is gone."""
        return _read(self._job(job_id) / _ARCHIVE) or b""

    def code_files(self, job_id: str) -> Sequence[tuple[str, bytes]]:
        """Return the files of the code by name."""
        try:
            return _contents(self._job(job_id) / "code")
        except PartInvalid:
            return []

    def prepare_run(self, job_id: str, archive: bytes) -> tuple[Path, Path]:
        """Unpack code for a run and return its folder and the folder for output, empty."""
        self.end_run(job_id)
        output = self._job(job_id) / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(mode=0o700)
        code = self._job(job_id) / "run"
        # From the bytes whose digest was just compared, not from the files that lay here since the review.
        unpack_code(archive, code)
        return code, output

    def resume_run(self, job_id: str) -> tuple[Path, Path]:
        """Return the folders of a run that goes on since before a restart; that for output is empty again."""
        output = self._job(job_id) / "output"
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(mode=0o700)
        return self._job(job_id) / "run", output

    def keep_log(self, job_id: str, name: str, data: bytes) -> None:
        """Keep a log of a run."""
        place = self._job(job_id) / name
        place.unlink(missing_ok=True)
        _write(place, data)

    def output(self, job_id: str, name: str) -> bytes:
        """Return the bytes of an output or log."""
        root = self._job(job_id) if name.startswith(LOG_FOLDER) else self._job(job_id) / "output"
        data = _read(root / name)
        if data is None:
            raise IntegrityFailure(
                f"The output {name[:120]!r} is not there any more.", reason="OUTPUT_CHANGED"
            )
        return data

    def end_run(self, job_id: str) -> None:
        """Remove what a run needed and nobody reads any more."""
        shutil.rmtree(self._job(job_id) / "run", ignore_errors=True)

    def keep_bundle(self, run_id: str, digest: str, data: bytes) -> None:
        """Keep the app bundle of a federated run; the same bytes again change nothing."""
        place = self.bundle_path(run_id, digest)
        staged = self._stage()
        try:
            _write(staged / place.name, data)
            part.make_folders(place.parent)
            (staged / place.name).replace(place)
            _sync_folder(place.parent)
        finally:
            self.discard(staged)

    def bundle(self, run_id: str, digest: str) -> bytes:
        """Return an app bundle as it lies on disk; empty when it is gone."""
        return _read(self.bundle_path(run_id, digest)) or b""

    def keep_run_log(self, run_id: str, stdout: bytes, stderr: bytes) -> None:
        """Keep what the app of a federated run printed."""
        for name, data in (("stdout.txt", stdout), ("stderr.txt", stderr)):
            place = self.root / "runs" / run_id / name
            place.unlink(missing_ok=True)
            _write(place, data)

    def bundle_path(self, run_id: str, digest: str) -> Path:
        """Return the file of an app bundle."""
        return self.root / "runs" / run_id / f"{digest}.fab"

    def renew_secret(self, name: str, size_bytes: int, folder: Path | None = None) -> Path:
        """Return a new file of random bytes, 0600, in place of the one of before.

        Args:
            name: Of the file.
            size_bytes: How many bytes.
            folder: Where; the site's own folder when None. It is made with 0700; one that is there, as a volume
                that a pod's programs share, is taken as it is: the file is private by itself.

        Raises:
            Unavailable: STATE_UNUSABLE.
        """
        place = folder or self.root
        staged = place / f".{name}.{self._random(16).hex()}"
        try:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(staged, self._random(size_bytes))
            staged.replace(place / name)
        except OSError as error:
            with suppress(OSError):
                staged.unlink()
            raise Unavailable(
                f"The folder {place.name!r} of the site's programs cannot be written; look at its owner and its disk.",
                reason="STATE_UNUSABLE",
            ) from error
        return place / name

    def _job(self, job_id: str) -> Path:
        return self.root / "jobs" / job_id

    def _stage(self) -> Path:
        place = self.root / "staging" / self._random(16).hex()
        place.mkdir(mode=0o700)
        return place


def _contents(folder: Path) -> list[tuple[str, bytes]]:
    found = []
    for name, source in part.walk(folder):
        with os.fdopen(os.dup(source), "rb") as file:
            found.append((name, file.read()))
    return found


def _read(path: Path) -> bytes | None:
    try:
        descriptor = part.open_file(path)
    except PartInvalid:
        return None
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _write(path: Path, content: bytes) -> None:
    part.make_folders(path.parent)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
