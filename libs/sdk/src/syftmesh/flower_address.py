"""Where Flower's services are, and how a stock Flower client names sites and dataset."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from syftmesh_client.trust import downgrade
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.quote import quoted

_PORTS: Final = {"http": 80, "https": 443}
_PLAIN: Final = re.compile(r"[a-zA-Z0-9-]")


@dataclass(frozen=True, slots=True)
class FlowerAddress:
    """Where Flower's routes are.

    Attributes:
        address: ``host:port``.
        insecure: Whether they are plaintext.
    """

    address: str
    insecure: bool


def flower_address(server: str, announced: str | None) -> FlowerAddress:
    """Return where Flower's routes of a hub are.

    Args:
        server: The hub's address, ``http(s)://host[:port]``.
        announced: What the hub's well-known document says, ``host:port`` or a URL; None: the hub's own address.

    Raises:
        IntegrityFailure: The hub announces what is no address (SERVER_FOREIGN), or is reached by TLS and
            announces plaintext (SERVER_DOWNGRADE).
    """
    scheme = urlsplit(server).scheme
    text = announced or server
    try:
        parts = urlsplit(text if "://" in text else f"{scheme}://{text}")
        host, port = parts.hostname, parts.port
        valid = (
            parts.scheme in _PORTS and host and not (parts.path.strip("/") or parts.query or parts.username)
        )
    except ValueError:
        valid = False
    if not valid or host is None:
        raise IntegrityFailure(
            f"The hub says that Flower's services are at {quoted(text)}, which is no address.",
            reason="SERVER_FOREIGN",
            metadata={"server": quoted(text)},
        )
    if scheme == "https" and parts.scheme == "http":
        raise downgrade("port for Flower")
    name = f"[{host}]" if ":" in host else host
    return FlowerAddress(f"{name}:{port or _PORTS[parts.scheme]}", parts.scheme == "http")


def federation_name(dataset: str, sites: Sequence[str]) -> str:
    """Return the name by which a stock Flower client starts a run over `sites` on `dataset`.

    Flower lets only ``@<letters, digits, - and _>/<the same>`` pass, so the rest is written as ``_`` and two hex
    digits for each byte of UTF-8, and ``__`` separates sites. The hub reads it back.
    """
    return f"@{_escaped(dataset)}/{'__'.join(_escaped(site) for site in sites)}"


def _escaped(text: str) -> str:
    return "".join(c if _PLAIN.fullmatch(c) else "".join(f"_{b:02x}" for b in c.encode()) for c in text)
