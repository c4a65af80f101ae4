"""An approval of something else than what was submitted, signed with the owner's own key."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from mesh.common.v1 import common_pb2
from mesh.rds.v1 import rds_service_pb2 as pb
from mesh.rds.v1 import rds_service_pb2_grpc as api
from syftmesh_client.keystore import KeyStore
from syftmesh_core.approval import APPROVAL_KIND
from syftmesh_core.enc import Reader
from syftmesh_core.errors import MeshError
from syftmesh_core.statement import Statement, sign_statement
from syftmesh_kit.channel import open_channel

_RPC_S: Final = 10.0


async def forged_approval(profile: Path, socket: Path, job_id: str, change: Mapping[str, Any]) -> str:
    """Sign the terms of a job with some of them exchanged, and send them to the runner.

    Args:
        profile: Folder of the owner's key store.
        socket: The runner's.
        job_id: The job.
        change: The terms exchanged, by name.

    Returns:
        The reason with which the site refuses it; empty when it takes it.

    Raises:
        MeshError: The job is not there; Unavailable: the site does not answer.
    """
    device = KeyStore.open(profile).device
    channel = open_channel(f"unix:{socket}")
    try:
        jobs: Any = api.JobServiceStub(channel)
        found = await jobs.GetJob(pb.GetJobRequest(job_id=job_id), timeout=_RPC_S)
        terms = {**json.loads(found.approval_terms_json), **change}
        now_ms = time.time_ns() // 1_000_000
        statement = Statement(APPROVAL_KIND, device.principal, device.device_id, now_ms, None, terms)
        reader = Reader("statement-signed", sign_statement(statement, device))
        signed = common_pb2.SignedStatement(statement=reader.raw(), signature=reader.raw())
        request = pb.ApproveJobRequest(job_id=job_id, approval=signed)
        try:
            await jobs.ApproveJob(request, timeout=_RPC_S)
        except MeshError as error:
            if error.code == "UNAVAILABLE":
                raise
            return error.reason
    finally:
        await channel.close()
    return ""
