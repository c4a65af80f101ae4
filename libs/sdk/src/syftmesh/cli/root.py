"""The tree of commands, put together from the modules of the verbs."""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Annotated, Any

import typer

from syftmesh.cli import (
    account,
    admin,
    audit,
    call,
    copying,
    dataset,
    doctor,
    federated,
    file,
    group,
    job,
    key,
    permission,
    site,
    unbuilt,
)
from syftmesh.cli.frame import current_surroundings, root_options
from syftmesh.cli.plugin import PluginGroup


def build_app() -> typer.Typer:
    """Return the whole command line, plugins apart."""
    app = typer.Typer(
        cls=PluginGroup,
        name="syftmesh",
        help="Private data stays with its owner: datasites, sealed calls, remote data science.",
        no_args_is_help=True,
        rich_markup_mode=None,
        callback=_with_version(),
    )
    for part in (account, file, copying, doctor):
        part.register(app)
    groups = {
        "acl": permission.register(app),
        "admin": admin.register(app),
        "audit": audit.register(app),
        "dataset": dataset.register(app),
        "fl": federated.register(app),
        "group": group.register(app),
        "job": job.register(app),
        "keys": key.register(app),
        "rpc": call.register(app),
        "site": site.register(app),
    }
    groups["site token"] = groups["site"].registered_groups[0].typer_instance or app
    unbuilt.register(app, groups)
    return app


def _with_version() -> Any:
    """Return `root_options` with the option ``--version``, which is of the program and of no verb."""
    asked = Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ]
    added = inspect.Parameter("version", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=asked)
    own = inspect.signature(root_options, eval_str=True).parameters.values()
    parameters = [*(p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own), added]

    def root(**values: Any) -> None:
        values.pop("version")
        root_options(**values)

    root.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    root.__annotations__ = {p.name: p.annotation for p in parameters}
    return root


def _show_version(asked: bool) -> None:  # noqa: FBT001 - as Typer calls it
    if asked:
        out = current_surroundings().stdout
        out.write(f"syftmesh {version('syftmesh')}\n")
        out.flush()
        raise typer.Exit
