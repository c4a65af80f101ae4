"""What was submitted from a profile, so that a job can be found by its id alone."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from syftmesh_core.errors import WrongState

_FILE: Final = "submissions.jsonl"
CALLS_FILE: Final = "calls.jsonl"


@dataclass(frozen=True, slots=True)
class Submission:
    """One submission: the job's id, the site it went to, when (Unix milliseconds)."""

    job_id: str
    site: str
    created_ms: int


class SubmissionLog:
    """Submissions of a profile, appended to a file of its folder (0600).

    Args:
        folder: The profile's folder.
        name: Name of the file.
    """

    def __init__(self, folder: Path, name: str = _FILE) -> None:
        self._path = folder / name

    def add(self, submission: Submission) -> None:
        """Note a submission, on disk when it returns; again with the same id changes nothing.

        Raises:
            WrongState: STATE_UNUSABLE.
        """
        if self.find(submission.job_id) == submission.site:
            return
        line = json.dumps([submission.job_id, submission.site, submission.created_ms]) + "\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, line.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise WrongState(
                "The profile's folder cannot be written.", reason="STATE_UNUSABLE", hint="syftmesh doctor"
            ) from error

    def list(self) -> list[Submission]:
        """Return all, oldest first; a line that was cut off by a crash is left out."""
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        found = [_parsed(line) for line in lines]
        return [submission for submission in found if submission is not None]

    def find(self, job_id: str) -> str | None:
        """Return the site that the job went to last, None when it is not known here."""
        return next((s.site for s in reversed(self.list()) if s.job_id == job_id), None)


def _parsed(line: str) -> Submission | None:
    try:
        job_id, site, created_ms = json.loads(line)
    except (ValueError, TypeError):
        return None
    if not (isinstance(job_id, str) and isinstance(site, str) and isinstance(created_ms, int)):
        return None
    return Submission(job_id, site, created_ms)
