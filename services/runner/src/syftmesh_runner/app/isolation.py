"""The executor that the settings name, and the identity of what jobs run in."""

from __future__ import annotations

from syftmesh_executor.port import Executor
from syftmesh_executor.sandbox import SandboxExecutor

from syftmesh_runner.adapters.runtime_identity import ImageRuntime, RunningRuntime
from syftmesh_runner.domain.ports import RuntimeIdentity
from syftmesh_runner.settings import RunnerSettings


def isolation_of(settings: RunnerSettings, site: str) -> tuple[Executor, RuntimeIdentity]:
    """Return the executor of a site and the runtime it gives to jobs.

    Args:
        settings: What the runner is told.
        site: E-mail of the owner, which the objects of a cluster are labelled with.

    Raises:
        InvalidInput: SETTING_INVALID: the settings of a cluster are not complete.
    """
    if settings.executor == "sandbox":
        return SandboxExecutor(), RunningRuntime()
    # The cluster's part only where it is used.
    from syftmesh_executor.kubernetes import ClusterSettings, KubernetesExecutor

    executor = KubernetesExecutor(
        ClusterSettings(
            namespace=settings.jobs_namespace,
            image=settings.job_image,
            site=site,
            runtime_class=settings.job_runtime_class,
            host_users=settings.job_host_users,
            pull_policy=settings.job_pull_policy,
            service_account=settings.job_service_account,
            cpu=settings.job_cpu,
            start_s=settings.job_start_s,
        )
    )
    return executor, ImageRuntime(lambda: executor.image_digest)
