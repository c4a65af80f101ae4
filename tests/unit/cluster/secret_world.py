"""A pretended API of Kubernetes with Secrets and resource versions, and a small plan."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import httpx
from syftmesh_cluster.plan import Plan

USERS = ("identity", "tools")
NAMES = ["sync", "m-sync", "m-sync.hub.svc", "localhost", "127.0.0.1"]


def plan(**changes: Any) -> Plan:
    document: dict[str, Any] = {
        "ca": {"secret": "m-ca"},
        "leaves": [{"secret": "m-tls-sync", "names": NAMES}],
        "nats": {"secret": "m-nats-server", "users": {user: f"m-nats-{user}" for user in USERS}},
        "store": {"secret": "m-store"},
        "signing_key": {"secret": "m-signing-key"},
    }
    return Plan.model_validate({**document, **changes})


class FakeApi:
    """Secrets by name; `before` is called with each request, and may answer itself or change what is there."""

    def __init__(self, names: list[str]) -> None:
        self.data: dict[str, dict[str, bytes]] = {name: {} for name in names}
        self.versions = dict.fromkeys(names, 1)
        self.writes: list[str] = []
        self.before: Callable[[str, str], httpx.Response | None] = lambda _method, _name: None

    def put(self, name: str, data: dict[str, bytes]) -> None:
        self.data[name] = {**self.data[name], **data}
        self.versions[name] += 1

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="https://api", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rsplit("/", 1)[-1]
        assert request.url.path == f"/api/v1/namespaces/hub/secrets/{name}"
        if (given := self.before(request.method, name)) is not None:
            return given
        if name not in self.data:
            return httpx.Response(404)
        if request.method == "PATCH":
            assert request.headers["content-type"] == "application/merge-patch+json"
            body = json.loads(request.content)
            if body["metadata"]["resourceVersion"] != str(self.versions[name]):
                return httpx.Response(409)
            self.writes.append(name)
            self.put(name, {key: base64.b64decode(value) for key, value in body["data"].items()})
        encoded = {key: base64.b64encode(value).decode() for key, value in self.data[name].items()}
        return httpx.Response(
            200, json={"metadata": {"resourceVersion": str(self.versions[name])}, "data": encoded or None}
        )
