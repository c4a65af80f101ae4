"""Errors on stderr: `error: REASON: what is wrong`, `hint: the next command`, and the exit code."""

from __future__ import annotations

from typing import Final, TextIO

from syftmesh_core.errors import MeshError

from syftmesh.cli.terminal import one_line

EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130


def write_error(stream: TextIO, error: MeshError) -> int:
    """Write `error` and return the exit code of its class."""
    write_lines(stream, error.reason, error.message, error.hint)
    return error.exit_code


def write_lines(stream: TextIO, reason: str, message: str, hint: str = "") -> None:
    """Write the lines of an error."""
    stream.write(f"error: {one_line(reason)}: {one_line(message)}\n")
    if hint:
        stream.write(f"hint: {one_line(hint)}\n")
    stream.flush()
