"""Starting bubblewrap, holding it at a gate until limits are on, and ending it with everything inside.

The order matters. bubblewrap is executed with an empty environment, because its process 1 shows the
environment it was executed with to the job (``/proc/1/environ``), whatever ``--clearenv`` does to the job
itself. It reports the pid of process 1 after asking the kernel to die with us; process 1 waits at
``--block-fd`` while control group and rlimits are set; then a shell inside reports that all mounts are
there and waits for a word on its standard input. Without that word, so also when we are killed meanwhile,
it ends and the job never starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from syftmesh_executor import descriptor
from syftmesh_executor.capture import CappedLog, LogReader
from syftmesh_executor.orphan import mark_of

SETUP_TIMEOUT_S = 15.0
_MAX_INFO_BYTES = 4096
_GATE = 'printf r; read -r go || exit 97; unset PWD OLDPWD go; exec "$@" </dev/null'
_ACCOUNTS = {
    "/etc/passwd": b"nobody:x:65534:65534:nobody:/tmp:/bin/sh\n",
    "/etc/group": b"nogroup:x:65534:\n",
}


class LaunchError(Exception):
    """The sandbox did not come up; the message names no path of the host."""


@dataclass(slots=True)
class Sandbox:
    """A sandbox that stands at its gate, runs, or has ended.

    Attributes:
        init_pid: Process 1 of the sandbox, as the host numbers it.
        output_fd: The folder ``/output`` inside; readable also after everything inside has ended.
        scratch_fd: The folder ``/tmp`` inside.
        stdout: What the job printed.
        stderr: What the job printed on standard error.
    """

    init_pid: int
    output_fd: int
    scratch_fd: int
    stdout: CappedLog
    stderr: CappedLog
    _outer: subprocess.Popen[bytes]
    _outer_fd: int
    _init_fd: int
    _gate: FileIO
    _job_fd: int | None = None
    _readers: list[LogReader] = field(default_factory=list)

    def start_job(self, on_exit: Callable[[], None]) -> None:
        """Open the gate; `on_exit` is called once when the job's first process has ended."""
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(self._outer_fd)
            on_exit()

        loop.add_reader(self._outer_fd, ended)
        self._gate.write(b"go\n")
        self._gate.close()

    async def terminate(self, grace_s: float) -> int:
        """Ask the job's first process to end, end everything inside after `grace_s`; as `kill`."""
        if self._job_fd is not None and grace_s > 0:
            descriptor.send(self._job_fd, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    await descriptor.readable(self._outer_fd)
        return await self.kill()

    async def kill(self) -> int:
        """End everything inside and return bubblewrap's exit code, also when all is over already."""
        descriptor.send(self._init_fd, signal.SIGKILL)
        # Process 1 has ended only when the kernel has ended every process of its namespace.
        await descriptor.readable(self._init_fd)
        try:
            async with asyncio.timeout(SETUP_TIMEOUT_S):
                await descriptor.readable(self._outer_fd)
        except TimeoutError:
            descriptor.send(self._outer_fd, signal.SIGKILL)
        exit_code = self._outer.wait()
        for reader in self._readers:
            await reader.ended
        return exit_code

    async def follow(self, stack: contextlib.AsyncExitStack, pipe: FileIO, log: CappedLog) -> None:
        """Keep what a pipe brings until its other end closes."""
        loop = asyncio.get_running_loop()
        transport, reader = await loop.connect_read_pipe(lambda: LogReader(log), pipe)
        stack.callback(transport.close)
        self._readers.append(reader)


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts sandboxes.

    Attributes:
        bwrap: bubblewrap's executable, at least version 0.8.
        seccomp: Assembled system call filter.
    """

    bwrap: Path
    seccomp: bytes

    @contextlib.asynccontextmanager
    async def start(
        self,
        arguments: Sequence[str],
        command: Sequence[str],
        *,
        log_bytes: int,
        confine: Callable[[int], None],
        channel: Sequence[int] = (),
    ) -> AsyncIterator[Sandbox]:
        """Bring a sandbox up to its gate; leaving the context ends everything inside.

        Args:
            arguments: bubblewrap's options without descriptors.
            command: What to execute inside once the gate opens.
            log_bytes: Cap of each kept stream.
            confine: Puts the limits on process 1, given by pid, before it starts anything.
            channel: Descriptors that the job inherits; the caller closes its own copies afterwards.

        Raises:
            LaunchError: It does not come up.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(SETUP_TIMEOUT_S):
                    sandbox = await self._bring_up(stack, arguments, command, log_bytes, confine, channel)
            except TimeoutError as error:
                raise LaunchError("the sandbox did not come up in time") from error
            except OSError as error:
                raise LaunchError("the kernel refuses a step of building the sandbox") from error
            yield sandbox

    async def _bring_up(
        self,
        stack: contextlib.AsyncExitStack,
        arguments: Sequence[str],
        command: Sequence[str],
        log_bytes: int,
        confine: Callable[[int], None],
        channel: Sequence[int],
    ) -> Sandbox:
        with contextlib.ExitStack() as handed_over:
            sync = stack.enter_context(contextlib.ExitStack())
            gate_read, gate = _half(handed_over, sync, child_reads=True)
            block_read, block = _half(handed_over, sync, child_reads=True)
            out_write, out = _half(handed_over, sync)
            err_write, err = _half(handed_over, sync)
            info_write, info = _half(handed_over, sync)
            options = [
                *arguments,
                "--info-fd",
                str(info_write.fileno()),
                "--block-fd",
                str(block_read.fileno()),
            ]
            inherited = [info_write, block_read, *self._add_files(handed_over, options)]
            outer = subprocess.Popen(  # noqa: ASYNC220 - vfork and exec, under a millisecond
                [
                    self.bwrap,
                    "--args",
                    str(inherited[-1].fileno()),
                    "--",
                    "/bin/sh",
                    "-c",
                    _GATE,
                    mark_of(os.getpid()),
                    *command,
                ],
                stdin=gate_read,
                stdout=out_write,
                stderr=err_write,
                cwd="/",
                env={},
                pass_fds=[*(file.fileno() for file in inherited), *channel],
            )
            outer_fd = descriptor.process(sync, outer.pid)
            sync.callback(_reap, outer, outer_fd)
        init_pid = _init_pid(await descriptor.read_to_end(info, _MAX_INFO_BYTES), err)
        init_fd = descriptor.process(sync, init_pid)
        confine(init_pid)
        block.write(b"1")
        await descriptor.readable(out.fileno())
        if out.read(1) != b"r":
            raise _failure(err)
        sandbox = Sandbox(
            init_pid=init_pid,
            output_fd=descriptor.folder(sync, f"/proc/{init_pid}/root/output"),
            scratch_fd=descriptor.folder(sync, f"/proc/{init_pid}/root/tmp"),
            stdout=CappedLog(log_bytes),
            stderr=CappedLog(log_bytes),
            _outer=outer,
            _outer_fd=outer_fd,
            _init_fd=init_fd,
            _gate=gate,
            _job_fd=_first_child(sync, init_pid),
        )
        stack.push_async_callback(sandbox.kill)
        await sandbox.follow(stack, out, sandbox.stdout)
        await sandbox.follow(stack, err, sandbox.stderr)
        return sandbox

    def _add_files(self, stack: contextlib.ExitStack, options: list[str]) -> list[FileIO]:
        """Add the options that are files in memory, and return those files, the options' own last."""
        files = [descriptor.memory_file(stack, self.seccomp)]
        options += ["--seccomp", str(files[0].fileno())]
        for path, content in _ACCOUNTS.items():
            files.append(descriptor.memory_file(stack, content))
            # In front: the last of the given options makes the root read-only.
            options[:0] = ["--ro-bind-data", str(files[-1].fileno()), path]
        files.append(descriptor.memory_file(stack, b"".join(os.fsencode(item) + b"\0" for item in options)))
        return files


def _half(
    child: contextlib.ExitStack, ours: contextlib.ExitStack, *, child_reads: bool = False
) -> tuple[FileIO, FileIO]:
    """Return the child's end of a new pipe, then ours."""
    with contextlib.ExitStack() as both:
        read, write = descriptor.pipe(both)
        both.pop_all()
    theirs, kept = (read, write) if child_reads else (write, read)
    return child.enter_context(theirs), ours.enter_context(kept)


def _reap(outer: subprocess.Popen[bytes], outer_fd: int) -> None:
    # Killing the outer process ends process 1 by its parent-death signal, or at its gate before that is set.
    descriptor.send(outer_fd, signal.SIGKILL)
    outer.wait()


def _init_pid(info: bytes, errors: FileIO) -> int:
    try:
        return int(json.loads(info)["child-pid"])
    except (ValueError, KeyError) as error:
        raise _failure(errors) from error


def _failure(errors: FileIO) -> LaunchError:
    os.set_blocking(errors.fileno(), False)
    text = (errors.read(_MAX_INFO_BYTES) or b"").decode("utf-8", "replace")
    if "uid map" in text or "namespace" in text.lower():
        return LaunchError(
            "the kernel refuses new user namespaces to this user; allow them "
            "(kernel.unprivileged_userns_clone, AppArmor's userns rule) or run as root"
        )
    return LaunchError(
        "bubblewrap could not build the sandbox; is it version 0.8 or newer, and the data there?"
    )


def _first_child(stack: contextlib.ExitStack, pid: int) -> int | None:
    """Return a descriptor of the job's first process, None on a kernel without CONFIG_PROC_CHILDREN."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return descriptor.process(stack, int(children[0]))
    except (OSError, IndexError):
        return None
