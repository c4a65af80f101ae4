"""Say what an image is made of: a software bill of materials (CycloneDX 1.6, JSON) on standard output.

``python3 sbom.py ROOT NAME VERSION`` reads the image's files below ROOT: the distributions installed in its Python and
the records of the Debian packages whose files it has. The same image gives the same bytes.
"""

from __future__ import annotations

import json
import sys
import uuid
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

_NAMESPACE = uuid.UUID("5f8a7f2e-54a4-5d7c-9a3e-2f1f3a1f6b10")


def licences(distribution: Distribution) -> list[dict[str, Any]]:
    """Return what a distribution says about its licence: an expression, else the names in its classifiers."""
    told = distribution.metadata
    if expression := told.get("License-Expression"):
        return [{"expression": expression}]
    classifiers = told.get_all("Classifier") or []
    names = [line.rsplit(" :: ", 1)[1] for line in classifiers if line.startswith("License :: ")]
    if not names and (text := told.get("License")):
        names = [text.splitlines()[0][:200]]
    return [{"license": {"name": name}} for name in names]


def of_python(root: Path) -> list[dict[str, Any]]:
    """Return the components that are distributions of Python."""
    places = [str(path) for path in sorted(root.glob("opt/venv/lib/python3*/site-packages"))]
    found = []
    for distribution in distributions(path=places):
        name, version = distribution.metadata["Name"].lower().replace("_", "-"), distribution.version
        purl = f"pkg:pypi/{name}@{quote(version)}"
        component = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
        if stated := licences(distribution):
            component["licenses"] = stated
        found.append(component)
    return found


def of_debian(root: Path) -> list[dict[str, Any]]:
    """Return the components that are packages of Debian."""
    found = []
    for record in sorted(root.glob("var/lib/dpkg/status.d/*")):
        lines = (line.partition(": ") for line in record.read_text().splitlines() if not line.startswith(" "))
        fields = {name: value for name, _, value in lines}
        name, version = fields["Package"], fields["Version"]
        purl = f"pkg:deb/debian/{name}@{quote(version)}?arch={fields['Architecture']}"
        found.append({"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl})
    return found


def bill(root: Path, name: str, version: str) -> dict[str, Any]:
    """Return the document for the image whose files lie below `root`."""
    components = sorted(of_python(root) + of_debian(root), key=lambda component: component["bom-ref"])
    content = json.dumps([name, version, components])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, content)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": name, "version": version}},
        "components": components,
    }


if __name__ == "__main__":
    print(json.dumps(bill(Path(sys.argv[1]), sys.argv[2], sys.argv[3]), indent=1))
