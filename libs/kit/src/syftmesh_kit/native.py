"""Launchers of the two native servers of embedded mode: nats-server and SeaweedFS (S3)."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx
from syftmesh_core.errors import NotFound

from syftmesh_kit.address import socket_path
from syftmesh_kit.durability import assert_sync_always
from syftmesh_kit.process import (
    ChildProcess,
    RestartListener,
    find_binary,
    free_ports,
    require_free,
    write_secret_file,
)
from syftmesh_kit.s3 import S3Config

MAX_PAYLOAD_BYTES: Final = 1024 * 1024
_LOOPBACK: Final = "127.0.0.1"
_CLIENT_FILE: Final = "client.json"


@dataclass(frozen=True, slots=True)
class NatsAddress:
    """Where a nats-server listens and how to log in."""

    url: str
    monitor_url: str
    user: str
    password: str = field(repr=False)


class NatsServer:
    """A nats-server with JetStream on disk, every write synced before it is acknowledged.

    Args:
        state: Folder for configuration (0600) and store.
        port: Client port; 0 picks a free one, and keeps it across restarts of the child.
        monitor_port: Monitoring port, loopback only; 0 picks a free one.
        on_restart: See `ChildProcess`.
    """

    def __init__(
        self, state: Path, *, port: int = 0, monitor_port: int = 0, on_restart: RestartListener | None = None
    ) -> None:
        self._state = state
        self._port = port
        self._monitor_port = monitor_port
        self._on_restart = on_restart
        self._child: ChildProcess | None = None

    @property
    def pid(self) -> int:
        """Return the process id, 0 when it does not run."""
        return self._child.pid if self._child is not None else 0

    async def start(self, tasks: asyncio.TaskGroup) -> NatsAddress:
        """Start it and return its address.

        Raises:
            Unavailable: A port is taken (PORT_IN_USE) or it does not start (PROCESS_START_FAILED).
            IntegrityFailure: It does not sync every write (STORE_NOT_DURABLE).
        """
        fresh = free_ports(2)
        port, monitor_port = self._port or fresh[0], self._monitor_port or fresh[1]
        require_free({"nats": port, "nats monitoring": monitor_port})
        password = secrets.token_urlsafe(24)
        address = NatsAddress(
            f"nats://{_LOOPBACK}:{port}", f"http://{_LOOPBACK}:{monitor_port}", "syftmesh", password
        )
        config = self._state / "nats.conf"
        write_secret_file(config, self._config(port, monitor_port, password))
        self._child = ChildProcess(
            "nats-server",
            [find_binary("nats-server"), "-c", str(config)],
            ready=lambda: _answers(f"{address.monitor_url}/healthz"),
            log_path=self._state / "nats.log",
            start_timeout_s=10.0,
            on_restart=self._on_restart,
        )
        await self._child.start(tasks)
        await assert_sync_always(address.monitor_url)
        return address

    async def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            await self._child.stop()

    def _config(self, port: int, monitor_port: int, password: str) -> str:
        return f"""\
