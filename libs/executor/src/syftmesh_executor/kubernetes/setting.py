"""What the executor of a cluster is told."""

from __future__ import annotations

import re
from dataclasses import dataclass

from syftmesh_core.errors import InvalidInput

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What the executor of a cluster is told.

    Attributes:
        namespace: Where Jobs are made; its default-deny NetworkPolicy is the site chart's.
        image: Image of the jobs, with the pod scripts at ``/opt/syftmesh/pod`` and Python at ``/opt/venv``.
        site: Whose jobs these are; two sites may share a namespace.
        runtime_class: RuntimeClass of the pods, empty for the cluster's default.
        host_users: Whether pods share the node's user ids; False gives each pod a user namespace, None leaves it
            to the cluster, as runtimes without support (gVisor) need it.
        pull_policy: When a node fetches the image.
        service_account: Whose the pods are, with its secrets for pulling images; empty for the namespace's default.
            They get no token of it.
        cpu: Limit of one run, as Kubernetes writes quantities.
        start_s: How long a pod may take until its containers run, before the run is given up.

    Raises:
        InvalidInput: SETTING_INVALID.
    """

    namespace: str
    image: str
    site: str = ""
    runtime_class: str = ""
    host_users: bool | None = False
    pull_policy: str = "IfNotPresent"
    service_account: str = ""
    cpu: str = "1"
    start_s: float = 180.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.namespace):
            raise _invalid("the jobs namespace", self.namespace)
        if not self.image or any(sign.isspace() for sign in self.image):
            raise _invalid("the image of jobs", self.image)
        if self.pull_policy not in _PULL_POLICIES:
            raise _invalid("the pull policy", self.pull_policy)
        if self.service_account and not _NAME.fullmatch(self.service_account):
            raise _invalid("the service account of jobs", self.service_account)

    @property
    def image_digest(self) -> str:
        """The digest that `image` names itself, empty when it names none."""
        return self.image.partition("@sha256:")[2]


def _invalid(what: str, value: str) -> InvalidInput:
    return InvalidInput(
        f"{what} {value!r} is not valid; look at the runner's settings of its cluster",
        reason="SETTING_INVALID",
        metadata={"value": value},
    )
