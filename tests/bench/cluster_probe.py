"""Calls in a loop through the hub's one port, by the owner's device in the console of a site.

`cluster_recovery` sends this file into the console, whose image has none of it but what it imports. Each line of
standard input is answered by one line of JSON: the name of a call begins a loop of it, ``run`` tells how many of its
latest calls succeeded in a row, ``mark`` forgets what was before the latest success, ``tell`` ends the loop and tells
its samples.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import httpx
from mesh.crypto.v1 import crypto_service_pb2 as crypto
from mesh.crypto.v1 import crypto_service_pb2_grpc as crypto_api
from mesh.federated.v1 import federated_service_pb2 as federated
from mesh.federated.v1 import federated_service_pb2_grpc as federated_api
from mesh.identity.v1 import identity_service_pb2 as identity
from mesh.identity.v1 import identity_service_pb2_grpc as identity_api
from mesh.permissions.v1 import permissions_pb2, permissions_service_pb2
from mesh.permissions.v1 import permissions_service_pb2_grpc as permissions_api
from mesh.rds.v1 import rds_pb2
from mesh.rpc.v1 import rpc_service_pb2 as rpc
from mesh.rpc.v1 import rpc_service_pb2_grpc as rpc_api
from mesh.rpc.v1.content_pb2 import RequestContent
from mesh.sync.v1 import sync_service_pb2 as sync
from mesh.sync.v1 import sync_service_pb2_grpc as sync_api
from syftmesh_client.node import Node, open_node
from syftmesh_client.profile import ProfileStore, default_state
from syftmesh_core.errors import MeshError, NotFound
from syftmesh_kit.channel import open_channel

CALL_S: Final = 2.0
"""Longer than any of the calls takes; one without an answer counts as failed then."""
PAUSE_S: Final = 0.05
URL_S: Final = 20.0
"""A pre-signed URL holds for 60 s."""
UNKNOWN: Final = "00000000-0000-7000-8000-000000000000"

Call = Callable[[], Awaitable[Any]]


class Calls:
    """One cheap call to each part of the hub, without the SDK's own retries.

    Args:
        node: The owner's device.
        channel: To the hub's port.
        http: For objects.
        file: Path of a file of the owner's.
    """

    def __init__(self, node: Node, channel: Any, http: httpx.AsyncClient, file: str) -> None:
        self._node = node
        self._http = http
        self._file = file
        self._url, self._url_s = "", -URL_S
        self._identity: Any = identity_api.IdentityServiceStub(channel)
        self._sync: Any = sync_api.SyncServiceStub(channel)
        self._permissions: Any = permissions_api.PermissionServiceStub(channel)
        self._crypto: Any = crypto_api.KeyDirectoryServiceStub(channel)
        self._rpc: Any = rpc_api.RpcServiceStub(channel)
        self._federated: Any = federated_api.FederationServiceStub(channel)

    def named(self, name: str) -> Call:
        """Return the call that is asked for by its name."""
        found: Call = getattr(self, f"{name}_call")
        return found

    async def identity_call(self) -> None:
        """Who am I."""
        await self._identity.WhoAmI(identity.WhoAmIRequest(), timeout=CALL_S)

    async def sync_call(self) -> None:
        """What is my file."""
        await self._sync.StatFiles(sync.StatFilesRequest(paths=[self._file]), timeout=CALL_S)

    async def permissions_call(self) -> None:
        """May I read my file."""
        question = permissions_pb2.Question(path=self._file, level=permissions_pb2.LEVEL_READ)
        request = permissions_service_pb2.CheckPermissionRequest(question=question)
        await self._permissions.CheckPermission(request, timeout=CALL_S)

    async def crypto_call(self) -> None:
        """Which devices have I."""
        await self._crypto.ListDevices(
            crypto.ListDevicesRequest(principal=self._node.principal), timeout=CALL_S
        )

    async def router_call(self) -> None:
        """Where is a call that never was: the router looks it up on the bus."""
        with _expected("CALL_UNKNOWN"):
            await self._rpc.GetReply(rpc.GetReplyRequest(call_id=UNKNOWN), timeout=CALL_S)

    async def superlink_call(self) -> None:
        """Which runs are there."""
        await self._federated.ListRuns(federated.ListRunsRequest(page_size=1), timeout=CALL_S)

    async def store_call(self) -> None:
        """Get the bytes of an object by a pre-signed URL."""
        if time.monotonic() - self._url_s > URL_S:
            answer = await self._sync.OpenDownload(
                sync.OpenDownloadRequest(paths=[self._file]), timeout=CALL_S
            )
            self._url, self._url_s = answer.targets[0].url, time.monotonic()
        (await self._http.get(self._url)).raise_for_status()

    async def site_call(self) -> None:
        """Ask a site for a job that never was: sealed, through the router, answered by the site's runner."""
        body = rds_pb2.JobReference(job_id=UNKNOWN).SerializeToString()
        url = f"syft://{self._node.principal}/app_data/rds/rpc/status"
        with _expected("JOB_UNKNOWN"):
            await self._node.calls.call(url, RequestContent(body=body), timeout_s=CALL_S)


