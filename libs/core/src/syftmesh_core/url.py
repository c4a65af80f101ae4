"""Addresses of endpoints: `syft://<e-mail>/app_data/<app>/rpc/<endpoint>[?k=v]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import MeshPath, parse_path
from syftmesh_core.quote import quoted

SCHEME: Final = "syft"
MAX_URL_BYTES: Final = 2048

_SEGMENT_SAFE = "-._~!$&'()*+,;=:@"
"""pchar of RFC 3986, section 3.3, without percent-encoding."""

_QUERY_SAFE = "-._~!$'()*,;:@/"
"""What stands for itself in a key or value: no ``&``, ``=``, ``+`` or ``?``."""

_RAW_FORBIDDEN = re.compile(r"[\x00-\x20\x7f-\xa0#\ud800-\udfff]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class SyftUrl:
    """An endpoint of an app at a site; make one with `parse_url`.

    Attributes:
        site: Principal who owns the datasite, normalised.
        app: Name of the app, decoded, one segment.
        endpoint: Path of the endpoint below the app, decoded; one segment or several.
        query: Keys and values in order, decoded.
    """

    site: str
    app: str
    endpoint: str
    query: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        app = quote(self.app, safe=_SEGMENT_SAFE)
        endpoint = "/".join(quote(part, safe=_SEGMENT_SAFE) for part in self.endpoint.split("/"))
        pairs = "&".join(f"{quote(k, safe=_QUERY_SAFE)}={quote(v, safe=_QUERY_SAFE)}" for k, v in self.query)
        return f"{SCHEME}://{self.site}/app_data/{app}/rpc/{endpoint}" + (f"?{pairs}" if pairs else "")

    @property
    def path(self) -> MeshPath:
        """The endpoint's directory, `<site>/app_data/<app>/rpc/<endpoint>`."""
        return MeshPath(self.site, ("app_data", self.app, "rpc", *self.endpoint.split("/")))


def parse_url(text: str) -> SyftUrl:
    """Return the endpoint that `text` addresses, decoded once (RFC 3986, section 2.1) and normalised.

    Scheme and e-mail are case-insensitive; app and endpoint follow the rules of paths. In the query ``+``
    is a space. The address and its canonical form have at most 2,048 bytes.

    Raises:
        InvalidInput: (INVALID_URL) with metadata `url` and `why`.
    """
    if not isinstance(text, str) or len(text) > MAX_URL_BYTES:
        raise _refused(text, f"it is longer than {MAX_URL_BYTES} bytes")
    if _RAW_FORBIDDEN.search(text) or _BAD_ESCAPE.search(text):
        raise _refused(text, "it holds a space, a control character, a '#' or a '%' without two hex digits")
    if len(text.encode()) > MAX_URL_BYTES:
        raise _refused(text, f"it is longer than {MAX_URL_BYTES} bytes")
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() != SCHEME:
        raise _refused(text, "it does not begin with syft://")
    location, _, query = rest.partition("?")
    site, *encoded = location.split("/")
    if len(encoded) < 4 or encoded[0] != "app_data" or encoded[2] != "rpc":
        raise _refused(text, "it is not of the form syft://<e-mail>/app_data/<app>/rpc/<endpoint>")
    segments = [_decoded(text, part) for part in encoded]
    if any("/" in part for part in segments):
        raise _refused(text, "an encoded '/' stands inside a segment")
    try:
        path = parse_path("/".join((site, *segments)))
    except InvalidInput as error:
        raise _refused(text, error.metadata["why"]) from None
    url = SyftUrl(path.site, path.segments[1], "/".join(path.segments[3:]), _query(text, query))
    if len(str(url)) > MAX_URL_BYTES:
        raise _refused(text, f"percent-encoded it is longer than {MAX_URL_BYTES} bytes")
    return url


def _query(text: str, query: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for part in filter(None, query.split("&")):
        key, _, value = part.replace("+", " ").partition("=")
        if not key:
            raise _refused(text, "a value of its query has no key")
        pairs.append((_decoded(text, key), _decoded(text, value)))
    return tuple(pairs)


def _decoded(text: str, part: str) -> str:
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise _refused(text, "its percent-encoding is not UTF-8") from None


def _refused(text: object, why: str) -> InvalidInput:
    return InvalidInput(
        f"{quoted(text)} is not an address of an endpoint: {why}.",
        reason="INVALID_URL",
        metadata={"url": quoted(text), "why": why},
    )
