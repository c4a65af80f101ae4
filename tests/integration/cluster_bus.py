"""A nats-server with the chart's users, their passwords made by the bootstrap."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from syftmesh_cluster.bootstrap import Bootstrap
from syftmesh_cluster.plan import Plan
from syftmesh_cluster.secret_target import FolderTarget
from syftmesh_core.clock import SystemClock
from syftmesh_kit.process import ChildProcess, find_binary, free_ports

USERS_FILE = Path(__file__).parents[2] / "charts/syftmesh/files/nats-users.conf"
USERS = ("identity", "sync", "permissions", "crypto", "router", "superlink", "tools")
NAMES = ["nats", "m-nats", "localhost", "127.0.0.1"]


@dataclass(frozen=True)
class Server:
    """Where it listens, and the folder of its secrets as the bootstrap made them."""

    url: str
    monitor: str
    secrets: Path
    log: Path

    def password(self, user: str) -> str:
        return (self.secrets / f"m-nats-{user}" / "password").read_text()

    def violations(self) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if "Violation" in line]


async def make_secrets(folder: Path) -> None:
    """Make what the chart's bootstrap makes for the bus."""
    document = {
        "ca": {"secret": "m-ca"},
        "leaves": [
            {"secret": "m-tls-nats", "names": NAMES},
            {"secret": "m-tls-tools", "names": ["tools", "m-tools"]},
        ],
        "nats": {"secret": "m-nats-server", "users": {user: f"m-nats-{user}" for user in USERS}},
    }
    await Bootstrap(Plan.model_validate(document), FolderTarget(folder), SystemClock()).run()


@asynccontextmanager
async def bus_server(folder: Path, *, tls: bool = False, sync: str = "always") -> AsyncIterator[Server]:
    """Run the server for the block."""
    secrets = folder / "secrets"
    secrets.mkdir(parents=True, exist_ok=True)
    await make_secrets(secrets)
    port, monitor = free_ports(2)
    address, log = f"http://127.0.0.1:{monitor}", folder / "nats.log"
    config = secrets / "m-nats-server" / "nats.conf"
    shutil.copy(USERS_FILE, config.parent / "users.conf")
    config.write_text(_config(folder, port, monitor, sync=sync, tls=secrets if tls else None))

    child = ChildProcess(
        "nats-server",
        [find_binary("nats-server"), "-c", str(config)],
        ready=_begun(log),
        log_path=log,
        start_timeout_s=10.0,
    )
    async with asyncio.TaskGroup() as tasks:
        await child.start(tasks)
        try:
            scheme = "tls" if tls else "nats"
            yield Server(f"{scheme}://127.0.0.1:{port}", address, secrets, log)
        finally:
            await child.stop()


def _config(folder: Path, port: int, monitor: int, *, sync: str, tls: Path | None) -> str:
    leaf = tls / "m-tls-nats" if tls else None
    secured = (
        f"tls {{ cert_file: {json.dumps(str(leaf / 'tls.crt'))}, key_file: {json.dumps(str(leaf / 'tls.key'))}, "
        f"ca_file: {json.dumps(str(leaf / 'ca.crt'))}, verify: true }}"
        if leaf
        else ""
    )
    return f"""\
server_name: test
host: 127.0.0.1
port: {port}
http: "127.0.0.1:{monitor}"
jetstream {{ store_dir: {json.dumps(str(folder / "jetstream"))}, sync_interval: {sync} }}
{secured}
include ./users.conf
"""


@asynccontextmanager
async def bus_cluster(folder: Path, count: int) -> AsyncIterator[tuple[list[Server], list[ChildProcess]]]:
    """Run several servers as one bus, without TLS, for the block."""
    secrets = folder / "secrets"
    secrets.mkdir(parents=True)
    await make_secrets(secrets)
    shutil.copy(USERS_FILE, secrets / "m-nats-server" / "users.conf")
    ports = free_ports(3 * count)
    routes = ", ".join(f"nats://127.0.0.1:{port}" for port in ports[2::3])
    servers, children = [], []
    for number in range(count):
        port, monitor, route = ports[3 * number : 3 * number + 3]
        config = secrets / "m-nats-server" / f"nats-{number}.conf"
        text = _config(folder / str(number), port, monitor, sync="always", tls=None)
        text = text.replace("server_name: test", f"server_name: n{number}")
        config.write_text(f"{text}cluster {{ name: c, listen: 127.0.0.1:{route}, routes: [{routes}] }}\n")
        log = folder / f"nats-{number}.log"
        servers.append(Server(f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}", secrets, log))
        command = [find_binary("nats-server"), "-c", str(config)]
        children.append(ChildProcess(f"nats-{number}", command, ready=_begun(log), log_path=log))
    async with asyncio.TaskGroup() as tasks:
        for child in children:
            await child.start(tasks)
        try:
            yield servers, children
        finally:
            for child in children:
                await child.stop()


def _begun(log: Path) -> Callable[[], Awaitable[bool]]:
    async def ready() -> bool:
        return log.exists() and "Server is ready" in log.read_text()

    return ready
