"""Settings of the agent: environment variables ``SYFTMESH_AGENT_<FIELD>``."""

from __future__ import annotations

from pathlib import Path

from syftmesh_kit.settings import ServiceSettings, settings_config


class AgentSettings(ServiceSettings):
    """What the agent is told; `listen` is used only when it is set, else the socket in `folder` is."""

    model_config = settings_config("agent")

    listen: str = ""
    """Address of the local API; empty: the socket ``agent.sock`` (0600) in `folder`."""

    folder: Path
    """The site's state folder (0700): key store, tokens, inbox, socket."""

    hub_url: str
    """Address of the hub, ``http(s)://host[:port]``."""

    ca_file: Path | None = None
    """Certificates (PEM) that the hub's must come from; unset: ``hub-ca.pem`` in `folder` when it is there, else
    the well-known authorities of the Internet."""

    join_token_file: Path | None = None
    """File of mode 0600 with a join token, for the first start of a site that is not logged in yet."""

    local_token_file: Path | None = None
    """``local.token`` of an embedded mesh, with which the agent logs in by itself."""

    passphrase_file: Path | None = None
    """File of mode 0600 with the passphrase of the key store, when it has one."""

    runner_socket: Path | None = None
    """The runner's socket, where the agent hears whether a SuperNode is needed; None: it never runs one."""
