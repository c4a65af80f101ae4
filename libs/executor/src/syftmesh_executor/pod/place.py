"""Where things lie in a job's pod, and the names both containers know."""

from __future__ import annotations

from pathlib import Path

CODE = Path("/code")
DATA = Path("/data")
OUTPUT = Path("/output")
SCRATCH = Path("/tmp")  # noqa: S108 - inside the pod
CONTROL = Path("/control")
"""The carrier writes it, the job only reads it: order, marks and pipes."""
REPORT = Path("/report")
"""The job writes it, the carrier only reads it."""

ORDER_FILE = CONTROL / "order.json"
STAGED_MARK = CONTROL / "staged"
CANCEL_MARK = CONTROL / "cancel"
PIPE_IN = CONTROL / "in"
PIPE_OUT = CONTROL / "out"

REPORT_FILE = "report.json"
STDOUT_FILE = "stdout"
STDERR_FILE = "stderr"
