"""Making a site: on a laptop beside its mesh, or headless in a pod that joins a hub elsewhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from syftmesh_core.errors import Unavailable

from syftmesh.cli.device import on_device
from syftmesh.cli.entry import Entry, enter
from syftmesh.cli.frame import Frame
from syftmesh.cli.quantity import duration_s

INCOMING_FOLDER: Final = "incoming"
"""Below the state folder: where an owner puts files that the runner is to take in."""

_AGAIN_S: Final = 2.0
# The hub, or its object store, is away: all else that is unavailable is on this machine and waits for a person.
_AWAY: Final = frozenset({"SERVER_UNREACHABLE", "OBJECT_STORE_AWAY", "BUS_UNREACHABLE", "STARTING"})


def wait_s(text: str) -> float:
    """Return the seconds that `text` says: a duration, or whole seconds, also none.

    Raises:
        InvalidInput: DURATION_INVALID.
    """
    plain = text.isascii() and text.isdecimal() and len(text) < 10
    return float(text) if plain else duration_s(text)


def make_site(frame: Frame, email: str | None, entry: Entry, *, wait_s: float) -> dict[str, object]:
    """Make a site, or what is missing of it; a hub that is away is asked again for `wait_s` seconds.

    Returns:
        What was done, as `site init` shows it.

    Raises:
        MeshError: As `enter`, `provision_site` and `invite_programs`.
    """
    from syftmesh_client.volume import tighten_volume

    if tighten_volume(frame.state):
        frame.detail("The volume's files are their owner's alone again.")
    clock, said = frame.surroundings.clock, ""
    end_s = clock.monotonic_s() + wait_s
    while True:
        try:
            return _made(frame, email, entry)
        except Unavailable as error:
            if error.reason not in _AWAY or clock.monotonic_s() + _AGAIN_S > end_s:
                raise
            if error.message != said:
                said = error.message
                frame.note(f"waiting: {said}")
        frame.surroundings.sleep(_AGAIN_S)


def _made(frame: Frame, email: str | None, entry: Entry) -> dict[str, object]:
    from syftmesh_client.profile import node_login
    from syftmesh_client.site import SiteFolders, provision_site
    from syftmesh_client.site_join import invite_programs

    result = enter(frame, email, entry)
    folders = SiteFolders.of(frame.state, result.email)
    made_before = folders.is_made
    # A mesh of this machine lets its sites in by its local token.
    is_embedded = node_login(frame.state, result.server).local_token_file is not None

    async def provision(node: Any) -> list[str]:
        await provision_site(node, folders)
        return [] if is_embedded else await invite_programs(node, folders)

    invited = on_device(replace(frame, profile=result.email, server=result.server), provision)
    if not is_embedded:
        (frame.state / INCOMING_FOLDER).mkdir(mode=0o700, exist_ok=True)
    return {
        "site": result.email,
        "server": result.server,
        "created": not made_before,
        "account_created": result.created,
        "invited": invited,
        "is_local": is_embedded,
    }
