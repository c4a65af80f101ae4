"""The tree of commands, put together from the modules of the verbs."""

from __future__ import annotations

import typer

from syftmesh.cli import (
    account,
    audit,
    call,
    copying,
    dataset,
    doctor,
    federated,
    file,
    job,
    key,
    permission,
    site,
    unbuilt,
)
from syftmesh.cli.frame import root_options
from syftmesh.cli.plugin import PluginGroup


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
    for part in (account, file, copying, doctor):
        part.register(app)
    groups = {
        "acl": permission.register(app),
        "audit": audit.register(app),
        "dataset": dataset.register(app),
        "fl": federated.register(app),
        "job": job.register(app),
        "keys": key.register(app),
        "rpc": call.register(app),
        "site": site.register(app),
    }
    groups["site token"] = groups["site"].registered_groups[0].typer_instance or app
    unbuilt.register(app, groups)
    return app
