"""The SuperLink as a process of its own: Flower's, with our hooks, on a Unix socket that only its owner reaches.

Run by `superlink` as ``python -m syftmesh_superlink.adapters.flower_child``; its words come by environment.
"""

from __future__ import annotations

import hmac
import os
import socket
from pathlib import Path
from typing import Any, Final

FOLDER_VARIABLE: Final = "SYFTMESH_FLOWER_FOLDER"
SOCKET_VARIABLE: Final = "SYFTMESH_FLOWER_SOCKET"
SECRET_VARIABLE: Final = "SYFTMESH_FLOWER_SECRET"  # noqa: S105 - its name
SECRET_HEADER: Final = b"x-syftmesh-secret"
DATABASE: Final = "superlink.db"
_GRACE_S: Final = 1


def main() -> None:
    """Serve until SIGTERM."""
    folder = Path(os.environ[FOLDER_VARIABLE])
    secret = os.environ.pop(SECRET_VARIABLE)
    os.umask(0o077)
    _configure(folder)
    import uvicorn

    bound = _bind(os.environ[SOCKET_VARIABLE])
    app = _app(folder, secret)
    config = uvicorn.Config(
        _Gate(app, secret),
        log_config=None,
        access_log=False,
        ws="none",
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run([bound])


def _configure(folder: Path) -> None:
    os.environ["FLWR_HOME"] = str(folder / "home")
    for name in ("FLWR_DISABLE_UPDATE_CHECK", "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION"):
        os.environ[name] = "1"
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    os.environ["FLWR_LOG_LEVEL"] = "WARNING"  # else it writes a line for every message, for ever


def _bind(path: str) -> socket.socket:
    Path(path).unlink(missing_ok=True)  # of a process that was killed
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound.bind(path)
    return bound


def _app(folder: Path, secret: str) -> Any:
    from flwr.common.constant import ISOLATION_MODE_PROCESS, TRANSPORT_TYPE_GRPC_RERE
    from flwr.supercore import sql_mixin
    from flwr.superlink import main as superlink
    from flwr.superlink.cli.flower_superlink import SuperLinkLifespan
    from flwr.superlink.config_loader import SuperLinkLifespanConfig

    from syftmesh_superlink.adapters.flower_plugin import RunFederations, SecretAuthn
    from syftmesh_superlink.adapters.flower_private import private_routes
    from syftmesh_superlink.adapters.state_files import MEMBERS

    # What is deleted is overwritten: a file that somebody copies holds no messages of runs that are over.
    pragmas: Any = sql_mixin
    pragmas.SQLITE_PRAGMAS = (*pragmas.SQLITE_PRAGMAS, ("secure_delete", "ON"))
    members = RunFederations(folder / MEMBERS)
    flower: Any = superlink
    flower.get_federation_manager = lambda **_: members
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="127.0.0.1",
        port=0,
        insecure=True,
        certificates=None,
        superexec_auth_secret=os.urandom(32),  # nobody has it: tasks are claimed by our own route
        authn_plugin=SecretAuthn(secret),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=False,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=str(folder / DATABASE),
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    app: Any = flower.create_app(config, SuperLinkLifespan)
    app.router.routes.extend(private_routes(app.state.linkstate_factory.state, TRANSPORT_TYPE_GRPC_RERE))
    return app


class _Gate:
    """Lets nothing in that does not carry the secret of the hub that started this process."""

    def __init__(self, app: Any, secret: str) -> None:
        self._app = app
        self._secret = secret.encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            shown = [value for name, value in scope["headers"] if name == SECRET_HEADER]
            if len(shown) != 1 or not hmac.compare_digest(shown[0], self._secret):
                await send({"type": "http.response.start", "status": 404, "headers": []})
                await send({"type": "http.response.body", "body": b""})
                return
        await self._app(scope, receive, send)


if __name__ == "__main__":
    main()
