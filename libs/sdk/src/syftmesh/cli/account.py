"""Verbs of people: login, logout, whoami, profiles."""

from __future__ import annotations

import typer

from syftmesh.cli.frame import Frame, verb
from syftmesh.cli.output import Table


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    verb(app, "profiles", example="syftmesh profiles --json")(profiles)


def profiles(frame: Frame) -> None:
    """List the people who have logged in on this machine."""
    from syftmesh_client.profile import ProfileStore

    found = ProfileStore(frame.state).list()
    rows = [[p.email, p.server] for p in found]
    items = [{"email": p.email, "server": p.server} for p in found]
    frame.emit({"items": items}, Table(["email", "server"], rows, "Nobody has logged in on this machine."))
