"""What an aggregator keeps of a run on its own machine: keys, bundle, results; private, and there after a crash."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from syftmesh_core.errors import IntegrityFailure, NotFound

from syftmesh_flower.seal import RunKey

_RUN_FILE: Final = "run.json"
_BUNDLE_FILE: Final = "app.fab"
_RESULTS: Final = "results"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run.

    Attributes:
        path: The folder, 0700.
    """

    path: Path

    @classmethod
    def of(cls, folder: Path, run_id: str) -> RunFolder:
        """Return the folder of a run below `folder`; nothing is made.

        Raises:
            NotFound: RUN_UNKNOWN: `run_id` is no run's.
        """
        if not (run_id.isascii() and run_id.isdigit() and len(run_id) <= 20):
            raise NotFound(f"There is no run {run_id[:40]!r}.", reason="RUN_UNKNOWN")
        return cls(folder / run_id)

    def create(self, keys: Mapping[str, RunKey], bundle: bytes) -> None:
        """Keep the keys of a new run by site, and its bundle; what was there stays when it is the same run."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        document = {"keys": {site: key.secret.hex() for site, key in keys.items()}}
        self._write(_BUNDLE_FILE, bundle)
        self._write(_RUN_FILE, json.dumps(document).encode())

    @property
    def is_known(self) -> bool:
        """Whether the run was created here."""
        return (self.path / _RUN_FILE).exists()

    def keys(self) -> dict[str, RunKey]:
        """Return the run's keys by site.

        Raises:
            NotFound: RUN_KEYS_MISSING: the run was created elsewhere.
            IntegrityFailure: RUN_KEYS_DAMAGED.
        """
        try:
            document = json.loads((self.path / _RUN_FILE).read_bytes())
            return {str(site): RunKey(bytes.fromhex(text)) for site, text in document["keys"].items()}
        except FileNotFoundError as error:
            raise NotFound(
                "This machine has no keys of the run: it was created by another device of yours.",
                reason="RUN_KEYS_MISSING",
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise IntegrityFailure("The keys of the run are damaged.", reason="RUN_KEYS_DAMAGED") from error

    def bundle(self) -> bytes:
        """Return the app bundle; raises as `keys`."""
        try:
            return (self.path / _BUNDLE_FILE).read_bytes()
        except FileNotFoundError as error:
            raise NotFound("This machine has no bundle of the run.", reason="RUN_KEYS_MISSING") from error

    def keep_result(self, name: str, data: bytes) -> Path:
        """Write a result and return its path."""
        self._write(f"{_RESULTS}/{name}", data)
        return self.path / _RESULTS / name

    def result(self, name: str) -> bytes | None:
        """Return a result, None when it is not here."""
        try:
            return (self.path / _RESULTS / name).read_bytes()
        except OSError:
            return None

    def scratch(self, name: str) -> Path:
        """Return a path inside the folder."""
        return self.path / name

    def _write(self, name: str, data: bytes) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        beside = target.with_name(f".{target.name}.new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(target)


def safe_name(name: str) -> bool:
    """Return whether `name` is a relative path that stays where it is put."""
    path = PurePosixPath(name)
    plain = bool(name) and "\0" not in name and "\\" not in name and len(name) <= 512
    return plain and not path.is_absolute() and ".." not in path.parts and str(path) == name
