#!/opt/venv/bin/python
"""Entry point of an image: become ``python -m`` of the service that the image was built for."""

import os
import sys

name = os.environ["SYFTMESH_SERVICE"]
module = "syftmesh.cli" if name == "tools" else f"syftmesh_{name}"
os.execv(sys.executable, [sys.executable, "-P", "-m", module, *sys.argv[1:]])
