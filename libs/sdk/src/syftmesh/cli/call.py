"""Verbs of calls: rpc call, result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from syftmesh_core.errors import InvalidInput
from syftmesh_core.url import parse_url

from syftmesh.cli.file import show_bytes
from syftmesh.cli.frame import Frame, group, verb
from syftmesh.cli.local import read_file
from syftmesh.cli.output import Block, jsonable
from syftmesh.cli.quantity import duration_s, json_value

_BYTES: Final = "application/octet-stream"


def register(app: typer.Typer) -> typer.Typer:
    """Add the verbs to `app` and return their group."""
    rpc = group(app, "rpc", "Calls to apps of other sites, sealed end to end.")
    url = "syft://bob@x.example/app_data/pingpong/rpc/ping"
    verb(rpc, "call", example=f"syftmesh rpc call {url} --data '{{\"n\": 1}}'")(call)
    verb(rpc, "result", example="syftmesh rpc result 01890a5d-ac96-774b-bcce-b302099a8057")(result)
    return rpc


def call(
    frame: Frame,
    url: Annotated[str, typer.Argument(metavar="URL", help="syft://EMAIL/app_data/APP/rpc/ENDPOINT")],
    data: Annotated[str | None, typer.Option(metavar="JSON", help="What to send.")] = None,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to send: JSON by its suffix .json, else bytes.")
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for the reply.")] = "30s",
    send: Annotated[bool, typer.Option("--send", help="Do not wait: print an id for `rpc result`.")] = False,
) -> None:
    """Call an endpoint and write its reply to stdout."""
    address = str(parse_url(url))
    timeout_s = duration_s(timeout)
    body, content_type = _body(data, file)
    options: dict[str, Any] = {} if content_type is None else {"content_type": content_type}
    with frame.client() as client:
        if send:
            call_id = client.rpc.send(address, body, **options)
            frame.emit({"url": address, "id": call_id}, str(call_id))
            frame.note(f"next: syftmesh rpc result {call_id}")
            return
        reply = client.rpc.call(address, body, timeout_s=timeout_s, **options)
    _show_reply(frame, {"url": address}, reply)


def result(
    frame: Frame,
    call_id: Annotated[str, typer.Argument(metavar="ID", help="From --send.")],
    timeout: Annotated[str, typer.Option(metavar="DURATION", help="How long to wait for it.")] = "500ms",
    site: Annotated[
        str | None,
        typer.Option(metavar="EMAIL", help="The site that was called, for calls not sent from here."),
    ] = None,
) -> None:
    """Write the reply of a call that was sent earlier to stdout; while there is none, exit 6."""
    timeout_s = duration_s(timeout)
    with frame.client() as client:
        reply = client.rpc.result(call_id, timeout_s=timeout_s, site=site)
    _show_reply(frame, {"id": call_id}, reply)


def _body(data: str | None, file: Path | None) -> tuple[Any, str | None]:
    if data is not None and file is not None:
        raise InvalidInput(
            "Both --data and --file say what to send; give one of them.", reason="DATA_AMBIGUOUS"
        )
    if data is not None:
        return json_value(data, "--data"), None
    if file is None:
        return None, None
    content = read_file(file)
    if file.suffix == ".json":
        return json_value(content, str(file)), None
    return content, _BYTES


def _show_reply(frame: Frame, document: dict[str, object], reply: Any) -> None:
    if isinstance(reply, bytes):
        show_bytes(frame, reply, document)
        return
    plain = jsonable(reply)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    frame.emit({**document, "reply": plain}, Block(text))
