"""Commands of other distributions: entry points `syftmesh.commands`, loaded only when they may be needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, Protocol

import click
import typer
from syftmesh_core.errors import Internal, MeshError, NotFound
from typer.core import TyperGroup

from syftmesh.cli.failure import write_lines
from syftmesh.cli.frame import current_surroundings

GROUP: Final = "syftmesh.commands"
MESH_COMMANDS: Final = frozenset({"up", "status", "down", "demo"})
"""Commands of the embedded mesh, which is a distribution of its own."""


class Plugin(Protocol):
    """An entry point as it is used here."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    def load(self) -> Any:
        """Return its function ``register(app: typer.Typer) -> None``."""
        ...


def installed_plugins() -> list[EntryPoint]:
    """Return the plugins of this environment by name."""
    return sorted(entry_points(group=GROUP), key=lambda point: point.name)


class PluginGroup(TyperGroup):
    """The root command: its own commands, then those of plugins.

    A plugin that cannot be loaded is told on stderr by ``--help``, and is an error for every command that is
    not among the others.
    """

    plugins: Callable[[], Iterable[Plugin]] = staticmethod(installed_plugins)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command; plugins are loaded when it is none of our own.

        Raises:
            Internal: PLUGIN_BROKEN: no plugin has it, and one cannot be loaded.
            NotFound: COMMAND_MISSING: it belongs to a distribution that is not installed.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        commands, broken = self._load()
        if cmd_name in commands:
            return commands[cmd_name]
        if broken:
            raise broken[0]
        if cmd_name in MESH_COMMANDS:
            raise NotFound(
                f"The command {cmd_name} belongs to the embedded mesh, which is not installed.",
                reason="COMMAND_MISSING",
                metadata={"command": cmd_name},
                hint="pip install syftmesh-standalone",
            )
        return None

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - as click calls it
        """Return the names of all commands; a broken plugin is told on stderr."""
        commands, broken = self._load()
        for error in broken:
            write_lines(current_surroundings().stderr, error.reason, error.message, error.hint)
        # get_command finds them from here on without loading again.
        for name, command in commands.items():
            self.commands.setdefault(name, command)
        return sorted(self.commands)

    def _load(self) -> tuple[dict[str, click.Command], list[MeshError]]:
        commands: dict[str, click.Command] = {}
        broken: list[MeshError] = []
        for plugin in self.plugins():
            app = typer.Typer(rich_markup_mode=None, callback=_nothing)
            try:
                plugin.load()(app)
                found = typer.main.get_group(app).commands
            except Exception as error:  # noqa: BLE001 - whatever a plugin raises, the other commands go on
                broken.append(_broken(plugin.name, error))
                continue
            for name, command in found.items():
                commands.setdefault(name, command)
        return commands, broken


def _nothing() -> None:
    """Make the plugin's app a group, also with one command."""


def _broken(name: str, error: Exception) -> MeshError:
    made = Internal(
        f"The commands of the plugin {name!r} cannot be loaded ({type(error).__name__}).",
        reason="PLUGIN_BROKEN",
        metadata={"plugin": name},
        hint="Install it again or remove it; -v shows where it failed.",
    )
    made.__cause__ = error
    return made
