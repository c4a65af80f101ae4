"""The content of a Flower message as plain values: arrays, metrics and configuration, decoded from untrusted bytes.

Flower serialises an array in NumPy's format (NEP 1), whose header is a Python literal. Here a header is taken only in
the very form in which NumPy writes it, so nothing is evaluated; and data is looked at where it lies, so a shape that
is claimed makes nobody reserve memory.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from syftmesh_core.errors import IntegrityFailure

NDArray = npt.NDArray[Any]
MetricValue = int | float | list[int] | list[float]
ConfigValue = (
    int | float | str | bytes | bool | list[int] | list[float] | list[str] | list[bytes] | list[bool]
)

NUMPY_TYPE: Final = "numpy.ndarray"
"""Flower's name of the one serialisation that is taken."""

MAX_DIMENSIONS: Final = 32

UNTYPED_RECORDS: Final = frozenset(
    {"fitins.parameters", "fitres.parameters", "evaluateins.parameters", "getparametersres.parameters"}
)
"""Records of Flower's older API, whose arrays say their type and shape in their bytes only."""

EMPTY_ARRAY: Final = "_empty"
"""What the older API writes, without bytes, where there is no array."""

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufc][1-9]\d?)', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,19}(?:, \d{1,19})+|\d{1,19},)?)\), \} *\n"
)
_TYPES = frozenset("?bBhHiIlLqQefdFD")
_V = TypeVar("_V")


@dataclass(frozen=True, slots=True)
class Update:
    """The records of a message, by kind, each a mapping of record name to value name to value.

    Attributes:
        array_records: Arrays; those that were decoded cannot be written to.
        metric_records: Numbers.
        config_records: Configuration: numbers, text and bytes.
    """

    array_records: Mapping[str, Mapping[str, NDArray]] = field(default_factory=dict)
    metric_records: Mapping[str, Mapping[str, MetricValue]] = field(default_factory=dict)
    config_records: Mapping[str, Mapping[str, ConfigValue]] = field(default_factory=dict)

    @property
    def arrays(self) -> dict[str, NDArray]:
        """The arrays as ``record.name``.

        Raises:
            IntegrityFailure: UPDATE_MALFORMED: two of them have the same name then.
        """
        return _flat(self.array_records)

    @property
    def metrics(self) -> dict[str, MetricValue]:
        """The metrics as ``record.name``; raises as `arrays`."""
        return _flat(self.metric_records)

    @property
    def text(self) -> dict[str, ConfigValue]:
        """The configuration as ``record.name``; raises as `arrays`."""
        return _flat(self.config_records)

    @property
    def size_bytes(self) -> int:
        """The true size: of every value and every name, whatever form it is sent in."""
        records = (self.array_records, self.metric_records, self.config_records)
        names = sum(_text_bytes(record) for kind in records for record in kind)
        values = sum(
            _text_bytes(name) + _value_bytes(value)
            for kind in records
            for record in kind.values()
            for name, value in record.items()
        )
        return names + values


def read_update(content: RecordDict) -> Update:
    """Return the values in `content`, which may come from anybody.

    Raises:
        IntegrityFailure: UPDATE_MALFORMED: an array that is not as it says, of a type that is not a plain number's,
            or a metric that is none.
    """
    arrays: dict[str, dict[str, NDArray]] = {}
    metrics: dict[str, dict[str, MetricValue]] = {}
    config: dict[str, dict[str, ConfigValue]] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays[name] = _read_arrays(name, record)
        elif isinstance(record, MetricRecord):
            metrics[name] = {key: read_metric(key, value) for key, value in record.items()}
        else:
            config[name] = dict(record.items())
    return Update(arrays, metrics, config)


def write_update(update: Update) -> RecordDict:
    """Return `update` as Flower's records; the same values always give the same bytes.

    Raises:
        IntegrityFailure: UPDATE_MALFORMED: two records of different kinds have one name.
    """
    records: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for name, arrays in update.array_records.items():
        records[name] = ArrayRecord({key: write_array(array) for key, array in arrays.items()})
    for name, metrics in update.metric_records.items():
        records[name] = MetricRecord(dict(metrics))
    for name, config in update.config_records.items():
        records[name] = ConfigRecord(dict(config))
    if len(records) != sum(map(len, (update.array_records, update.metric_records, update.config_records))):
        raise malformed("two of its records have one name")
    return RecordDict(records)


