"""The executor of a site on Kubernetes: each run a Job of its own, whose pod nothing reaches."""

from syftmesh_executor.kubernetes.executor import KubernetesExecutor
from syftmesh_executor.kubernetes.setting import ClusterSettings

__all__ = ["ClusterSettings", "KubernetesExecutor"]
