"""What a Flower app bundle (FAB) must be before anybody is asked to approve it.

Source: Flower 1.41, `flwr.common.config` and "Flower App Bundle": a zip with a ``pyproject.toml`` whose
``[tool.flwr.app]`` names publisher and components.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
from dataclasses import dataclass
from typing import Any, Final

from syftmesh_core.errors import InvalidInput, LimitExceeded

MAX_BUNDLE_BYTES: Final = 4 * 1024 * 1024
MAX_UNPACKED_BYTES: Final = 32 * 1024 * 1024
MAX_FILES: Final = 1000
_MAX_PROJECT_BYTES: Final = 256 * 1024
_PROJECT: Final = "pyproject.toml"
_MAX_NAME_CHARACTERS: Final = 200


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is read from an app bundle.

    Attributes:
        digest: SHA-256 of its bytes, hex.
        name: ``publisher/name==version``.
        config: The app's run configuration, keys joined by dots.
    """

    digest: str
    name: str
    config: dict[str, Any]


def read_bundle(data: bytes) -> Bundle:
    """Return what the bundle is; the SuperLink reads it once more in its own way.

    Raises:
        LimitExceeded: It is too large (BUNDLE_TOO_LARGE).
        InvalidInput: It is no app bundle, or lacks something (BUNDLE_INVALID).
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise LimitExceeded(
            f"The app bundle has {len(data)} bytes, {MAX_BUNDLE_BYTES} are allowed. Leave data and models out.",
            reason="BUNDLE_TOO_LARGE",
            metadata={"size_bytes": str(len(data)), "limit_bytes": str(MAX_BUNDLE_BYTES)},
        )
    project = _project(data)
    try:
        app = project["tool"]["flwr"]["app"]
        publisher, components = app["publisher"], app["components"]
        name, version = project["project"]["name"], project["project"]["version"]
        config = _flat(app.get("config", {}))
    except (KeyError, TypeError, AttributeError):
        raise _refused(
            "its pyproject.toml needs name and version under [project], and publisher and components under "
            "[tool.flwr.app]"
        ) from None
    if not isinstance(components, dict) or not {"serverapp", "clientapp"} <= components.keys():
        raise _refused("it needs both a serverapp and a clientapp under [tool.flwr.app.components]")
    title = f"{publisher}/{name}=={version}"
    if len(title) > _MAX_NAME_CHARACTERS or not title.isprintable():
        raise _refused("its name is too long or has control characters")
    return Bundle(hashlib.sha256(data).hexdigest(), title, config)


def _project(data: bytes) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
                raise _refused(f"it unpacks to more than {MAX_FILES} files or {MAX_UNPACKED_BYTES} bytes")
            if len({entry.filename for entry in entries}) != len(entries):
                raise _refused("it holds two files of one name")
            with archive.open(_PROJECT) as file:
                text = file.read(_MAX_PROJECT_BYTES + 1)
    except KeyError:
        raise _refused(f"it holds no {_PROJECT}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, OSError, EOFError, ValueError):
        raise _refused("it is no zip file that can be read") from None
    except Exception as error:  # zlib.error and its like are no common family
        if isinstance(error, InvalidInput):
            raise
        raise _refused("it is no zip file that can be read") from None
    if len(text) > _MAX_PROJECT_BYTES:
        raise _refused(f"its {_PROJECT} is larger than {_MAX_PROJECT_BYTES} bytes")
    try:
        return tomllib.loads(text.decode())
    except ValueError:
        raise _refused(f"its {_PROJECT} is no TOML") from None


def _flat(config: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _refused(why: str) -> InvalidInput:
    return InvalidInput(
        f"This is no Flower app that can run here: {why}. Build it with `flwr build`.",
        reason="BUNDLE_INVALID",
    )