server_name: syftmesh
host: {_LOOPBACK}
port: {port}
http: {json.dumps(f"{_LOOPBACK}:{monitor_port}")}
max_payload: {MAX_PAYLOAD_BYTES}
jetstream {{
  store_dir: {json.dumps(str(self._state / "jetstream"))}
  sync_interval: always
}}
authorization {{ users: [ {{ user: syftmesh, password: {json.dumps(password)} }} ] }}
"""


class SeaweedServer:
    """SeaweedFS as the S3 of embedded mode, with flags that start in seconds and send no telemetry.

    Args:
        state: Folder for configuration (0600) and data.
        port: S3 port; 0 picks a free one.
        bucket: Bucket the returned configuration names (made by `S3ObjectStore.ensure_bucket`).
        on_restart: See `ChildProcess`.
    """

    def __init__(
        self,
        state: Path,
        *,
        port: int = 0,
        bucket: str = "syftmesh",
        on_restart: RestartListener | None = None,
    ) -> None:
        self._state = state
        self._port = port
        self._bucket = bucket
        self._on_restart = on_restart
        self._child: ChildProcess | None = None

    @property
    def pid(self) -> int:
        """Return the process id, 0 when it does not run."""
        return self._child.pid if self._child is not None else 0

    async def start(self, tasks: asyncio.TaskGroup) -> S3Config:
        """Start it and return how to reach it.

        Raises:
            Unavailable: A port is taken (PORT_IN_USE) or it does not start (PROCESS_START_FAILED).
        """
        names = ["s3", "master", "volume", "filer"]
        found = free_ports(2 * len(names))
        ports = dict(zip(names, found[: len(names)], strict=True))
        grpc = dict(zip([f"{name} grpc" for name in names], found[len(names) :], strict=True))
        ports["s3"] = self._port or ports["s3"]
        require_free({**ports, **grpc})
        access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
        config = self._state / "s3.json"
        write_secret_file(config, _identities(access_key, secret_key))
        data = self._state / "data"
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        endpoint = f"http://{_LOOPBACK}:{ports['s3']}"
        self._child = ChildProcess(
            "seaweedfs",
            [find_binary("weed"), *self._flags(data, config, ports, grpc)],
            ready=lambda: _answers(f"{endpoint}/healthz"),
            log_path=self._state / "weed.log",
            environment={"GOMEMLIMIT": "200MiB", "GOGC": "50"},
            # The filer waits 15 s for the subscriptions of its own S3 server before anything else happens; all
            # that was acknowledged is with the kernel by then, so there is nothing to wait for.
            stopped_text="Shut down successfully",
            stop_timeout_s=1.0,
            on_restart=self._on_restart,
        )
        await self._child.start(tasks)
        address = S3Config(endpoint, access_key, secret_key, self._bucket)
        write_secret_file(self._state / _CLIENT_FILE, _client_file(address))
        return address

    async def stop(self) -> None:
        """Stop it."""
        if self._child is not None:
            await self._child.stop()

    def _flags(self, data: Path, config: Path, ports: dict[str, int], grpc: dict[str, int]) -> list[str]:
        return [
            "server",
            "-s3",
            "-filer",
            f"-dir={data}",
            f"-ip={_LOOPBACK}",
            f"-ip.bind={_LOOPBACK}",
            f"-master.port={ports['master']}",
            f"-master.port.grpc={grpc['master grpc']}",
            "-master.peers=none",  # alone: it leads at once instead of waiting for others, and so do its volumes
            "-master.electionTimeout=500ms",
            "-master.heartbeatInterval=100ms",
            "-master.telemetry=false",
            "-master.volumeSizeLimitMB=128",
            f"-volume.port={ports['volume']}",
            f"-volume.port.grpc={grpc['volume grpc']}",
            "-volume.max=32",
            "-volume.index=leveldb",
            "-volume.preStopSeconds=0",
            f"-filer.port={ports['filer']}",
            f"-filer.port.grpc={grpc['filer grpc']}",
            f"-filer.localSocket={_socket(self._state, 'filer')}",
            f"-s3.port={ports['s3']}",
            f"-s3.port.grpc={grpc['s3 grpc']}",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.concurrentUploadLimitMB=64",
            f"-s3.localSocket={_socket(self._state, 's3')}",
            f"-s3.config={config}",
        ]


def seaweed_address(state: Path) -> S3Config:
    """Return how to reach the `SeaweedServer` that was started on `state` last, for whoever may read its folder.

    Raises:
        NotFound: None was started there, or this user may not read it (OBJECT_STORE_UNKNOWN).
    """
    try:
        found = json.loads((state / _CLIENT_FILE).read_bytes())
        return S3Config(found["endpoint"], found["access_key"], found["secret_key"], found["bucket"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NotFound(
            "The address of the mesh's object store cannot be read: is the mesh up, and yours?",
            reason="OBJECT_STORE_UNKNOWN",
            hint="syftmesh up",
        ) from error


def _client_file(address: S3Config) -> str:
    names = ("endpoint", "access_key", "secret_key", "bucket")
    return json.dumps({name: getattr(address, name) for name in names})


def _socket(state: Path, name: str) -> Path:
    return socket_path(state / f"{name}.sock")


def _identities(access_key: str, secret_key: str) -> str:
    identity = {
        "name": "syftmesh",
        "credentials": [{"accessKey": access_key, "secretKey": secret_key}],
        "actions": ["Admin", "Read", "Write", "List"],
    }
    return json.dumps({"identities": [identity]})


async def _answers(url: str) -> bool:
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=1.0) as client:
            return (await client.get(url)).status_code == 200
    except httpx.HTTPError:
        return False
