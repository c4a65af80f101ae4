"""Isolated execution of other people's code: sandbox, Kubernetes, probe."""

from syftmesh_executor.archive import code_digest, pack_code, unpack_code
from syftmesh_executor.port import (
    Check,
    EndReason,
    Executor,
    Finding,
    Limits,
    OutputFile,
    ProbeReport,
    RunLeft,
    RunOutcome,
    RunSpec,
)
from syftmesh_executor.process import ProcessExecutor
from syftmesh_executor.runtime import Runtime, running_runtime
from syftmesh_executor.sandbox import SandboxExecutor

__all__ = [
    "Check",
    "EndReason",
    "Executor",
    "Finding",
    "Limits",
    "OutputFile",
    "ProbeReport",
    "ProcessExecutor",
    "RunLeft",
    "RunOutcome",
    "RunSpec",
    "Runtime",
    "SandboxExecutor",
    "code_digest",
    "pack_code",
    "running_runtime",
    "unpack_code",
]
