"""Verbs of keys: keys show, verify, devices, devices revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from syftmesh_core.errors import InvalidInput
from syftmesh_core.quote import quoted

from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Fields, Table, jsonable

if TYPE_CHECKING:
    from syftmesh.device import Device, DeviceEnd

_REVOKE: Final = "revoke"
"""Stands where an e-mail may stand; no e-mail is without an @."""

_COLUMNS: Final = ("device_id", "label", "created", "listed", "revoked", "admin", "serves", "own")


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    keys = group(app, "keys", "Your keys, and what you know of those of others.")
    verb(keys, "show", example="syftmesh keys show")(show)
    verb(keys, "verify", example="syftmesh keys verify alice@hospital.example")(verify)
    verb(
        keys,
        "devices",
        example="syftmesh keys devices --json\nsyftmesh keys devices revoke 0198c2a4-7d1e-7c3a-9b52-3f6a1f0e9d11",
    )(devices)
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
    frame: Frame,
    whose: Annotated[
        str | None,
        typer.Argument(metavar="EMAIL/revoke", help="Whose; you. Or `revoke`, which ends one of yours."),
    ] = None,
    device_id: Annotated[str | None, typer.Argument(metavar="ID", help="After `revoke`: which one.")] = None,
) -> None:
    """List somebody's devices, or end one of yours.

    A device works while it is in the signed list and the hub has not revoked it; of others, only the list is known.
    `revoke` takes a device out of your list, signed by this device, which has to be an admin device, and ends its
    login and open calls everywhere. What it has read it keeps. Repeat the command when it was cut off.
    """
    if whose == _REVOKE:
        _revoke(frame, device_id)
        return
    if device_id is not None:
        raise InvalidInput(
            f"Nothing follows an e-mail, and {quoted(device_id)} does.",
            reason="USAGE",
            hint="syftmesh keys devices revoke ID",
        )
    with frame.client() as client:
        items = [jsonable(device) for device in client.keys.devices(whose)]
    rows = [[item[column] for column in _COLUMNS] for item in items]
    frame.emit({"items": items}, Table(_COLUMNS, rows, "There is no device."))


def _revoke(frame: Frame, device_id: str | None) -> None:
    if device_id is None:
        raise InvalidInput("Say which device ends.", reason="USAGE", hint="syftmesh keys devices lists them.")
    with frame.client() as client:
        found = next((device for device in client.keys.devices() if device.device_id == device_id), None)
        # What is over already is only completed, and what is unknown is refused: neither needs a yes.
        if found is not None and (found.listed or not found.revoked):
            frame.confirm(_question(found, frame.surroundings.clock.now_ms()), *_consequences(found))
        end = client.keys.revoke_device(device_id)
    label = found.label if found is not None else None
    frame.emit({**jsonable(end), "label": label}, *_told(end))
    if end.unlisted:
        frame.note("Programs that run now learn of the new list within a minute.")


def _question(device: Device, now_ms: int) -> str:
    what = device.label or "device"
    age = "never logged in" if device.created is None else f"first login {_age(device.created, now_ms)}"
    here = ", the very device that asks you," if device.own else ""
    return f"End for ever the {what} {device.device_id} ({age}){here}?"


def _age(created: Any, now_ms: int) -> str:
    hours = max(0, int(now_ms / 1000 - created.timestamp())) // 3600
    if hours < 1:
        return "within the last hour"
    count, unit = (hours, "hour") if hours < 48 else (hours // 24, "day")
    return f"{count} {unit}{'' if count == 1 else 's'} ago"


def _consequences(device: Device) -> list[str]:
    lines = []
    if device.label in {"agent", "runner"}:
        lines.append("Your site does not work without it.")
    if device.own:
        lines.append("This profile is logged out, and its keys are of no use any more.")
    return lines


def _told(end: DeviceEnd) -> list[str]:
    listed = (
        "It is out of your device list: nothing is sealed for it any more."
        if end.unlisted
        else "It was not in your device list."
    )
    login = "The hub had revoked it before."
    if end.revoked:
        login = "Its login and open calls have ended everywhere."
    elif not end.known:
        login = "The hub never saw it log in."
    return [f"Ended the device {end.device_id}.", listed, login, *(["Logged out here."] if end.own else [])]


def _nested(value: object) -> bool:
    return isinstance(value, dict | list)
