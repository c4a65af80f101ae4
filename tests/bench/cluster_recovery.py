"""How long calls fail when a pod of the hub is deleted, as a site's device sees it through the one port."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from bench.measure import Row, alone
from syftmesh_standalone.demo.cluster.installation import HUB, SITE, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool, ended

RECOVERY_S: Final = 5.0
STEADY: Final = 40
"""Calls in a row that succeed before a pod is deleted, and after: some seconds."""
LONGEST_S: Final = 120.0
SOURCE: Final = Path(__file__).with_name("cluster_probe.py")
CALLS: Final = (
    ("gateway", "deployment/hub-gateway", "identity"),
    ("identity", "deployment/hub-identity", "identity"),
    ("sync", "deployment/hub-sync", "sync"),
    ("permissions", "deployment/hub-permissions", "permissions"),
    ("crypto", "deployment/hub-crypto", "crypto"),
    ("router", "deployment/hub-router", "router"),
    ("router", "deployment/hub-router", "site"),
    ("superlink", "statefulset/hub-superlink", "superlink"),
    ("nats", "statefulset/hub-nats", "router"),
    ("store", "statefulset/hub-store", "store"),
)
"""Component whose pod is deleted, its workload, and the call that needs it."""
ASKED: Final = {
    "identity": "who am I",
    "sync": "what is my file",
    "permissions": "may I",
    "crypto": "which devices",
    "router": "where is a call",
    "site": "a call to a site",
    "superlink": "which runs",
    "store": "bytes of an object",
}


class NotBack(Exception):
    """Calls did not come back."""


class Probe:
    """The program in the site's console."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def ask(self, line: str) -> Any:
        """Return the answer to a line.

        Raises:
            NotBack: The program ended; with its last words.
        """
        stdin, stdout, stderr = self._process.stdin, self._process.stdout, self._process.stderr
        assert stdin is not None
        assert stdout is not None
        assert stderr is not None
        if line:
            stdin.write(f"{line}\n".encode())
            await stdin.drain()
        answer = await stdout.readline()
        if not answer:
            raise NotBack((await stderr.read()).decode(errors="replace")[-2000:])
        return json.loads(answer)

    async def steady(self, seconds: float = LONGEST_S) -> None:
        """Wait until the latest calls succeeded one after the other.

        Raises:
            NotBack: They still fail.
        """
        deadline_s = time.monotonic() + seconds
        while await self.ask("run") < STEADY:
            if time.monotonic() > deadline_s:
                failed = Counter(why for _, why in await self.ask("tell") if why)
                raise NotBack(f"calls fail for {seconds:.0f} s: {dict(failed)}")
            await asyncio.sleep(0.2)


async def recoveries(made: Installation, owner: str, count: int) -> list[Row]:
    """Delete each pod of the hub `count` times, one after the other; a row for each call."""
    rows = []
    async with _probe(made.kubectl, made.site_of(owner), owner) as probe:
        for component, workload, call in CALLS:
            found = [await _recovery(made, probe, component, workload, call) for _ in range(count)]
            what = f"pod of {component} deleted, until {ASKED[call]!r} is answered again"
            rows.append(alone(what, "s", found, RECOVERY_S))
    restarts = await _restarts(made.kubectl, made.namespaces)
    return [*rows, alone("ends of containers that nobody deleted", "ends", [restarts], 0.0)]


def interruption_s(samples: Sequence[tuple[float, str]]) -> float:
    """Return how long calls did not succeed: from the last success before a failure to the first after the last.

    Args:
        samples: When each call ended (s), and why it failed, empty for one that succeeded.

    Raises:
        NotBack: The first call failed, or the latest five.
    """
    if len(samples) < 5 or samples[0][1] or all(why for _, why in samples[-5:]):
        raise NotBack("the calls neither began nor ended well")
    # A failure that no success has followed yet is one of a bad moment: enough of them succeeded before it.
    while samples[-1][1]:
        samples = samples[:-1]
    times = [at_s for at_s, why in samples if not why]
    longest = max(later - earlier for earlier, later in pairwise(times))
    failed = [at_s for at_s, why in samples if why]
    if not failed:
        return longest
    before = max(at_s for at_s in times if at_s <= failed[0])
    after = min(at_s for at_s in times if at_s >= failed[-1])
    return max(longest, after - before)


async def _recovery(made: Installation, probe: Probe, component: str, workload: str, call: str) -> float:
    place = ("-n", made.options.hub_namespace)
    await probe.ask(call)
    await probe.steady()
    await probe.ask("mark")
    selector = f"app.kubernetes.io/component={component},app.kubernetes.io/instance={HUB}"
    await made.kubectl.run("delete", "pod", *place, "-l", selector, timeout_s=LONGEST_S)
    await made.kubectl.run("rollout", "status", workload, *place, timeout_s=LONGEST_S)
    await probe.steady()
    samples = await probe.ask("tell")
    seconds = interruption_s(samples)
    failed = dict(Counter(why for _, why in samples if why))
    sys.stderr.write(f"  {component} ({call}): {seconds:.2f} s, {len(samples)} calls, failed {failed}\n")
    # What hangs on the part that was away is well again before the next pod goes.
    components = ",".join({name for name, _, _ in CALLS})
    every = f"app.kubernetes.io/component in ({components})"
    await made.kubectl.run("wait", "--for=condition=Ready", "pod", *place, "-l", every, timeout_s=LONGEST_S)
    return seconds


async def _restarts(kubectl: Tool, namespaces: Sequence[str]) -> int:
    """Return how often kubelet had to start a container again."""
    count = 0
    for namespace in namespaces:
        found = await kubectl.json("get", "pods", "-n", namespace, "-o", "json")
        for pod in found["items"]:
            for state in pod["status"].get("containerStatuses", []):
                if state["restartCount"]:
                    ended_by = state.get("lastState", {}).get("terminated", {})
                    why = f"{ended_by.get('reason')} {ended_by.get('exitCode')}"
                    name = f"{pod['metadata']['name']}/{state['name']}"
                    sys.stderr.write(f"  {name} ended {state['restartCount']} times, lately: {why}\n")
                count += int(state["restartCount"])
    return count


@asynccontextmanager
async def _probe(kubectl: Tool, namespace: str, owner: str) -> AsyncIterator[Probe]:
    place = ("exec", "-i", "-n", namespace, f"{SITE}-0", "-c", "console", "--")
    source = await asyncio.to_thread(SOURCE.read_text)
    process = await kubectl.spawn(*place, "python", "-u", "-c", source, owner)
    try:
        probe = Probe(process)
        await probe.ask("")
        yield probe
    finally:
        await ended(process)
