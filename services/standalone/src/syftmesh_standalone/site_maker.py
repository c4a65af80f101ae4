"""Makes the sites that ``up --sites`` names: account, devices and standard layout of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

from syftmesh_client.node import open_node
from syftmesh_client.profile import ProfileStore, node_login
from syftmesh_client.site import SiteFolders, open_account, provision_site
from syftmesh_core.clock import Clock
from syftmesh_kit.private_file import replace_private

RECOVERY_FOLDER: Final = "recovery"

Report = Callable[[str], None]


def recovery_file(state: Path, email: str) -> Path:
    """Return the file in which the recovery phrase of an account made by a program is kept."""
    return state / RECOVERY_FOLDER / f"{email}.txt"


async def make_site(state: Path, email: str, server: str, *, clock: Clock, report: Report) -> None:
    """Make the site of `email` with its owner's profile, or what is missing of them.

    Args:
        state: The state folder.
        email: Whose, normalised.
        server: Address of the hub, which serves.
        clock: Time.
        report: Told of what was made.

    Raises:
        MeshError: See `open_account` and `provision_site`.
    """
    folders = SiteFolders.of(state, email)
    if folders.is_made:
        return
    profile = ProfileStore(state).save(email, server)
    login = node_login(state, server)

    keep = partial(keep_phrase, recovery_file(state, email))
    if await open_account(profile, login, keep_phrase=keep, clock=clock):
        report(f"account of {email} made; its recovery phrase is in {recovery_file(state, email)}")
    async with open_node(profile.folder, server, login=login, clock=clock) as node:
        await provision_site(node, folders)
    report(f"site of {email} made")


def keep_phrase(path: Path, phrase: tuple[str, ...]) -> None:
    """Write a recovery phrase into a file of mode 0600.

    A phrase that is there may be the one of an account that exists: it is put aside under a number, never lost.
    """
    path.parent.mkdir(exist_ok=True, mode=0o700)
    if path.exists():
        numbered = (path.with_name(f"{path.name}.{number}") for number in count(1))
        path.rename(next(old for old in numbered if not old.exists()))
    replace_private(path, f"{' '.join(phrase)}\n".encode())
