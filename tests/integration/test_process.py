"""Child processes: readiness, restart, stop, death with the parent, and what the launchers promise."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from syftmesh_core.errors import IntegrityFailure, NotFound, Unavailable
from syftmesh_kit.durability import assert_sync_always
from syftmesh_kit.native import NatsServer, SeaweedServer
from syftmesh_kit.process import ChildProcess, find_binary, free_ports, is_free, with_parent_death
from syftmesh_kit.s3 import S3ObjectStore

pytestmark = pytest.mark.integration


async def at_once() -> bool:
    return True


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def child(tmp_path: Path, code: str, **settings: object) -> AsyncIterator[ChildProcess]:
    process = ChildProcess(
        "child",
        [sys.executable, "-c", code],
        **{"ready": at_once, "log_path": tmp_path / "logs" / "child.log", **settings},  # type: ignore[arg-type]
    )
    async with asyncio.TaskGroup() as tasks:
        await process.start(tasks)
        try:
            yield process
        finally:
            await process.stop()


async def test_child_that_dies_is_started_again(tmp_path: Path) -> None:
    died: list[tuple[str, int]] = []
    async with child(
        tmp_path, "import time; time.sleep(60)", on_restart=lambda name, code: died.append((name, code))
    ) as process:
        first = process.pid
        os.kill(first, signal.SIGKILL)
        async with asyncio.timeout(10):
            while process.pid in {0, first}:
                await asyncio.sleep(0.02)
    assert died == [("child", -signal.SIGKILL)]
    assert not alive(first)


async def test_child_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path) -> None:
    code = "import signal,time; signal.signal(15, signal.SIG_IGN); print('armed', flush=True); time.sleep(60)"
    log = tmp_path / "logs" / "child.log"

    async def armed() -> bool:
        return log.exists() and "armed" in log.read_text()

    async with child(tmp_path, code, ready=armed, stop_timeout_s=0.3) as process:
        pid = process.pid
        started = time.monotonic()
        await process.stop()
        assert 0.25 < time.monotonic() - started < 3
    assert not alive(pid)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_child_that_never_serves_is_typed_and_leaves_nothing(tmp_path: Path) -> None:
    async def never() -> bool:
        return False

    for code, timeout_s in (("raise SystemExit(3)", 10.0), ("import time; time.sleep(60)", 0.3)):
        process = ChildProcess(
            "child",
            [sys.executable, "-c", code],
            ready=never,
            log_path=tmp_path / "child.log",
            start_timeout_s=timeout_s,
        )
        async with asyncio.TaskGroup() as tasks:
            with pytest.raises(Unavailable) as caught:
                await process.start(tasks)
        assert caught.value.reason == "PROCESS_START_FAILED"
        assert str(tmp_path) not in caught.value.message
        assert process.pid == 0


async def test_child_inherits_no_secrets_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYFTMESH_SECRET", "hunter2")
    log = tmp_path / "logs" / "child.log"

    async def printed() -> bool:
        return log.exists() and "done" in log.read_text()

    code = "import os,time; print(dict(os.environ), 'done', flush=True); time.sleep(60)"
    async with child(tmp_path, code, ready=printed, environment={"GIVEN": "yes"}):
        text = log.read_text()
    assert "hunter2" not in text
    assert "'GIVEN': 'yes'" in text


@pytest.mark.parametrize("setpriv", [True, False], ids=["setpriv", "prctl"])
async def test_children_die_with_a_parent_that_is_killed(tmp_path: Path, setpriv: bool) -> None:  # noqa: FBT001
    script = f"""
import asyncio, shutil, sys
from pathlib import Path
from syftmesh_kit.process import ChildProcess
if not {setpriv}:
    shutil.which = lambda name: None