def read_array(array: Array, *, is_untyped: bool = False) -> NDArray:
    """Return the array that `array` holds, as a view of its bytes that cannot be written to.

    Args:
        array: As Flower holds it.
        is_untyped: Whether it may leave type and shape to its bytes.

    Raises:
        IntegrityFailure: UPDATE_MALFORMED.
    """
    data = array.data
    if array.stype != NUMPY_TYPE or not isinstance(data, bytes) or data[:8] != _MAGIC:
        raise malformed("an array is not serialised by NumPy")
    start = 10 + int.from_bytes(data[8:10], "little")
    header = _HEADER.fullmatch(data[10:start])
    if header is None:
        raise malformed("the header of an array is not as NumPy writes it")
    shape = tuple(int(size) for size in header[3].replace(b",", b" ").split())
    try:
        dtype = np.dtype(header[1].decode())
    except TypeError:
        raise malformed("an array has a type that does not exist") from None
    if dtype.char not in _TYPES or len(shape) > MAX_DIMENSIONS:
        raise malformed("an array has a type or a number of dimensions that is not accepted")
    said = (array.dtype, tuple(array.shape))
    if said != (str(dtype), shape) and not (is_untyped and said == ("", ())):
        raise malformed("an array says one type and shape and has another")
    count = math.prod(shape)
    if count * dtype.itemsize != len(data) - start:
        raise malformed("an array has not as many bytes as its shape needs")
    return _view(data, dtype, count, start, shape, is_fortran=header[2] == b"True")


def write_array(array: NDArray) -> Array:
    """Return `array` as Flower's, with the bytes that NumPy itself writes."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    # `join` takes the array's memory as it is: one copy less than NumPy's own way into a buffer.
    data = b"".join((head.getvalue(), array.ravel(order="A").data))
    return Array(dtype=str(array.dtype), shape=tuple(array.shape), stype=NUMPY_TYPE, data=data)


def read_metric(name: str, value: object) -> MetricValue:
    """Return `value` as a metric of plain Python numbers.

    Raises:
        IntegrityFailure: UPDATE_MALFORMED: it is no number or list of numbers, or one of more than 64 bits.
    """
    if isinstance(value, list):
        if all(_is_number(item, int) for item in value):
            return [int(item) for item in value]
        if all(_is_number(item, float) for item in value):
            return [float(item) for item in value]
    elif _is_number(value, int):
        return int(value)  # type: ignore[call-overload, no-any-return]
    elif _is_number(value, float):
        return float(value)  # type: ignore[arg-type]
    raise malformed(f"the metric {name[:100]!a} is no number, or one of more than 64 bits")


def malformed(problem: str) -> IntegrityFailure:
    """Return the error for a content that is not what it says."""
    return IntegrityFailure(f"The content of the message is refused: {problem}.", reason="UPDATE_MALFORMED")


def _read_arrays(name: str, record: ArrayRecord) -> dict[str, NDArray]:
    is_untyped = name in UNTYPED_RECORDS
    return {
        key: read_array(array, is_untyped=is_untyped)
        for key, array in record.items()
        if not (is_untyped and key == EMPTY_ARRAY and not array.data)
    }


def _view(
    data: bytes, dtype: np.dtype[Any], count: int, start: int, shape: tuple[int, ...], *, is_fortran: bool
) -> NDArray:
    flat: NDArray = (
        np.frombuffer(data, dtype=dtype, count=count, offset=start) if count else np.empty(0, dtype)
    )
    if dtype.kind == "b" and count and flat.view(np.uint8).max() > 1:
        raise malformed("an array of booleans holds something else")
    try:
        shaped = flat.reshape(shape, order="F" if is_fortran else "C")
    except (ValueError, OverflowError):
        raise malformed("an array has a shape that does not exist") from None
    shaped.flags.writeable = False
    return shaped


def _is_number(value: object, kind: type[int | float]) -> bool:
    if isinstance(value, bool) or not isinstance(value, kind):
        return False
    return not isinstance(value, int) or -(1 << 63) <= value < 1 << 63


def _flat(records: Mapping[str, Mapping[str, _V]]) -> dict[str, _V]:
    flat = {f"{record}.{name}": value for record, values in records.items() for name, value in values.items()}
    if len(flat) != sum(map(len, records.values())):
        raise malformed("two of its values have one name")
    return flat


def _value_bytes(value: object) -> int:
    if isinstance(value, list):
        return sum(map(_value_bytes, value))
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, str):
        return _text_bytes(value)
    return len(value) if isinstance(value, bytes) else 8


def _text_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
