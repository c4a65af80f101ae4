"""The tree of commands, put together from the modules of the verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import typer

from syftmesh.cli import account
from syftmesh.cli.frame import root_options
from syftmesh.cli.plugin import PluginGroup

_PARTS: Final[tuple[Callable[[typer.Typer], None], ...]] = (account.register,)


def build_app() -> typer.Typer:
    """Return the whole command line, plugins apart."""
    app = typer.Typer(
        cls=PluginGroup,
        name="syftmesh",
        help="Private data stays with its owner: datasites, sealed calls, remote data science.",
        no_args_is_help=True,
        rich_markup_mode=None,
        callback=root_options,
    )
    for register in _PARTS:
        register(app)
    return app
