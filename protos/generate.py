"""Generate the Python code below gen/ from the protos; `--check` fails when the committed code is stale.

Runs offline with the locked grpcio-tools, so the code never needs a newer runtime than the lock has.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import sys
import tempfile
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).parent


def generate(target: Path) -> None:
    """Write the generated packages below `target`.

    Raises:
        SystemExit: protoc refused a file.
    """
    # The mypy plugins lie beside the interpreter, which need not be on the PATH of whoever calls.
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    sources = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "mesh").rglob("*.proto"))
    arguments = ["protoc", f"-I{ROOT}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}"]
    arguments += [f"--{plugin}_out={target}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    if protoc.main([*arguments, *sources]):
        sys.exit("protoc refused a file; see above")
    for folder in sorted({p.parent for p in target.rglob("*.py")}):
        while folder != target:
            marker = folder / "__init__.py"
            marker.write_text('"""Generated code of SyftMesh\'s protos; never edited."""\n')
            folder = folder.parent  # noqa: PLW2901 - walking up to the root
    (target / "mesh" / "py.typed").write_text("")


def differences(left: Path, right: Path) -> list[str]:
    """Return the files that differ or exist on one side only, relative to the roots."""

    def files(root: Path) -> set[str]:
        return {
            str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts
        }

    names = files(left) | files(right)
    return sorted(
        n
        for n in names
        if not (
            (left / n).is_file() and (right / n).is_file() and filecmp.cmp(left / n, right / n, shallow=False)
        )
    )


def main() -> None:
    """Generate, or with ``--check`` compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the committed code is stale")
    if not parser.parse_args().check:
        generate(ROOT / "gen")
        return
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = differences(ROOT / "gen", Path(folder))
    if stale:
        sys.exit("generated code is stale (run `make proto`): " + ", ".join(stale))


if __name__ == "__main__":
    main()
