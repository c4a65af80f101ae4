"""The site that answers calls, in a process of its own: echoes what it gets.

``bench.site peer ADDRESS`` serves the bare relay, ``bench.site plain FOLDER SERVER`` the router with bodies as they
are, ``bench.site sealed FOLDER SERVER`` the router by the product's own serving loop (seals, inbox, rights).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
from bench.peer import SERVICE
from mesh.rpc.v1 import rpc_pb2 as pb
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1.content_pb2 import ReplyContent
from syftmesh_client.inbox import SqliteInbox, open_database
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_client.node import Node, open_node


class Echo:
    """An app that gives back what it gets."""

    idempotent = True

    async def handle(self, request: IncomingCall, _tx: Transaction) -> ReplyContent:
        """Return the request's body."""
        return ReplyContent(body=request.request.body)


async def serve_peer(address: str) -> None:
    """Echo on the relay."""
    async with grpc.aio.insecure_channel(address) as channel:
        stream: Any = channel.stream_stream(f"/{SERVICE}/Serve")()
        await stream.wait_for_connection()
        _say_ready()
        async for frame in stream:
            await stream.write(frame)


async def serve_plain(node: Node) -> None:
    """Echo on the router's own stream, bodies unopened."""
    stream: Any = node.session.rpc.Serve()
    hello = rpc.ServeRequest.Hello(site=node.principal, apps=["*"], highest_epoch=0)
    await stream.write(rpc.ServeRequest(hello=hello))
    async for frame in stream:
        kind = frame.WhichOneof("frame")
        if kind == "welcome":
            _say_ready()
        elif kind == "delivery":
            message = frame.delivery.message
            call_id = message.envelope.call_id
            await stream.write(rpc.ServeRequest(received=rpc.ServeRequest.Received(call_id=call_id)))
            reply = pb.Reply(call_id=call_id, state=pb.CALL_STATE_COMPLETED, body=message.body)
            await stream.write(rpc.ServeRequest(reply=reply))


async def serve_sealed(node: Node, folder: Path) -> None:
    """Echo by the product's serving loop."""
    inbox = SqliteInbox(open_database(folder / "bench.sqlite"))
    loop = node.serving(inbox, {"*": Echo()})
    running = asyncio.create_task(loop.run(asyncio.Event()))
    await loop.wait_connected()
    _say_ready()
    await running


async def _main(kind: str, *where: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    if kind == "peer":
        await serve_peer(where[0])
        return
    folder, server = Path(where[0]), where[1]
    async with open_node(folder, server) as node:
        await (serve_plain(node) if kind == "plain" else serve_sealed(node, folder))


def _say_ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        asyncio.run(_main(*sys.argv[1:]))
    except asyncio.CancelledError:
        sys.exit(0)
