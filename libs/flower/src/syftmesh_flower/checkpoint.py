"""Checkpoints of a run: its arrays in the safetensors format, with the line of checkpoints that they stand in.

Source: https://github.com/huggingface/safetensors#format. The library lays out the arrays; the header is written
again, for the library puts metadata in an order that changes from call to call, and a digest names a checkpoint.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save
from syftmesh_core.errors import IntegrityFailure, InvalidInput

NDArray = npt.NDArray[Any]

MAX_HEADER_BYTES: Final = 16 * 1024 * 1024

_METADATA = "__metadata__"
_TYPES = frozenset("?bBhHiIlLqQefdF")
_DIGEST = r"(?:[0-9a-f]{64})?"
_FORMS: Mapping[str, re.Pattern[str]] = {
    "run_id": re.compile(r"0|[1-9][0-9]{0,19}"),
    "round": re.compile(r"0|[1-9][0-9]{0,9}"),
    "app_digest": re.compile(_DIGEST),
    "parent": re.compile(_DIGEST),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        arrays: The arrays by name.
        run_id: The run.
        round: The round after which it was made.
        app_digest: SHA-256 of the app bundle, hex; empty when it was not known.
        parent: SHA-256 of the checkpoint before, hex; empty for the first.
    """

    arrays: Mapping[str, NDArray] = field(repr=False)
    run_id: str
    round: int
    app_digest: str
    parent: str


def write_checkpoint(arrays: Mapping[str, NDArray], metadata: Mapping[str, str]) -> bytes:
    """Return `arrays` as a safetensors file; the same arrays and metadata give the same bytes.

    Args:
        arrays: Numbers or booleans, by name.
        metadata: ``run_id``, ``round``, ``app_digest`` and ``parent``, the digest of the checkpoint before.

    Raises:
        InvalidInput: CHECKPOINT_INVALID: an array of a type that the format does not have, or other metadata.
    """
    problem = _metadata_problem(metadata)
    for name, array in arrays.items():
        if name == _METADATA or np.asarray(array).dtype.char not in _TYPES:
            problem = f"the format has no array {name[:100]!a} of the type {np.asarray(array).dtype}"
    if problem:
        raise InvalidInput(f"The checkpoint cannot be written: {problem}.", reason="CHECKPOINT_INVALID")
    data = save(
        {name: np.ascontiguousarray(array).reshape(np.shape(array)) for name, array in arrays.items()}
    )
    layout, start = _header(data)
    header = json.dumps({_METADATA: dict(sorted(metadata.items())), **layout}, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return b"".join((len(header).to_bytes(8, "little"), header, memoryview(data)[start:]))


def read_checkpoint(data: bytes) -> Checkpoint:
    """Return the checkpoint in `data`, which may come from anybody.

    Raises:
        IntegrityFailure: CHECKPOINT_INVALID: no safetensors file, or not one of a run.
    """
    if int.from_bytes(data[:8], "little") > MAX_HEADER_BYTES:
        raise _invalid("its header is too large")
    try:
        arrays = load(data)
        metadata: Any = _header(data)[0].get(_METADATA)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        raise _invalid("it is no safetensors file of numbers") from None
    if problem := _metadata_problem(metadata):
        raise _invalid(problem)
    for array in arrays.values():
        if array.dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
            raise _invalid("an array of booleans holds something else")
    return Checkpoint(
        arrays=arrays,
        run_id=metadata["run_id"],
        round=int(metadata["round"]),
        app_digest=metadata["app_digest"],
        parent=metadata["parent"],
    )


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the header of a file that the library has written or checked, and where the arrays begin."""
    start = 8 + int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8:start])
    return header, start


def _metadata_problem(metadata: object) -> str:
    if not isinstance(metadata, Mapping) or metadata.keys() != _FORMS.keys():
        return f"its metadata has to be {', '.join(_FORMS)}"
    for key, form in _FORMS.items():
        if not isinstance(metadata[key], str) or not form.fullmatch(metadata[key]):
            return f"{key} of its metadata has another form"
    return ""


def _invalid(problem: str) -> IntegrityFailure:
    return IntegrityFailure(f"The checkpoint is refused: {problem}.", reason="CHECKPOINT_INVALID")
