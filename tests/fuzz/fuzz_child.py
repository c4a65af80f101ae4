"""One target under atheris: ``python fuzz_child.py TARGET [flags of libFuzzer] CORPUS``.

Ends with 0 when the time is over, else with the code of libFuzzer, which then leaves the input as a file.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["syftmesh_core"]):
    from fuzz_target import TARGETS


def main() -> None:
    """Fuzz until the time is over."""
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
