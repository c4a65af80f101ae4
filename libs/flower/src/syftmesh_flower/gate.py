"""The egress gate: what an app answers is seen here before it leaves the site.

An answer passes when it has the form that its task allows and stays within the owner's limits; what goes out is
written anew from its values, so nothing else that was in its bytes goes along. The gate bounds how much of what form
leaves; it cannot know what numbers mean: that is what reviewing the app is for.

Integer arrays, such as the counters of a batch normalisation, have no part in the norm.

Answers of Flower's older API are taken in the one form that Flower gives them; see `syftmesh_flower.legacy`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from flwr.app import RecordDict
from syftmesh_core.errors import IntegrityFailure, InvalidInput

from syftmesh_flower.legacy import EXAMPLES, read_legacy, write_legacy
from syftmesh_flower.update import NDArray, Update, read_metric, read_update, write_update

Kind = Literal["train", "evaluate", "query"]

KINDS: Final = ("train", "evaluate", "query")
EXAMPLES_METRIC: Final = EXAMPLES
"""Flower's strategies weigh answers by it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._ -]{0,63}")
_BLOCK = 1 << 16
"""Elements looked at at once: they stay in the processor's cache in float64."""

_FLOATS = "fc"


@dataclass(frozen=True, slots=True)
class GateLimits:
    """The owner's limits of one answer.

    Attributes:
        max_update_bytes: Largest true size, of all values and names.
        max_norm: The L2 norm of the difference to the arrays sent is clipped to it; 0 clips nothing.
        min_rows: Fewest rows of the dataset with which anything leaves.
        max_metrics: Most numbers in metrics, entries of lists counted.

    Raises:
        InvalidInput: LIMITS_INVALID: a limit is negative or no number, so it would hold back nothing.
    """

    max_update_bytes: int
    max_norm: float
    min_rows: int
    max_metrics: int

    def __post_init__(self) -> None:
        whole = (self.max_update_bytes, self.min_rows, self.max_metrics)
        if not (math.isfinite(self.max_norm) and self.max_norm >= 0 and min(whole) >= 0):
            raise InvalidInput(
                "A limit of the egress gate is negative or no number.", reason="LIMITS_INVALID"
            )


@dataclass(frozen=True, slots=True)
class GateResult:
    """What the gate says of an answer.

    Attributes:
        content: What may leave; None when nothing may.
        reason: Constant for the aggregator when nothing may leave, else empty.
        text: What was wrong, for the owner only: it names what the app wrote.
        clipped: Whether the arrays were scaled to the norm.
        norm: L2 norm of the difference before that; None where there is no limit to it.
    """

    content: RecordDict | None
    reason: str = ""
    text: str = ""
    clipped: bool = False
    norm: float | None = None

    @property
    def passed(self) -> bool:
        """Whether something may leave."""
        return self.content is not None


class _Refused(Exception):
    def __init__(self, reason: str, text: str) -> None:
        super().__init__(reason)
        self.reason, self.text = reason, text


def check_update(
    reply: RecordDict | Update, sent: RecordDict | Update, *, kind: Kind, limits: GateLimits, rows: int
) -> GateResult:
    """Return what of `reply` may leave the site.

    Refusals: ROWS_TOO_FEW, UPDATE_MALFORMED, UPDATE_TOO_LARGE, UPDATE_SCHEMA (arrays that are not those sent, or any
    in the answer to something else than training; configuration; an impossible number of examples),
    METRICS_TOO_MANY, METRIC_NAME_INVALID, UPDATE_NOT_FINITE.

    Args:
        reply: What the app answered.
        sent: The content of the message that it answers.
        kind: What was asked for.
        limits: The owner's.
        rows: Rows of the dataset.

    Raises:
        InvalidInput: `kind` is none.
    """
    if kind not in KINDS:
        raise InvalidInput(f"A task is one of {', '.join(KINDS)}.", reason="INVALID_INPUT")
    try:
        return _check(reply, sent, kind, limits, rows)
    except _Refused as refusal:
        return GateResult(None, refusal.reason, refusal.text)
    except IntegrityFailure as error:
        return GateResult(None, error.reason, error.message)


def _check(
    reply: RecordDict | Update, sent: RecordDict | Update, kind: Kind, limits: GateLimits, rows: int
) -> GateResult:
    if rows < limits.min_rows:
        raise _Refused(
            "ROWS_TOO_FEW", f"The dataset has {rows} rows, and {limits.min_rows} are the fewest allowed."
        )
    update = reply if isinstance(reply, Update) else read_update(reply)
    legacy = read_legacy(update, sent, kind)
    if legacy is not None:
        update = legacy.update
    if update.size_bytes > limits.max_update_bytes:
        raise _Refused(
            "UPDATE_TOO_LARGE",
            f"It has {update.size_bytes} bytes of at most {limits.max_update_bytes} allowed.",
        )
    if kind != "train" and update.array_records:
        raise _Refused(
            "UPDATE_SCHEMA",
            f"It holds arrays, and only training gives any: {_shown(*update.array_records)}. The first parameters "
            "of a model come from its server.",
        )
    for name, record in update.config_records.items():
        if record:
            raise _Refused(
                "UPDATE_SCHEMA", f"The record {_shown(name)} is configuration: text or bytes never leave."
            )
    _check_metrics(update, limits, rows)
    arrays, norm = update.array_records, None
    if kind == "train":
        given = sent if isinstance(sent, Update) else read_update(sent)
        arrays = _same_form(arrays, given.array_records)
        _check_finite(arrays)
        if limits.max_norm > 0:
            norm = _norm(arrays, given.array_records)
            if norm > limits.max_norm:
                arrays = _clipped(arrays, given.array_records, limits.max_norm / norm)
    # Configuration is left out even when it is empty: the names of its records are text too.
    checked = Update(arrays, update.metric_records)
    content = write_update(checked) if legacy is None else write_legacy(checked, legacy)
    return GateResult(content, clipped=norm is not None and norm > limits.max_norm, norm=norm)


