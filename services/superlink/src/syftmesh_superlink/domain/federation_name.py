"""How a stock Flower client names dataset and sites: in the name of the federation.

Flower's command line lets only ``@<letters, digits, - and _>/<the same>`` pass, so everything else is written as
``_`` and two hex digits, and sites are separated by ``__``: ``@breast-cancer/a_40x_2eorg__b_40y_2eorg`` is the
dataset ``breast-cancer`` at a@x.org and b@y.org. Programs that do not check may write
``@breast-cancer/a@x.org,b@y.org``.
"""

from __future__ import annotations

import re
from typing import Final

from syftmesh_core.errors import InvalidInput

_PLAIN: Final = re.compile(r"[a-zA-Z0-9-]")
_ESCAPE: Final = re.compile(r"_([0-9a-fA-F]{2})")
_NAME: Final = re.compile(r"@([^/]+)/([^/]+)")


def federation_name(dataset: str, sites: tuple[str, ...]) -> str:
    """Return the name of the federation of some sites that hold a dataset."""
    return f"@{_escaped(dataset)}/{'__'.join(_escaped(site) for site in sites)}"


def parse_federation(name: str) -> tuple[str, tuple[str, ...]]:
    """Return dataset and sites that a federation's name stands for.

    Raises:
        InvalidInput: It stands for none (RUN_INVALID).
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise InvalidInput(
            "Name dataset and sites as the federation, for example "
            f"--federation {federation_name('breast-cancer', ('a@x.org', 'b@y.org'))!s}.",
            reason="RUN_INVALID",
            metadata={"field": "federation"},
        )
    separator = "," if "," in found[2] or "@" in found[2] else "__"
    sites = tuple(_unescaped(part) for part in found[2].split(separator) if part)
    return _unescaped(found[1]), sites


def _escaped(text: str) -> str:
    return "".join(c if _PLAIN.fullmatch(c) else "".join(f"_{b:02x}" for b in c.encode()) for c in text)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)), text)
