"""Safe tokens for identities: what may stand in a subject, a key or a file name."""

from __future__ import annotations

import base64


def safe_token(text: str) -> str:
    """Return `text` as one token of ``[a-z2-7]`` (RFC 4648 base32, lower case, unpadded).

    Dots and wildcards of an e-mail thus never reach a NATS subject, a KV key or a file name.
    """
    return base64.b32encode(text.encode()).decode().rstrip("=").lower()


def from_safe_token(token: str) -> str:
    """Return the text that `safe_token` encoded.

    Raises:
        ValueError: `token` is not such a token.
    """
    padded = token.upper() + "=" * (-len(token) % 8)
    text = base64.b32decode(padded).decode()
    if safe_token(text) != token:
        raise ValueError("not a canonical token")
    return text