class Loop:
    """One call after the other.

    Args:
        call: The call.
        pause_s: Between the end of one and the beginning of the next.
    """

    def __init__(self, call: Call, *, pause_s: float = PAUSE_S) -> None:
        self.samples: list[tuple[float, str]] = []
        """When each call ended (s), and why it failed; empty for one that succeeded."""
        self._call = call
        self._pause_s = pause_s
        self.task = asyncio.create_task(self._run())

    @property
    def in_a_row(self) -> int:
        """How many of the latest calls succeeded."""
        failed = (number for number, (_, why) in enumerate(reversed(self.samples)) if why)
        return next(failed, len(self.samples))

    def mark(self) -> None:
        """Forget what was before the latest success."""
        successes = [number for number, (_, why) in enumerate(self.samples) if not why]
        if successes:
            del self.samples[: successes[-1]]

    async def end(self) -> None:
        """End it; raises what is no failure of a call."""
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            await self.task

    async def _run(self) -> None:
        while True:
            why = await _failure(self._call)
            self.samples.append((time.monotonic(), why))
            await asyncio.sleep(self._pause_s)


@contextmanager
def _expected(reason: str) -> Iterator[None]:
    """Take a NotFound of this reason for an answer of the part that is asked."""
    try:
        yield
    except NotFound as error:
        if error.reason != reason:
            raise


async def _failure(call: Call) -> str:
    try:
        async with asyncio.timeout(CALL_S):
            await call()
    except MeshError as error:
        return error.reason
    except TimeoutError:
        return "TIMEOUT"
    except httpx.HTTPStatusError as error:
        return f"HTTP_{error.response.status_code}"
    except httpx.HTTPError as error:
        return type(error).__name__
    return ""


async def main(email: str) -> None:
    """Answer lines until there are no more."""
    profile = ProfileStore(default_state()).find(email)
    if profile is None:
        raise SystemExit(f"{email} has no profile here")
    async with open_node(profile.folder, profile.server) as node:
        file = f"{email}/bench.txt"
        await node.files.write(file, bytes(1024))
        tls = node.trust.credentials()
        channel = open_channel(
            node.well_known.grpc_address, token_provider=node.session.access_token, tls=tls
        )
        async with channel, node.trust.object_client(profile.server, timeout_s=CALL_S) as http:
            _say("ready")
            await _answer(Calls(node, channel, http, file))


async def _answer(calls: Calls) -> None:
    loop: Loop | None = None
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if line == "run":
            _say(0 if loop is None else loop.in_a_row)
        elif line == "mark":
            if loop is not None:
                loop.mark()
            _say("marked")
        elif line == "tell":
            if loop is not None:
                await loop.end()
            _say([] if loop is None else loop.samples)
        else:
            loop = Loop(calls.named(line))
            _say("begun")


def _say(word: Any) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
