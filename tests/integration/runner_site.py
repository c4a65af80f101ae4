"""A runner as a process of its own, with the real sandbox and socket; hub and key directory are folders.

Started by the tests: ``python runner_site.py FOLDER``. Submissions are taken from ``FOLDER/calls``, through the
inbox that the serving loop uses.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from mesh.rpc.v1 import content_pb2, rpc_pb2
from prometheus_client import CollectorRegistry
from syftmesh_client.inbox import SqliteInbox
from syftmesh_client.incoming import IncomingCall, OutReply, Transaction
from syftmesh_core.clock import SystemClock, system_random
from syftmesh_core.errors import NotFound
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_executor.sandbox import SandboxExecutor
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.telemetry import configure_telemetry
from syftmesh_runner.app import RunnerModule, Surroundings, assemble
from syftmesh_runner.settings import RunnerSettings

OWNER, CAROL = "alice@hospital.example", "carol@lab.example"
ROOTS = {OWNER: b"\x01" * 32, CAROL: b"\x02" * 32}


@dataclass(frozen=True)
class Keys:
    principal: str
    root: bytes
    version: int
    devices: tuple[DevicePublic, ...]


class FolderDirectory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def devices_of(self, principal: str, *, refresh: bool = False) -> Keys:
        secrets = [DeviceSecret.from_bytes(path.read_bytes()) for path in sorted(self._folder.iterdir())]
        devices = tuple(secret.public() for secret in secrets if secret.principal == principal)
        if not devices:
            raise NotFound("unknown", reason="PRINCIPAL_UNKNOWN")
        return Keys(principal, ROOTS[principal], 1, devices)


class FolderHub:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def write(self, path: str, data: bytes) -> int:
        place = self._folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return len(data)

    async def delete(self, path: str) -> None:
        (self._folder / path).unlink(missing_ok=True)

    async def reseal(self, path: str) -> None:
        return

    async def readers(self, path: str) -> frozenset[str]:
        return frozenset({CAROL})


async def take_calls(module: RunnerModule, folder: Path) -> None:
    """Hand each file of `folder` to the endpoint `submit`, in one commit with the inbox entry."""
    inbox = SqliteInbox(module.database.connection, lock=module.database.lock)
    while True:
        for path in sorted(folder.glob("*.call")):
            call = IncomingCall(
                call_id=path.stem,
                sender=CAROL,
                sender_root=ROOTS[CAROL],
                sender_device="d",
                site=OWNER,
                app="rds",
                endpoint="submit",
                request=content_pb2.RequestContent(body=path.read_bytes()),
                expires_ms=1 << 60,
            )
            inbox.accept(call)
            tx = Transaction()
            returned = await module.endpoints.handle(call, tx)

            def end(call_id: str = path.stem, tx: Transaction = tx, reply: object = returned) -> OutReply:
                content = tx.content(reply)  # type: ignore[arg-type]
                return OutReply(call_id, rpc_pb2.CALL_STATE_COMPLETED, content.SerializeToString())

            await asyncio.to_thread(inbox.finish, path.stem, end)
            path.rename(path.with_suffix(".done"))
        await asyncio.sleep(0.05)


async def serve(folder: Path) -> None:
    settings = RunnerSettings(state_dir=folder / "state", memory_bytes=512 << 20)
    surroundings = Surroundings(
        device=DeviceSecret.from_bytes((folder / "devices/runner").read_bytes()),
        keys=FolderDirectory(folder / "devices"),
        hub=FolderHub(folder / "hub"),
        executor=SandboxExecutor(),
        clock=SystemClock(),
        random=system_random,
    )
    module = assemble(settings, surroundings)
    interceptor = ServerInterceptor(
        verifier=None, metrics=RpcMetrics(CollectorRegistry()), public_methods=module.public_methods
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        async with ServiceHost([module], interceptor=interceptor, address=module.address).running():
            taking = asyncio.create_task(take_calls(module, folder / "calls"))
            sys.stdout.write("ready\n")
            sys.stdout.flush()
            await stop.wait()
            taking.cancel()
    finally:
        module.close()


if __name__ == "__main__":
    configure_telemetry("runner", json_lines=True)
    asyncio.run(serve(Path(sys.argv[1])))