async def ready(): return True
async def main():
    async with asyncio.TaskGroup() as tasks:
        child = ChildProcess("c", [sys.executable, "-c", "import time; time.sleep(60)"], ready=ready,
                             log_path=Path({str(tmp_path)!r}) / "c.log")
        await child.start(tasks)
        await asyncio.sleep(0.3)
        print(child.pid, flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220
    assert parent.stdout is not None
    pid = int(await asyncio.to_thread(parent.stdout.readline))
    assert alive(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    async with asyncio.timeout(5):
        while alive(pid) and not is_zombie(pid):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("setpriv", [True, False], ids=["setpriv", "prctl"])
def test_a_child_whose_parent_died_before_it_could_be_tied_to_it_does_not_begin(
    tmp_path: Path,
    setpriv: bool,  # noqa: FBT001
) -> None:
    begun = tmp_path / "begun"
    # What ties the child comes late, as on a busy machine, and its parent is gone by then.
    script = f"""
import shutil, subprocess
from syftmesh_kit.process import with_parent_death
if not {setpriv}:
    shutil.which = lambda name: None
tied = with_parent_death(["/bin/sh", "-c", "touch {begun}"])
subprocess.Popen(["/bin/sh", "-c", 'sleep 0.5; exec "$@"', "late", *tied])
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    time.sleep(1.5)
    assert not begun.exists()


def test_a_tied_child_begins_while_its_parent_lives(tmp_path: Path) -> None:
    subprocess.run(with_parent_death(["/bin/sh", "-c", f"touch {tmp_path / 'begun'}"]), check=True)
    assert (tmp_path / "begun").exists()


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_taken_port_is_never_shared(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        for server in (NatsServer(tmp_path, port=port), SeaweedServer(tmp_path, port=port)):
            async with asyncio.TaskGroup() as tasks:
                with pytest.raises(Unavailable) as caught:
                    await server.start(tasks)
            assert caught.value.reason == "PORT_IN_USE"
            assert caught.value.metadata["port"] == str(port)


def test_free_ports_are_different() -> None:
    assert len(set(free_ports(16))) == 16


def test_missing_program_is_typed() -> None:
    with pytest.raises(NotFound) as caught:
        find_binary("no-such-program")
    assert caught.value.reason == "BINARY_MISSING"


async def test_credentials_are_in_private_files_and_not_in_arguments(tmp_path: Path) -> None:
    nats, weed = NatsServer(tmp_path / "nats"), SeaweedServer(tmp_path / "s3")
    async with asyncio.TaskGroup() as tasks:
        address, config = await nats.start(tasks), await weed.start(tasks)
        try:
            arguments = "".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in (nats.pid, weed.pid))
            assert address.password not in arguments
            assert config.secret_key not in arguments
            for file in (tmp_path / "nats" / "nats.conf", tmp_path / "s3" / "s3.json"):
                assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert address.password not in repr(address)
        finally:
            await nats.stop()
            await weed.stop()


async def test_nats_that_does_not_sync_is_refused(tmp_path: Path) -> None:
    port, monitor = free_ports(2)
    config = tmp_path / "nats.conf"
    config.write_text(
        f'port: {port}\nhttp: "127.0.0.1:{monitor}"\njetstream {{ store_dir: "{tmp_path}/js" }}\n'
    )
    process = subprocess.Popen([find_binary("nats-server"), "-c", str(config)], stderr=subprocess.DEVNULL)  # noqa: ASYNC220
    try:
        async with asyncio.timeout(10):
            while is_free(monitor):
                await asyncio.sleep(0.05)
        with pytest.raises(IntegrityFailure) as caught:
            await assert_sync_always(f"http://127.0.0.1:{monitor}")
        assert caught.value.reason == "STORE_NOT_DURABLE"
    finally:
        process.kill()
        process.wait()


async def test_acknowledged_objects_survive_kill_and_restart_on_other_ports(tmp_path: Path) -> None:
    for number in range(2):
        server = SeaweedServer(tmp_path / "s3")
        async with asyncio.TaskGroup() as tasks:
            store = S3ObjectStore(await server.start(tasks))
            await store.ensure_bucket()
            for count in range(30):
                await store.put(f"k/{number}-{count:02d}", b"x" * 100)
            os.kill(server.pid, signal.SIGKILL)
            await server.stop()
    server = SeaweedServer(tmp_path / "s3")
    async with asyncio.TaskGroup() as tasks:
        store = S3ObjectStore(await server.start(tasks))
        keys = [info.key async for info in store.list("k/")]
        assert keys == [f"k/{number}-{count:02d}" for number in range(2) for count in range(30)]
        assert await store.get("k/1-29") == b"x" * 100
        await server.stop()
