"""The few calls of the Kubernetes API that an executor makes, over the official client's connection.

They are plain JSON: the client's classes of every kind of object are not needed. All of it blocks. The package
is imported with the first object, for it takes about a second and 45 MB.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from syftmesh_core.errors import AlreadyExists, MeshError, NotFound, Unavailable

from syftmesh_executor.kubernetes.stream import ExecStream

_CALL_S = 20.0


class Api(Protocol):
    """What the executor needs of a cluster; the fake of the tests has the same face."""

    def create_job(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make a Job and return it."""
        ...

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        """Return the Jobs with these labels."""
        ...

    def delete_job(self, name: str) -> None:
        """Delete a Job and its pod; one that is not there is no error."""
        ...

    def pods_of(self, job_uid: str) -> list[dict[str, Any]]:
        """Return the pods of a Job, by its uid."""
        ...

    def events_of(self, name: str) -> list[dict[str, Any]]:
        """Return what was told about an object."""
        ...

    def create_event(self, event: Mapping[str, Any]) -> None:
        """Tell something about an object."""
        ...

    def execute(self, pod: str, container: str, command: Sequence[str]) -> ExecStream:
        """Start a program in a container and return its streams."""
        ...


class ClusterApi:
    """The API of one namespace.

    Args:
        namespace: Where everything happens.
        kubeconfig: Path of a configuration; the pod's service account when None.

    Raises:
        Unavailable: CLUSTER_UNREACHABLE: there is neither.
    """

    def __init__(self, namespace: str, kubeconfig: str | None = None) -> None:
        from kubernetes import client, config  # type: ignore[import-untyped]

        self._namespace = namespace
        self._configuration = client.Configuration()
        self._configuration.retries = 2
        try:
            if kubeconfig is None:
                config.load_incluster_config(self._configuration)
            else:
                config.load_kube_config(kubeconfig, client_configuration=self._configuration)
        except config.ConfigException as error:
            raise Unavailable(
                "there is no way to the cluster: the runner has neither a service account nor a KUBECONFIG that "
                "works; turn on its service account, or name a configuration",
                reason="CLUSTER_UNREACHABLE",
            ) from error
        self._client = client.ApiClient(self._configuration)

    def create_job(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """Make a Job; see `Api.create_job`."""
        return self._call("POST", "create", "jobs", self._path("jobs", group="apis/batch/v1"), body=manifest)

    def list_jobs(self, selector: str) -> list[dict[str, Any]]:
        """Return Jobs; see `Api.list_jobs`."""
        path = self._path("jobs", group="apis/batch/v1")
        return _items(self._call("GET", "list", "jobs", path, query={"labelSelector": selector}))

    def delete_job(self, name: str) -> None:
        """Delete a Job; see `Api.delete_job`."""
        path = self._path("jobs", name, group="apis/batch/v1")
        body = {"propagationPolicy": "Background", "gracePeriodSeconds": 0}
        try:
            self._call("DELETE", "delete", "jobs", path, body=body)
        except NotFound:
            return

    def pods_of(self, job_uid: str) -> list[dict[str, Any]]:
        """Return pods; see `Api.pods_of`."""
        query = {"labelSelector": f"batch.kubernetes.io/controller-uid={job_uid}"}
        return _items(self._call("GET", "list", "pods", self._path("pods"), query=query))

    def events_of(self, name: str) -> list[dict[str, Any]]:
        """Return events; see `Api.events_of`."""
        query = {"fieldSelector": f"involvedObject.name={name}"}
        return _items(self._call("GET", "list", "events", self._path("events"), query=query))

    def create_event(self, event: Mapping[str, Any]) -> None:
        """Make an event; see `Api.create_event`."""
        self._call("POST", "create", "events", self._path("events"), body=event)

    def execute(self, pod: str, container: str, command: Sequence[str]) -> ExecStream:
        """Start a program in a container; see `Api.execute`.

        Raises:
            Unavailable: POD_NOT_READY: the container does not run yet, or no more. CLUSTER_RIGHTS_MISSING,
                CLUSTER_UNREACHABLE.
        """
        from kubernetes.stream import ws_client  # type: ignore[import-untyped]
        from websocket import WebSocketBadStatusException, WebSocketException

        query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        query += [("command", part) for part in command]
        address = ws_client.get_websocket_url(f"{self._configuration.host}{self._path('pods', pod, 'exec')}")
        headers: dict[str, str] = {}
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        try:
            socket = ws_client.create_websocket(self._configuration, f"{address}?{urlencode(query)}", headers)
        except WebSocketBadStatusException as error:
            if error.status_code in (401, 403):
                raise _rights_missing("create", "pods/exec") from error
            raise Unavailable("the pod does not take the call yet", reason="POD_NOT_READY") from error
        except (WebSocketException, OSError) as error:
            raise _unreachable() from error
        return ExecStream(socket)

    def _path(self, *parts: str, group: str = "api/v1") -> str:
        return "/".join(("", group, "namespaces", self._namespace, *(quote(part) for part in parts)))

    def _call(
        self,
        method: str,
        verb: str,
        resource: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        from kubernetes.client import ApiException  # type: ignore[import-untyped]
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        try:
            answer = self._client.call_api(
                path, method, {}, list((query or {}).items()), headers, body=body,
                auth_settings=["BearerToken"], _return_http_data_only=True, _preload_content=False,
                _request_timeout=_CALL_S,
            )  # fmt: skip
            found: dict[str, Any] = json.loads(answer.data)
        except ApiException as error:
            raise _translated(error.status, verb, resource) from error
        except (HTTPError, OSError) as error:
            raise _unreachable() from error
        return found


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = answer.get("items") or []
    return found


def _translated(status: int | None, verb: str, resource: str) -> MeshError:
    if status in (401, 403):
        return _rights_missing(verb, resource)
    if status == 404:
        return NotFound(
            f"the cluster has no such thing among its {resource}", reason="CLUSTER_OBJECT_UNKNOWN"
        )
    if status == 409:
        return AlreadyExists(f"the cluster has one of that name among its {resource}", reason="RUN_EXISTS")
    if status == 422:
        return Unavailable(
            f"the cluster does not take what is asked of it ({verb} {resource}); is it of a version that knows "
            "user namespaces, and are the runner's settings right?",
            reason="CLUSTER_REFUSED",
            metadata={"verb": verb, "resource": resource},
        )
    return _unreachable()


def _rights_missing(verb: str, resource: str) -> Unavailable:
    return Unavailable(
        f"the runner may not {verb} {resource} in its jobs namespace; give its service account that right, or is "
        "the namespace's quota used up?",
        reason="CLUSTER_RIGHTS_MISSING",
        metadata={"verb": verb, "resource": resource},
    )


def _unreachable() -> Unavailable:
    return Unavailable(
        "the cluster does not answer; is its API server there, and does the network let the runner reach it?",
        reason="CLUSTER_UNREACHABLE",
    )
