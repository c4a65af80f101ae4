"""Where things lie in a job's pod, and the names both containers know."""

from __future__ import annotations

from pathlib import Path

CODE = Path("/code")
DATA = Path("/data")
OUTPUT = Path("/output")
SCRATCH = Path("/tmp")  # noqa: S108 - inside the pod
CONTROL = Path("/control")
"""The carrier writes it, the job only reads it: order and marks."""
REPORT = Path("/report")
"""The job writes it, the carrier only reads it."""

ORDER_FILE = CONTROL / "order.json"
STAGED_MARK = CONTROL / "staged"
CANCEL_MARK = CONTROL / "cancel"

SOCKET_IN = "\0syftmesh-in"
SOCKET_OUT = "\0syftmesh-out"
"""The code's pipes between the containers, which share a network: named pipes do not lead out of gVisor's. Who
listens stops once the launcher is there, and the launcher is before the code."""

REPORT_FILE = "report.json"
STDOUT_FILE = "stdout"
STDERR_FILE = "stderr"
