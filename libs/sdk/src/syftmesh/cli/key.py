"""Verbs of keys: keys show, verify, devices."""

from __future__ import annotations

from typing import Annotated

import typer

from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Fields, Table, jsonable


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    keys = group(app, "keys", "Your keys, and what you know of those of others.")
    verb(keys, "show", example="syftmesh keys show")(show)
    verb(keys, "verify", example="syftmesh keys verify alice@hospital.example")(verify)
    verb(keys, "devices", example="syftmesh keys devices --json")(devices)
    return keys


def show(frame: Frame) -> None:
    """Show the public keys of your account and of this device; private ones never leave the key store."""
    with frame.client() as client:
        document = jsonable(client.keys.show())
    frame.emit(document, Fields([(name, value) for name, value in document.items() if not _nested(value)]))


def verify(frame: Frame, email: Annotated[str, typer.Argument(metavar="EMAIL", help="With whom.")]) -> None:
    """Show the safety number that you and somebody else both see when nobody stands between you.

    Read it to each other over a way that you trust; when it differs, the keys are not the true ones.
    """
    with frame.client() as client:
        number = client.keys.verify(email)
    frame.emit({"email": email, "safety_number": number}, str(number))


def devices(
    frame: Frame, email: Annotated[str | None, typer.Argument(metavar="EMAIL", help="Of whom; you.")] = None
) -> None:
    """List the devices in somebody's signed device list."""
    with frame.client() as client:
        items = [jsonable(device) for device in client.keys.devices(email)]
    columns = list(items[0]) if items else ["device_id"]
    rows = [[item[column] for column in columns] for item in items]
    frame.emit({"items": items}, Table(columns, rows, "There is no device."))


def _nested(value: object) -> bool:
    return isinstance(value, dict | list)
