"""Images as whoever built them shows them: by a docker daemon when one answers, else by buildah."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVICES = (
    "identity", "sync", "permissions", "crypto", "router", "gateway", "superlink", "agent", "runner",
)  # fmt: skip
PYTHON = (*SERVICES, "tools", "job")
IMAGES = (*PYTHON, "proxy")


@dataclass(frozen=True, slots=True)
class Image:
    """An image, unpacked.

    Attributes:
        name: Its last name, for instance ``sync``.
        config: What the OCI specification calls ``config``: User, Env, Labels, Entrypoint...
        layers: Digests of its layers' content, from below.
        raw: All that its builder tells of it.
        root: Its files.
    """

    name: str
    config: dict[str, Any]
    layers: list[str]
    raw: str
    root: Path

    @property
    def env(self) -> dict[str, str]:
        """Its environment."""
        return dict(line.split("=", 1) for line in self.config["Env"])

    def run(self, *command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in it as its user: read-only root, own /tmp, no network, no capability."""
        given = [word for pair in (self.env | (env or {})).items() for word in ("--setenv", *pair)]
        box = ["bwrap", "--unshare-all", "--die-with-parent", "--clearenv", *given]
        box += ["--uid", "65532", "--gid", "65532", "--ro-bind", str(self.root), "/", "--proc", "/proc"]
        box += ["--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp"]
        return subprocess.run([*box, "--", *command], capture_output=True, text=True, timeout=90, check=False)


class Docker:
    """Images of a docker daemon."""

    def inspect(self, reference: str) -> tuple[dict[str, Any], list[str], str] | None:
        """Return config, layers and everything; None when there is no such image."""
        found = _told("docker", "image", "inspect", reference)
        if found is None:
            return None
        image = json.loads(found)[0]
        return image["Config"], image["RootFS"]["Layers"], found

    def unpack(self, reference: str, folder: Path) -> tuple[str, Path]:
        """Return a container made for the image, and where its files are."""
        container = _tell("docker", "create", reference)
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            subprocess.run(["tar", "-x", "-p", "-C", str(folder)], stdin=export.stdout, check=True)
        return container, folder

    def remove(self, container: str) -> None:
        """Take the container away."""
        _tell("docker", "rm", container)


class Buildah:
    """Images of buildah's own store."""

    def inspect(self, reference: str) -> tuple[dict[str, Any], list[str], str] | None:
        """Return config, layers and everything; None when there is no such image."""
        found = _told("buildah", "inspect", "--type", "image", reference)
        if found is None:
            return None
        docker = json.loads(found)["Docker"]
        return docker["config"], docker["rootfs"]["diff_ids"], found

    def unpack(self, reference: str, folder: Path) -> tuple[str, Path]:
        """Return a container made for the image, and where its files are."""
        del folder
        container = _tell("buildah", "from", "--pull-never", reference)
        return container, Path(_tell("buildah", "mount", container))

    def remove(self, container: str) -> None:
        """Take the container away."""
        _tell("buildah", "rm", container)


def builder() -> Docker | Buildah | None:
    """Return what shows images here."""
    if shutil.which("docker") and _told("docker", "version") is not None:
        return Docker()
    return Buildah() if shutil.which("buildah") and os.geteuid() == 0 else None


def reference(name: str) -> str:
    """Return the full name of an image as `make images` gives it."""
    return f"{os.environ.get('IMAGE_REGISTRY', 'syftmesh')}/{name}:{os.environ.get('IMAGE_TAG', 'dev')}"


def _told(*command: str) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _tell(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
