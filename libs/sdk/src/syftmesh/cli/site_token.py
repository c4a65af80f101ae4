"""Verbs of join tokens: site token create, ls, revoke; by the owner, or by the hub's operator at its socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from syftmesh_core.errors import InvalidInput
from syftmesh_core.principal import normalise_principal

from syftmesh.cli.device import on_device
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.output import Table, moment_text
from syftmesh.cli.quantity import duration_s

ADMIN_SOCKET_VARIABLE: Final = "SYFTMESH_ADMIN_SOCKET"
_PAGE: Final = 200
_STDOUT: Final = Path("-")
_STATES: Final = {1: "open", 2: "redeemed", 3: "revoked", 4: "expired"}

Result = TypeVar("Result")


def register(site: typer.Typer) -> None:
    """Add the group to the group `site`."""
    token = group(site, "token", "Single-use rights by which a device joins.")
    verb(
        token,
        "create",
        example="syftmesh site token create --label profile --ttl 1h --out token\n"
        "syftmesh site token create --email alice@hospital.example --quiet",
    )(create)
    verb(token, "ls", example="syftmesh site token ls --json")(ls)
    verb(token, "revoke", example="syftmesh site token revoke 0199a1b2-c3d4-7000-8000-0123456789ab")(revoke)


def create(
    frame: Frame,
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="Who may redeem it; you.")] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Kind of device: profile, agent or runner; agent, and profile for an operator."),
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="DURATION", help="How long it can be redeemed.")] = "1d",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write it to a new file of mode 0600; - is stdout."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="The token alone on stdout.")] = False,
) -> None:
    """Make a token that lets one device join, once.

    Where SYFTMESH_ADMIN_SOCKET names the socket of the hub's identity service, as in its pod, the operator makes
    it for anybody and no profile is needed.
    """
    from mesh.identity.v1 import identity_service_pb2 as pb

    from syftmesh.cli.local import write_file

    ttl_s = max(1, round(duration_s(ttl)))
    is_operator = _socket(frame) is not None
    if is_operator and email is None:
        raise InvalidInput(
            "Say for whom the token is.",
            reason="EMAIL_MISSING",
            hint="syftmesh site token create --email you@example.org",
        )
    named = normalise_principal(email) if email is not None else ""
    kind = label or ("profile" if is_operator else "agent")

    async def make(identity: Any, own: str) -> Any:
        request = pb.CreateJoinTokenRequest(principal=named or own, label=kind, ttl_seconds=ttl_s)
        return await identity.CreateJoinToken(request)

    answer = _at_identity(frame, make)
    if quiet or out == _STDOUT:
        frame.emit_bytes(f"{answer.secret}\n".encode())
        return
    document = {**_document(answer.join_token, with_state=False)}
    if out is None:
        document["token"] = answer.secret
    else:
        write_file(out, f"{answer.secret}\n".encode(), mode=0o600)
        document["file"] = str(out)
    frame.emit(document)
    frame.note("The token works once and is not shown again.")


def ls(frame: Frame) -> None:
    """List the join tokens that you made, or that the hub's operator made; never the tokens themselves."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    async def gather(identity: Any, _own: str) -> list[Any]:
        found: list[Any] = []
        following = ""
        while True:
            request = pb.ListJoinTokensRequest(page_size=_PAGE, page_token=following)
            answer = await identity.ListJoinTokens(request)
            found += answer.join_tokens
            following = answer.next_page_token
            if not following:
                return found

    items = [_document(token, with_state=True) for token in _at_identity(frame, gather)]
    columns = ["token_id", "email", "label", "state", "expires"]
    rows = [[item[column] for column in columns] for item in items]
    frame.emit({"items": items}, Table(columns, rows, "There are no join tokens."))


def revoke(
    frame: Frame, token_id: Annotated[str, typer.Argument(metavar="ID", help="From the list.")]
) -> None:
    """Take back a join token that nobody has used; one that was used, revoked or expired stays as it is."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    async def take_back(identity: Any, _own: str) -> None:
        await identity.RevokeJoinToken(pb.RevokeJoinTokenRequest(token_id=token_id))

    _at_identity(frame, take_back)
    frame.emit({"token_id": token_id}, f"Nobody joins with {token_id} any more.")


def _at_identity(frame: Frame, work: Callable[[Any, str], Awaitable[Result]]) -> Result:
    """Do `work` with a stub of the identity service and one's own e-mail, which an operator has none of."""
    place = _socket(frame)
    if place is not None:
        return asyncio.run(_as_operator(place, work))

    async def as_owner(node: Any) -> Result:
        return await work(node.session.identity, node.principal)

    return on_device(frame, as_owner)


async def _as_operator(place: Path, work: Callable[[Any, str], Awaitable[Result]]) -> Result:
    from mesh.identity.v1 import identity_service_pb2_grpc as api
    from syftmesh_kit.channel import open_channel

    channel = open_channel(f"unix:{place}")
    try:
        return await work(api.IdentityServiceStub(channel), "")
    finally:
        await channel.close()


def _socket(frame: Frame) -> Path | None:
    named = frame.surroundings.environ.get(ADMIN_SOCKET_VARIABLE)
    return Path(named) if named else None


def _document(token: Any, *, with_state: bool) -> dict[str, object]:
    found: dict[str, object] = {"token_id": token.token_id, "email": token.principal, "label": token.label}
    if with_state:
        found["state"] = _STATES.get(token.state, "unknown")
    return {**found, "expires": moment_text(token.expires_at.ToDatetime(tzinfo=UTC))}
