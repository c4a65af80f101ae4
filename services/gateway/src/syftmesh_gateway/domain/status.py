"""What the gateway says about itself: the state of what it depends on, its addresses, its page."""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from syftmesh_gateway.domain.host import split_host

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;color:#1b1f24;"
    "background:#fff}table{border-collapse:collapse}td{padding:.2rem 1.5rem .2rem 0}"
    ".ok{color:#0a6b2d}.no{color:#a40e26;font-weight:600}code{background:#f3f4f6;padding:.1rem .3rem}"
)
STYLE_SOURCE: Final = f"'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
"""Content-Security-Policy source of the page's only style sheet."""


SELF: Final = "self"
"""Stands for the address that the request itself names, for a hub that has several."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """What ``/.well-known/syftmesh.json`` says.

    Attributes:
        issuer: Issuer of access tokens.
        grpc: ``host:port`` of the gRPC services; `SELF`: where the request went.
        grpc_tls: Whether that port speaks TLS.
        flower: ``host:port`` of Flower's services, None where there are none; `SELF`: where the request went.
        version: Version of this hub.
    """

    issuer: str
    grpc: str
    grpc_tls: bool
    flower: str | None
    version: str

    @property
    def is_behind_proxy(self) -> bool:
        """Return whether a proxy in front makes one address of gateway and services, so that each has its own."""
        return SELF in (self.grpc, self.flower)

    def seen_at(self, host: str) -> Addresses:
        """Return the addresses for a client that reached the hub at `host`, a Host header that was checked."""
        name, port = split_host(host)
        own = f"{name}:{port or ('443' if self.grpc_tls else '80')}"
        return replace(
            self,
            grpc=own if self.grpc == SELF else self.grpc,
            flower=own if self.flower == SELF else self.flower,
        )

    def document(self) -> dict[str, object]:
        """Return the document, its keys stable."""
        return {
            "issuer": self.issuer,
            "grpc": self.grpc,
            "grpc_tls": self.grpc_tls,
            "flower": self.flower,
            "version": self.version,
        }


@dataclass(frozen=True, slots=True)
class Health:
    """Which of the things the gateway depends on are ready, by name."""

    parts: Mapping[str, bool]

    @property
    def is_ready(self) -> bool:
        """Return whether all of them are."""
        return all(self.parts.values())

    def document(self) -> dict[str, object]:
        """Return the document of ``/healthz``."""
        words = {True: "serving", False: "not_serving"}
        return {
            "status": words[self.is_ready],
            "parts": {name: words[ready] for name, ready in sorted(self.parts.items())},
        }


def page(addresses: Addresses, health: Health) -> str:
    """Return the HTML page of ``/``: what this is, and whether it works."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td class={'ok' if ready else 'no'}>"
        f"{'ready' if ready else 'not ready'}</td></tr>"
        for name, ready in sorted(health.parts.items())
    )
    version, grpc = html.escape(addresses.version), html.escape(addresses.grpc)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>SyftMesh hub</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>SyftMesh hub</h1>"
        "<p>This hub connects people who hold private data with people who want to learn from it. The data "
        "stays with its owner: what passes here is sealed, and the hub cannot read it.</p>"
        f"<p>Version {version}, gRPC at <code>{grpc}</code>. Log in with "
        "<code>syftmesh login --server ADDRESS-OF-THIS-PAGE</code>.</p>"
        f"<h2>Services</h2><table>{rows}</table>"
        '<p><a href="/healthz">State as JSON</a>, '
        '<a href="/.well-known/syftmesh.json">addresses as JSON</a></p></body></html>'
    )
