"""Contents of messages are decoded without believing them, and written as Flower writes them."""

from __future__ import annotations

import io
import time
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from syftmesh_core.errors import IntegrityFailure

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
    from flwr.proto.recorddict_pb2 import RecordDict as Proto
    from syftmesh_flower.update import Update, read_array, read_update, write_array, write_update

TYPES = ["?", "i1", "u1", "<i2", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16", ">f4", ">i8"]


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def raw(
    header: str | bytes, body: bytes = b"", *, dtype: str = "float32", shape: tuple[int, ...] = (2,)
) -> Array:
    """An array with any header; `dtype` and `shape` are what Flower's envelope says."""
    text = header.encode() if isinstance(header, str) else header
    data = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + body
    return Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)


def plain(descr: str = "<f4", order: str = "False", shape: str = "(2,)") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}   \n"


def refused(call, *args) -> IntegrityFailure:
    with pytest.raises(IntegrityFailure) as caught:
        call(*args)
    assert caught.value.reason == "UPDATE_MALFORMED"
    return caught.value


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 3), (2, 0, 4), (2, 1, 3, 1)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_flower_is_read_and_written_as_flower_does(
    dtype: str, shape: tuple[int, ...], order: str
) -> None:
    array = np.asarray(np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype=dtype, order=order)
    theirs = Array(array)
    found = read_array(theirs)
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)
    ours = write_array(array)
    assert (ours.dtype, ours.shape, ours.stype, ours.data) == (
        theirs.dtype,
        theirs.shape,
        theirs.stype,
        theirs.data,
    )
    assert write_array(found).data == theirs.data


@given(
    array=hnp.arrays(st.sampled_from([np.dtype(t) for t in TYPES]), hnp.array_shapes(min_dims=0, min_side=0))
)
@settings(max_examples=100, deadline=None)
def test_any_array_comes_back(array: np.ndarray) -> None:
    np.testing.assert_array_equal(read_array(write_array(array)), array)


def test_a_slice_is_written_whole() -> None:
    array = np.arange(20.0).reshape(4, 5)[::2, 1::2]
    assert write_array(array).data == saved(array)


def test_what_was_read_cannot_be_written_to() -> None:
    for array in (np.zeros(3), np.zeros(0), np.zeros(())):
        with pytest.raises(ValueError, match="read-only"):
            read_array(Array(array))[...] = 1


def test_an_array_is_read_where_it_lies() -> None:
    array = Array(np.zeros(1 << 20))
    tracemalloc.start()
    try:
        read_array(array)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("shape", "text"),
    [((1 << 50,), "(1125899906842624,)"), ((1 << 31, 1 << 31), "(2147483648, 2147483648)"),
     ((0, 1 << 62), "(0, 4611686018427387904)"), ((0, 10**19 - 1), "(0, 9999999999999999999)"),
     ((1 << 32, 1 << 32), "(4294967296, 4294967296)"), ((3,), "(3,)"), ((1,), "(1,)")],
)  # fmt: skip
def test_a_shape_that_the_bytes_do_not_fill_is_refused_before_memory_is_taken(
    shape: tuple[int, ...], text: str
) -> None:
    tracemalloc.start()
    try:
        refused(read_array, raw(plain(shape=text), bytes(0 if shape[0] == 0 else 8), shape=shape))
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_plain_form_is_taken() -> None:
    assert read_array(raw(plain(), bytes(8))).tolist() == [0, 0]


@pytest.mark.parametrize(
    "array",
    [
        raw(plain(), bytes(9)),
        raw(plain(), bytes(7)),
        raw(plain(), b""),
        raw(plain("|O"), bytes(16), dtype="object"),
        raw(plain("<M8[s]"), bytes(16), dtype="datetime64[s]"),
        raw(plain("<U1"), bytes(8), dtype="<U1"),
        raw(plain("|S4"), bytes(8), dtype="|S4"),
        raw(plain("|V4"), bytes(8), dtype="|V4"),
        raw(plain("<f16"), bytes(32), dtype="float128"),
        raw(plain("<f3"), bytes(6)),
        raw(plain("<i99"), bytes(6)),
        raw("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }\n", bytes(8)),
        raw("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), 'more': 1}\n", bytes(8)),
        raw("{'descr': '<f4', 'fortran_order': False, 'shape': (1+1,), }\n", bytes(8)),
        raw("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,), }\n", bytes(8), shape=(-2,)),
        raw("{'descr': '<f4', 'fortran_order': False, 'shape': (2), }\n", bytes(8)),
        raw("{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", bytes(8)),
        raw("(" * 60_000, bytes(8)),
        raw(b"\xff" * 100, bytes(8)),
        raw(plain(shape="(" + ", ".join(["1"] * 33) + ")"), bytes(4), shape=(1,) * 33),
        raw(plain(), bytes(8), dtype="float64"),
        raw(plain(), bytes(8), shape=(1, 2)),
        raw(plain(), bytes(8), shape=()),
        raw(plain("|b1"), b"\1\2", dtype="bool"),
        Array(dtype="float32", shape=(2,), stype="pickle", data=saved(np.zeros(2, "f4"))),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b""),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"\x93NUMPY\x01\x00"),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"\x93NUMPY\x02\x00" + bytes(80)),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=b"\x80\x04N."),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=saved(np.zeros(2, "f4"))[:-1]),
        Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=saved(np.zeros(2, "f4")) + b"hidden"),
    ],
)
def test_an_array_that_is_not_as_numpy_writes_it_is_refused(array: Array) -> None:
    started = time.perf_counter()
    refused(read_array, array)
    assert time.perf_counter() - started < 1


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_give_a_sound_array_or_a_refusal(data: st.DataObject) -> None:
    good = saved(np.arange(6, dtype="f4").reshape(2, 3))
    damaged = bytearray(good)
    damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    array = Array(dtype="float32", shape=(2, 3), stype="numpy.ndarray", data=bytes(damaged))
    try:
        found = read_array(array)
    except IntegrityFailure:
        return
    assert (found.dtype, found.shape) == (np.dtype("f4"), (2, 3))


