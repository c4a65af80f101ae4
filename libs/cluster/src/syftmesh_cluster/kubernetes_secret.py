"""Secrets of the namespace we run in, through the API of Kubernetes and the service account of our pod."""

from __future__ import annotations

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, Self

import httpx
from syftmesh_core.errors import Conflict, MeshError, NotFound, PermissionDenied, Unavailable, WrongState

from syftmesh_cluster.secret_target import Stored

ACCOUNT_FOLDER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_MERGE_PATCH: Final = "application/merge-patch+json"
_VERB_OF: Final = {"GET": "get", "PATCH": "patch"}
_PAUSE_S: Final = 1.0


class KubernetesTarget:
    """See `secret_target.SecretTarget`. A Secret is never created: the chart renders them without data.

    Args:
        client: Knows address and token of the API.
        namespace: Namespace of the Secrets.
        wait_s: Seconds to wait for an API that does not answer; a network policy may take a while to let us through.
    """

    def __init__(self, client: httpx.AsyncClient, namespace: str, wait_s: float = 30.0) -> None:
        self._client = client
        self._namespace = namespace
        self._wait_s = wait_s

    @classmethod
    @asynccontextmanager
    async def in_cluster(cls, folder: Path = ACCOUNT_FOLDER, *, wait_s: float = 30.0) -> AsyncIterator[Self]:
        """Give the target of the pod we run in.

        Raises:
            WrongState: This is no pod with a service account (NOT_IN_CLUSTER).
        """
        try:
            host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
            token = (folder / "token").read_text().strip()
            namespace = (folder / "namespace").read_text().strip()
            tls = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        except (KeyError, OSError) as error:
            raise WrongState(
                "There is no API of Kubernetes here: this is no pod, or its service account gives no token.",
                reason="NOT_IN_CLUSTER",
                hint="Run it as the chart's Job, or give --folder to write files instead.",
            ) from error
        address = f"[{host}]" if ":" in host else host
        async with httpx.AsyncClient(
            base_url=f"https://{address}:{port}",
            headers={"authorization": f"Bearer {token}"},
            verify=tls,
            trust_env=False,
            timeout=10.0,
        ) as client:
            yield cls(client, namespace, wait_s)

    async def read(self, name: str) -> Stored:
        """Return the Secret; raises as `SecretTarget.read`."""
        body = await self._ask("GET", name)
        data = {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()}
        return Stored(data, str(body["metadata"]["resourceVersion"]))

    async def write(self, name: str, changes: Mapping[str, bytes], version: str) -> None:
        """Patch the Secret; raises as `SecretTarget.write`."""
        data = {key: base64.b64encode(value).decode() for key, value in changes.items()}
        await self._ask("PATCH", name, {"metadata": {"resourceVersion": version}, "data": data})

    async def _ask(self, method: str, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{self._namespace}/secrets/{name}"
        headers = {"content-type": _MERGE_PATCH} if body is not None else {}
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        while True:
            try:
                answer = await self._client.request(method, path, json=body, headers=headers)
            except httpx.HTTPError as error:
                failure: MeshError = _away(type(error).__name__)
            else:
                if answer.status_code == httpx.codes.OK:
                    found: dict[str, Any] = answer.json()
                    return found
                failure = _failure(answer.status_code, method, self._namespace, name)
            if not isinstance(failure, Unavailable) or loop.time() + _PAUSE_S >= deadline:
                raise failure
            await asyncio.sleep(_PAUSE_S)


def _failure(status: int, method: str, namespace: str, name: str) -> MeshError:
    where = {"namespace": namespace, "secret": name}
    if status == httpx.codes.CONFLICT:
        return Conflict(
            f"The Secret {name} was changed meanwhile.", reason="SECRET_CHANGED", metadata={"secret": name}
        )
    if status == httpx.codes.NOT_FOUND:
        return NotFound(
            f"There is no Secret {name} in the namespace {namespace}; the chart renders it without data.",
            reason="SECRET_MISSING",
            metadata=where,
            hint=f"kubectl get secret {name} -n {namespace}",
        )
    if status in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        verb = _VERB_OF[method]
        return PermissionDenied(
            f"The service account of this pod may not {verb} the Secret {name} in the namespace {namespace}: "
            f"its Role needs the verb {verb} on secrets with resourceNames {name}.",
            reason="CLUSTER_RIGHTS_MISSING",
            metadata={**where, "verb": verb},
            hint=f"kubectl describe roles -n {namespace}",
        )
    return _away(f"status {status}")


def _away(how: str) -> Unavailable:
    return Unavailable(
        f"The API of Kubernetes does not answer as it should ({how}).",
        reason="CLUSTER_UNREACHABLE",
        metadata={"how": how},
        hint="Check that a network policy lets this pod reach the API server.",
    )
