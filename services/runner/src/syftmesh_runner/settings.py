"""Settings of the runner, from ``SYFTMESH_RUNNER_*``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from syftmesh_core.federated import MAX_NORM
from syftmesh_kit.settings import ServiceSettings, settings_config

from syftmesh_runner.domain.proposal import DEFAULT_METRICS, DEFAULT_UPDATE_BYTES, MAX_UPDATE_BYTES


class RunnerSettings(ServiceSettings):
    """What the runner is told. It speaks to the hub's gateway only, so the fields of the bus are not used."""

    model_config = settings_config("runner")

    state_dir: Path
    """Folder of the site's database, datasets, code and outputs; 0700, on a disk that survives restarts."""

    keystore_dir: Path | None = None
    """Folder of the runner's device keys and tokens; unset: ``keys`` inside the state folder."""

    local_dir: Path | None = None
    """Folder of the local API's socket ``runner.sock`` and of the SuperNode's secret, which the agent looks for at
    the same path; unset: the state folder. In a pod a volume in memory that agent and runner share."""

    server_url: str = "http://127.0.0.1:8080"
    """The hub's address as people type it; the gRPC address is read from it."""

    ca_file: Path | None = None
    """Certificates (PEM) that the hub's must come from; unset: ``hub-ca.pem`` beside the keys when it is there, else
    the well-known authorities of the Internet."""

    local_token_file: Path | None = None
    """Local token of an embedded mesh, by which the runner logs in by itself; unset everywhere else."""

    join_token_file: Path | None = None
    """File (0600) with a join token that works once, for the first login; unset when there are tokens."""

    reviewers: frozenset[str] = frozenset()
    """E-mails that may decide beside the owner; each signs with an admin device of their own."""

    parallel: int = Field(default=1, ge=1, le=16)
    """Runs at once; one by default, so that a laptop stays usable."""

    executor: Literal["sandbox", "kubernetes"] = "sandbox"
    """How code is isolated: ``sandbox`` on this machine, ``kubernetes`` as Jobs of the cluster this runs in."""

    jobs_namespace: str = ""
    """Namespace of the Jobs, whose network policy denies everything; for ``kubernetes`` only, as all of these."""

    job_image: str = ""
    """Image of the Jobs; ``name@sha256:…`` binds approvals to it, else to what the isolation probe saw run."""

    job_runtime_class: str = ""
    """RuntimeClass of the Jobs' pods, e.g. ``gvisor``; empty for the cluster's default."""

    job_host_users: bool = False
    """Whether pods share the node's user ids; gVisor and nodes without user namespaces for pods need true."""

    job_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node fetches the image."""

    job_service_account: str = ""
    """ServiceAccount of the Jobs' pods, whose secrets for pulling images they use; empty for the namespace's default.
    No pod gets its token."""

    job_cpu: str = "1"
    """Processors that one run may use, as Kubernetes writes quantities."""

    job_start_s: float = Field(default=180.0, gt=0)
    """Seconds until a pod that does not come up is given up; an image may have to be fetched first."""

    memory_bytes: int = Field(default=1 << 30, ge=64 << 20)
    """Memory of one run with its scratch space and output, in bytes."""

    processes: int = Field(default=64, ge=1)
    """Processes and threads of one run."""

    disk_bytes: int = Field(default=256 << 20, ge=1 << 20)
    """Scratch space of one run in bytes."""

    output_bytes: int = Field(default=64 << 20, ge=1 << 10)
    """Output of one run in bytes; what may leave is the datasets' policy."""

    log_bytes: int = Field(default=1 << 20, ge=1 << 10)
    """Kept of standard output, and again of standard error, in bytes."""

    max_update_bytes: int = Field(default=DEFAULT_UPDATE_BYTES, ge=1 << 10, le=MAX_UPDATE_BYTES)
    """Largest answer of one task of a federated run in bytes, before it is sealed; a run may ask for less."""

    max_norm: float = Field(default=0.0, ge=0, le=MAX_NORM)
    """L2 norm to which the update of every federated run is clipped; 0 leaves it to what the run asks for."""

    max_metrics: int = Field(default=DEFAULT_METRICS, ge=1, le=10_000)
    """Metric values in one answer of a federated run; more could carry rows."""

    review_s: int = Field(default=14 * 24 * 3600, ge=1)
    """Seconds until a job that nobody decided expires."""

    approval_s: int = Field(default=7 * 24 * 3600, ge=1)
    """Seconds after that until an approval counts no more."""

    checkpoint_every: int = Field(default=50, ge=1)
    """Entries of the audit between two signed checkpoints."""

    expire_every_s: float = Field(default=30.0, gt=0)
    """Seconds between two looks for expired jobs."""

    reseal_every_s: float = Field(default=600.0, gt=0)
    """Seconds between two looks at the device lists of readers."""
