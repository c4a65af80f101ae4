"""SyftMesh for people: `connect`, and everything a data owner or a data scientist does from there.

Names are loaded when they are used first, so that the command line does not wait for gRPC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syftmesh_core.job import JobState

    from syftmesh.async_client import AsyncClient
    from syftmesh.blocking_data import Dataset
    from syftmesh.blocking_job import Job
    from syftmesh.blocking_run import Run
    from syftmesh.client import Client
    from syftmesh.connection import (
        LoginResult,
        ProviderLogin,
        connect,
        connect_async,
        login,
        login_async,
    )
    from syftmesh.dataset import AsyncDataset
    from syftmesh.job import AsyncJob
    from syftmesh.login_way import request_code, request_code_async
    from syftmesh.mock_run import MockRun
    from syftmesh.review import ReviewJob
    from syftmesh.run import AsyncRun
    from syftmesh.run_status import RunSnapshot, RunState
    from syftmesh.site_run import Proposal

__all__ = [
    "AsyncClient",
    "AsyncDataset",
    "AsyncJob",
    "AsyncRun",
    "Client",
    "Dataset",
    "Job",
    "JobState",
    "LoginResult",
    "MockRun",
    "Proposal",
    "ProviderLogin",
    "ReviewJob",
    "Run",
    "RunSnapshot",
    "RunState",
    "connect",
    "connect_async",
    "login",
    "login_async",
    "request_code",
    "request_code_async",
]

_HOMES = {
    "AsyncClient": "syftmesh.async_client",
    "AsyncDataset": "syftmesh.dataset",
    "AsyncJob": "syftmesh.job",
    "AsyncRun": "syftmesh.run",
    "Client": "syftmesh.client",
    "Dataset": "syftmesh.blocking_data",
    "Job": "syftmesh.blocking_job",
    "JobState": "syftmesh_core.job",
    "LoginResult": "syftmesh.connection",
    "MockRun": "syftmesh.mock_run",
    "Proposal": "syftmesh.site_run",
    "ProviderLogin": "syftmesh.connection",
    "ReviewJob": "syftmesh.review",
    "Run": "syftmesh.blocking_run",
    "RunSnapshot": "syftmesh.run_status",
    "RunState": "syftmesh.run_status",
    "connect": "syftmesh.connection",
    "connect_async": "syftmesh.connection",
    "login": "syftmesh.connection",
    "login_async": "syftmesh.connection",
    "request_code": "syftmesh.login_way",
    "request_code_async": "syftmesh.login_way",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'syftmesh' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
