"""The program `syftmesh`: runs a verb and turns whatever goes wrong into lines on stderr and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click
import typer
from syftmesh_core.errors import MeshError

from syftmesh.cli.failure import EXIT_INTERRUPTED, EXIT_USAGE, write_error, write_lines
from syftmesh.cli.frame import Surroundings
from syftmesh.cli.root import build_app

PROGRAM = "syftmesh"


def run(arguments: Sequence[str], surroundings: Surroundings | None = None) -> int:
    """Run one command line and return its exit code.

    Args:
        arguments: Without the program's name.
        surroundings: Streams, environment and clock; None is the process's own.
    """
    around = surroundings or Surroundings()
    verbose = any(a in {"-v", "--verbose"} for a in arguments)
    try:
        command = typer.main.get_command(build_app())
        code = command.main(list(arguments), prog_name=PROGRAM, standalone_mode=False, obj=around)
        if code == EXIT_INTERRUPTED:  # what Typer makes of KeyboardInterrupt
            return _interrupted(around)
        return code if isinstance(code, int) else 0
    except click.UsageError as error:
        return _usage(around, error)
    except click.ClickException as error:
        write_lines(around.stderr, "USAGE", error.format_message())
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        return _interrupted(around)
    except MeshError as error:
        return _failed(around, error, verbose=verbose)
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except ExceptionGroup as error:
        # Tasks that ended together: the first typed error says it.
        leaf = _first(error)
        if leaf is None:
            return _internal(around, error, verbose=verbose)
        return _failed(around, leaf, verbose=verbose)
    except Exception as error:  # noqa: BLE001 - the last line of defence of the program
        return _internal(around, error, verbose=verbose)


def main() -> NoReturn:
    """Run the command line of this process."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    sys.exit(run(sys.argv[1:]))


def _interrupted(around: Surroundings) -> int:
    write_lines(around.stderr, "INTERRUPTED", "Stopped from the keyboard.")
    return EXIT_INTERRUPTED


def _usage(around: Surroundings, error: click.UsageError) -> int:
    context = error.ctx
    path = context.command_path if context else PROGRAM
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        around.stderr.write(error.message.rstrip() + "\n")
        write_lines(around.stderr, "USAGE", f"Missing command after '{path}'.", f"{path} --help")
    else:
        write_lines(around.stderr, "USAGE", error.format_message(), f"{path} --help")
    return EXIT_USAGE


def _failed(around: Surroundings, error: MeshError, *, verbose: bool) -> int:
    if verbose:
        around.stderr.write(traceback.format_exc())
    return write_error(around.stderr, error)


def _first(group: ExceptionGroup[Exception]) -> MeshError | None:
    typed = group.subgroup(MeshError)
    while isinstance(typed, ExceptionGroup):
        typed = typed.exceptions[0]  # type: ignore[assignment]
    return typed


def _internal(around: Surroundings, error: Exception, *, verbose: bool) -> int:
    if verbose:
        around.stderr.write(traceback.format_exc())
    write_lines(
        around.stderr,
        "INTERNAL",
        f"Something inside broke ({type(error).__name__}); this is a defect of the program.",
        "" if verbose else "Run it again with -v and report what it shows.",
    )
    return 1


if __name__ == "__main__":
    main()
