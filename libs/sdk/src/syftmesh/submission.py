"""What was sent from a profile, so that jobs and calls can be found by their id alone, also by other processes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from syftmesh_core.errors import WrongState

SUBMISSIONS_FILE: Final = "submissions.jsonl"
CALLS_FILE: Final = "calls.jsonl"


@dataclass(frozen=True, slots=True)
class Submission:
    """One thing that was sent.

    Attributes:
        id: Of the job, or of the call.
        site: Where it went.
        created_ms: When, Unix milliseconds.
        call_id: The call that carried a job; empty while it is not known to have been taken by the router.
    """

    id: str
    site: str
    created_ms: int
    call_id: str = ""


class SubmissionLog:
    """Submissions of a profile, appended to a file of its folder (0600); the last line about an id counts.

    Methods block on the disk: call them off the event loop.

    Args:
        folder: The profile's folder.
        name: Name of the file.
    """

    def __init__(self, folder: Path, name: str = SUBMISSIONS_FILE) -> None:
        self._path = folder / name

    def add(self, submission: Submission) -> None:
        """Note a submission, on disk when it returns.

        Raises:
            WrongState: STATE_UNUSABLE.
        """
        self._append([submission.id, submission.site, submission.created_ms, submission.call_id])

    def forget(self, submission_id: str) -> None:
        """Note that nothing came of a submission; raises as `add`."""
        self._append([submission_id, None, 0, ""])

    def list(self) -> list[Submission]:
        """Return all, oldest first; a line that was cut off by a crash is left out."""
        try:
            lines = self._path.read_text("utf-8", "replace").splitlines()
        except OSError:
            return []
        found: dict[str, Submission] = {}
        for line in lines:
            entry = _parsed(line)
            if entry is None:
                continue
            submission_id, submission = entry
            if submission is None:
                found.pop(submission_id, None)
            else:
                found[submission_id] = submission
        return list(found.values())

    def find(self, submission_id: str) -> Submission | None:
        """Return what is known of an id, None when nothing is."""
        return next((found for found in self.list() if found.id == submission_id), None)

    def _append(self, entry: Sequence[str | int | None]) -> None:
        # A line of its own even behind one that was cut off: a blank line harms nobody.
        line = f"\n{json.dumps(list(entry))}\n"
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


def _parsed(line: str) -> tuple[str, Submission | None] | None:
    try:
        submission_id, site, created_ms, call_id = json.loads(line)
    except (ValueError, TypeError):
        return None
    if not isinstance(submission_id, str):
        return None
    if site is None:
        return submission_id, None
    if not (isinstance(site, str) and isinstance(created_ms, int) and isinstance(call_id, str)):
        return None
    return submission_id, Submission(submission_id, site, created_ms, call_id)
