"""Run the benches: one table on stdout, and bench.json. A missed target is told and is no error.

``PYTHONPATH=tests python -m bench [--only NAME]... [--pairs N] [--out FILE]``
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

from bench import (
    call,
    cluster,
    crypto,
    flower,
    image,
    kubernetes,
    permission,
    permission_service,
    rules,
    sandbox,
    startup,
)
from bench.measure import MIN_PAIRS, Row, machine, table, write_json

Bench = Callable[[Path, int], Coroutine[Any, Any, list[Row]]]

BENCHES: Final[dict[str, Bench]] = {
    "permission": permission.check,
    "permission-service": permission_service.check,
    "rules": rules.check,
    "seal": crypto.seal_and_open,
    "sandbox": sandbox.job_start,
    "kubernetes": kubernetes.job_start,
    "whoami": call.whoami,
    "relay": call.relay,
    "send": call.send,
    "flower": flower.rounds,
    "up": startup.up,
    "demo": startup.demo,
    "cluster": cluster.cluster,
    "cluster-demo": cluster.demo,
    "images": image.sizes,
}

WHEN_NAMED: Final = ("kubernetes", "cluster", "cluster-demo", "images")
"""These need a cluster, or images that were built."""


def main() -> int:
    """Run what is asked for and return the exit code: 1 when a bench could not run."""
    arguments = _parser().parse_args()
    names = arguments.only or [name for name in BENCHES if name not in WHEN_NAMED]
    rows: list[Row] = []
    failed: list[str] = []
    for name in names:
        sys.stderr.write(f"bench {name}\n")
        try:
            with tempfile.TemporaryDirectory(prefix="bench-") as folder:
                rows += asyncio.run(BENCHES[name](Path(folder), arguments.pairs))
        except Exception:  # noqa: BLE001 - one bench that cannot run must not hide the others
            traceback.print_exc()
            failed.append(name)
    left = () if arguments.only else WHEN_NAMED
    _tell(rows, failed, left, arguments.out)
    return int(bool(failed))


def _tell(rows: Sequence[Row], failed: Sequence[str], left: Sequence[str], out: Path) -> None:
    about = ", ".join(f"{name} {value}" for name, value in machine().items())
    sys.stdout.write(f"{table(rows)}\n\nmachine: {about}\n")
    write_json(out, rows)
    missed = [row.what for row in rows if row.verdict == "missed"]
    sys.stdout.write(f"missed: {'; '.join(missed) or 'nothing'}\n")
    if left:
        sys.stdout.write(f"not run, for they need a cluster or images: --only {' --only '.join(left)}\n")
    if failed:
        sys.stdout.write(f"could not run: {', '.join(failed)}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--only", action="append", choices=BENCHES, help="one bench; may be given again")
    parser.add_argument("--pairs", type=_count, default=MIN_PAIRS, help="pairs of each comparison")
    parser.add_argument("--out", type=Path, default=Path("bench.json"), help="where the numbers go")
    return parser


def _count(text: str) -> int:
    count = int(text)
    if count < MIN_PAIRS:
        raise argparse.ArgumentTypeError(f"at least {MIN_PAIRS}")
    return count


if __name__ == "__main__":
    sys.exit(main())
