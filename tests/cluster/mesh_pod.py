"""Pods of tests beside an installed mesh, and programs inside of pods that are there: what both say, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

TOOLS = f"{os.environ.get('IMAGE_REGISTRY', 'syftmesh')}/tools:{os.environ.get('IMAGE_TAG', 'dev')}"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}

Labels = Mapping[str, str]
T = TypeVar("T")


class KubectlFailed(Exception):
    """kubectl ended with an error; the message is what it said."""


def kubectl(*arguments: str, text: str | None = None, timeout_s: float = 120) -> str:
    """Run kubectl and return what it prints.

    Raises:
        KubectlFailed: Its exit code is not 0.
    """
    return _run("kubectl", arguments, text, timeout_s)


def helm(*arguments: str, text: str | None = None, timeout_s: float = 400) -> str:
    """Run helm; see `kubectl`."""
    return _run("helm", arguments, text, timeout_s)


def _run(program: str, arguments: tuple[str, ...], text: str | None, timeout_s: float) -> str:
    done = subprocess.run(
        [program, *arguments], input=text, text=True, capture_output=True, check=False, timeout=timeout_s
    )
    if done.returncode:
        raise KubectlFailed(f"{done.stdout}\n{done.stderr}")
    return done.stdout


def get(kind: str, name: str, namespace: str) -> dict[str, Any]:
    """Return one object."""
    found: dict[str, Any] = json.loads(kubectl("get", kind, name, "-n", namespace, "-o", "json"))
    return found


def pods(namespace: str, **labels: str) -> list[dict[str, Any]]:
    """Return the pods of a namespace whose labels ``app.kubernetes.io/<name>`` are those."""
    wanted = ",".join(f"app.kubernetes.io/{name}={value}" for name, value in labels.items())
    given = ("-l", wanted) if wanted else ()
    items: list[dict[str, Any]] = json.loads(kubectl("get", "pods", "-n", namespace, *given, "-o", "json"))[
        "items"
    ]
    return items


def restarted(namespace: str) -> dict[str, str]:
    """Return the last words of each container of a namespace that ended and was begun anew, by pod and name."""
    return {
        f"{pod['metadata']['name']}/{state['name']}": _last_words(state)
        for pod in pods(namespace)
        for state in pod["status"].get("containerStatuses", [])
        if state["restartCount"]
    }


def _last_words(state: dict[str, Any]) -> str:
    ended = state.get("lastState", {}).get("terminated", {})
    return f"exit code {ended.get('exitCode')}: {ended.get('message', '')[-1000:]}"


def inside(namespace: str, pod: str, container: str, program: str, *arguments: str) -> Any:
    """Run a Python program in a container that is there, and return the JSON that it prints."""
    place = ("exec", "-i", "-n", namespace, pod, "-c", container, "--", "python", "-", *arguments)
    return json.loads(kubectl(*place, text=program))


def tool_pod(
    namespace: str, name: str, program: str, *arguments: str, labels: Labels, ready: bool = False
) -> dict[str, Any]:
    """Return a pod that runs a Python program in the image of the tools, with no volume, token or secret.

    Args:
        namespace: Where.
        name: Of the pod.
        program: Its source.
        arguments: What it is given.
        labels: Of the pod.
        ready: Whether it may become ready. One that never is gets nothing that a Service sends to its labels.
    """
    security = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    container: dict[str, Any] = {
        "name": "main",
        "image": TOOLS,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-u", "-c", program, *arguments],
        "securityContext": security,
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "384Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    if not ready:
        container["readinessProbe"] = {"exec": {"command": ["/bin/false"]}, "initialDelaySeconds": 600}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 65532,
                "runAsGroup": 65532,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
        },
    }


def apply(*objects: Mapping[str, Any]) -> None:
    """Make objects."""
    kubectl("apply", "-f", "-", text=json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


def eventually(ask: Callable[[], T | None], within_s: float, what: str) -> T:
    """Return the first answer that is something; it is an error of the test when none comes."""
    deadline = time.monotonic() + within_s
    while True:
        found = ask()
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} did not come within {within_s:.0f} s"
        time.sleep(0.5)


@contextmanager
def forwarded(namespace: str, service: str, port: int) -> Iterator[int]:
    """Give a port of this machine, for the block, behind which a port of a Service is."""
    command = ["kubectl", "port-forward", "-n", namespace, f"service/{service}", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("Forwarding from 127.0.0.1:"), line + process.stdout.read()
            yield int(line.removeprefix("Forwarding from 127.0.0.1:").split(" ")[0])
        finally:
            process.terminate()
