"""A kubectl of the tests: `exec` runs the command here, everything else answers from files, and all is noted.

Its folder is the first argument. ``answers.json`` maps the beginning of a command line to what is written; a value
that begins with ``!`` is an error. ``calls`` gets a line for each call.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> int:
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    with (folder / "calls").open("a") as calls:
        calls.write(json.dumps(arguments[:12]) + "\n")
    if "--" in arguments:
        command = arguments[arguments.index("--") + 1 :]
        replaced = [
            sys.executable if word == "python" else word.replace("/volume", str(folder)) for word in command
        ]
        if replaced[0] == sys.executable:
            os.execv(sys.executable, replaced)  # noqa: S606 - the point of it
    line = " ".join(arguments)
    answers = json.loads((folder / "answers.json").read_text())
    for start in sorted(answers, key=len, reverse=True):
        if line.startswith(start):
            break
    else:
        sys.stderr.write(f"no answer for: {line}\n")
        return 1
    if "-f -" in line or "--values=-" in line:
        with (folder / "stdin").open("a") as file:
            file.write(sys.stdin.read() + "\n")
    text = answers[start]
    if text.startswith("!"):
        sys.stderr.write(text[1:] + "\n")
        return 1
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
