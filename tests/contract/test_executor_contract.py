"""What every executor does, held against each of them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.errors import InvalidInput, LimitExceeded, NotFound, WrongState
from syftmesh_executor import EndReason, Executor, Limits, RunLeft, RunSpec

sys.path.insert(0, str(Path(__file__).parent))

from executor_cluster import CLUSTER_S, on_cluster, on_gvisor, until_up

MakeSpec = Callable[..., RunSpec]


@pytest.fixture
def make_spec(tmp_path: Path) -> MakeSpec:
    def make(code: str, *, datasets: dict[str, Path] | None = None, **fields: object) -> RunSpec:
        folder = tmp_path / "code"
        folder.mkdir(exist_ok=True)
        (folder / "main.py").write_text(code)
        data = tmp_path / "data"
        data.mkdir(exist_ok=True)
        (data / "table.csv").write_text("a\n1\n")
        (data / "table.csv").chmod(0o600)
        values: dict[str, object] = {
            "run_id": "run-1",
            "code_dir": folder,
            "entrypoint": "main.py",
            "datasets": {"people": data} if datasets is None else datasets,
            "output_dir": tmp_path / "output",
            "limits": Limits(wall_s=20),
        }
        return RunSpec(**{**values, **fields})  # type: ignore[arg-type]

    return make


async def test_code_reads_data_and_parameters_and_writes_output(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    code = (
        "import json, os, pathlib\n"
        "data = pathlib.Path(os.environ['DATA_DIR'], 'table.csv').read_text()\n"
        "out = pathlib.Path(os.environ['OUTPUT_DIR'])\n"
        "(out / 'sub').mkdir()\n"
        "(out / 'sub' / 'result.txt').write_text(data + json.loads(os.environ['PARAMETERS'])['word'])\n"
        "print('done')\n"
    )
    outcome = await executor.run(make_spec(code, parameters={"word": "äöü"}))
    assert (outcome.reason, outcome.exit_code, outcome.stdout) == (EndReason.OK, 0, b"done\n"), outcome
    assert [file.path for file in outcome.output_files] == ["sub/result.txt"]
    assert (tmp_path / "output/sub/result.txt").read_text() == "a\n1\näöü"
    assert outcome.output_files[0].size_bytes == len("a\n1\näöü".encode())
    assert outcome.started_ms <= outcome.ended_ms
    assert outcome.findings == ()


async def test_several_data_sets_lie_in_folders_of_their_names(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    single = tmp_path / "single.csv"
    single.write_text("x")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "y.csv").write_text("y")
    code = (
        "import os, pathlib\n"
        "d = pathlib.Path(os.environ['DATA_DIR'])\n"
        "print((d/'one'/'single.csv').read_text(), (d/'two'/'y.csv').read_text(), sorted(os.listdir(d)))\n"
    )
    outcome = await executor.run(make_spec(code, datasets={"one": single, "two": folder}))
    assert outcome.stdout == b"x y ['one', 'two']\n", outcome.stderr


async def test_a_single_data_file_lies_in_the_data_folder(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    single = tmp_path / "single.csv"
    single.write_text("x")
    code = "import os; print(os.listdir(os.environ['DATA_DIR']))"
    outcome = await executor.run(make_spec(code, datasets={"one": single}))
    assert outcome.stdout == b"['single.csv']\n", outcome.stderr


async def test_the_environment_holds_nothing_but_the_contract(
    executor: Executor, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SITE_SECRET", "marked")
    monkeypatch.delenv("OPENBLAS_L2_SIZE", raising=False)
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    outcome = await executor.run(make_spec("import json, os; print(json.dumps(dict(os.environ)))"))
    seen = json.loads(outcome.stdout)
    # LC_CTYPE is set by Python itself where the locale is C.
    assert set(seen) - {"LC_CTYPE"} == {
        "DATA_DIR", "OUTPUT_DIR", "PARAMETERS", "HOME", "PATH", "LANG", "PYTHONDONTWRITEBYTECODE",
        "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE",
    }  # fmt: skip
    assert seen["OPENBLAS_CORETYPE"] == "Haswell"


async def test_a_failing_run_keeps_its_exit_code_and_traceback_and_no_output(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    code = "import os; open(os.environ['OUTPUT_DIR'] + '/x', 'w').write('x'); raise ValueError('because')"
    outcome = await executor.run(make_spec(code))
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXIT_NONZERO, 1)
    assert b"ValueError: because" in outcome.stderr
    assert outcome.output_files == ()
    assert not (tmp_path / "output").exists()


async def test_a_signal_is_told_as_128_and_its_number(executor: Executor, make_spec: MakeSpec) -> None:
    outcome = await executor.run(make_spec("import os; os.kill(os.getpid(), 9)"))
    assert (outcome.reason, outcome.exit_code) == (EndReason.EXIT_NONZERO, 137)


async def test_time_ends_the_whole_tree(executor: Executor, make_spec: MakeSpec, tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: break\n"
        "print('up', flush=True)\n"
        "time.sleep(600)\n"
    )
    began = time.monotonic()
    outcome = await executor.run(make_spec(code, limits=Limits(wall_s=1.0)))
    assert outcome.reason is EndReason.TIMEOUT
    assert time.monotonic() - began < 8 + (CLUSTER_S if on_cluster(executor) else 0)
    assert outcome.ended_ms - outcome.started_ms < 4000
    assert b"up" in outcome.stdout
    assert not _alive(tmp_path)


def _alive(code: Path) -> list[str]:
    """Processes of the host that stand in the run's code folder or run its file in a sandbox."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                cwd = str((entry / "cwd").readlink())
            except OSError:
                continue
            if command.endswith(b"\0main.py\0") and cwd in {"/code", str(code / "code")}:
                found.append(entry.name)
    return found


