"""The checks of doctor: each looks at one thing and says ok, warn or fail with the next command."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from syftmesh_core.clock import Clock, to_datetime

from syftmesh.cli.output import size_text

if TYPE_CHECKING:
    from syftmesh_client.trust import HubTrust

_FREE_WARN_BYTES: Final = 1 << 30
_SKEW_WARN_S: Final = 5.0
_SKEW_FAIL_S: Final = 60.0
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


class Status(StrEnum):
    """How it stands."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        check: What was looked at.
        status: How it stands.
        detail: What was seen.
        next: The command or step that mends it; empty when all is well.
    """

    check: str
    status: Status
    detail: str
    next: str = ""


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What the hub said of itself.

    Attributes:
        version: Its version.
        date: Its header ``Date``, empty without.
        parts: Whether each part behind it serves, by name; None where it does not tell.
    """

    version: str
    date: str
    parts: Mapping[str, bool] | None = None


def state_finding(state: Path, *, in_pod: bool = False) -> Finding:
    """Look at the state folder: there, private, writable.

    Args:
        state: The folder.
        in_pod: Whether it may be the root of a volume, which is root's and the pod's alone.
    """
    if not state.is_dir():
        return Finding("state", Status.WARN, "There is no state folder yet.", "syftmesh up")
    found = state.stat()
    mode = stat.S_IMODE(found.st_mode)
    is_volume = in_pod and found.st_uid == 0
    if mode & 0o077 and not is_volume:
        return Finding("state", Status.FAIL, f"Others may enter it (mode {mode:o}).", f"chmod 700 {state}")
    if not os.access(state, os.W_OK | os.X_OK):
        return Finding("state", Status.FAIL, "It cannot be written.", f"ls -ld {state}")
    return Finding("state", Status.OK, f"{state}, {'a volume of this pod' if is_volume else 'private'}")


def space_finding(state: Path) -> Finding:
    """Look at the free space where the state lies."""
    place = state
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    text = f"{size_text(free)} free"
    if free < _FREE_WARN_BYTES:
        return Finding("disk", Status.WARN, text, f"df -h {place}")
    return Finding("disk", Status.OK, text)


def sandbox_finding() -> Finding:
    """Look for the sandbox that runs jobs at a site and mocks of a site."""
    program = shutil.which("bwrap")
    if program is None:
        detail = "bubblewrap is missing: a site here could not run jobs."
        return Finding("sandbox", Status.WARN, detail, "apt-get install bubblewrap")
    inner = [program, "--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "true"]
    try:
        done = subprocess.run(inner, capture_output=True, timeout=10, check=False)
        version = subprocess.run(
            [program, "--version"], capture_output=True, timeout=10, check=False, text=True
        )
    except (OSError, subprocess.TimeoutExpired):
        return Finding("sandbox", Status.FAIL, "bubblewrap does not start.", "bwrap --version")
    if done.returncode != 0:
        detail = "bubblewrap may make no namespaces here, so jobs cannot be isolated."
        return Finding("sandbox", Status.FAIL, detail, "sysctl kernel.unprivileged_userns_clone=1")
    return Finding("sandbox", Status.OK, f"{version.stdout.strip()} makes namespaces")


def sites_finding(running: dict[str, dict[str, bool]]) -> Finding | None:
    """Look at the programs of this machine's sites; None where there is no site.

    Args:
        running: Site to program to whether it answers.
    """
    if not running:
        return None
    silent = [
        f"{program} of {site}" for site, found in running.items() for program, up in found.items() if not up
    ]
    if silent:
        sites = ",".join(running)
        return Finding(
            "sites", Status.WARN, f"Not running: {', '.join(silent)}.", f"syftmesh up --sites {sites}"
        )
    return Finding("sites", Status.OK, f"{len(running)} running")


def ask_hub(server: str, trust: HubTrust) -> HubAnswer:
    """Return what the hub at `server` says.

    Args:
        server: Its address.
        trust: What proves it.

    Raises:
        httpx.HTTPError: It does not answer.
        ValueError: What answers is no hub.
    """
    import httpx

    trust_env = urlsplit(server).hostname not in _LOOPBACK
    with httpx.Client(trust_env=trust_env, timeout=10, verify=trust.verify(server)) as http:
        answer = http.get(f"{server.rstrip('/')}/.well-known/syftmesh.json")
        health = http.get(f"{server.rstrip('/')}/healthz")
    if answer.status_code != 200:
        raise ValueError("not a hub")
    found = answer.json()
    if not isinstance(found, dict) or not isinstance(found.get("version"), str):
        raise ValueError("not a hub")
    return HubAnswer(found["version"], answer.headers.get("Date", ""), _parts(health))


def _parts(health: Any) -> dict[str, bool] | None:
    """Return what the hub tells of its parts: with status 200 when all serve, 503 when one does not."""
    if health.status_code not in {200, 503}:
        return None
    try:
        parts = health.json()["parts"]
        return {str(name): word == "serving" for name, word in parts.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def hub_findings(
    server: str, ask: Callable[[str], HubAnswer], clock: Clock, own_version: str
) -> tuple[list[Finding], bool]:
    """Look at the hub: reachable, its parts, its clock, its version.

    Args:
        server: Its address.
        ask: Asks it, like `ask_hub`.
        clock: This machine's.
        own_version: Version of this program.

    Returns:
        The findings, and whether the hub answers.
    """
    import httpx

    from syftmesh.cli.hub_diagnosis import is_loopback, parts_finding

    try:
        answer = ask(server)
    except httpx.HTTPError:
        follow = "syftmesh up" if is_loopback(server) else f"curl -v {server}"
        return [Finding("hub", Status.FAIL, f"{server} does not answer.", follow)], False
    except ValueError:
        detail = f"What answers at {server} is no SyftMesh hub."
        return [Finding("hub", Status.FAIL, detail, "syftmesh doctor --server URL")], False
    version = (
        Finding("version", Status.OK, f"{own_version} here and at the hub")
        if answer.version == own_version
        else Finding(
            "version",
            Status.WARN,
            f"{own_version} here, {answer.version} at the hub.",
            "pip install --upgrade syftmesh",
        )
    )
    found = [Finding("hub", Status.OK, f"{server} answers"), parts_finding(server, answer.parts)]
    return [*found, clock_finding(answer.date, clock), version], True


def clock_finding(date: str, clock: Clock) -> Finding:
    """Compare this machine's clock with the hub's header ``Date`` (RFC 9110, section 6.6.1), to the second."""
    try:
        theirs = parsedate_to_datetime(date)
        skew_s = (to_datetime(clock.now_ms()) - theirs).total_seconds()
    except (ValueError, TypeError):
        return Finding("clock", Status.WARN, "The hub does not tell its time.", "timedatectl")
    # The header has whole seconds, rounded down.
    late = max(abs(skew_s) - 1.0, 0.0)
    side = "ahead of" if skew_s > 0 else "behind"
    detail = f"{abs(skew_s):.0f} s {side} the hub"
    if late > _SKEW_FAIL_S:
        return Finding(
            "clock", Status.FAIL, f"{detail}: tokens and signatures will be refused.", "timedatectl"
        )
    if late > _SKEW_WARN_S:
        return Finding("clock", Status.WARN, detail, "timedatectl")
    return Finding("clock", Status.OK, "agrees with the hub")
