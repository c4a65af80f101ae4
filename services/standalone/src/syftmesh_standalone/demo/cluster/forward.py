"""A port of the cluster on this machine: `kubectl port-forward`, begun again when it ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from syftmesh_core.errors import Unavailable
from syftmesh_kit.process import ChildProcess, find_binary, free_ports

HOST: Final = "127.0.0.1"
_START_S: Final = 30.0
_CONNECT_S: Final = 1.0


class PortForward:
    """One port of a Service, reached on a loopback port that stays the same.

    Args:
        namespace: Of the Service.
        service: Its name.
        port: Its port.
        log_path: File that takes what kubectl says.
    """

    def __init__(self, namespace: str, service: str, port: int, log_path: Path) -> None:
        (self.port,) = free_ports(1)
        self._words = f"the port-forward to {service}"
        self._child = ChildProcess(
            self._words,
            [
                find_binary("kubectl"),
                "port-forward",
                f"--namespace={namespace}",
                f"--address={HOST}",
                f"service/{service}",
                f"{self.port}:{port}",
            ],
            ready=self._is_open,
            log_path=log_path,
            environment=_environment(),
            start_timeout_s=_START_S,
        )
        self._log_path = log_path

    async def start(self, tasks: asyncio.TaskGroup) -> None:
        """Open it; from a task in `tasks` it is begun again whenever it ends.

        Raises:
            Unavailable: PROCESS_START_FAILED, with the last words of kubectl.
        """
        try:
            await self._child.start(tasks)
        except Unavailable as error:
            said = await asyncio.to_thread(self._last_words)
            raise Unavailable(
                f"{self._words} cannot be opened: {said}", reason=error.reason, metadata=error.metadata
            ) from error

    async def stop(self) -> None:
        """Close it."""
        await self._child.stop()

    def _last_words(self) -> str:
        with suppress(OSError):
            return self._log_path.read_text(errors="replace").strip()[-300:]
        return "kubectl said nothing"

    async def _is_open(self) -> bool:
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, writer = await asyncio.open_connection(HOST, self.port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return True


def _environment() -> Mapping[str, str]:
    # kubectl may need whatever a provider's credential plugin needs.
    return dict(os.environ)