async def _left(executor: Any, code: Path) -> list[Any]:
    """Whatever is left of a run: on a cluster its Job, which its pod goes with."""
    return await executor.jobs() if on_cluster(executor) else _alive(code)


async def test_cancel_ends_a_run_within_ten_seconds(executor: Executor, make_spec: MakeSpec) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(executor.run(make_spec(code)))
        await until_up(executor, settle_s=0.5)
        began = time.monotonic()
        await executor.cancel("run-1")
    assert run.result().reason is EndReason.CANCELLED
    assert time.monotonic() - began < 10


async def test_cancel_lets_code_that_listens_end_itself(executor: Executor, make_spec: MakeSpec) -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('bye', flush=True), sys.exit(0)))\n"
        "print('up', flush=True); time.sleep(600)\n"
    )
    async with asyncio.TaskGroup() as tasks:
        run = tasks.create_task(executor.run(make_spec(code)))
        await until_up(executor)
        await executor.cancel("run-1")
    assert (run.result().reason, run.result().stdout) == (EndReason.CANCELLED, b"up\nbye\n")


async def test_cancelling_an_unknown_run_does_nothing(executor: Executor) -> None:
    await executor.cancel("nobody")


async def test_a_cancelled_task_leaves_no_process(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    run = asyncio.ensure_future(executor.run(make_spec("import time; time.sleep(600)")))
    await until_up(executor, settle_s=0.5)
    assert await _left(executor, tmp_path)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not await _left(executor, tmp_path)


async def test_an_id_runs_once_at_a_time(executor: Executor, make_spec: MakeSpec) -> None:
    spec = make_spec("import time; time.sleep(600)")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(executor.run(spec))
        await asyncio.sleep(0.1)
        with pytest.raises(WrongState) as caught:
            await executor.run(spec)
        await executor.cancel("run-1")
    assert caught.value.reason == "RUN_EXISTS"


async def test_close_ends_or_leaves_runs_and_refuses_new_ones(
    executor: Executor, make_spec: MakeSpec
) -> None:
    spec = make_spec("import time; time.sleep(600)")
    run = asyncio.create_task(executor.run(spec))
    await until_up(executor, settle_s=0.3)
    await executor.close()
    if on_cluster(executor):
        # It goes on without us, and is found again.
        with pytest.raises(RunLeft):
            await run
    else:
        assert (await run).reason is EndReason.CANCELLED
    with pytest.raises(WrongState):
        await executor.run(spec)


async def test_a_run_that_nobody_found_is_not_adopted(executor: Executor, make_spec: MakeSpec) -> None:
    assert await executor.find(["run-1"]) == frozenset()
    with pytest.raises(NotFound) as caught:
        await executor.adopt(make_spec(""))
    assert caught.value.reason == "RUN_UNKNOWN"


async def test_logs_are_capped_and_keep_both_ends(executor: Executor, make_spec: MakeSpec) -> None:
    code = "import sys; sys.stdout.write('first' + 'x' * 5_000_000 + 'last'); sys.stderr.write('short')"
    outcome = await executor.run(make_spec(code, limits=Limits(wall_s=20, log_bytes=10_000)))
    assert outcome.reason is EndReason.OK
    assert len(outcome.stdout) <= 10_000
    assert outcome.stdout.startswith(b"firstx")
    assert outcome.stdout.endswith(b"xlast")
    assert b"bytes left out" in outcome.stdout
    assert outcome.stderr == b"short"


async def test_output_past_its_size_ends_as_output_limit(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    code = "import os; open(os.environ['OUTPUT_DIR'] + '/big', 'wb').write(bytes(300_000))"
    outcome = await executor.run(make_spec(code, limits=Limits(wall_s=20, output_bytes=200_000)))
    assert outcome.reason is EndReason.OUTPUT_LIMIT, outcome
    assert outcome.output_files == ()
    assert not (tmp_path / "output").exists()


_FINDINGS = (
    ("bad\\udcff", "NAME_UNPRINTABLE"),
    ("bad\\x1b[31m", "NAME_UNPRINTABLE"),
    ("folder", "SYMBOLIC_LINK"),
    ("link", "SYMBOLIC_LINK"),
    ("one", "HARD_LINK"),
    ("pipe", "SPECIAL_FILE"),
    ("two", "HARD_LINK"),
)


async def test_links_pipes_and_second_names_are_left_behind(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "private").write_text("private")
    code = (
        f"import os; os.chdir(os.environ['OUTPUT_DIR'])\n"
        f"os.symlink('{tmp_path}/private', 'link'); os.symlink('/', 'folder'); os.mkfifo('pipe')\n"
        f"open('one', 'w').write('1'); os.link('one', 'two'); open('good', 'w').write('2')\n"
        f"open('bad\\x1b[31m', 'w').write('3'); open(b'bad\\xff', 'w').write('4')\n"
    )
    outcome = await executor.run(make_spec(code))
    assert [file.path for file in outcome.output_files] == ["good"], outcome.stderr
    # A named pipe made in gVisor never leaves its kernel, so nobody else sees it.
    unseen = {"pipe"} if on_gvisor(executor) else set()
    assert sorted((finding.path, finding.reason) for finding in outcome.findings) == [
        entry for entry in _FINDINGS if entry[0] not in unseen
    ]
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["good"]


@pytest.mark.parametrize("entrypoint", ["", "/etc/passwd", "../main.py", "missing.py", "a\0b"])
async def test_an_entrypoint_outside_the_code_is_refused(
    executor: Executor, make_spec: MakeSpec, entrypoint: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        await executor.run(make_spec("", entrypoint=entrypoint))
    assert caught.value.reason == "RUN_SPEC_INVALID"


@pytest.mark.parametrize("run_id", ["", "a/b", "..", "x" * 65, "a b"])
async def test_an_id_that_is_no_name_is_refused(executor: Executor, make_spec: MakeSpec, run_id: str) -> None:
    with pytest.raises(InvalidInput):
        await executor.run(make_spec("", run_id=run_id))


async def test_an_output_folder_in_use_is_refused(
    executor: Executor, make_spec: MakeSpec, tmp_path: Path
) -> None:
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "mine").write_text("")
    with pytest.raises(InvalidInput):
        await executor.run(make_spec(""))


async def test_parameters_that_do_not_fit_are_refused(executor: Executor, make_spec: MakeSpec) -> None:
    with pytest.raises(LimitExceeded) as caught:
        await executor.run(make_spec("", parameters={"word": "x" * 70_000}))
    assert caught.value.reason == "PARAMETERS_TOO_LARGE"
    with pytest.raises(InvalidInput):
        await executor.run(make_spec("", parameters={"number": float("nan")}))
