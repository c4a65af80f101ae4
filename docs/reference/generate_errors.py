"""Write docs/reference/errors.md from mesh.common.v1.ErrorReason and the code; `--check` fails when it is stale."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from reason_scan import ENUM_FILE, ROOT, Found, catalogue, scan

PAGE = Path(__file__).with_name("errors.md")
_CLASSES_FILE = ROOT / "libs" / "core" / "src" / "syftmesh_core" / "errors.py"
_DIVISION = re.compile(r"  // ==== (\d+)-(\d+): (.*)\.")
_HEAD = """\
# Errors

Every error of SyftMesh has a class, a reason and a message; variable parts of the message are in its metadata again.
Over gRPC the class is the status code and the reason travels in `google.rpc.ErrorInfo` (domain `syftmesh.org`); over
HTTP both are fields of a problem document (RFC 9457); the SDK raises the class by its name; the command line prints
`error: REASON: message` and ends with the class's exit code. A reason without a class comes inside a result, of a
commit or of a call, and not as an error by itself.

Written by `python docs/reference/generate_errors.py` from `protos/mesh/common/v1/error_reason.proto` and the code.

## Classes

| class | gRPC status | exit code |
|---|---|---|
"""


def classes() -> dict[str, tuple[str, int]]:
    """Return the error classes, by gRPC code: name and exit code of the command line."""
    text = _CLASSES_FILE.read_text()
    rows = re.findall(r"[├└]─ (\w+) +([A-Z_]+) +exit (\d+)", text)
    return {code: (name, int(exit_code)) for name, code, exit_code in rows}


def page(proto: str, found: Found) -> str:
    """Return the text of errors.md."""
    names = classes()
    lines = [f"| {name} | {code} | {exit_code} |" for code, (name, exit_code) in names.items()]
    lines += ["", "## Reasons"]
    values = catalogue(proto)
    for first, last, title in _divisions(proto):
        lines += ["", f"### {title}", "", "| reason | class | meaning |", "|---|---|---|"]
        for reason, (number, meaning) in values.items():
            if first <= number <= last:
                raised = sorted(names[code][0] for code in found.codes.get(reason, ()))
                lines.append(f"| `{reason}` | {', '.join(raised) or 'in a result'} | {meaning} |")
    return _HEAD + "\n".join(lines) + "\n"


def _divisions(proto: str) -> Iterator[tuple[int, int, str]]:
    for first, last, title in _DIVISION.findall(proto):
        yield int(first), int(last), title


def main() -> None:
    """Write the page, or with ``--check`` compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when the page is stale")
    text = page(ENUM_FILE.read_text(), scan())
    if not parser.parse_args().check:
        PAGE.write_text(text)
    elif not PAGE.exists() or PAGE.read_text() != text:
        sys.exit("docs/reference/errors.md is stale; run: python docs/reference/generate_errors.py")


if __name__ == "__main__":
    main()
