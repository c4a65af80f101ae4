"""Results of a run in the aggregator's datasite: sealed files, a large one in parts.

A file of a datasite has at most 16 MiB, and a model may be larger. A result of more than `PART_BYTES` lies there as
``<path>.000``, ``<path>.001``, …, each but the last of exactly that size.
"""

from __future__ import annotations

import hashlib
from typing import Final

from mesh.federated.v1 import federated_pb2 as pb
from syftmesh_client.files import FileClient
from syftmesh_core.errors import IntegrityFailure

PART_BYTES: Final = 12 * 1024 * 1024
MAX_PARTS: Final = 256


def part_paths(path: str, size_bytes: int) -> list[str]:
    """Return the files that hold a result of that size, in order."""
    if size_bytes <= PART_BYTES:
        return [path]
    return [f"{path}.{number:03d}" for number in range(-(-size_bytes // PART_BYTES))]


async def store_result(files: FileClient, name: str, path: str, data: bytes) -> pb.Artifact:
    """Write a result and return its description.

    Raises:
        MeshError: As `FileClient.write`.
    """
    paths = part_paths(path, len(data))
    if len(paths) == 1:
        await files.write(path, data)
    else:
        for number, part in enumerate(paths):
            await files.write(part, data[number * PART_BYTES : (number + 1) * PART_BYTES])
    return pb.Artifact(name=name, path=path, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


async def load_result(files: FileClient, artifact: pb.Artifact) -> bytes:
    """Return a result, checked against its digest.

    Raises:
        IntegrityFailure: ARTIFACT_CHANGED.
        MeshError: As `FileClient.read`.
    """
    if artifact.size_bytes > MAX_PARTS * PART_BYTES:
        raise _changed(artifact)
    data = b"".join(
        [(await files.read(path)).data for path in part_paths(artifact.path, artifact.size_bytes)]
    )
    if hashlib.sha256(data).hexdigest() != artifact.sha256:
        raise _changed(artifact)
    return data


def _changed(artifact: pb.Artifact) -> IntegrityFailure:
    return IntegrityFailure(
        f"The result {artifact.name} is not the one that was written.", reason="ARTIFACT_CHANGED"
    )
