"""Answers of apps on Flower's older API (`NumPyClient`, `client_fn`), in the form that the gate checks, and back.

Such an answer keeps its metrics and a status, which has a message in words, in records of configuration; its arrays
are in a record of another name than those sent. Exactly what Flower itself writes is taken here: every other answer
is left to the gate as it is, which lets no configuration out.

Source: `flwr.compat.common.recorddict_compat` and `flwr.compat.client.numpy_client` of Flower 1.41.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from syftmesh_core.errors import IntegrityFailure

from syftmesh_flower.update import (
    EMPTY_ARRAY,
    NUMPY_TYPE,
    ConfigValue,
    MetricValue,
    Update,
    read_metric,
    write_array,
)

MAX_CODE: Final = 4
"""Largest code of a status: that of `Code.EVALUATE_NOT_IMPLEMENTED`."""

EXAMPLES: Final = "num-examples"
"""The newer name of the number of examples, which the gate compares with the rows."""

_OLD_EXAMPLES: Final = "num_examples"
_SUCCESS: Final = "Success"
_WORDS: Final = {"train": ("fitins", "fitres"), "evaluate": ("evaluateins", "evaluateres")}


@dataclass(frozen=True, slots=True)
class LegacyReply:
    """An answer of the older API.

    Attributes:
        update: What is in it, with the record of its arrays named as that of the task.
        kind: ``train`` or ``evaluate``.
        code: The code of its status.
        message: Flower's own word of success, or nothing.
        truths: Names of the metrics that are truth values, which `update` holds as numbers.
    """

    update: Update
    kind: str
    code: int
    message: str
    truths: frozenset[str]


def read_legacy(reply: Update, sent: RecordDict | Update, kind: str) -> LegacyReply | None:
    """Return `reply` if it is the older API's answer to a task of that API, else None.

    Raises:
        IntegrityFailure: UPDATE_SCHEMA: it has the records of one, and other values in them.
    """
    if kind not in _WORDS:
        return None
    asked, answered = _WORDS[kind]
    names = sent.array_records.keys()
    if f"{asked}.parameters" not in names or not _has_its_records(reply, answered):
        return None
    examples = _only(reply.metric_records[f"{answered}.{_OLD_EXAMPLES}"], _OLD_EXAMPLES)
    if type(examples) is not int:
        raise _refused("the number of examples is no whole number")
    given = reply.config_records[f"{answered}.metrics"]
    metrics: dict[str, dict[str, MetricValue]] = {f"{answered}.{_OLD_EXAMPLES}": {EXAMPLES: examples}}
    if kind == "evaluate":
        loss = _only(reply.metric_records[f"{answered}.loss"], "loss")
        if isinstance(loss, list):
            raise _refused("the loss is a list")
        metrics[f"{answered}.loss"] = {"loss": loss}
    metrics[f"{answered}.metrics"] = {name: _number(name, value) for name, value in given.items()}
    code, message = _status(reply.config_records[f"{answered}.status"])
    arrays = {f"{asked}.parameters": reply.array_records[f"{answered}.parameters"]} if kind == "train" else {}
    return LegacyReply(
        Update(arrays, metrics),
        kind,
        code,
        message,
        frozenset(name for name, value in given.items() if isinstance(value, bool)),
    )


def write_legacy(checked: Update, legacy: LegacyReply) -> RecordDict:
    """Return what the gate let through in the form that the older API reads."""
    asked, answered = _WORDS[legacy.kind]
    metrics = checked.metric_records
    told: dict[str, ConfigValue] = {
        name: bool(value) if name in legacy.truths else read_metric(name, value)
        for name, value in metrics[f"{answered}.metrics"].items()
    }
    content = RecordDict()
    if legacy.kind == "evaluate":
        content[f"{answered}.loss"] = MetricRecord(dict(metrics[f"{answered}.loss"]))
    examples = metrics[f"{answered}.{_OLD_EXAMPLES}"][EXAMPLES]
    content[f"{answered}.{_OLD_EXAMPLES}"] = MetricRecord({_OLD_EXAMPLES: examples})
    content[f"{answered}.metrics"] = ConfigRecord(told)
    if legacy.kind == "train":
        arrays = checked.array_records.get(f"{asked}.parameters", {})
        content[f"{answered}.parameters"] = ArrayRecord(
            {name: write_array(array) for name, array in arrays.items()}
            or {EMPTY_ARRAY: Array(dtype="", shape=(), stype=NUMPY_TYPE, data=b"")}
        )
    content[f"{answered}.status"] = ConfigRecord({"code": legacy.code, "message": legacy.message})
    return content


def _has_its_records(reply: Update, answered: str) -> bool:
    is_fit = answered == "fitres"
    numbers = {f"{answered}.{_OLD_EXAMPLES}"} | (set() if is_fit else {f"{answered}.loss"})
    return (
        reply.array_records.keys() == ({f"{answered}.parameters"} if is_fit else set())
        and reply.metric_records.keys() == numbers
        and reply.config_records.keys() == {f"{answered}.metrics", f"{answered}.status"}
    )


def _only(record: Mapping[str, MetricValue], name: str) -> MetricValue:
    if record.keys() != {name}:
        raise _refused(f"a record holds more or less than {name}")
    return record[name]


def _number(name: str, value: ConfigValue) -> MetricValue:
    # A truth value is a number here: it counts as one, and goes out as what it was.
    if isinstance(value, bool | int | float):
        return int(value) if isinstance(value, bool) else value
    raise _refused(f"the metric {name[:100]!a} is no number: text, bytes and lists never leave")


def _status(record: Mapping[str, ConfigValue]) -> tuple[int, str]:
    code = record.get("code")
    if record.keys() != {"code", "message"} or type(code) is not int or not 0 <= code <= MAX_CODE:
        raise _refused("its status is not a code that Flower knows, with a message")
    # The message is the app's own text: Flower's word for success is let through, and nothing else.
    return code, _SUCCESS if record["message"] == _SUCCESS else ""


def _refused(problem: str) -> IntegrityFailure:
    return IntegrityFailure(
        f"It is no answer as Flower's older API writes it: {problem}.", reason="UPDATE_SCHEMA"
    )
