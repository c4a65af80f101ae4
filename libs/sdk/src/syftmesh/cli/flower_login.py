"""Logging in Flower's own program: a connection in its configuration, and a token in its credential store.

The names are those of flwr 1.41 (`flwr.cli.constant`, `flwr.supercore.credential_store`); a test holds them equal.
"""

from __future__ import annotations

import base64
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import WrongState

CONNECTION: Final = "syftmesh"
CONFIG_FILE: Final = "config.toml"
CREDENTIALS_FILE: Final = "credentials.yaml"
TYPE_KEY: Final = "flower.account-auth.%s.authn-type"
ACCESS_KEY: Final = "flower.account-auth.%s.oidc-access-token"
REFRESH_KEY: Final = "flower.account-auth.%s.oidc-refresh-token"
TYPE: Final = "oidc"
NO_REFRESH: Final = "syftmesh-login-flwr"
"""In place of a refresh token, which Flower wants: one that two programs use is revoked, and the login with it."""

NEW_CONFIG: Final = '[superlink]\ndefault = "local"\n\n[superlink.local]\naddress = ":local:"\n'
_HEADER: Final = re.compile(r"^\s*\[")
_OWN_HEADER: Final = re.compile(
    rf"""^\s*\[\s*["']?superlink["']?\s*\.\s*["']?{CONNECTION}["']?\s*(\.[^\]]*)?\]\s*(\#.*)?$"""
)


def flower_home(environ: Mapping[str, str]) -> Path:
    """Return where Flower's program keeps its configuration: ``FLWR_HOME``, else ``.flwr`` in the home folder."""
    named = environ.get("FLWR_HOME")
    return Path(named) if named else Path.home() / ".flwr"


def write_connection(
    home: Path, address: str, *, insecure: bool, federation: str | None, ca_file: Path | None = None
) -> Path:
    """Write the connection ``syftmesh`` into Flower's configuration, which keeps all else, and return the file.

    Args:
        home: See `flower_home`.
        address: ``host:port``.
        insecure: Whether it is plaintext.
        federation: Name of the federation; None leaves it to ``flwr run --federation``.
        ca_file: Certificates (PEM) that the hub's must come from; None: those that gRPC brings along.

    Raises:
        WrongState: FLOWER_CONFIG_UNUSABLE: the configuration cannot be read, or not be changed safely.
    """
    from syftmesh.cli.local import write_file

    path = (home / CONFIG_FILE).resolve()
    before = _text(path)
    if before is None:
        before = NEW_CONFIG
    wanted: dict[str, Any] = {"address": address, "insecure": insecure}
    if ca_file is not None and not insecure:
        wanted["root-certificates"] = str(ca_file)
    if federation is not None:
        wanted["federation"] = federation
    lines = [f"{name} = {json.dumps(value)}" for name, value in wanted.items()]
    kept = _without_own(before).rstrip("\n")
    after = "\n".join([*([kept, ""] if kept else []), f"[superlink.{CONNECTION}]", *lines, ""])
    if _parsed(after, path) != _expected(_parsed(before, path), wanted):
        raise _unusable(path, f"remove the connection {CONNECTION} from it by hand")
    write_file(path, after.encode(), mode=0o600)
    return path


def write_token(home: Path, address: str, access_token: str) -> Path:
    """Write a token into Flower's credential store (0600), which keeps all else, and return the file.

    Args:
        home: See `flower_home`.
        address: As in the configuration; Flower looks the token up by it.
        access_token: An access token of the hub.

    Raises:
        WrongState: FLOWER_CONFIG_UNUSABLE.
    """
    import yaml

    from syftmesh.cli.local import write_file

    path = (home / CREDENTIALS_FILE).resolve()
    try:
        found = yaml.safe_load(_text(path) or "{}")
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise _unusable(path, "remove it and log Flower in anew")
    entries = {TYPE_KEY: TYPE, ACCESS_KEY: access_token, REFRESH_KEY: NO_REFRESH}
    found |= {key % address: base64.b64encode(value.encode()).decode() for key, value in entries.items()}
    write_file(path, yaml.safe_dump(found).encode(), mode=0o600)
    return path


def _text(path: Path) -> str | None:
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, "mend its owner, mode or content") from error


def _without_own(text: str) -> str:
    kept, own = [], False
    for line in text.splitlines():
        if _HEADER.match(line):
            own = _OWN_HEADER.match(line) is not None
        # A comment may be about what follows.
        if not own or line.lstrip().startswith("#"):
            kept.append(line)
    return "\n".join(kept)


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _unusable(path, "mend it: it is no TOML") from error


def _expected(before: dict[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    connections = before.get("superlink", {})
    kept = connections if isinstance(connections, dict) else {}
    return {**before, "superlink": {**kept, CONNECTION: dict(wanted)}}


def _unusable(path: Path, what: str) -> WrongState:
    return WrongState(
        f"The file {path.name} of Flower's program cannot be changed safely: {what}.",
        reason="FLOWER_CONFIG_UNUSABLE",
        metadata={"file": path.name},
        hint=f"Its folder is {path.parent}; FLWR_HOME names another.",
    )
