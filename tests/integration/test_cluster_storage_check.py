"""The check of the object store accepts a store that conforms, and names what a wrong one does not keep."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from syftmesh_cluster.storage_check import PASSED_KEY, check_store
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import IntegrityFailure
from syftmesh_kit.process import free_ports
from syftmesh_kit.s3 import S3Config, S3ObjectStore

pytestmark = pytest.mark.integration

CLOCK = SystemClock()
CHECKS = [
    "bucket: syftmesh",
    "clock",
    "read-after-write",
    "conditional-create",
    "create-race",
    "compare-and-swap",
    "ranged-reads",
    "listing",
    "delete",
    "presigned-put",
    "presigned-expiry",
    "unsigned-refused",
]


def program(config: S3Config, **more: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    own = {
        "SYFTMESH_S3_ENDPOINT": config.endpoint,
        "SYFTMESH_S3_ACCESS_KEY": config.access_key,
        "SYFTMESH_S3_SECRET_KEY": config.secret_key,
        "SYFTMESH_S3_URL_BASE": "/objects",
    }
    command = [sys.executable, "-m", "syftmesh_cluster.storage_check"]
    return subprocess.run(command, env={**kept, **own, **more}, capture_output=True, text=True, check=False)


async def test_a_store_that_conforms_is_accepted_and_left_clean(s3):
    done = await asyncio.to_thread(program, s3)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:-2] == [f"ok    {name}" for name in CHECKS]
    assert lines[-2].startswith("note  free-space: unknown")
    assert [info.key async for info in S3ObjectStore(s3).list("check/")] == [PASSED_KEY]
    assert s3.secret_key not in done.stdout


async def test_a_store_that_passed_is_not_checked_again_where_once_is_enough(s3):
    await S3ObjectStore(s3).delete(PASSED_KEY)
    first = await asyncio.to_thread(program, s3, SYFTMESH_ONCE="true")
    assert "ok    conditional-create" in first.stdout
    again = await asyncio.to_thread(program, s3, SYFTMESH_ONCE="true")
    assert (again.returncode, again.stdout.splitlines()) == (
        0,
        ["ok    bucket: syftmesh", "ok    passed before"],
    )
    assert "ok    conditional-create" in (await asyncio.to_thread(program, s3)).stdout


def test_wrong_keys_are_told_at_once(s3):
    done = program(replace(s3, secret_key="wrong"), SYFTMESH_WAIT_S="60")
    assert done.returncode == 1
    assert done.stderr.startswith("STORE_REFUSED: ")


def test_a_store_that_is_not_there_is_waited_for_only_so_long(s3):
    done = program(replace(s3, endpoint="http://127.0.0.1:9"), SYFTMESH_WAIT_S="2")
    assert done.returncode == 1
    assert done.stdout.splitlines() == ["wait  the store does not answer yet (OBJECT_STORE_AWAY)"]
    assert done.stderr.startswith("OBJECT_STORE_AWAY: ")


def test_a_wrong_setting_is_named(s3):
    done = program(s3, SYFTMESH_WAIT_S="soon")
    assert done.returncode == 2
    assert "SYFTMESH_WAIT_S" in done.stderr


class Proxy:
    """Passes everything on to a good store, but for what `spoil` changes in request or answer."""

    def __init__(self, target: S3Config, spoil: Any) -> None:
        self._target = target
        self._spoil = spoil

    async def answer(self, request: Request) -> Response:
        headers = {name: value for name, value in request.headers.items() if name != "connection"}
        path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        body = await request.body()
        given = self._spoil.before(request.method, request.url.path, headers)
        if given is not None:
            return given
        async with httpx.AsyncClient(trust_env=False) as client:
            found = await client.request(
                request.method, self._target.endpoint + path, headers=headers, content=body or None
            )
        kept = {
            name: value
            for name, value in found.headers.items()
            if name in {"etag", "date", "last-modified", "content-type", "content-range"}
        }
        status, content, kept = self._spoil.after(request, found.status_code, found.content, kept)
        if request.method == "HEAD":
            kept["content-length"] = found.headers.get("content-length", "0")
        return Response(content, status_code=status, headers=kept)


class Spoil:
    """Spoils nothing."""

    def before(self, method: str, path: str, headers: dict[str, str]) -> Response | None:
        return None

    def after(self, request: Request, status: int, content: bytes, headers: dict[str, str]) -> Any:
        return status, content, headers


class NoCreate(Spoil):
    """Says of a refused conditional PUT that it was done."""

    def after(self, request, status, content, headers):
        lost = request.method == "PUT" and status == 412 and "if-none-match" in request.headers
        return (200 if lost else status), content, headers


class NoSwap(Spoil):
    """Says of a refused replacement that it was done."""

    def after(self, request, status, content, headers):
        lost = request.method == "PUT" and status == 412 and "if-match" in request.headers
        return (200 if lost else status), content, headers


class NoRange(Spoil):
    """Gives the whole object."""

    def before(self, method, path, headers):
        headers.pop("range", None)


class LateClock(Spoil):
    """Lives in another time."""

    def after(self, request, status, content, headers):
        return status, content, {**headers, "date": "Thu, 01 Jan 2026 00:00:00 GMT"}


class Open(Spoil):
    """Lets everybody in."""

    def after(self, request, status, content, headers):
        return (200 if status == 403 and not request.url.query else status), content, headers


@contextmanager
def served(s3: S3Config, spoil: Spoil) -> Iterator[S3Config]:
    """A store that is good but for one thing."""
    methods = ["GET", "HEAD", "PUT", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", Proxy(s3, spoil).answer, methods=methods)])
    (port,) = free_ports(1)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            host="127.0.0.1",
            port=port,
            log_level="error",
            date_header=False,
            ws="none",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield replace(s3, endpoint=f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.mark.parametrize(
    ("spoil", "failing"),
    [
        (NoCreate(), {"conditional-create", "create-race", "presigned-put"}),
        (NoSwap(), {"compare-and-swap"}),
        (NoRange(), {"ranged-reads"}),
        (LateClock(), {"clock"}),
        (Open(), {"unsigned-refused"}),
    ],
    ids=lambda given: type(given).__name__,
)
async def test_a_wrong_store_is_refused_for_what_it_does_not_keep(s3, spoil, failing, capsys):
    with served(s3, spoil) as wrong:
        with pytest.raises(IntegrityFailure) as refused:
            await check_store(wrong, CLOCK, 10)
    assert refused.value.reason == "STORE_NOT_CONFORMANT"
    shown = capsys.readouterr().out
    failed = {line.split()[1].rstrip(":") for line in shown.splitlines() if line.startswith("fail")}
    assert failed == failing
    assert set(refused.value.metadata["checks"].split(", ")) == failing
