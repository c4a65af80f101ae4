"""A console's program for the tests: the real desk, with an owner's client that is simulated."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from syftmesh.review import Finding
from syftmesh_core.errors import WrongState
from syftmesh_standalone.demo.cluster.console import Desk, serve


class Mock:
    async def read(self, name: str) -> bytes:
        return f"mock {name}".encode()


class Dataset:
    mock = Mock()


class Datasets:
    async def get(self, name: str) -> Any:
        del name
        return Dataset()


class Jobs:
    async def get(self, job_id: str, *, times: int = 1) -> list[Finding]:
        return [Finding("info", "RULE", job_id, 0, "", "text")] * times

    async def approve(self, job_id: str) -> None:
        raise WrongState("no", reason="APPROVAL_MISMATCH", metadata={"job": job_id})

    async def hang(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            Path(os.environ["TEST_FOLDER"], "cancelled").write_text("yes")

    async def cancelled(self) -> bool:
        return Path(os.environ["TEST_FOLDER"], "cancelled").exists()

    async def die(self) -> None:
        os._exit(9)

    async def object(self) -> object:
        return object()


class Site:
    jobs = Jobs()
    datasets = Datasets()


class Client:
    site = Site()


def main(email: str) -> None:
    output, sys.stdout = sys.stdout, sys.stderr

    def write(line: str) -> None:
        output.write(line + "\n")
        output.flush()

    sys.stdout.write("words of a library\n")
    state = Path(os.environ["TEST_FOLDER"])
    write(json.dumps({"ready": True}))
    asyncio.run(serve(Desk(Client(), email, state, state).operations, sys.stdin.readline, write))
