"""Which object store is trusted: one whose certificate comes from the authorities that the settings name."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Final

from syftmesh_core.errors import InvalidInput

_RUST_TLS: Final = "invalid peer certificate"
"""What rustls, below obstore, says of a certificate that it does not accept."""


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
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, ssl.SSLCertVerificationError) or _RUST_TLS in str(known):
            return True
        reason = getattr(known, "reason", None)  # urllib3 keeps the cause of its last try there
        known = reason if isinstance(reason, BaseException) else known.__cause__ or known.__context__
    return False
