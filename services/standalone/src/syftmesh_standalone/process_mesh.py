"""``--processes``: every service of hub and sites as a process of its own, started again when it dies."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from syftmesh_client.profile import STATE_VARIABLE
from syftmesh_client.site import SiteFolders
from syftmesh_kit.process import ChildProcess, RestartListener, free_ports
from syftmesh_kit.s3 import S3Config

from syftmesh_standalone.options import (
    AGENT_SOCKET,
    DOMAINS,
    ISSUER,
    LOOPBACK,
    RUNNER_SOCKET,
    SIGNING_KEY_FILE,
    SUPERLINK_FOLDER,
    HubPlace,
    local_token,
)
from syftmesh_standalone.preflight import SITES_FOLDER
from syftmesh_standalone.readiness import is_serving
from syftmesh_standalone.store import Stores

SERVICE_OF: Final = {
    "identity": "identity",
    "sync": "sync",
    "permissions": "permissions",
    "crypto": "crypto",
    "rpc": "router",
    "federated": "superlink",
}
"""The service behind each domain."""

DRAIN_S: Final = 1.0
ROUTER_LEASE_S: Final = "5.0"
"""There is one router: the sooner its lease ends after a kill, the sooner its successor serves the sites."""

_STOP_S: Final = 1.5
_START_S: Final = 30.0
_WITH_STORE: Final = frozenset({"sync", "permissions", "crypto", "router"})
_INHERITED: Final = ("PYTHONPATH", "TMPDIR", "XDG_RUNTIME_DIR", "LANG", "LC_ALL", "TZ")
"""What decides where modules, sockets and temporary files are; the rest of our environment stays here."""


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """One service as a process.

    Attributes:
        name: Its name in ``mesh.json``.
        service: Name of the service, which is that of its module and its variables.
        address: Where its gRPC server listens, health included.
        settings: Its settings by field; they go into the environment, never into arguments.
        log: File that takes its output.
        state: The state folder, for the program's own use and for whoever looks whose process it is.
    """

    name: str
    service: str
    address: str
    settings: Mapping[str, str]
    log: Path
    state: Path

    def environment(self, ours: Mapping[str, str]) -> dict[str, str]:
        """Return its environment beside PATH and HOME.

        Args:
            ours: The environment of this process, of which it gets what concerns it.
        """
        prefix = f"SYFTMESH_{self.service.upper()}_"
        shared = {
            name: value for name, value in ours.items() if name in _INHERITED or name.startswith(prefix)
        }
        own = {f"{prefix}{name.upper()}": value for name, value in self.settings.items()}
        return {**shared, STATE_VARIABLE: str(self.state), **own}

    def command(self) -> list[str]:
        """Return the command line."""
        # -P: a folder that happens to be the current one gives no modules.
        return [sys.executable, "-P", "-m", f"syftmesh_{self.service}"]


class ProcessGroup:
    """Services that run together; their process ids are looked up by name."""

    def __init__(self, specs: Sequence[ServiceSpec], on_restart: RestartListener) -> None:
        self._children = {spec.name: _child(spec, on_restart) for spec in specs}

    def children(self) -> dict[str, int]:
        """Return the process ids by name."""
        return {name: child.pid for name, child in self._children.items()}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run them for the block, which begins when all serve.

        Raises:
            Unavailable: One did not start (PROCESS_START_FAILED), in a group; its log says why.
        """
        async with asyncio.TaskGroup() as tasks:
            try:
                async with asyncio.TaskGroup() as starting:
                    for child in self._children.values():
                        starting.create_task(child.start(tasks))
                yield
            finally:
                async with asyncio.TaskGroup() as stopping:
                    for child in self._children.values():
                        stopping.create_task(child.stop())


def hub_specs(place: HubPlace, stores: Stores) -> list[ServiceSpec]:
    """Return the services of the hub; each gets a port of its own, which it keeps when it is restarted."""
    services = list(SERVICE_OF.values())
    ports = dict(zip([*services, "gateway", "flower"], free_ports(len(services) + 2), strict=True))
    addresses = {name: f"{LOOPBACK}:{port}" for name, port in ports.items()}
    bus = stores.bus
    common = {"nats_url": bus.url, "nats_user": bus.user, "nats_password": bus.password}
    own = {
        "identity": {
            "signing_key_file": str(place.folder / SIGNING_KEY_FILE),
            "local_token_file": str(local_token(place.folder)),
        },
        "superlink": {
            "state_dir": str(place.folder / SUPERLINK_FOLDER),
            "http_listen": addresses["flower"],
        },
        **{name: _store_settings(stores.s3) for name in _WITH_STORE},
    }
    own["router"]["lease_s"] = ROUTER_LEASE_S
    backends = {domain: addresses[SERVICE_OF[domain]] for domain in DOMAINS}
    gateway = {
        "http_host": LOOPBACK,
        "http_port": str(place.http_port),
        "advertised_grpc": place.grpc,
        "forward_listen": place.grpc,
        "backends": json.dumps(backends),
        "superlink_http": f"http://{addresses['flower']}",
        "advertised_flower": place.flower,
        "s3_endpoint": stores.s3.endpoint,
    }
    listed = [(name, {**common, **own.get(name, {})}) for name in services]
    return [
        _spec(
            name,
            name,
            addresses[name],
            {"listen": addresses[name], **settings},
            place.folder,
            place.folder.parent,
        )
        for name, settings in [*listed, ("gateway", gateway)]
    ]


def site_specs(state: Path, email: str, server: str, token: Path) -> list[ServiceSpec]:
    """Return agent and runner of a site; they listen on the sockets in its folder."""
    folders = SiteFolders.of(state, email)
    agent = {
        "folder": str(folders.agent),
        "hub_url": server,
        "local_token_file": str(token),
        "listen": "",
        "runner_socket": str(folders.runner / RUNNER_SOCKET),
    }
    runner = {
        "state_dir": str(folders.runner),
        "keystore_dir": str(folders.runner_keys),
        "server_url": server,
        "local_token_file": str(token),
    }
    programs = (
        ("agent", f"unix:{folders.agent / AGENT_SOCKET}", agent),
        ("runner", f"unix:{folders.runner / RUNNER_SOCKET}", runner),
    )
    logs = state / SITES_FOLDER / email
    return [
        _spec(f"{service} {email}", service, address, settings, logs, state)
        for service, address, settings in programs
    ]


def _spec(
    name: str, service: str, address: str, settings: Mapping[str, str], logs: Path, state: Path
) -> ServiceSpec:
    common = {"issuer": ISSUER, "log_json": "true", "drain_s": str(DRAIN_S)}
    return ServiceSpec(name, service, address, {**common, **settings}, logs / f"{service}.log", state)


def _store_settings(s3: S3Config) -> dict[str, str]:
    return {
        "s3_endpoint": s3.endpoint,
        "s3_access_key": s3.access_key,
        "s3_secret_key": s3.secret_key,
        "s3_bucket": s3.bucket,
        "s3_region": s3.region,
        "s3_url_base": s3.url_base,
    }


def _child(spec: ServiceSpec, on_restart: RestartListener) -> ChildProcess:
    return ChildProcess(
        spec.name,
        spec.command(),
        ready=lambda: is_serving(spec.address),
        log_path=spec.log,
        environment=spec.environment(os.environ),
        start_timeout_s=_START_S,
        stop_timeout_s=_STOP_S,
        on_restart=on_restart,
    )
