"""Which object store is trusted: one whose certificate comes from the authorities that the settings name."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from syftmesh_core.errors import InvalidInput

_RUST_TLS: Final = "InvalidCertificate("
"""How obstore shows the error of rustls, below it, for a certificate that is not accepted."""


def store_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return the context of clients of the store.

    Args:
        ca_file: Authorities (PEM); None: those of the system.

    Raises:
        InvalidInput: The file is missing or holds no certificate (TLS_FILES_INVALID).
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        name = ca_file.name if ca_file is not None else ""
        raise InvalidInput(
            f"The file {name} of the object store's authorities is missing or holds no certificate. Check the "
            "setting S3_CA_FILE.",
            reason="TLS_FILES_INVALID",
            metadata={"files": name},
        ) from error


def is_untrusted(error: BaseException) -> bool:
    """Return whether a request failed because the store's certificate was not accepted."""
    left: list[object] = [error]
    seen: set[int] = set()
    while left:
        known = left.pop()
        if not isinstance(known, BaseException) or id(known) in seen:
            continue
        if isinstance(known, ssl.SSLCertVerificationError) or _RUST_TLS in str(known):
            return True
        seen.add(id(known))
        # urllib3 keeps causes as its own `reason`, and as arguments.
        left += [known.__cause__, known.__context__, getattr(known, "reason", None), *known.args]
    return False
