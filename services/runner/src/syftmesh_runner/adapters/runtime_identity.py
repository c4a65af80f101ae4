"""The digest of the Python runtime that jobs run in: interpreter and installed distributions."""

from __future__ import annotations

import hashlib
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path

from syftmesh_core.enc import Value, encode


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
