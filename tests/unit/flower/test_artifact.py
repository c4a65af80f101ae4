"""Results of a run as files: one, or parts of a large one, and nothing but what was written comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from mesh.federated.v1 import federated_pb2 as pb
from syftmesh_core.errors import IntegrityFailure
from syftmesh_flower.artifact import PART_BYTES, load_result, part_paths, store_result

MAX_FILE_BYTES = 16 * 1024 * 1024
PATH = "carol@lab.example/app_data/fl/runs/7/model.safetensors"


@dataclass
class Content:
    data: bytes


@dataclass
class Files:
    """Keeps files as a datasite does, up to its size."""

    kept: dict[str, bytes] = field(default_factory=dict)

    async def write(self, path: str, data: bytes) -> None:
        assert len(data) <= MAX_FILE_BYTES
        self.kept[path] = data

    async def read(self, path: str) -> Content:
        return Content(self.kept[path])


@pytest.fixture
def files() -> Any:
    return Files()


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 5])
async def test_a_result_of_any_size_comes_back(files: Any, size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    artifact = await store_result(files, "model.safetensors", PATH, data)
    assert (artifact.path, artifact.size_bytes) == (PATH, size)
    assert sorted(files.kept) == part_paths(PATH, size)
    assert await load_result(files, artifact) == data


async def test_a_part_that_is_not_the_one_written_is_refused(files: Any) -> None:
    artifact = await store_result(files, "model", PATH, bytes(2 * PART_BYTES))
    files.kept[f"{PATH}.001"] = b"x" + files.kept[f"{PATH}.001"][1:]
    with pytest.raises(IntegrityFailure) as refused:
        await load_result(files, artifact)
    assert refused.value.reason == "ARTIFACT_CHANGED"


async def test_a_size_that_nobody_wrote_reads_no_files(files: Any) -> None:
    with pytest.raises(IntegrityFailure):
        await load_result(files, pb.Artifact(name="model", path=PATH, size_bytes=1 << 60, sha256="00"))
