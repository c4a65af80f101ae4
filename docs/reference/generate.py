"""Writes docs/reference/cli.md from the program; `--check` only tells whether it is current."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer
from syftmesh.cli.frame import Surroundings
from syftmesh.cli.root import build_app
from syftmesh.cli.unbuilt import MISSING

PAGE = Path(__file__).with_name("cli.md")

HEAD = """\
# The command line

Written by `docs/reference/generate.py` from the program; change the program, then run it again.

Data goes to stdout, everything else to stderr. With `--json` stdout is one JSON document, for lists an object with
`items`. Every command takes the options below, behind its name or in front of it.

{options}

Whatever goes wrong is told on stderr, in two lines, and by the exit code:

```
error: REASON: what is wrong, with which value
hint: the next command
```

| exit code | errors |
|---|---|
| 0 | done; for `acl check`: allowed |
| 1 | Unimplemented, Internal; for `job run-mock` and `doctor`: something failed |
| 2 | usage, InvalidInput |
| 3 | Unauthenticated, PermissionDenied; for `acl check`: denied |
| 4 | NotFound |
| 5 | AlreadyExists, Conflict, WrongState |
| 6 | Unavailable, LimitExceeded, DeadlineExceeded |
| 7 | IntegrityFailure, and what release or egress gate refused |
| 130 | stopped by Ctrl-C, or a question was answered with no |
"""


def page() -> str:
    """Return the whole page."""
    root = typer.main.get_command(build_app())
    if not isinstance(root, click.Group):
        raise TypeError("the program has no commands")
    context = click.Context(root, info_name="syftmesh", obj=Surroundings())
    leaves = [
        (path, command, own)
        for path, command, own in _walk(root, context, ("syftmesh",))
        if " ".join(path[1:]) not in MISSING
    ]
    shared = {option for parameter in root.params for option in parameter.opts}
    options = [p for p in leaves[0][1].params if set(p.opts) <= shared]
    head = HEAD.format(options=_table("option", options, context))
    sections = [_section(path, command, own, shared) for path, command, own in leaves]
    missing = "\n".join(f"- `syftmesh {line}`: needs {what}" for line, what in sorted(MISSING.items()))
    tail = f"## Not built yet\n\nThese answer `error: UNIMPLEMENTED` and exit 1.\n\n{missing}\n"
    return "\n".join([head, *sections, tail])


def _walk(
    command: click.Command, context: click.Context, path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], click.Command, click.Context]]:
    if not isinstance(command, click.Group):
        yield path, command, context
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None:
            yield from _walk(child, click.Context(child, info_name=name, parent=context), (*path, name))


def _section(path: tuple[str, ...], command: click.Command, context: click.Context, shared: set[str]) -> str:
    usage = " ".join([*path, *(piece for piece in command.collect_usage_pieces(context))])
    own = [p for p in command.params if not set(p.opts) <= shared and not getattr(p, "hidden", False)]
    arguments = [p for p in own if isinstance(p, click.Argument)]
    options = [p for p in own if not isinstance(p, click.Argument)]
    example = "\n".join(line.strip() for line in (command.epilog or "").splitlines()[2:])
    parts = [f"## {' '.join(path)}", f"`{usage}`", command.help or ""]
    parts += [_table("argument", arguments, context)] if arguments else []
    parts += [_table("option", options, context)] if options else []
    parts.append(f"```\n{example}\n```")
    return "\n\n".join(parts) + "\n"


def _table(heading: str, parameters: list[click.Parameter], context: click.Context) -> str:
    rows = []
    for parameter in parameters:
        record = parameter.get_help_record(context)
        if record is not None:
            text = record[1].replace("\\[", "[").replace("|", "\\|")
            rows.append(f"| `{record[0]}` | {' '.join(text.split())} |")
    return "\n".join([f"| {heading} | |", "|---|---|", *rows])


def main() -> int:
    """Write or check the page and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 when the page is not current"
    )
    made = page()
    if not parser.parse_args().check:
        PAGE.write_text(made)
    elif not PAGE.exists() or PAGE.read_text() != made:
        sys.stderr.write("docs/reference/cli.md is not current: run docs/reference/generate.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
