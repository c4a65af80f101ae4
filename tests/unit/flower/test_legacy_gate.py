"""What apps of Flower's older API answer leaves in the one form that Flower gives it, and nothing else does."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
    from flwr.common import (
        Code,
        EvaluateIns,
        EvaluateRes,
        FitIns,
        FitRes,
        GetParametersRes,
        Parameters,
        Status,
        ndarrays_to_parameters,
        parameters_to_ndarrays,
    )
    from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
    from flwr.compat.common import recorddict_compat as compat
    from syftmesh_core.errors import IntegrityFailure
    from syftmesh_flower.gate import GateLimits, GateResult, check_update
    from syftmesh_flower.update import read_update

LIMITS = GateLimits(max_update_bytes=10_000, max_norm=0, min_rows=10, max_metrics=8)
ROWS = 100
MODEL = [np.ones((2, 3), "f4"), np.zeros(3, "f8"), np.array(5)]
OK = Status(Code.OK, "Success")
FIT_TASK = compat.fitins_to_recorddict(FitIns(ndarrays_to_parameters(MODEL), {"lr": 0.1}), True)
EVALUATE_TASK = compat.evaluateins_to_recorddict(EvaluateIns(ndarrays_to_parameters(MODEL), {}), True)


def fit_answer(**changes: Any) -> RecordDict:
    fields = {"status": OK, "parameters": MODEL, "num_examples": 80, "metrics": {"loss": 0.5}, **changes}
    fields["parameters"] = ndarrays_to_parameters(fields["parameters"])
    return compat.fitres_to_recorddict(FitRes(**fields), keep_input=True)


def evaluate_answer(**changes: Any) -> RecordDict:
    fields = {"status": OK, "loss": 0.25, "num_examples": 20, "metrics": {"accuracy": 0.9}, **changes}
    return compat.evaluateres_to_recorddict(EvaluateRes(**fields))


def travelled(content: RecordDict) -> RecordDict:
    return recorddict_from_proto(recorddict_to_proto(content))


def check(
    reply: RecordDict, *, sent: RecordDict | None = None, kind: str = "train", **limits: Any
) -> GateResult:
    sent = sent if sent is not None else FIT_TASK if kind == "train" else EVALUATE_TASK
    return check_update(
        travelled(reply), travelled(sent), kind=kind, limits=replace(LIMITS, **limits), rows=ROWS
    )


def passed(*args: Any, **kwargs: Any) -> RecordDict:
    result = check(*args, **kwargs)
    assert result.content is not None, result
    return travelled(result.content)


def refused(reason: str, *args: Any, **kwargs: Any) -> str:
    result = check(*args, **kwargs)
    assert (result.content, result.reason) == (None, reason)
    assert result.text
    return result.text


# What Flower writes


def test_an_answer_to_fit_passes_and_is_read_by_flower_as_it_was() -> None:
    arrays = [np.full((2, 3), 2, "f4"), np.ones(3), np.array(6)]
    metrics = {"loss": 0.5, "steps": 7, "is_done": True, "num-examples": 80}
    found = compat.recorddict_to_fitres(passed(fit_answer(parameters=arrays, metrics=metrics)), False)
    assert (found.status, found.num_examples, found.metrics) == (OK, 80, metrics)
    assert type(found.metrics["is_done"]) is bool
    assert found.parameters.tensor_type == "numpy.ndarray"
    for new, old in zip(parameters_to_ndarrays(found.parameters), arrays, strict=True):
        np.testing.assert_array_equal(new, old)
        assert new.dtype == old.dtype


def test_an_answer_to_evaluate_passes_and_is_read_by_flower_as_it_was() -> None:
    found = compat.recorddict_to_evaluateres(passed(evaluate_answer(), kind="evaluate"))
    assert found == EvaluateRes(OK, 0.25, 20, {"accuracy": 0.9})


def test_a_client_that_cannot_evaluate_may_say_so_without_words() -> None:
    status = Status(Code.EVALUATE_NOT_IMPLEMENTED, "Client does not implement `evaluate`")
    answer = evaluate_answer(status=status, loss=0.0, num_examples=0, metrics={})
    found = compat.recorddict_to_evaluateres(passed(answer, kind="evaluate"))
    assert found == EvaluateRes(Status(Code.EVALUATE_NOT_IMPLEMENTED, ""), 0.0, 0, {})


def test_a_client_that_cannot_fit_gives_no_arrays_and_is_refused() -> None:
    refused("UPDATE_SCHEMA", fit_answer(parameters=[], num_examples=0, metrics={}))


def test_a_model_without_arrays_is_one() -> None:
    sent = compat.fitins_to_recorddict(FitIns(Parameters([], "numpy.ndarray"), {}), True)
    found = compat.recorddict_to_fitres(passed(fit_answer(parameters=[]), sent=sent), False)
    assert (found.parameters, found.metrics) == (Parameters([], "numpy.ndarray"), {"loss": 0.5})


def test_arrays_come_back_in_the_order_in_which_they_were_sent() -> None:
    reply = fit_answer()
    record = reply.array_records["fitres.parameters"]
    reply["fitres.parameters"] = ArrayRecord(dict(reversed(list(record.items()))))
    found = compat.recorddict_to_fitres(passed(reply), False)
    assert [array.shape for array in parameters_to_ndarrays(found.parameters)] == [(2, 3), (3,), ()]


def test_arrays_that_go_too_far_are_clipped() -> None:
    arrays = [np.full((2, 3), 9, "f4"), np.zeros(3), np.array(5)]
    result = check(fit_answer(parameters=arrays), max_norm=1.0)
    assert result.clipped
    assert result.content is not None
    found = parameters_to_ndarrays(compat.recorddict_to_fitres(result.content, True).parameters)
    assert np.linalg.norm(found[0] - MODEL[0]) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("message", ["", "Success"])
def test_the_words_of_flower_itself_stay(message: str) -> None:
    found = compat.recorddict_to_fitres(passed(fit_answer(status=Status(Code.OK, message))), False)
    assert found.status.message == message


@pytest.mark.parametrize("message", ["patient=Jane Doe", "success", "Success ", "Success\0"])
def test_the_words_of_an_app_are_left_out(message: str) -> None:
    content = passed(fit_answer(status=Status(Code.OK, message)))
    assert compat.recorddict_to_fitres(content, True).status == Status(Code.OK, "")
    if message != "Success":
        assert message.encode() not in recorddict_to_proto(content).SerializeToString()


# What is no such answer


@pytest.mark.parametrize("code", [5, -1, 1 << 40, 0.0, "0", True, [0]])
def test_a_code_that_flower_does_not_have_is_refused(code: object) -> None:
    reply = fit_answer()
    reply["fitres.status"] = ConfigRecord({"code": code, "message": "Success"})  # type: ignore[dict-item]
    refused("UPDATE_SCHEMA", reply)


@pytest.mark.parametrize("status", [{}, {"code": 0}, {"message": ""}, {"code": 0, "message": "", "more": 1}])
def test_a_status_of_other_values_is_refused(status: dict[str, Any]) -> None:
    reply = evaluate_answer()
    reply["evaluateres.status"] = ConfigRecord(status)
    refused("UPDATE_SCHEMA", reply, kind="evaluate")


@pytest.mark.parametrize("value", ["Jane", "", b"Jane", [1.0], ["a"], []])
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_metrics_are_single_numbers(kind: str, value: object) -> None:
    answer = fit_answer if kind == "train" else evaluate_answer
    text = refused("UPDATE_SCHEMA", answer(metrics={"note": value}), kind=kind)
    assert "note" in text


@pytest.mark.parametrize("number", [101, -1])
def test_examples_are_at_most_the_rows(number: int) -> None:
    refused("UPDATE_SCHEMA", fit_answer(num_examples=number))
    refused("UPDATE_SCHEMA", evaluate_answer(num_examples=number), kind="evaluate")


@pytest.mark.parametrize("record", [{"num_examples": 5.0}, {"num_examples": [5]}, {"n": 5}, {}])
def test_examples_are_one_whole_number(record: dict[str, Any]) -> None:
    reply = fit_answer()
    reply["fitres.num_examples"] = MetricRecord(record)
    refused("UPDATE_SCHEMA", reply)


@pytest.mark.parametrize("record", [{"loss": [0.5]}, {"loss": 0.5, "x": 1}, {}])
def test_a_loss_is_one_number(record: dict[str, Any]) -> None:
    reply = evaluate_answer()
    reply["evaluateres.loss"] = MetricRecord(record)
    refused("UPDATE_SCHEMA", reply, kind="evaluate")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_are_finite(value: float) -> None:
    refused("UPDATE_NOT_FINITE", fit_answer(metrics={"x": value}))
    refused("UPDATE_NOT_FINITE", evaluate_answer(loss=value), kind="evaluate")
    refused("UPDATE_NOT_FINITE", fit_answer(parameters=[np.full((2, 3), value, "f4"), *MODEL[1:]]))


def test_every_number_counts() -> None:
    assert check(evaluate_answer(metrics={f"m{n}": True for n in range(6)}), kind="evaluate").passed
    refused("METRICS_TOO_MANY", evaluate_answer(metrics={f"m{n}": True for n in range(7)}), kind="evaluate")
    refused("METRICS_TOO_MANY", fit_answer(metrics={f"m{n}": n for n in range(8)}))


@pytest.mark.parametrize("name", ["patient/Jane", "x" * 65, ""])
def test_names_are_plain(name: str) -> None:
    refused("METRIC_NAME_INVALID", fit_answer(metrics={name: 1}))


def test_few_rows_and_large_answers_are_refused_as_ever() -> None:
    refused("ROWS_TOO_FEW", fit_answer(), min_rows=101)
    refused("UPDATE_TOO_LARGE", fit_answer(), max_update_bytes=50)


@pytest.mark.parametrize(
    "arrays",
    [
        MODEL[:2],
        [*MODEL, np.zeros(1)],
        MODEL[::-1],
        [MODEL[0].astype("f8"), *MODEL[1:]],
        [MODEL[0].reshape(3, 2), *MODEL[1:]],
        [],
    ],
)
def test_arrays_have_the_form_of_those_sent(arrays: list[np.ndarray]) -> None:
    refused("UPDATE_SCHEMA", fit_answer(parameters=arrays))


@pytest.mark.parametrize("data", [b"", b"Jane Doe", ndarrays_to_parameters(MODEL).tensors[1] + b"x"])
def test_bytes_that_are_no_array_are_refused(data: bytes) -> None:
    reply = fit_answer()
    reply["fitres.parameters"]["1"] = Array(dtype="", shape=(), stype="numpy.ndarray", data=data)
    refused("UPDATE_MALFORMED", reply)


@pytest.mark.parametrize(
    ("dtype", "shape"), [("float64", ()), ("", (3,)), ("float32", (3,)), ("x", (1 << 20,))]
)
def test_an_array_that_says_something_else_than_its_bytes_is_refused(
    dtype: str, shape: tuple[int, ...]
) -> None:
    reply = fit_answer()
    data = ndarrays_to_parameters(MODEL).tensors[1]
    reply["fitres.parameters"]["1"] = Array(dtype=dtype, shape=shape, stype="numpy.ndarray", data=data)
    refused("UPDATE_MALFORMED", reply)


def test_only_the_records_of_the_older_api_may_leave_their_form_to_the_bytes() -> None:
    record = fit_answer().array_records["fitres.parameters"]
    with pytest.raises(IntegrityFailure):
        read_update(RecordDict({"arrays": record}))


def test_words_in_the_place_of_no_array_do_not_leave() -> None:
    sent = compat.fitins_to_recorddict(FitIns(Parameters([], "numpy.ndarray"), {}), True)
    reply = fit_answer(parameters=[])
    reply["fitres.parameters"] = ArrayRecord({"_empty": Array(dtype="Jane", shape=(), stype="Doe", data=b"")})
    data = recorddict_to_proto(passed(reply, sent=sent)).SerializeToString()
    assert b"Jane" not in data
    assert b"Doe" not in data
    reply["fitres.parameters"]["_empty"] = Array(dtype="", shape=(), stype="", data=b"Jane Doe")
    refused("UPDATE_MALFORMED", reply, sent=sent)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("notes", ConfigRecord({"x": 1})),
        ("fitres.more", MetricRecord({"x": 1})),
        ("arrays", ArrayRecord([np.zeros(1)])),
        ("evaluateres.status", ConfigRecord({"code": 0, "message": "Success"})),
    ],
)
def test_one_record_more_is_no_such_answer(name: str, record: Any) -> None:
    reply = fit_answer()
    reply[name] = record
    refused("UPDATE_SCHEMA", reply)


@pytest.mark.parametrize(
    "name", ["fitres.status", "fitres.metrics", "fitres.num_examples", "fitres.parameters"]
)
def test_one_record_less_is_no_such_answer(name: str) -> None:
    reply = fit_answer()
    del reply[name]
    refused("UPDATE_SCHEMA", reply)


def test_a_record_of_another_kind_is_no_such_answer() -> None:
    reply = evaluate_answer()
    reply["evaluateres.metrics"] = MetricRecord({"x": 1.0})
    refused("UPDATE_SCHEMA", reply, kind="evaluate")


def test_only_the_older_api_is_answered_in_its_form() -> None:
    newer = RecordDict({"arrays": ArrayRecord(MODEL), "config": ConfigRecord({"lr": 0.1})})
    refused("UPDATE_SCHEMA", fit_answer(), sent=newer)
    refused("UPDATE_SCHEMA", evaluate_answer(), sent=newer, kind="evaluate")
    refused("UPDATE_SCHEMA", fit_answer(), sent=EVALUATE_TASK, kind="evaluate")
    refused("UPDATE_SCHEMA", evaluate_answer(), sent=FIT_TASK, kind="train")
    refused("UPDATE_SCHEMA", evaluate_answer(), sent=EVALUATE_TASK, kind="query")


def test_no_parameters_leave_as_the_answer_to_a_query() -> None:
    answer = compat.getparametersres_to_recorddict(GetParametersRes(OK, ndarrays_to_parameters(MODEL)), True)
    assert "come from its server" in refused("UPDATE_SCHEMA", answer, kind="query", sent=FIT_TASK)
    del answer["getparametersres.status"]
    answer["getparametersres.parameters"] = ArrayRecord(MODEL)
    assert "come from its server" in refused("UPDATE_SCHEMA", answer, kind="query", sent=FIT_TASK)
