"""The standard layout of a datasite: the rule files that its owner signs when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from syftmesh_core.path import RULES_FILE, MeshPath
from syftmesh_core.principal import normalise_principal

PUBLIC_FOLDER: Final = "public"
RESULTS_FOLDER: Final = "app_data/rds/results"
DATASETS_FOLDER: Final = "app_data/rds/datasets"

_CALL_NAME: Final = "call"

_RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "": "# Everything is private unless a rule file further down says otherwise.\nrules: []\n",
        f"{PUBLIC_FOLDER}/": """\
# Everyone may read this folder, without an account too.
rules:
  - pattern: "**"
    access:
      read: ["*"]
""",
        "app_data/rds/rpc/": """\
# Whoever has an account may ask for a job; the owner decides about each.
rules:
  - pattern: "{submit,withdraw,status}/**"
    access:
      write: ["USER"]
""",
        "app_data/fl/rpc/": """\
# Whoever has an account may propose a federated run; the owner decides about each.
rules:
  - pattern: "{propose,status}/**"
    access:
      write: ["USER"]
""",
        f"{RESULTS_FOLDER}/": """\
# Results lie in a folder per recipient, who alone reads them.
rules:
  - pattern: "{{.UserEmail}}/**"
    access:
      read: ["USER"]
""",
    }
)


def standard_layout(site: str) -> Mapping[str, bytes]:
    """Return the rule files of a new datasite by canonical path; a device that is admin signs them.

    Args:
        site: Principal who owns the datasite.

    Raises:
        InvalidInput: (PRINCIPAL_INVALID).
    """
    owner = normalise_principal(site)
    return {f"{owner}/{folder}{RULES_FILE}": text.encode() for folder, text in _RULES.items()}


def call_path(endpoint: MeshPath) -> MeshPath:
    """Return the path whose `write` right is the right to call the endpoint with directory `endpoint`.

    Calls are decided as for a new file directly in that directory, so a rule file in it applies; hub and site
    ask for the same name.

    Raises:
        InvalidInput: (PATH_INVALID) the directory is too long to hold a file.
    """
    return endpoint.child(_CALL_NAME)
