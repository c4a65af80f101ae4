"""Commands with the help of their arguments, which Typer 0.20 loses on click 8.5 and newer."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click
from typer.core import TyperArgument, TyperCommand
from typer.models import ArgumentInfo


class VerbCommand(TyperCommand):
    """A command whose arguments have their help.

    Since click 8.5 `click.Argument` takes a help of its own and resets the one that Typer's subclass has set
    before it calls it. Typer is held below 0.21 by Flower, so the help is put back here.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        helps = _argument_helps(self.callback) if self.callback else {}
        for parameter in self.params:
            if isinstance(parameter, TyperArgument) and not parameter.help:
                parameter.help = helps.get(str(parameter.name))

    def format_arguments(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write nothing: the arguments stand above the options, in `format_options`."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write arguments and options, without the escapes for markup that Typer puts in."""
        parts: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                heading = "Arguments" if isinstance(parameter, click.Argument) else "Options"
                parts[heading].append((record[0], record[1].replace("\\[", "[")))
        for heading, records in parts.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _argument_helps(callback: Callable[..., Any]) -> dict[str, str | None]:
    helps: dict[str, str | None] = {}
    for name, parameter in inspect.signature(callback).parameters.items():
        for extra in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(extra, ArgumentInfo):
                helps[name] = extra.help
    return helps
