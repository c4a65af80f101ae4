"""What runs in a pod as one end of the load on a hub: ``serve`` answers calls, ``send`` makes calls and writes files.

It is sent into the pod as its source, with one JSON argument; standard output is its record, a JSON line each. The
operations go by the hub's one TLS port. Every kind is begun at a steady rate, a few at once when they take long, so
that the record shows to a fraction of a second when the hub did not do its work. ``fill`` makes calls to a site that is
not there until the hub takes no more.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import syftmesh
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1.content_pb2 import ReplyContent, RequestContent
from mesh.rpc.v1.rpc_pb2 import CallState
from syftmesh_client.inbox import SqliteInbox, open_database
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_client.node import Node, NodeLogin, open_node
from syftmesh_client.profile import ProfileStore
from syftmesh_client.site import SiteFolders, provision_site
from syftmesh_client.site_join import JOIN_FILE, invite_programs
from syftmesh_core.errors import MeshError

STATE = Path("/tmp/state")
STOP = Path("/tmp/stop")
INBOX = Path("/tmp/inbox.sqlite")
APP = "load"
FILE_BYTES = 2000
UNKNOWN_JOB = "01890a5d-ac96-774b-bcce-b302099a8057"
CALL_S = 10.0
AT_ONCE = 4
"""Of one kind; calls of one sender are delivered in order, so that a longer queue would be what is measured."""
FILL_BYTES = 200_000


def say(**record: Any) -> None:
    """Write one line of the record."""
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def log_in(given: dict[str, Any]) -> Path:
    """Log in with the token that came along, and return the folder of the profile."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    ca, token = STATE / "ca.pem", STATE / "token"
    ca.write_text(given["ca"])
    token.touch(mode=0o600)
    token.write_text(given["token"])
    syftmesh.login(given["server"], email=given["email"], token_file=token, ca_file=ca, state=STATE)
    profile = ProfileStore(STATE).find(given["email"])
    assert profile is not None
    return profile.folder


class Counted:
    """An app that writes down each call with its reply, in one transaction."""

    idempotent = True

    async def handle(self, request: IncomingCall, tx: Transaction) -> ReplyContent:
        """Return the body, and note that the call was answered."""
        tx.execute("INSERT INTO effect VALUES (?)", (request.call_id,))
        return ReplyContent(body=request.request.body)


async def serve(node: Node, given: dict[str, Any]) -> None:
    """Make a site of the own account, and answer calls at it until the stop file is there."""
    folders = SiteFolders.of(STATE, node.principal)
    await provision_site(node, folders)
    await invite_programs(node, folders)
    rules = f'rules:\n  - pattern: "**"\n    access: {{write: ["{given["peer"]}"]}}\n'
    await node.files.write(f"{node.principal}/app_data/{APP}/rpc/syft.pub.yaml", rules.encode())
    database = open_database(INBOX)
    database.execute("CREATE TABLE IF NOT EXISTS effect (id TEXT NOT NULL)")
    login = NodeLogin(join_token_file=folders.agent / JOIN_FILE, label="agent")
    async with open_node(folders.agent, given["server"], login=login) as agent:
        loop = agent.serving(SqliteInbox(database), {APP: Counted()})
        stop = asyncio.Event()
        running = asyncio.create_task(loop.run(stop))
        await loop.wait_connected()
        say(kind="ready")
        while not STOP.exists() and not running.done():
            await asyncio.sleep(0.2)
        stop.set()
        await running


