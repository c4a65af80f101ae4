"""State on a volume of a pod, which kubelet opens to the pod's group whenever it mounts it."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Final

_OTHERS: Final = 0o077


def is_mounted(found: os.stat_result, user: int, groups: Collection[int]) -> bool:
    """Return whether a folder is the root of a volume that kubelet has prepared for a pod with ``fsGroup``.

    It is root's, its group is one of the pod's, and what is made in it gets that group (set-group-ID); a person's
    own state folder is none of that, and its modes are left for the person to mend.

    Args:
        found: Of the folder.
        user: Whom this process runs as.
        groups: The groups that it is in.
    """
    return user != 0 and found.st_uid == 0 and found.st_gid in groups and bool(found.st_mode & stat.S_ISGID)


def tighten_volume(state: Path) -> bool:
    """Take the group's rights away again from all that is ours below the root of a pod's volume.

    Keys must be 0600 in folders of 0700, and kubelet makes them 0660 and 2770 with each mount (unless its
    ``fsGroupChangePolicy`` is ``OnRootMismatch``). Links are not followed.

    Args:
        state: The state folder.

    Returns:
        Whether `state` is such a root; elsewhere nothing is changed.
    """
    if not state.is_dir():
        return False
    if not is_mounted(state.lstat(), os.geteuid(), {os.getegid(), *os.getgroups()}):
        return False
    for folder in (place for place in state.iterdir() if not place.is_symlink()):
        tighten(folder)
    return True


def tighten(place: Path) -> None:
    """Leave `place`, and what lies below when it is a folder, to its owner alone, where that is this user."""
    found = place.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid():
        return
    if found.st_mode & _OTHERS:
        place.chmod(stat.S_IMODE(found.st_mode) & ~_OTHERS)
    if stat.S_ISDIR(found.st_mode):
        for inner in place.iterdir():
            tighten(inner)
