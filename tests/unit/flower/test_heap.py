"""Memory of updates goes back to the system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import threading
from pathlib import Path
from syftmesh_flower.heap import give_back

def resident_pages():
    return int(Path("/proc/self/statm").read_text().split()[1])

def work():
    global held
    blocks = [bytes([1]) * 100_000 for _ in range(1000)]
    held.append(blocks[-1])  # at the end of the heap: what is before it stays without a word

held = []
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
before = resident_pages()
assert give_back()
print(before - resident_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such call")
def test_freed_memory_goes_back() -> None:
    # In a process of its own: what this one keeps depends on every test before.
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True
    )
    assert int(done.stdout) * 4096 > 50_000_000
