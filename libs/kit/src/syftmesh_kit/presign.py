"""Query signatures of AWS Signature Version 4 for S3.

Source: AWS, "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", with its GET
    example as
the test vector. Signing is local arithmetic: no request is made.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import quote

_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Credentials and scope of signatures."""

    access_key: str
    secret_key: str = field(repr=False)
    region: str = "us-east-1"


def presign_query(
    key: SigningKey,
    *,
    method: str,
    host: str,
    path: str,
    at: datetime,
    ttl_s: int,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return the query string that makes a request valid for `ttl_s` seconds.

    Args:
        key: Credentials.
        method: ``GET`` or ``PUT``.
        host: Host header of the request, with the port when it is not the default one.
        path: Absolute path, not encoded (bucket and key).
        at: Time of signing, UTC.
        ttl_s: Seconds of validity.
        headers: Further headers to bind; the request must carry exactly these.
    """
    signed = {name.lower(): " ".join(value.split()) for name, value in (headers or {}).items()}
    signed["host"] = host
    names = ";".join(sorted(signed))
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/{key.region}/s3/aws4_request"
    query = _encode_query(
        {
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{key.access_key}/{scope}",
            "X-Amz-Date": stamp,
            "X-Amz-Expires": str(ttl_s),
            "X-Amz-SignedHeaders": names,
        }
    )
    canonical_headers = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    canonical = "\n".join(
        [method, encode_path(path), query, canonical_headers, names, "UNSIGNED-PAYLOAD"],
    )
    to_sign = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(_scoped_key(key, stamp[:8]), to_sign.encode(), hashlib.sha256).hexdigest()
    return f"{query}&X-Amz-Signature={signature}"


def encode_path(path: str) -> str:
    """Return `path` percent-encoded as S3 wants it: everything but unreserved characters and slashes."""
    return quote(path, safe="/-_.~")


def _encode_query(parameters: Mapping[str, str]) -> str:
    return "&".join(f"{name}={quote(parameters[name], safe='-_.~')}" for name in sorted(parameters))


def _scoped_key(key: SigningKey, day: str) -> bytes:
    scoped = f"AWS4{key.secret_key}".encode()
    for part in (day, key.region, "s3", "aws4_request"):
        scoped = hmac.new(scoped, part.encode(), hashlib.sha256).digest()
    return scoped
