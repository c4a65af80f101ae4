"""The digest of the runtime that jobs run in: of this Python environment, or of an image."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

from syftmesh_core.enc import Value, encode
from syftmesh_core.errors import Unavailable


class RunningRuntime:
    """The environment that runs this process, which the sandbox executor gives to jobs by default.

    The digest is the SHA-256 of ``ENC('runtime', implementation, version, machine, SHA-256 of the
    interpreter, [name, version, SHA-256 of RECORD of each distribution])``; a RECORD lists the digests of the
    files that were installed (PEP 376).
    """

    def digest(self) -> str:
        """Return the digest, hex, from what is installed now."""
        found = {}
        for distribution in distributions():
            name = (distribution.metadata["Name"] or "").lower()
            record = distribution.read_text("RECORD") or ""
            found[name] = f"{name} {distribution.version} {hashlib.sha256(record.encode()).hexdigest()}"
        interpreter = hashlib.sha256(Path(sys.executable).resolve().read_bytes()).digest()
        fields: list[Value] = [
            platform.python_implementation(),
            platform.python_version(),
            platform.machine(),
            interpreter,
            [found[name] for name in sorted(found)],
        ]
        return hashlib.sha256(encode("runtime", fields)).hexdigest()


class ImageRuntime:
    """The container image that jobs run in.

    Args:
        image_digest: Gives the image's own SHA-256 in hex, empty while it is not known.

    The digest is the SHA-256 of ``ENC('runtime-image', image digest)``.
    """

    def __init__(self, image_digest: Callable[[], str]) -> None:
        self._image_digest = image_digest

    def digest(self) -> str:
        """Return the digest, hex.

        Raises:
            Unavailable: RUNTIME_UNKNOWN: no pod has run the image yet.
        """
        found = self._image_digest()
        if not found:
            raise Unavailable(
                "The site does not know yet which image its jobs run in; it asks its cluster. Try again in a "
                "minute; the owner sees with `syftmesh site probe` what keeps it.",
                reason="RUNTIME_UNKNOWN",
            )
        fields: list[Value] = [found]
        return hashlib.sha256(encode("runtime-image", fields)).hexdigest()
