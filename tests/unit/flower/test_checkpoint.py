"""Checkpoints are safetensors files with their lineage, the same for the same arrays, and read without belief."""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_flower import checkpoint as module
from syftmesh_flower.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

METADATA = {"run_id": "18446744073709551615", "round": "3", "app_digest": "a" * 64, "parent": "b" * 64}
TYPES = ["?", "i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8"]


def file(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: str = "F32", shape: tuple[int, ...] = (2,), end: int = 8) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


def refused(data: bytes) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        read_checkpoint(data)
    assert caught.value.reason == "CHECKPOINT_INVALID"
    assert caught.value.__cause__ is None


@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(
            lambda name: name != "__metadata__"
        ),
        hnp.arrays(st.sampled_from([np.dtype(t) for t in TYPES]), hnp.array_shapes(min_dims=0, min_side=0)),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_arrays_come_back(arrays: dict[str, np.ndarray]) -> None:
    found = read_checkpoint(write_checkpoint(arrays, METADATA))
    assert set(found.arrays) == set(arrays)
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        np.testing.assert_array_equal(found.arrays[name], array)


def test_the_lineage_comes_back() -> None:
    first = write_checkpoint({"w": np.zeros(2)}, {**METADATA, "round": "0", "parent": "", "app_digest": ""})
    parent = hashlib.sha256(first).hexdigest()
    second = read_checkpoint(
        write_checkpoint({"w": np.ones(2)}, {**METADATA, "round": "1", "parent": parent})
    )
    assert (second.run_id, second.round, second.app_digest) == (METADATA["run_id"], 1, "a" * 64)
    assert second.parent == parent
    assert read_checkpoint(first).parent == ""
    assert isinstance(second, Checkpoint)


def test_the_library_reads_what_is_written(tmp_path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        write_checkpoint({"w": np.arange(6, dtype="f4").reshape(2, 3), "é": np.ones(1)}, METADATA)
    )
    with safetensors.safe_open(path, framework="numpy") as opened:
        assert opened.metadata() == METADATA
        assert sorted(opened.keys()) == ["w", "é"]
        np.testing.assert_array_equal(opened.get_tensor("w"), np.arange(6).reshape(2, 3))


def test_what_the_library_writes_is_read() -> None:
    assert read_checkpoint(safetensors.numpy.save({"w": np.ones(2)}, METADATA)).arrays["w"].tolist() == [1, 1]


def test_the_same_arrays_give_the_same_bytes() -> None:
    """The library's own metadata changes its order from call to call."""
    arrays = {"w": np.ones((2, 3), "f4"), "b": np.zeros(3)}
    turned = {"b": np.zeros(3), "w": np.asfortranarray(np.ones((2, 3), "f4"))}
    files = {write_checkpoint(arrays, METADATA), write_checkpoint(turned, dict(reversed(METADATA.items())))}
    files |= {write_checkpoint(arrays, METADATA) for _ in range(20)}
    assert len(files) == 1
    assert hashlib.sha256(files.pop()).hexdigest() == (
        "1206497841d7808ae3ff2bf4bd46dfb5ac904e7fc9acf5c1bc35e38ad5ddd7fa"
    )


def test_other_byte_orders_and_strides_are_written_as_the_format_has_them() -> None:
    array = np.arange(12, dtype=">f4").reshape(3, 4)
    data = write_checkpoint(
        {"a": array, "t": array.T, "s": array[::2, 1::2], "f": np.asfortranarray(array)}, METADATA
    )
    found = read_checkpoint(data).arrays
    np.testing.assert_array_equal(found["a"], array)
    np.testing.assert_array_equal(found["t"], array.T)
    np.testing.assert_array_equal(found["s"], array[::2, 1::2])
    np.testing.assert_array_equal(found["f"], array)
    assert found["a"].dtype == np.dtype("<f4")


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(2, "c16"),
        np.array(["text"]),
        np.array([object()]),
        np.array(["2026-01-01"], "M8[D]"),
        np.zeros(1, "g"),
    ],
)
def test_a_type_that_the_format_does_not_have_is_refused(array: np.ndarray) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_checkpoint({"w": array}, METADATA)
    assert caught.value.reason == "CHECKPOINT_INVALID"