def content() -> RecordDict:
    arrays = {"layer.0.weight": Array(np.ones((2, 3), "f4")), "layer.0.bias": Array(np.zeros(3))}
    return RecordDict(
        {
            "arrays": ArrayRecord(arrays),
            "metrics": MetricRecord(
                {"loss": 0.5, "num-examples": 7, "each": [1, 2], "curve": [0.5, 1.0], "no": []}
            ),
            "empty": MetricRecord(),
            "config": ConfigRecord({"lr": 0.1, "note": "hé", "blob": b"abc", "on": True, "list": ["a", "b"]}),
        }
    )


def test_a_content_comes_back_with_its_names_kinds_and_order() -> None:
    update = read_update(content())
    assert list(update.array_records["arrays"]) == ["layer.0.weight", "layer.0.bias"]
    assert update.metric_records["metrics"]["curve"] == [0.5, 1.0]
    assert update.metric_records["empty"] == {}
    assert update.config_records["config"]["blob"] == b"abc"
    assert write_update(update) == content()
    over_the_wire = recorddict_to_proto(content()).SerializeToString()
    assert recorddict_to_proto(write_update(update)).SerializeToString() == over_the_wire
    assert write_update(read_update(recorddict_from_proto(Proto.FromString(over_the_wire)))) == content()


def test_values_have_flat_names_too() -> None:
    update = read_update(content())
    assert list(update.arrays) == ["arrays.layer.0.weight", "arrays.layer.0.bias"]
    assert update.metrics["metrics.loss"] == 0.5
    assert update.text["config.note"] == "hé"


def test_flat_names_that_collide_are_refused() -> None:
    update = Update(array_records={"a": {"b.c": np.zeros(1)}, "a.b": {"c": np.zeros(1)}})
    refused(lambda: update.arrays)


def test_one_name_for_two_records_is_refused() -> None:
    refused(write_update, Update(array_records={"x": {}}, metric_records={"x": {"loss": 1.0}}))


def test_the_size_is_of_values_and_names() -> None:
    update = Update(
        array_records={"a": {"w": np.zeros((2, 3), "f4")}},
        metric_records={"mm": {"loss": 1.0, "each": [1, 2, 3]}},
        config_records={"c": {"text": "hé", "blob": b"abc", "words": ["x", "yy"], "on": True}},
    )
    names = len("a" + "w" + "mm" + "loss" + "each" + "c" + "text" + "blob" + "words" + "on")
    assert update.size_bytes == names + 24 + 8 + 24 + 3 + 3 + 3 + 8


def test_an_array_in_a_record_is_checked() -> None:
    refused(
        read_update, RecordDict({"arrays": ArrayRecord({"w": raw(plain("|O"), bytes(16), dtype="object")})})
    )


@pytest.mark.parametrize(
    "value", [1 << 63, -(1 << 63) - 1, [1, 1 << 63], "x", True, [True], [1, 2.0], None, [[1]], b"x"]
)
def test_a_metric_that_is_no_number_of_64_bits_is_refused(value: object) -> None:
    record = MetricRecord()
    record.__dict__["_data"]["x"] = value  # past Flower's own check, as bytes from a stranger may come
    refused(read_update, RecordDict({"metrics": record}))


@pytest.mark.parametrize("value", [(1 << 63) - 1, -(1 << 63), 0.0, float("inf"), [], [1], [1.5]])
def test_a_number_is_taken(value: object) -> None:
    update = read_update(RecordDict({"metrics": MetricRecord({"x": value})}))
    assert update.metric_records == {"metrics": {"x": value}}
