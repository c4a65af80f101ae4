"""Try to get out of the sandbox and report what happened: network, host files, writes to the data."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path


def outcome(attempt: Callable[[], object]) -> str:
    """Return OPEN when the attempt works, else the name of its error."""
    try:
        attempt()
    except OSError as error:
        return f"{type(error).__name__} {error.strerror or 'refused'}"
    return "OPEN"


def connect(host: str, port: int) -> Callable[[], object]:
    """Return an attempt to connect."""
    return lambda: socket.create_connection((host, port), timeout=2).close()


def write(path: str) -> Callable[[], object]:
    """Return an attempt to write."""
    return lambda: Path(path).write_text("written by a job")


def main() -> None:
    """Try everything."""
    data, targets = os.environ["DATA_DIR"], json.loads(os.environ["PARAMETERS"])["targets"]
    attempts = {
        "network internet": connect("1.1.1.1", 443),
        "network metadata": connect("169.254.169.254", 80),
        "network name": lambda: socket.getaddrinfo("example.org", 443),
        **{f"network {name}": connect(host, port) for name, (host, port) in targets.items()},
        "write data": write(f"{data}/breast_cancer.csv"),
        "write beside data": write(f"{data}/new.csv"),
        "write system": write("/usr/new"),
        "write root": write("/new"),
        "read passwords": lambda: Path("/etc/shadow").read_bytes(),
    }
    lines = ["attempt,outcome", *(f"{name},{outcome(attempt)}" for name, attempt in attempts.items())]
    rows = sum(1 for _ in (Path(data) / "breast_cancer.csv").open()) - 1
    lines.append(f"read the private rows,{rows} rows")
    (Path(os.environ["OUTPUT_DIR"]) / "attempts.csv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
