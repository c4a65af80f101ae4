"""The releases of the story: a hub and a site for each owner, each in a namespace of its own, and their end."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from syftmesh_core.errors import Internal, MeshError, WrongState
from syftmesh_core.parallel import in_parallel

from syftmesh_standalone.demo.cluster.kubectl import Tool
from syftmesh_standalone.demo.step import Tell, steadily

HUB: Final = "hub"
"""Name of the hub's release, and so of its objects."""
SITE: Final = "site"
"""Name of a site's release."""
NAMESPACE_TAKEN: Final = "NAMESPACE_TAKEN"
_JOIN_SECRET: Final = "demo-join"  # noqa: S105 - a name
_INSTALL_S: Final = 300
_GONE_S: Final = 180
_TOKEN_S: Final = 60.0
_LABELS: Final = {
    "pod-security.kubernetes.io/enforce": "restricted",
    "app.kubernetes.io/part-of": "syftmesh-demo",
}


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Where on the cluster, and what.

    Attributes:
        prefix: Of the namespaces: ``<prefix>-hub``, ``<prefix>-a``, ``<prefix>-b``, and ``-jobs`` of the sites'.
        charts: Folder with the charts ``syftmesh`` and ``datasite``.
        values: Files of values by the name of their chart.
        hub_url: Address at which this machine reaches the hub; None: by a port-forward.
    """

    prefix: str = "demo"
    charts: Path = Path("charts")
    values: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    hub_url: str | None = None

    @property
    def hub_namespace(self) -> str:
        """Namespace of the hub."""
        return f"{self.prefix}-hub"

    def site_namespace(self, number: int) -> str:
        """Return the namespace of a site, counted from 0."""
        return f"{self.prefix}-{chr(ord('a') + number)}"


@dataclass(slots=True)
class Installation:
    """What is installed.

    Attributes:
        options: Where and what.
        owners: E-mails of the sites.
        kubectl: Talks with the cluster.
        helm: Installs.
        tell: Takes lines for people.
        made: Namespaces made here, which are taken away again.
    """

    options: ClusterOptions
    owners: tuple[str, ...]
    kubectl: Tool
    helm: Tool
    tell: Tell
    made: list[str] = field(default_factory=list)

    def site_of(self, owner: str) -> str:
        """Return the namespace of an owner's site."""
        return self.options.site_namespace(self.owners.index(owner))

    @property
    def _admin(self) -> tuple[str, ...]:
        place = ("-n", self.options.hub_namespace, f"deploy/{HUB}-identity", "-c", "admin")
        return ("exec", *place, "--")

    @property
    def namespaces(self) -> list[str]:
        """Every namespace of the story, those of the jobs last."""
        sites = [self.site_of(owner) for owner in self.owners]
        return [self.options.hub_namespace, *sites, *(f"{name}-jobs" for name in sites)]

    async def install_hub(self) -> None:
        """Make the hub's namespace and release, and wait until all of it is ready.

        Raises:
            WrongState: One of the namespaces is there already (NAMESPACE_TAKEN).
            MeshError: helm's or kubectl's last words.
        """
        await self._check_free()
        namespace = self.options.hub_namespace
        await self._namespace(namespace)
        self.tell(f"        helm install {HUB} in namespace {namespace}")
        values = {"hub": {"host": f"{HUB}-gateway.{namespace}.svc"}}
        await self._install(HUB, namespace, "syftmesh", values)

    async def install_site(self, owner: str) -> None:
        """Make the namespace and release of an owner's site, which joins with a token made now.

        Raises:
            MeshError: helm's or kubectl's last words.
        """
        namespace = self.site_of(owner)
        await self._namespace(namespace)
        token = await self.join_token(owner)
        secret = _secret(_JOIN_SECRET, namespace, {"token": token})
        await self.kubectl.run("apply", "-f", "-", stdin=json.dumps(secret).encode())
        self.tell(f"        helm install {SITE} in namespace {namespace}, for {owner}")
        values = {
            "email": owner,
            "hub": {
                "url": f"https://{HUB}-gateway.{self.options.hub_namespace}.svc",
                "ca": (await self.hub_ca()).decode(),
            },
            "joinToken": {"existingSecret": _JOIN_SECRET},
        }
        await self._install(SITE, namespace, "datasite", values)

    async def join_token(self, email: str) -> str:
        """Return a one-time join token, made as the hub's operator does, who tries again while the hub comes up.

        Raises:
            MeshError: As `Tool.run`; Internal (JOIN_TOKEN_MISSING): what was written is no token.
        """
        words = ("syftmesh", "site", "token", "create", "--email", email, "--label", "profile", "--quiet")
        written = await steadily(
            partial(self.kubectl.run, *self._admin, *words), try_s=_TOKEN_S, within_s=_TOKEN_S
        )
        token = written.decode().strip()
        if not token or len(token.split()) != 1:
            raise Internal("the hub's operator was given no join token", reason="JOIN_TOKEN_MISSING")
        return token

    async def hub_ca(self) -> bytes:
        """Return the certificates that prove the hub (PEM); raises as `Tool.run`."""
        return (await self.secret(f"{HUB}-hub-tls"))["ca.crt"]

    async def secret(self, name: str) -> dict[str, bytes]:
        """Return what a Secret of the hub holds; raises as `Tool.run`."""
        place = ("get", "secret", name, "-n", self.options.hub_namespace, "-o", "json")
        data = (await self.kubectl.json(*place)).get("data") or {}
        return {key: base64.b64decode(value) for key, value in data.items()}

    async def version(self) -> str:
        """Return the version of the operator's tools beside the hub; raises as `Tool.run`."""
        words = ("python", "-c", "import importlib.metadata as m; print(m.version('syftmesh'))")
        return (await self.kubectl.run(*self._admin, *words)).decode().strip()

    async def uninstall(self) -> None:
        """Take away every release and every namespace that was made here, with all their objects and volumes.

        Raises:
            MeshError: Something stays; the message says what.
        """
        if not self.made:
            return
        self.tell(f"taking away the namespaces {', '.join(self.made)}")
        releases = [(HUB if name == self.options.hub_namespace else SITE, name) for name in self.made]
        await in_parallel([self._uninstall(*release) for release in releases], at_once=3)
        # The sites' charts make those of the jobs; helm took them away, unless it did not come to that.
        names = [*self.made, *(f"{name}-jobs" for name in self.made)]
        await self.kubectl.run(
            "delete",
            "namespace",
            *names,
            "--ignore-not-found",
            f"--timeout={_GONE_S}s",
            timeout_s=_GONE_S + 10,
        )
        self.made.clear()

    async def _uninstall(self, release: str, namespace: str) -> None:
        try:
            await self.helm.run("uninstall", release, "-n", namespace, "--ignore-not-found", timeout_s=120)
        except MeshError as error:
            # The namespace's own end takes the release's objects with it.
            self.tell(f"        {error.message}")

    async def _install(self, release: str, namespace: str, chart: str, values: Mapping[str, Any]) -> None:
        named = [f"--values={file}" for file in self.options.values.get(chart, ())]
        try:
            await self.helm.run(
                "install",
                release,
                str(self.options.charts / chart),
                f"--namespace={namespace}",
                *named,
                "--values=-",
                "--wait",
                f"--timeout={_INSTALL_S}s",
                stdin=json.dumps(values).encode(),
                timeout_s=_INSTALL_S + 30,
            )
        except MeshError as error:
            raise type(error)(
                f"{error.message} {await self._why(namespace)}".strip(), reason=error.reason
            ) from error

    async def _why(self, namespace: str) -> str:
        """Return what keeps pods from being ready, as far as their status says."""
        pods = await self.kubectl.json("get", "pods", "-n", namespace, "-o", "json")
        found = []
        for pod in pods.get("items", []):
            name, status = pod["metadata"]["name"], pod.get("status", {})
            states = status.get("initContainerStatuses", []) + status.get("containerStatuses", [])
            for state in states:
                said = _unready(state)
                if said:
                    found.append(f"{name}/{state['name']}: {said}")
        return "; ".join(found[:4])

    async def _check_free(self) -> None:
        wanted = set(self.namespaces)
        there = await self.kubectl.json("get", "namespaces", "-o", "json")
        taken = sorted(wanted & {item["metadata"]["name"] for item in there["items"]})
        if taken:
            raise WrongState(
                f"These namespaces are there already: {', '.join(taken)}.",
                reason=NAMESPACE_TAKEN,
                metadata={"namespaces": ",".join(taken)},
                hint="Delete them, or name another --prefix.",
            )

    async def _namespace(self, name: str) -> None:
        document = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": _LABELS},
        }
        self.made.append(name)  # before: it may be made though the answer is lost
        await self.kubectl.run("create", "-f", "-", stdin=json.dumps(document).encode())


def _unready(state: Mapping[str, Any]) -> str:
    for kind in ("waiting", "terminated"):
        found = state.get("state", {}).get(kind) or {}
        last = (state.get("lastState", {}).get("terminated") or {}).get("message", "")
        if found.get("reason") not in {None, "Completed", "PodInitializing"}:
            return " ".join(f"{found['reason']} {found.get('message') or last}".split())[:300]
    return ""


def _secret(name: str, namespace: str, data: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": dict(data),
    }