def test_an_array_under_the_name_of_the_metadata_is_refused() -> None:
    with pytest.raises(InvalidInput):
        write_checkpoint({"__metadata__": np.zeros(1)}, METADATA)


BAD_METADATA = [
    {},
    {"run_id": "1"},
    {**METADATA, "more": "x"},
    {**METADATA, "run_id": "x"},
    {**METADATA, "run_id": ""},
    {**METADATA, "round": "-1"},
    {**METADATA, "round": "9" * 5000},
    {**METADATA, "app_digest": "A" * 64},
    {**METADATA, "parent": "b" * 63},
    {**METADATA, "parent": "b" * 64 + "\n"},
]


@pytest.mark.parametrize("metadata", BAD_METADATA)
def test_other_metadata_is_neither_written_nor_read(metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        write_checkpoint({"w": np.zeros(2, "f4")}, metadata)
    assert caught.value.reason == "CHECKPOINT_INVALID"
    refused(file({"__metadata__": metadata, "w": entry()}, bytes(8)))


def test_metadata_is_text() -> None:
    with pytest.raises(InvalidInput):
        write_checkpoint({"w": np.zeros(2, "f4")}, {**METADATA, "round": 3})  # type: ignore[dict-item]


HEAD = {"__metadata__": METADATA}


def test_the_handmade_file_is_read() -> None:
    assert read_checkpoint(file({**HEAD, "w": entry()}, bytes(8))).arrays["w"].tolist() == [0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        b"\xff" * 16,
        file(b"{}"),
        file(b"[" * 200_000),
        file(b"not json"),
        file({"w": entry()}, bytes(8)),
        file({**HEAD, "w": entry()}, bytes(7)),
        file({**HEAD, "w": entry()}, bytes(9)),
        file({**HEAD, "w": entry(shape=(3,))}, bytes(8)),
        file({**HEAD, "w": entry(shape=(1 << 40, 1 << 40))}, bytes(8)),
        file({**HEAD, "w": entry(shape=(0, 1 << 63), end=0)}),
        file({**HEAD, "w": entry(shape=(1,) * 80, end=4)}, bytes(4)),
        file({**HEAD, "w": entry(shape=(-2,))}, bytes(8)),
        file({**HEAD, "w": entry("BF16", (4,))}, bytes(8)),
        file({**HEAD, "w": entry("F8_E4M3", (8,))}, bytes(8)),
        file({**HEAD, "w": entry("OBJ", (1,))}, bytes(8)),
        file({**HEAD, "w": entry("BOOL", (8,))}, b"\0\1\2" + bytes(5)),
        file({**HEAD, "w": entry(), "v": entry()}, bytes(8)),
        file({"__metadata__": {**METADATA, "round": 3}, "w": entry()}, bytes(8)),
        file({"__metadata__": "text", "w": entry()}, bytes(8)),
    ],
)
def test_what_is_no_checkpoint_is_refused(data: bytes) -> None:
    started = time.perf_counter()
    refused(data)
    assert time.perf_counter() - started < 1


def test_a_header_over_the_limit_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_checkpoint({"w": np.zeros(2)}, METADATA)
    monkeypatch.setattr(module, "MAX_HEADER_BYTES", int.from_bytes(data[:8], "little"))
    assert read_checkpoint(data).round == 3
    monkeypatch.setattr(module, "MAX_HEADER_BYTES", int.from_bytes(data[:8], "little") - 1)
    refused(data)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_checkpoint_is_refused_or_still_sound(data: st.DataObject) -> None:
    good = write_checkpoint(
        {"w": np.arange(6, dtype="f4").reshape(2, 3), "on": np.array([True, False])}, METADATA
    )
    damaged = bytearray(good)
    damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_checkpoint(bytes(damaged[: len(damaged) - data.draw(st.integers(0, 3))]))
    except IntegrityFailure as error:
        reason = error.reason
    else:
        reason = "CHECKPOINT_INVALID"
        assert sum(array.nbytes for array in found.arrays.values()) == 26
    assert reason == "CHECKPOINT_INVALID"
