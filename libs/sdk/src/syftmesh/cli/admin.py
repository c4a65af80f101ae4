"""Verbs of administrators: admin user revoke, reinstate, ls and admin keys rotate.

By an administrator's login, or by the hub's operator at its socket.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from syftmesh_core.principal import normalise_principal

from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.operator import PAGE, at_identity
from syftmesh.cli.output import Table

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="The person.")]


def register(app: typer.Typer) -> typer.Typer:
    """Add the group to `app` and return it."""
    admin = group(app, "admin", "Administration of a hub, for its administrators and its operator.")
    user = group(admin, "user", "People who may log in, or not any more.")
    verb(user, "revoke", example="syftmesh admin user revoke eve@lab.example --yes")(revoke)
    verb(user, "reinstate", example="syftmesh admin user reinstate eve@lab.example")(reinstate)
    verb(user, "ls", example="syftmesh admin user ls --json")(ls)
    keys = group(admin, "keys", "The keys that the hub signs access tokens with.")
    verb(keys, "rotate", example="syftmesh admin keys rotate")(rotate)
    return admin


def revoke(frame: Frame, email: Email) -> None:
    """End a person at this hub: devices, tokens and open calls at once, and no login until reinstated."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    name = normalise_principal(email)
    frame.confirm(f"End {name} with all devices? A reinstatement needs new devices.")

    async def end(identity: Any, _own: str) -> None:
        await identity.RevokePrincipal(pb.RevokePrincipalRequest(principal=name))

    at_identity(frame, end)
    frame.emit({"email": name, "revoked": True}, f"{name} is out, and may not log in any more.")


def reinstate(frame: Frame, email: Email) -> None:
    """Let a revoked person log in again, with new devices: those from before stay revoked."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    name = normalise_principal(email)

    async def let_in(identity: Any, _own: str) -> None:
        await identity.ReinstatePrincipal(pb.ReinstatePrincipalRequest(principal=name))

    at_identity(frame, let_in)
    frame.emit({"email": name, "revoked": False}, f"{name} may log in again, with a new device.")


def ls(frame: Frame) -> None:
    """List the people who were ever at this hub."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    async def gather(identity: Any, _own: str) -> list[Any]:
        found: list[Any] = []
        following = ""
        while True:
            answer = await identity.ListPrincipals(
                pb.ListPrincipalsRequest(page_size=PAGE, page_token=following)
            )
            found += answer.principals
            following = answer.next_page_token
            if not following:
                return found

    items = [
        {"email": person.principal, "devices": person.devices, "revoked": person.revoked}
        for person in at_identity(frame, gather)
    ]
    rows = [[item["email"], item["devices"], "revoked" if item["revoked"] else ""] for item in items]
    frame.emit({"items": items}, Table(["email", "devices", "state"], rows, "Nobody was here yet."))


def rotate(frame: Frame) -> None:
    """Begin to sign access tokens with a fresh key; tokens of the one before hold until they end."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    async def begin(identity: Any, _own: str) -> str:
        answer = await identity.RotateSigningKey(pb.RotateSigningKeyRequest())
        return str(answer.key_id)

    key_id = at_identity(frame, begin)
    frame.emit({"key_id": key_id}, f"The key {key_id} is published, and signs in a minute.")
