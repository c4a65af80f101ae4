"""Flower's SuperLink as a supervised child process, and what we ask of it over its socket."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import structlog
from syftmesh_core.clock import Random
from syftmesh_core.errors import InvalidInput, MeshError, Unavailable
from syftmesh_kit.address import socket_path
from syftmesh_kit.process import ChildProcess

from syftmesh_superlink.adapters.flower_child import (
    FOLDER_VARIABLE,
    SECRET_HEADER,
    SECRET_VARIABLE,
    SOCKET_VARIABLE,
)
from syftmesh_superlink.domain.ports import Flower, FlowerStatus

ASK_S: Final = 25.0
"""Longest answer of the SuperLink in seconds: its clients wait for 30."""

_START_S: Final = 60.0
_POLL_S: Final = 0.1
_INHERITED: Final = ("PYTHONPATH", "TMPDIR", "XDG_RUNTIME_DIR", "LANG", "LC_ALL", "TZ")

_log: Any = structlog.get_logger("syftmesh.superlink")


@dataclass(frozen=True, slots=True)
class FlowerAnswer:
    """One answer of Flower's, as it came."""

    status: int
    content_type: str
    body: bytes


class SuperLink(Flower):
    """The SuperLink.

    Args:
        folder: The state folder.
        random: Source of its secret.
    """

    def __init__(self, folder: Path, random: Random) -> None:
        self._folder = folder
        self._secret = base64.urlsafe_b64encode(random(32)).decode()
        self._socket = socket_path(folder / "flower.sock")
        self._child = ChildProcess(
            "superlink-flower",
            [sys.executable, "-P", "-m", "syftmesh_superlink.adapters.flower_child"],
            ready=self._serves,
            log_path=folder / "flower.log",
            environment=self._environment(),
            start_timeout_s=_START_S,
            stop_timeout_s=1.5,
        )
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=32)
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(self._socket), limits=limits),
            base_url="http://flower",
            timeout=ASK_S,
            headers={SECRET_HEADER: self._secret.encode()},
        )
        self._tasks: asyncio.TaskGroup | None = None
        self._starting: asyncio.Task[None] | None = None
        self._is_up = False

    @property
    def is_started(self) -> bool:
        """Return whether it was started; it may be on its way back."""
        return self._is_up

    @property
    def pid(self) -> int:
        """Return its process id, 0 while it does not run."""
        return self._child.pid

    def attach(self, tasks: asyncio.TaskGroup) -> None:
        """Take the group in which it is watched."""
        self._tasks = tasks

    async def ensure(self) -> None:
        """Start it, once.

        Raises:
            Unavailable: It did not start (SUPERLINK_AWAY).
        """
        if self._is_up:
            return
        if self._tasks is None:
            raise _away()
        if self._starting is None or self._starting.done():
            self._starting = self._tasks.create_task(self._start())
        await asyncio.shield(self._starting)
        if not self._is_up:
            raise _away()

    async def stop(self) -> None:
        """End it."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})  # a start that is broken off ends its process itself
        await self._child.stop()
        await self._http.aclose()
        self._socket.unlink(missing_ok=True)

    async def pass_on(
        self, path: str, headers: Mapping[str, str], body: bytes, *, account: str = ""
    ) -> FlowerAnswer:
        """Return Flower's answer to a request.

        Args:
            path: One of its routes.
            headers: What its client sent and it has to see.
            body: The request.
            account: For whom, on routes of the Control API.

        Raises:
            Unavailable: It does not answer (SUPERLINK_AWAY).
        """
        await self.ensure()
        try:
            answer = await self._http.post(path, content=body, headers=self._headers(headers, account))
        except httpx.HTTPError:
            raise _away() from None
        return FlowerAnswer(answer.status_code, answer.headers.get("content-type", ""), answer.content)

    async def stream(
        self, path: str, headers: Mapping[str, str], body: bytes, account: str
    ) -> tuple[FlowerAnswer, AsyncIterator[bytes]]:
        """Return the head of an answer without end, and what follows; close it by ending the iteration.

        Raises:
            Unavailable: It does not answer (SUPERLINK_AWAY).
        """
        await self.ensure()
        request = self._http.build_request(
            "POST",
            path,
            content=body,
            headers=self._headers(headers, account),
            timeout=httpx.Timeout(ASK_S, read=None),
        )
        try:
            answer = await self._http.send(request, stream=True)
        except httpx.HTTPError:
            raise _away() from None
        return FlowerAnswer(answer.status_code, answer.headers.get("content-type", ""), b""), _chunks(answer)

    async def start_run(self, account: str, federation: str, bundle: bytes, config: Mapping[str, Any]) -> str:
        """Create a run; raises as `Flower.start_run`."""
        document = {"account": account, "federation": f"@run/{federation}", "config": dict(config)}
        answer = await self._ask("start", document, bundle)
        if "run_id" not in answer:
            raise InvalidInput(
                f"Flower does not take this app: {answer.get('refused', '')}.", reason="BUNDLE_INVALID"
            )
        return str(answer["run_id"])

    async def stop_run(self, run_id: str) -> None:
        """End a run; raises as `Flower.stop_run`."""
        await self._ask("stop", {"run_id": run_id})

    async def claim(self, run_id: str) -> str | None:
        """Return a token of the ServerApp's task; raises as `Flower.claim`."""
        found = (await self._ask("claim", {"run_id": run_id})).get("token")
        return str(found) if found else None

    async def statuses(self, run_ids: Collection[str]) -> Mapping[str, FlowerStatus]:
        """Return where runs are; raises as `Flower.statuses`."""
        answer = await self._ask("status", {"run_ids": list(run_ids)})
        return {run_id: FlowerStatus(status) for run_id, status in answer.items()}

    async def forget_node(self, node_id: int) -> None:
        """Let a node count as gone; raises as `Flower.forget_node`."""
        await self._ask("forget-node", {"node_id": str(node_id)})

    async def _ask(self, action: str, document: Mapping[str, Any], data: bytes = b"") -> dict[str, Any]:
        answer = await self.pass_on(f"/private/{action}", {}, json.dumps(document).encode() + b"\n" + data)
        if answer.status != 200:
            _log.error("superlink.action_failed", action=action, status=answer.status)
            raise _away()
        found: dict[str, Any] = json.loads(answer.body)
        return found

    async def _start(self) -> None:
        tasks = self._tasks
        if tasks is None:
            return
        try:
            await self._child.start(tasks)
        except (MeshError, OSError) as error:
            _log.error("superlink.start_failed", reason=getattr(error, "reason", "OS_ERROR"))
            return
        self._is_up = True
        _log.info("superlink.started", pid=self._child.pid)

    async def _serves(self) -> bool:
        with suppress(httpx.HTTPError):
            if (await self._http.get("/health", timeout=2.0)).status_code == 200:
                return True
        await asyncio.sleep(_POLL_S)
        return False

    def _headers(self, headers: Mapping[str, str], account: str) -> dict[str, str]:
        if not account:
            return dict(headers)
        encoded = base64.urlsafe_b64encode(account.encode()).decode()
        return {**headers, "authorization": f"Bearer {self._secret}.{encoded}"}

    def _environment(self) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        return {
            **inherited,
            FOLDER_VARIABLE: str(self._folder.absolute()),
            SOCKET_VARIABLE: str(self._socket),
            SECRET_VARIABLE: self._secret,
        }


async def _chunks(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    except httpx.HTTPError:
        return  # the SuperLink is being restarted: its client asks again from where it was
    finally:
        await answer.aclose()


def _away() -> Unavailable:
    return Unavailable(
        "Flower's SuperLink does not answer now. Try again in a moment.", reason="SUPERLINK_AWAY"
    )