class Sender:
    """Makes the load, and looks in the end what became of it.

    Args:
        node: The caller's device.
        given: ``peer`` that answers, ``sites`` of the mesh, and operations ``per_s`` of each kind.
    """

    def __init__(self, node: Node, given: dict[str, Any]) -> None:
        self._node = node
        self._url = f"syft://{given['peer']}/app_data/{APP}/rpc/echo"
        self._sites = given["sites"]
        self._pause_s = 1 / given["per_s"]
        self._sent: dict[str, str] = {}
        self._files: dict[str, str] = {}

    async def run(self) -> None:
        """Do it all until the stop file is there, then check."""
        async with asyncio.TaskGroup() as tasks:
            for kind, operation in (("send", self.send), ("call", self.call), ("write", self.write)):
                tasks.create_task(self.steadily(kind, operation))
            for site in self._sites:
                tasks.create_task(self.steadily(f"site {site}", lambda n, s=site: self.site(s, n)))
            say(kind="ready")
        await self.check()

    async def steadily(self, kind: str, operation: Callable[[int], Awaitable[None]]) -> None:
        """Begin one operation after the other, and wait for the last of them."""
        number, places = 0, asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as tasks:
            while not STOP.exists():
                await places.acquire()
                number += 1
                task = tasks.create_task(self.one(kind, number, operation))
                task.add_done_callback(lambda _: places.release())
                await asyncio.sleep(self._pause_s)

    async def one(self, kind: str, number: int, operation: Callable[[int], Awaitable[None]]) -> None:
        """Do one operation and write down how it ended."""
        begun, reason = time.time(), ""
        try:
            await operation(number)
        except MeshError as error:
            reason = error.reason
        say(kind=kind, n=number, begun=begun, ended=time.time(), reason=reason)

    async def send(self, number: int) -> None:
        """Store a call durably."""
        call_id = await self._node.calls.send(self._url, _request(number), expires_s=3600)
        self._sent[call_id] = self._url

    async def call(self, number: int) -> None:
        """Call, and wait for the reply."""
        reply = await self._node.calls.call(self._url, _request(number), timeout_s=CALL_S)
        assert reply.body == _request(number).body

    async def write(self, number: int) -> None:
        """Write a file."""
        path = f"{self._node.principal}/public/load/{number}.bin"
        data = _content(path)
        await self._node.files.write(path, data)
        self._files[path] = hashlib.sha256(data).hexdigest()

    async def site(self, site: str, _number: int) -> None:
        """Store a question to a site of the mesh, which its runner answers: it knows no such job."""
        url = f"syft://{site}/app_data/rds/rpc/status"
        body = rds_pb2.JobReference(job_id=UNKNOWN_JOB).SerializeToString()
        call_id = await self._node.calls.send(url, RequestContent(body=body), expires_s=3600)
        self._sent[call_id] = url

    async def check(self) -> None:
        """Say where every acknowledged call is now, and what is wrong with acknowledged files."""
        limit = asyncio.Semaphore(8)

        async def state(call_id: str) -> str:
            async with limit:
                return await self._final_state(call_id)

        async def damage(path: str) -> str:
            async with limit:
                try:
                    found = (await self._node.files.read(path)).data
                except MeshError as error:
                    return f"{path}: {error.reason}"
            return "" if hashlib.sha256(found).hexdigest() == self._files[path] else f"{path}: other bytes"

        states = await asyncio.gather(*(state(call_id) for call_id in self._sent))
        lost = [said for said in await asyncio.gather(*(damage(path) for path in self._files)) if said]
        calls = [
            {"id": call_id, "url": url, "state": found}
            for (call_id, url), found in zip(self._sent.items(), states, strict=True)
        ]
        say(kind="verdict", calls=calls, files=len(self._files), lost=lost)

    async def _final_state(self, call_id: str) -> str:
        deadline = time.monotonic() + 120
        while True:
            try:
                result = await self._node.calls.reply(call_id)
            except MeshError as error:
                return error.reason
            if result.is_final or time.monotonic() > deadline:
                return CallState.Name(result.state).removeprefix("CALL_STATE_")
            await asyncio.sleep(0.5)


def _request(number: int) -> RequestContent:
    return RequestContent(body=str(number).encode())


def _content(path: str) -> bytes:
    return hashlib.shake_256(path.encode()).digest(FILE_BYTES)


async def fill(node: Node, given: dict[str, Any]) -> None:
    """Send until it is refused, and say what a sender and a writer are told then."""
    say(kind="ready")
    number = 0
    try:
        while True:
            await node.calls.send(
                f"syft://{given['peer']}/app_data/{APP}/rpc/echo",
                RequestContent(body=bytes(FILL_BYTES)),
                expires_s=3600,
            )
            number += 1
    except MeshError as error:
        say(kind="full", sent=number, reason=error.reason, message=error.message)
    try:
        await node.files.write(f"{node.principal}/public/more.txt", b"more")
        say(kind="write", reason="", message="")
    except MeshError as error:
        say(kind="write", reason=error.reason, message=error.message)


ROLES: dict[str, Callable[[Node, dict[str, Any]], Awaitable[None]]] = {
    "serve": serve,
    "send": lambda node, given: Sender(node, given).run(),
    "fill": fill,
}


async def main(given: dict[str, Any]) -> None:
    """Log in and do what is asked."""
    folder = await asyncio.to_thread(log_in, given)
    async with open_node(folder, given["server"]) as node:
        await ROLES[given["role"]](node, given)
    # The record and the inbox are read before the pod is taken away.
    await asyncio.sleep(3600)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