def _check_metrics(update: Update, limits: GateLimits, rows: int) -> None:
    count = 0
    for record, metrics in update.metric_records.items():
        for name in (record, *metrics):
            if not _NAME.fullmatch(name):
                raise _Refused(
                    "METRIC_NAME_INVALID",
                    f"The name {_shown(name)} is longer than 64, or has other characters than letters, digits, "
                    "points, underscores, spaces and hyphens.",
                )
        for name, given in metrics.items():
            value = read_metric(name, given)
            values = value if isinstance(value, list) else [value]
            count += max(1, len(values))
            if not all(map(math.isfinite, values)):
                raise _Refused("UPDATE_NOT_FINITE", f"The metric {_shown(name)} is not finite.")
            if name == EXAMPLES_METRIC and (isinstance(value, list) or not 0 <= value <= rows):
                raise _Refused(
                    "UPDATE_SCHEMA", f"The metric {EXAMPLES_METRIC} is not from 0 to {rows}, the rows."
                )
    if count > limits.max_metrics:
        raise _Refused("METRICS_TOO_MANY", f"It has {count} numbers of at most {limits.max_metrics} allowed.")


def _same_form(
    arrays: Mapping[str, Mapping[str, NDArray]], sent: Mapping[str, Mapping[str, NDArray]]
) -> dict[str, dict[str, NDArray]]:
    """Return `arrays` in the order of `sent`, whose names, types and shapes they have to have."""
    form, expected = _form(arrays), _form(sent)
    for name in sorted(form.keys() ^ expected.keys()):
        missing = "is missing" if name in expected else "was not sent"
        raise _Refused("UPDATE_SCHEMA", f"The array {_shown('/'.join(name))} {missing}.")
    for name, found in form.items():
        if found != expected[name]:
            raise _Refused(
                "UPDATE_SCHEMA",
                f"The array {_shown('/'.join(name))} is {found[0]}{found[1]}, and {expected[name][0]}"
                f"{expected[name][1]} was sent.",
            )
    return {record: {name: arrays[record][name] for name in names} for record, names in sent.items() if names}


def _form(arrays: Mapping[str, Mapping[str, NDArray]]) -> dict[tuple[str, str], tuple[str, tuple[int, ...]]]:
    return {
        (record, name): (str(array.dtype), array.shape)
        for record, named in arrays.items()
        for name, array in named.items()
    }


def _check_finite(arrays: Mapping[str, Mapping[str, NDArray]]) -> None:
    for named in arrays.values():
        for name, array in named.items():
            if array.dtype.kind in _FLOATS and not all(
                np.isfinite(block).all() for (block,) in _blocks(array)
            ):
                raise _Refused("UPDATE_NOT_FINITE", f"The array {_shown(name)} is not finite everywhere.")


def _norm(arrays: Mapping[str, Mapping[str, NDArray]], sent: Mapping[str, Mapping[str, NDArray]]) -> float:
    total = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for record, named in arrays.items():
            for name, array in named.items():
                if array.dtype.kind in _FLOATS:
                    for new, old in _blocks(array, sent[record][name]):
                        difference = new.astype(np.float64) - old.astype(np.float64)
                        total += float(difference @ difference)
    if not math.isfinite(total):
        raise _Refused("UPDATE_NOT_FINITE", "The difference to the arrays sent is too large to be measured.")
    return math.sqrt(total)


def _clipped(
    arrays: Mapping[str, Mapping[str, NDArray]], sent: Mapping[str, Mapping[str, NDArray]], scale: float
) -> dict[str, dict[str, NDArray]]:
    return {
        record: {
            name: _scaled(array, sent[record][name], scale) if array.dtype.kind in _FLOATS else array
            for name, array in named.items()
        }
        for record, named in arrays.items()
    }


def _scaled(array: NDArray, sent: NDArray, scale: float) -> NDArray:
    """Return ``sent + scale * (array - sent)`` in the type of `array`, rounded towards `sent`.

    Rounding to the nearest could leave a difference of more than the norm allows where values are large.
    """
    result = np.empty(array.shape, array.dtype)
    for new, old, into in _blocks(array, sent, result):
        base = old.astype(np.float64)
        difference = (new.astype(np.float64) - base) * scale
        into[:] = base + difference
        over = np.abs(into.astype(np.float64) - base) > np.abs(difference)
        into[over] = np.nextafter(into[over], old[over])
    return result


def _blocks(*arrays: NDArray) -> Iterator[tuple[NDArray, ...]]:
    """Give the same elements of all arrays in turn, complex numbers as pairs of real ones."""
    flat = [_reals(array) for array in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(array[start : start + _BLOCK] for array in flat)


def _reals(array: NDArray) -> NDArray:
    flat = array.reshape(-1)
    if array.dtype.kind == "c":
        real: np.dtype[Any] = np.dtype(f"{array.dtype.byteorder}f{array.dtype.itemsize // 2}")
        return flat.view(real)
    return flat


def _shown(*names: str) -> str:
    return ", ".join(ascii(name[:100]) for name in names[:3])
