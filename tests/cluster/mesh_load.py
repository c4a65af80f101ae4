"""A steady load on an installed hub, from pods beside it, and what its record says."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from mesh_pod import RESTRICTED, apply, eventually, get, inside, kubectl, tool_pod
from syftmesh_standalone.demo.cluster.installation import HUB, Installation

KINDS = ("send", "call", "write")
PROGRAM = Path(__file__).with_name("load_program.py")
STOP = "import pathlib; pathlib.Path('/tmp/stop').touch(); print('{}')"
EFFECTS = """
import json, sqlite3
counts = sqlite3.connect("/tmp/inbox.sqlite").execute("SELECT id, count(*) FROM effect GROUP BY id")
print(json.dumps(dict(counts.fetchall())))
"""


@dataclass(frozen=True)
class Load:
    """The load that goes on.

    Attributes:
        namespace: Of its two pods.
    """

    namespace: str

    def record(self, pod: str = "sender") -> list[dict[str, Any]]:
        """Return what a pod has written down so far."""
        text = kubectl("logs", pod, "-n", self.namespace, "--tail=-1")
        return [json.loads(line) for line in text.splitlines() if line.startswith('{"kind"')]

    def silences(self, since: float, until: float) -> dict[str, float]:
        """Return for each kind the longest time in seconds in which no operation succeeded."""
        record = self.record()
        found = {}
        for kind in KINDS:
            ends = sorted(line["ended"] for line in record if line["kind"] == kind and not line["reason"])
            times = [since, *(end for end in ends if since < end < until), until]
            found[kind] = max(later - earlier for earlier, later in pairwise(times))
        return found

    def failures(self, since: float, until: float) -> list[str]:
        """Return the reasons of operations that failed, though the client tried again."""
        record = [line for line in self.record() if line["kind"] != "ready" and line.get("reason")]
        return [line["reason"] for line in record if since < line["ended"] < until]

    def wait_working(self, within_s: float) -> None:
        """Return when an operation of each kind succeeded that was begun from now on."""
        since = time.time()

        def missing() -> bool:
            record = self.record()
            done = {line["kind"] for line in record if line.get("begun", 0) > since and not line["reason"]}
            return set(KINDS) <= done

        eventually(missing, within_s, "a success of each kind of operation")

    def end(self, pod: str) -> None:
        """Tell a pod of the load to end what it does."""
        inside(self.namespace, pod, "main", STOP)

    def stop(self) -> dict[str, Any]:
        """End the load and return its verdict; the pod that answers goes on until all is answered."""
        self.end("sender")

        def verdict() -> dict[str, Any] | None:
            assert get("pod", "sender", self.namespace)["status"]["phase"] == "Running", self.record()[-3:]
            return next((line for line in self.record() if line["kind"] == "verdict"), None)

        return eventually(verdict, 400, "the verdict")

    def effects(self) -> dict[str, int]:
        """Return how often each call had its effect, by its id."""
        found: dict[str, int] = inside(self.namespace, "responder", "main", EFFECTS)
        return found

    def begin(self, mesh: Installation, name: str, role: str, email: str, peer: str, **more: Any) -> None:
        """Begin a pod of the load and return when it is ready; see the program for the roles."""
        given = {
            "role": role,
            "email": email,
            "peer": peer,
            "server": f"https://{HUB}-gateway.{mesh.options.hub_namespace}.svc",
            "ca": authority(mesh),
            "token": asyncio.run(mesh.join_token(email)),
            **more,
        }
        source = PROGRAM.read_text()
        apply(tool_pod(self.namespace, name, source, json.dumps(given), labels={"app": name}, ready=True))
        eventually(lambda: _is_ready(self, name), 120, f"the load's {name}")


@contextmanager
def load_namespace(mesh: Installation) -> Iterator[tuple[Load, str]]:
    """Give a place for a load beside a hub, and a mark for its people, who have no keys there from before."""
    mark = secrets.token_hex(3)
    namespace = f"{mesh.options.prefix}-load-{mark}"
    apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": RESTRICTED}})
    try:
        yield Load(namespace), mark
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")


@contextmanager
def running_load(mesh: Installation, sites: Sequence[str], per_s: float) -> Iterator[Load]:
    """Give a load on a hub for the block; its namespace is taken away afterwards."""
    with load_namespace(mesh) as (load, mark):
        sender, responder = (f"{name}-{mark}@load.example" for name in ("sender", "responder"))
        # The one that answers is there first: its rules and keys are what the other one finds.
        load.begin(mesh, "responder", "serve", responder, sender)
        load.begin(mesh, "sender", "send", sender, responder, sites=list(sites), per_s=per_s)
        yield load


def _is_ready(load: Load, pod: str) -> bool:
    phase = get("pod", pod, load.namespace)["status"]["phase"]
    if phase == "Pending":
        return False
    assert phase == "Running", kubectl("logs", pod, "-n", load.namespace)
    return any(line["kind"] == "ready" for line in load.record(pod))


def authority(mesh: Installation) -> str:
    """Return the certificates that prove a hub (PEM)."""
    data = get("secret", f"{HUB}-hub-tls", mesh.options.hub_namespace)["data"]
    return base64.b64decode(data["ca.crt"]).decode()
