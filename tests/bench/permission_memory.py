"""What the rules of a datasite take: parse so many distinct files, and print by how much this process grew.

``python -m bench.permission_memory FILES PEOPLE``
"""

from __future__ import annotations

import gc
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.permission import OWNER, Directory, _directories, _rules
from syftmesh_core.permission import RuleSet, RuleTree, parse_ruleset


def main() -> None:
    """Build the tree and print one line, ``bytes N``."""
    files, people = int(sys.argv[1]), int(sys.argv[2])
    gc.collect()
    before = _resident_bytes()
    tree = RuleTree.build(OWNER, _parsed(files, people))
    gc.collect()
    grown = _resident_bytes() - before
    assert sum(1 for _ in tree) == files
    sys.stdout.write(f"bytes {grown}\n")


def _parsed(files: int, people: int) -> Iterator[tuple[Directory, RuleSet, int]]:
    source = random.Random(7)  # noqa: S311 - the same files every time
    for number, directory in enumerate(_directories(files)):
        yield directory, parse_ruleset(_rules(source, number, people).encode()), number + 1


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
