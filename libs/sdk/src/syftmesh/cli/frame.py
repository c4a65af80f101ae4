"""What every verb shares: global options, output, questions, the client; also for the commands of plugins.

A verb is a function whose first parameter is a `Frame`; the others are Typer's::

    @verb(app, "stop", example="syftmesh stop --yes")
    def stop(frame: Frame, name: Annotated[str, typer.Argument(help="What.")]) -> None:
        "Stop something."
        frame.confirm(f"Stop {name}?")
        frame.emit({"name": name}, f"Stopped {name}.")

Errors are raised as `syftmesh_core.errors.MeshError`; the program prints them and chooses the exit code.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, Final, NoReturn, ParamSpec, TextIO

import click
import typer
from syftmesh_core.clock import Clock, SystemClock
from syftmesh_core.errors import Cancelled, InvalidInput

from syftmesh.cli.command import VerbCommand
from syftmesh.cli.output import Fields, Human, Table, shown, write_human, write_json
from syftmesh.cli.terminal import one_line

if TYPE_CHECKING:
    from syftmesh import Client

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program takes from outside, so that tests give it others.

    Attributes:
        stdin: Answers to questions, and `--file -`.
        stdout: Data.
        stderr: Everything else.
        environ: Variables ``SYFTMESH_...``.
        clock: Time.
        sleep: Waits that many seconds.
        connect: Replaces `syftmesh.connect`; None is that function.
        login: Replaces `syftmesh.login`; None is that function.
        before_login: Replaces the functions of `syftmesh.login_way`, by name; None is these.
        open_node: Replaces `syftmesh_client.node.open_node`; None is that function.
        ask_hub: Replaces `syftmesh.cli.diagnosis.ask_hub`; None is that function.
        root_options: Global options that stood before the verb.
    """

    stdin: TextIO = field(default_factory=lambda: sys.stdin)
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    clock: Clock = field(default_factory=SystemClock)
    sleep: Callable[[float], None] = time.sleep
    connect: Callable[..., Any] | None = None
    login: Callable[..., Any] | None = None
    before_login: Mapping[str, Callable[..., Any]] | None = None
    open_node: Callable[..., Any] | None = None
    ask_hub: Callable[[str], Any] | None = None
    root_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Frame:
    """One run of a verb.

    Attributes:
        json: One JSON document on stdout instead of text for people.
        profile: E-mail of the profile that was named, None without.
        server: The hub's address that was named, None without.
        state_option: The state folder that was named, None without.
        yes: Do not ask.
        verbose: Say more on stderr.
        surroundings: Streams, environment, clock.
    """

    json: bool
    profile: str | None
    server: str | None
    state_option: Path | None
    yes: bool
    verbose: bool
    surroundings: Surroundings

    @property
    def state(self) -> Path:
        """The state folder: ``--state``, ``SYFTMESH_STATE``, else ``.syftmesh`` in the home folder."""
        return (self.state_option or Path.home() / ".syftmesh").expanduser().absolute()

    @property
    def stdout_is_terminal(self) -> bool:
        """Whether people read stdout."""
        return self.surroundings.stdout.isatty()

    @property
    def can_ask(self) -> bool:
        """Whether somebody can answer a question."""
        return self.surroundings.stdin.isatty() and self.surroundings.stderr.isatty()

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Connect by the named profile, for the block.

        Raises:
            MeshError: As `syftmesh.connect`.
        """
        connect = self.surroundings.connect or self._sdk().connect
        with connect(self.server, profile=self.profile, state=self.state) as client:
            yield client

    def log_in(self, server: str | None, **options: Any) -> Any:
        """Log in and return what `syftmesh.login` returns.

        Raises:
            MeshError: As `syftmesh.login`.
        """
        return (self.surroundings.login or self._sdk().login)(server, **options)

    def at_hub(self, what: str, **options: Any) -> Any:
        """Call the function `what` of `syftmesh.login_way` for the named hub and return what it returns.

        Raises:
            MeshError: As that function.
        """
        known = self.surroundings.before_login
        if known is None:
            self._sdk()
            from syftmesh import login_way

            known = vars(login_way)
        return known[what](self.server, state=self.state, **options)

    def ask(self, question: str) -> str:
        """Ask on the terminal and return the line that was typed, trimmed.

        Raises:
            Cancelled: The input ended (DECLINED).
        """
        self.surroundings.stderr.write(one_line(question) + " ")
        self.surroundings.stderr.flush()
        line = self.surroundings.stdin.readline()
        if not line:
            raise Cancelled("Nothing was typed; nothing was done.", reason="DECLINED")
        return line.strip()

    def _sdk(self) -> Any:
        import syftmesh  # brings gRPC along
        from syftmesh.cli.log import quiet_logs

        quiet_logs(self.surroundings.stderr, verbose=self.verbose)
        return syftmesh

    def emit(self, document: Mapping[str, object], *human: Human) -> None:
        """Write the result to stdout: `document` with ``--json``, else `human` (made from it when absent)."""
        out = self.surroundings.stdout
        if self.json:
            write_json(out, document)
        else:
            write_human(out, human or (_default(document),), terminal=self.stdout_is_terminal)
        out.flush()

    def emit_bytes(self, data: bytes) -> None:
        """Write exact bytes to stdout."""
        out = self.surroundings.stdout
        out.flush()
        out.buffer.write(data)
        out.buffer.flush()

    def note(self, text: str) -> None:
        """Tell people something on stderr, one line."""
        self.surroundings.stderr.write(one_line(text) + "\n")
        self.surroundings.stderr.flush()

    def detail(self, text: str) -> None:
        """Tell people something on stderr that only ``-v`` shows."""
        if self.verbose:
            self.note(text)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[str], None]]:
        """Show that work goes on: a spinner on a terminal, a line each elsewhere; the block gets `step(text)`."""
        err = self.surroundings.stderr
        if not err.isatty():
            self.note(text)
            yield self.note
            return
        from rich.console import Console
        from rich.text import Text

        with Console(file=err).status(Text(one_line(text))) as status:
            yield lambda step: status.update(Text(one_line(step)))

    def confirm(self, question: str, *details: Human) -> None:
        """Ask on the terminal and go on after a yes; ``--yes`` answers.

        Raises:
            InvalidInput: CONFIRMATION_NEEDED: there is no terminal to ask at.
            Cancelled: DECLINED: the answer was not yes.
        """
        if self.yes:
            return
        if not self.can_ask:
            raise InvalidInput(
                f"This needs a yes and there is no terminal to ask at: {question}",
                reason="CONFIRMATION_NEEDED",
                hint="Look at it, then run the same command with --yes.",
            )
        err = self.surroundings.stderr
        write_human(err, details, terminal=True)
        err.write(f"{one_line(question)} [y/N] ")
        err.flush()
        if self.surroundings.stdin.readline().strip().lower() not in {"y", "yes"}:
            raise Cancelled("The answer was not yes; nothing was done.", reason="DECLINED")

    def finish(self, exit_code: int) -> NoReturn:
        """End the program with `exit_code`, after its output."""
        raise typer.Exit(exit_code)


def verb(
    app: typer.Typer,
    name: str,
    *,
    example: str,
    hidden: bool = False,
    context_settings: dict[str, Any] | None = None,
) -> Callable[[Callable[Concatenate[Frame, P], None]], Callable[Concatenate[Frame, P], None]]:
    """Register the decorated function as the command `name` of `app`, with the global options.

    Args:
        app: Where.
        name: The command's name.
        example: A whole command line that works, shown by ``--help``; several on lines of their own.
        hidden: Leave it out of the list of commands.
        context_settings: Further settings of click's context.

    Returns:
        The decorator; it gives the function back unchanged.
    """

    def register(function: Callable[Concatenate[Frame, P], None]) -> Callable[Concatenate[Frame, P], None]:
        signature = inspect.signature(function, eval_str=True)
        own = list(signature.parameters.values())[1:]
        clash = {p.name for p in own} & {p.name for p in _GLOBAL_PARAMETERS}
        if clash:
            raise TypeError(f"{name}: {sorted(clash)} are names of global options")

        def command(**values: Any) -> None:
            settings = {p.name: values.pop(p.name) for p in _GLOBAL_PARAMETERS}
            function(_frame(settings), **values)  # type: ignore[call-arg]

        keyword = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in (*own, *_GLOBAL_PARAMETERS)]
        command.__signature__ = inspect.Signature(keyword)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in keyword}
        command.__name__ = function.__name__
        help_text = inspect.cleandoc(function.__doc__ or "").split("\n\nRaises:")[0]
        lines = "\n".join(f"  {line}" for line in example.splitlines())
        epilog = f"\b\nExample:\n{lines}"
        settings = context_settings or {}
        added = app.command(
            name, cls=VerbCommand, help=help_text, epilog=epilog, hidden=hidden, context_settings=settings
        )
        added(command)
        return function

    return register


def group(app: typer.Typer, name: str, text: str, *, hidden: bool = False) -> typer.Typer:
    """Add the group of commands `name` to `app` and return it."""
    made = typer.Typer(name=name, help=text, no_args_is_help=True, rich_markup_mode=None, hidden=hidden)
    app.add_typer(made)
    return made


def current_surroundings() -> Surroundings:
    """Return the surroundings of the command that runs now."""
    found = click.get_current_context().find_root().obj
    return found if isinstance(found, Surroundings) else Surroundings()


def _frame(settings: Mapping[str, Any]) -> Frame:
    surroundings = current_surroundings()
    before, environ = surroundings.root_options, surroundings.environ

    def text(option: str, variable: str) -> str | None:
        return settings.get(option) or before.get(option) or environ.get(variable) or None

    def flag(option: str) -> bool:
        return bool(settings.get(option) or before.get(option))

    state = text("state", "SYFTMESH_STATE")
    return Frame(
        json=flag("as_json"),
        profile=text("profile", "SYFTMESH_PROFILE"),
        server=text("server", "SYFTMESH_SERVER"),
        state_option=Path(state) if state else None,
        yes=flag("yes"),
        verbose=flag("verbose"),
        surroundings=surroundings,
    )


def _default(document: Mapping[str, object]) -> Human:
    items = document.get("items")
    if isinstance(items, list | tuple):
        columns = list(items[0]) if items and isinstance(items[0], Mapping) else ["item"]
        return Table(columns, [[i.get(c) for c in columns] if isinstance(i, Mapping) else [i] for i in items])
    return Fields([(name, shown(value)) for name, value in document.items()])


def root_options(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
    profile: Annotated[
        str | None,
        typer.Option(metavar="EMAIL", help="Whose keys to use (SYFTMESH_PROFILE); the only or last one."),
    ] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="The hub (SYFTMESH_SERVER); the profile's own.")
    ] = None,
    state: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where state lies (SYFTMESH_STATE); ~/.syftmesh.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")] = False,
) -> None:
    """Remember the global options that stand before the verb."""
    current_surroundings().root_options.update(
        as_json=as_json, profile=profile, server=server, state=state, yes=yes, verbose=verbose
    )


_GLOBAL_PARAMETERS: Final = tuple(inspect.signature(root_options, eval_str=True).parameters.values())
