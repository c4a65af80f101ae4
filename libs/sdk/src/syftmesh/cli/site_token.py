"""Verbs of join tokens: site token create, ls, revoke; by the owner, or by the hub's operator at its socket."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from syftmesh_core.errors import InvalidInput
from syftmesh_core.principal import normalise_principal

from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.operator import PAGE, admin_socket, at_identity
from syftmesh.cli.output import Table, moment_text
from syftmesh.cli.quantity import duration_s

_STDOUT: Final = Path("-")
_STATES: Final = {1: "open", 2: "redeemed", 3: "revoked", 4: "expired"}


def register(site: typer.Typer) -> None:
    """Add the group to the group `site`."""
    token = group(site, "token", "Single-use rights by which a device joins.")
    verb(
        token,
        "create",
        example="syftmesh site token create --label profile --ttl 1h --out token\n"
        "syftmesh site token create --email alice@hospital.example --quiet\n"
        "syftmesh site token create --domain hospital.example --label profile",
    )(create)
    verb(token, "ls", example="syftmesh site token ls --json")(ls)
    verb(token, "revoke", example="syftmesh site token revoke 0199a1b2-c3d4-7000-8000-0123456789ab")(revoke)


def create(
    frame: Frame,
    email: Annotated[str | None, typer.Option(metavar="EMAIL", help="Who may redeem it; you.")] = None,
    domain: Annotated[
        str | None,
        typer.Option(metavar="DOMAIN", help="Instead: anybody whose e-mail is of it; for administrators."),
    ] = None,
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
    is_operator = admin_socket(frame) is not None
    if email is not None and domain is not None:
        raise InvalidInput(
            "A token is for an e-mail or for a domain, not for both.",
            reason="DOMAIN_INVALID",
            hint="Leave --email or --domain away.",
        )
    if is_operator and email is None and domain is None:
        raise InvalidInput(
            "Say for whom the token is.",
            reason="EMAIL_MISSING",
            hint="syftmesh site token create --email you@example.org",
        )
    named = normalise_principal(email) if email is not None else ""
    kind = label or ("profile" if is_operator else "agent")

    async def make(identity: Any, own: str) -> Any:
        whom = "" if domain is not None else named or own
        request = pb.CreateJoinTokenRequest(
            principal=whom, domain=domain or "", label=kind, ttl_seconds=ttl_s
        )
        return await identity.CreateJoinToken(request)

    answer = at_identity(frame, make)
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
            request = pb.ListJoinTokensRequest(page_size=PAGE, page_token=following)
            answer = await identity.ListJoinTokens(request)
            found += answer.join_tokens
            following = answer.next_page_token
            if not following:
                return found

    items = [_document(token, with_state=True) for token in at_identity(frame, gather)]
    columns = ["token_id", "for", "label", "state", "expires"]
    rows = [[{**item, "for": _whom(item)}[column] for column in columns] for item in items]
    frame.emit({"items": items}, Table(columns, rows, "There are no join tokens."))


def revoke(
    frame: Frame, token_id: Annotated[str, typer.Argument(metavar="ID", help="From the list.")]
) -> None:
    """Take back a join token that nobody has used; one that was used, revoked or expired stays as it is."""
    from mesh.identity.v1 import identity_service_pb2 as pb

    async def take_back(identity: Any, _own: str) -> None:
        await identity.RevokeJoinToken(pb.RevokeJoinTokenRequest(token_id=token_id))

    at_identity(frame, take_back)
    frame.emit({"token_id": token_id}, f"Nobody joins with {token_id} any more.")


def _document(token: Any, *, with_state: bool) -> dict[str, object]:
    found: dict[str, object] = {"token_id": token.token_id, "email": token.principal, "label": token.label}
    if token.domain:
        found["domain"] = token.domain
    if with_state:
        found["state"] = _STATES.get(token.state, "unknown")
    return {**found, "expires": moment_text(token.expires_at.ToDatetime(tzinfo=UTC))}


def _whom(item: dict[str, object]) -> str:
    """Return who may redeem a token, or who of the domain has."""
    return str(item["email"] or f"@{item['domain']}")
