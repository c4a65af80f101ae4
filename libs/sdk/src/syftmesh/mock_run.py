"""Running one's own code on a mock, on one's own machine, as the site would run it on the private part."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from syftmesh_core.clock import Clock, Random, uuid7
from syftmesh_core.errors import NotFound
from syftmesh_core.quote import quoted
from syftmesh_executor.archive import unpack_code
from syftmesh_executor.port import Limits, RunSpec
from syftmesh_executor.process import ProcessExecutor

from syftmesh.dataset import AsyncDataset
from syftmesh.folder import write_files
from syftmesh.table import dataframe, one_of

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class MockRun:
    """How code ended on a mock.

    Attributes:
        exit_code: What the program returned; None when it never started.
        reason: OK, EXIT_NONZERO, TIMEOUT, ...
        stdout: What it printed.
        stderr: What it printed on standard error.
        outputs: Its files by name.
    """

    exit_code: int | None
    reason: str
    stdout: str
    stderr: str
    outputs: Mapping[str, bytes] = field(repr=False)

    def dataframe(self, name: str | None = None) -> pd.DataFrame:
        """Return an output as a table; the only one when no name is given.

        Raises:
            NotFound: The run left no such file (FILE_MISSING).
            MeshError: As `table.dataframe`.
        """
        chosen = one_of(sorted(self.outputs), name)
        if chosen not in self.outputs:
            raise NotFound(
                f"The run left no file {quoted(chosen)}.",
                reason="FILE_MISSING",
                metadata={"file": quoted(chosen)},
            )
        return dataframe(chosen, self.outputs[chosen])

    def write(self, folder: Path) -> Path:
        """Write the outputs below `folder` and return it; raises as `folder.write_files`."""
        return write_files(folder, self.outputs)


async def run_on_mock(
    archive: bytes,
    entrypoint: str,
    dataset: AsyncDataset,
    parameters: Mapping[str, object],
    *,
    clock: Clock,
    random: Random,
) -> MockRun:
    """Run packed code on the mock of `dataset`.

    Raises:
        MeshError: As `AsyncMock.download` and `unpack_code`.
    """
    with tempfile.TemporaryDirectory(prefix="syftmesh-mock-") as name:
        folder = Path(name)
        await dataset.mock.download(folder / "data")
        await asyncio.to_thread(unpack_code, archive, folder / "code")
        spec = RunSpec(
            run_id=uuid7(clock, random),
            code_dir=folder / "code",
            entrypoint=entrypoint,
            datasets={dataset.name: folder / "data"},
            output_dir=folder / "output",
            parameters=parameters,
            limits=_limits(dataset.policy.wall_seconds),
        )
        outcome = await ProcessExecutor(clock=clock).run(spec)
        outputs = {
            file.path: await asyncio.to_thread((folder / "output" / file.path).read_bytes)
            for file in outcome.output_files
        }
    return MockRun(
        exit_code=outcome.exit_code,
        reason=outcome.reason.value,
        stdout=outcome.stdout.decode("utf-8", "replace"),
        stderr=outcome.stderr.decode("utf-8", "replace"),
        outputs=outputs,
    )


def _limits(wall_s: int) -> Limits:
    # As long as the site would let it run; everything else as there by default.
    return Limits(wall_s=float(wall_s)) if wall_s else Limits()
