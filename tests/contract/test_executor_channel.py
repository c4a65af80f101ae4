"""The two pipes of a run, held against each executor: words go both ways, and an end is seen as one."""

from __future__ import annotations

import asyncio
import os
from io import FileIO
from pathlib import Path

import pytest
from syftmesh_core.errors import WrongState
from syftmesh_executor import EndReason, Executor, Limits, RunSpec

_ECHO = (
    "import os\n"
    "read, write = map(int, os.environ['CHANNEL'].split(','))\n"
    "while block := os.read(read, 65536):\n"
    "    os.write(write, block[::-1])\n"
)


class Ends:
    """Our ends of a run's pipes, and the run."""

    def __init__(self, folder: Path, code: str, limits: Limits | None = None) -> None:
        place = folder / "code"
        place.mkdir()
        (place / "main.py").write_text(code)
        their_read, self.write = os.pipe()
        self.read, their_write = os.pipe()
        self.spec = RunSpec(
            run_id="run-1",
            code_dir=place,
            entrypoint="main.py",
            datasets={},
            output_dir=folder / "output",
            limits=limits or Limits(wall_s=20),
            channel=(FileIO(their_read, "rb"), FileIO(their_write, "wb")),
        )

    async def receive(self) -> bytes:
        async with asyncio.timeout(45):
            return await asyncio.to_thread(os.read, self.read, 65536)


@pytest.fixture
def ends(tmp_path: Path) -> Ends:
    return Ends(tmp_path, _ECHO)


async def test_words_go_both_ways_and_the_run_ends_when_the_pipe_closes(
    executor: Executor, ends: Ends
) -> None:
    run = asyncio.create_task(executor.run(ends.spec))
    for word in (b"first", b"second"):
        os.write(ends.write, word)
        assert await ends.receive() == word[::-1]
    os.close(ends.write)
    outcome = await run
    assert outcome.reason is EndReason.OK
    assert await ends.receive() == b""


async def test_the_end_of_a_run_is_the_end_of_its_pipes(executor: Executor, ends: Ends) -> None:
    run = asyncio.create_task(executor.run(ends.spec))
    os.write(ends.write, b"ready")
    assert await ends.receive() == b"ydaer"
    await executor.cancel("run-1")
    assert await ends.receive() == b""
    assert (await run).reason is EndReason.CANCELLED


async def test_code_that_dies_closes_its_pipes(executor: Executor, tmp_path: Path) -> None:
    dying = Ends(tmp_path, "import os; os._exit(3)")
    run = asyncio.create_task(executor.run(dying.spec))
    assert await dying.receive() == b""
    outcome = await run
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXIT_NONZERO, 3)


async def test_a_run_that_is_refused_closes_its_pipes(executor: Executor, ends: Ends) -> None:
    first = asyncio.create_task(executor.run(ends.spec))
    os.write(ends.write, b"on")
    await ends.receive()
    their_read, write = os.pipe()
    read, their_write = os.pipe()
    from dataclasses import replace

    second = replace(ends.spec, channel=(FileIO(their_read, "rb"), FileIO(their_write, "wb")))
    with pytest.raises(WrongState):
        await executor.run(second)
    second.close_channel()
    assert await asyncio.to_thread(os.read, read, 10) == b""
    os.close(write)
    os.close(ends.write)
    await first


async def test_without_a_channel_there_is_no_variable(executor: Executor, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "main.py").write_text("import os; print('CHANNEL' in os.environ)")
    outcome = await executor.run(RunSpec("run-1", code, "main.py", {}, tmp_path / "out"))
    assert outcome.stdout == b"False\n"
