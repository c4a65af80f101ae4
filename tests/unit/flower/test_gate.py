"""Nothing leaves a site but what the task allows, in the form that was sent, within the owner's limits."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from syftmesh_core.errors import InvalidInput

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # Flower's typer uses what click is about to drop
    from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
    from flwr.common.serde import recorddict_to_proto
    from syftmesh_flower.gate import GateLimits, GateResult, check_update
    from syftmesh_flower.update import Update, read_update, write_update

LIMITS = GateLimits(max_update_bytes=10_000, max_norm=0, min_rows=10, max_metrics=8)
ROWS = 100

Arrays = dict[str, np.ndarray]


def model(**arrays: np.ndarray) -> Arrays:
    return {"w": np.ones((2, 3), "f4"), "b": np.zeros(3, "f8"), "steps": np.array([5]), **arrays}


def content(
    arrays: Arrays | None = None, metrics: dict | None = None, *, record: str = "arrays"
) -> RecordDict:
    records = RecordDict()
    if arrays is not None:
        records[record] = ArrayRecord({name: Array(array) for name, array in arrays.items()})
    if metrics is not None:
        records["metrics"] = MetricRecord(metrics)
    return records


SENT = content(model())


def check(
    reply: RecordDict, *, sent: RecordDict = SENT, kind: str = "train", rows: int = ROWS, **limits
) -> GateResult:
    return check_update(reply, sent, kind=kind, limits=replace(LIMITS, **limits), rows=rows)


def refused(reason: str, *args, **kwargs) -> GateResult:
    result = check(*args, **kwargs)
    assert (result.passed, result.content, result.reason) == (False, None, reason)
    assert result.text
    return result


def arrays_of(result: GateResult) -> Arrays:
    assert result.content is not None
    return dict(read_update(result.content).array_records["arrays"])


def test_an_answer_to_training_passes_as_it_is() -> None:
    reply = content(model(w=np.full((2, 3), 2, "f4")), {"loss": 0.5, "num-examples": 80, "each": [1, 2]})
    result = check(reply)
    assert result.passed
    assert (result.reason, result.text, result.clipped, result.norm) == ("", "", False, None)
    assert result.content == reply


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_metrics_alone_pass_for_the_other_tasks(kind: str) -> None:
    reply = content(None, {"accuracy": 0.9, "num-examples": 20})
    assert check(reply, kind=kind).content == reply


def test_plain_updates_are_taken_too() -> None:
    reply, sent = read_update(content(model(), {"loss": 1.0})), read_update(SENT)
    result = check_update(reply, sent, kind="train", limits=LIMITS, rows=ROWS)
    assert result.content == content(model(), {"loss": 1.0})


def test_an_answer_without_anything_passes_where_nothing_was_sent() -> None:
    assert check(RecordDict(), sent=RecordDict()).content == RecordDict()
    assert check(RecordDict(), kind="query").content == RecordDict()


def test_a_task_of_another_kind_is_no_task() -> None:
    with pytest.raises(InvalidInput):
        check(RecordDict(), kind="train.all")


# Rows


@pytest.mark.parametrize("kind", ["train", "evaluate", "query"])
def test_nothing_leaves_a_dataset_with_too_few_rows(kind: str) -> None:
    reply = content(model() if kind == "train" else None)
    assert check(reply, kind=kind, rows=10).passed
    refused("ROWS_TOO_FEW", reply, kind=kind, rows=9)
    assert check(reply, kind=kind, rows=0, min_rows=0).passed


@pytest.mark.parametrize("number", [101, -1, 100.5, 1e300, [5], []])
def test_more_examples_than_rows_are_refused(number: object) -> None:
    refused("UPDATE_SCHEMA", content(None, {"num-examples": number}), kind="evaluate")


@pytest.mark.parametrize("number", [0, 100, 99.5])
def test_examples_up_to_the_rows_pass(number: float) -> None:
    assert check(content(None, {"num-examples": number}), kind="evaluate").passed


# Form


@pytest.mark.parametrize("kind", ["evaluate", "query"])
@pytest.mark.parametrize("arrays", [model(), {}])
def test_only_training_gives_arrays(kind: str, arrays: Arrays) -> None:
    refused("UPDATE_SCHEMA", content(arrays), kind=kind)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"w": np.ones((2, 3), "f4")},
        {**model(), "more": np.zeros(1)},
        {"W" if name == "w" else name: array for name, array in model().items()},
        model(w=np.ones((3, 2), "f4")),
        model(w=np.ones(6, "f4")),
        model(w=np.ones((2, 3), "f8")),
        model(w=np.ones((2, 3), "i4")),
        model(w=np.ones((2, 3), ">f4")),
        model(steps=np.array(5)),
    ],
)
def test_arrays_of_another_form_than_those_sent_are_refused(arrays: Arrays) -> None:
    refused("UPDATE_SCHEMA", content(arrays))


def test_the_record_of_the_arrays_has_to_be_the_one_sent() -> None:
    refused("UPDATE_SCHEMA", content(model(), record="other"))
    two = content(model())
    two["copy"] = content(model())["arrays"]
    refused("UPDATE_SCHEMA", two)


def test_no_arrays_leave_where_none_were_sent() -> None:
    refused("UPDATE_SCHEMA", content(model()), sent=RecordDict({"config": ConfigRecord({"lr": 0.1})}))


@pytest.mark.parametrize("value", ["text", b"bytes", 1, 0.5, True, ["a"], []])
@pytest.mark.parametrize("kind", ["train", "evaluate"])
def test_configuration_never_leaves(kind: str, value: object) -> None:
    reply = content(model() if kind == "train" else None, {"loss": 1.0})
    reply["notes"] = ConfigRecord({"x": value})
    assert "notes" in refused("UPDATE_SCHEMA", reply, kind=kind).text


def test_what_goes_out_is_written_anew_in_the_order_sent() -> None:
    turned = dict(reversed(model(w=np.asfortranarray(np.arange(6, dtype="f4").reshape(2, 3))).items()))
    reply = content(turned, {"loss": 1.0})
    reply["a name that says something"] = ConfigRecord()
    result = check(reply)
    assert result.content is not None
    assert list(result.content.keys()) == ["arrays", "metrics"]
    assert list(arrays_of(result)) == ["w", "b", "steps"]
    np.testing.assert_array_equal(arrays_of(result)["w"], np.arange(6).reshape(2, 3))
    assert b"says something" not in recorddict_to_proto(result.content).SerializeToString()


def test_bytes_behind_an_array_are_refused() -> None:
    reply = content(model())
    reply["arrays"]["w"].data += b"secret"
    assert "bytes" in refused("UPDATE_MALFORMED", reply).text


def test_what_the_aggregator_sent_is_not_believed_either() -> None:
    sent = content(model())
    sent["arrays"]["w"].data = b"\x80\x04N."
    refused("UPDATE_MALFORMED", content(model()), sent=sent)


@pytest.mark.parametrize("value", [1 << 63, -(1 << 63) - 1, 10**400, "x", [1, 1 << 63]])
def test_a_metric_of_more_than_64_bits_is_refused(value: object) -> None:
    record = MetricRecord()
    record.__dict__["_data"]["x"] = value
    refused("UPDATE_MALFORMED", RecordDict({"metrics": record}), kind="query")
    update = Update(metric_records={"metrics": {"x": value}})  # type: ignore[dict-item]
    assert check_update(update, Update(), kind="query", limits=LIMITS, rows=ROWS).reason == "UPDATE_MALFORMED"


# Size


def test_the_true_size_counts() -> None:
    reply = content(model(), {"loss": 1.0})
    size = len("arrays" + "w" + "b" + "steps" + "metrics" + "loss") + 24 + 24 + 8 + 8
    assert check(reply, max_update_bytes=size).passed
    assert str(size) in refused("UPDATE_TOO_LARGE", reply, max_update_bytes=size - 1).text


# Metrics


def test_every_number_counts_those_in_lists_too() -> None:
    assert check(content(None, {"a": [1, 2, 3], "b": 1.0, "c": [1.0] * 4}), kind="query").passed
    refused("METRICS_TOO_MANY", content(None, {"a": [1, 2, 3], "b": 1.0, "c": [1.0] * 5}), kind="query")
    refused("METRICS_TOO_MANY", content(None, {f"m{number}": [] for number in range(9)}), kind="query")
    refused("METRICS_TOO_MANY", content(None, {"a": 1}), kind="query", max_metrics=0)


def test_metrics_of_several_records_count_together() -> None:
    reply = content(None, {"a": [1] * 4})
    reply["more"] = MetricRecord({"b": [1] * 5})
    refused("METRICS_TOO_MANY", reply, kind="query")


@pytest.mark.parametrize("name", ["a", "9", "num-examples", "val_loss.0", "A b", "x" * 64])
def test_names_of_metrics_are_plain(name: str) -> None:
    assert check(content(None, {name: 1}), kind="query").passed


@pytest.mark.parametrize(
    "name", ["", " a", "-a", ".a", "_a", "a/b", "a\n", "é", "a,b", "x" * 65, "a\0", "a:b"]
)
def test_other_names_of_metrics_or_their_records_are_refused(name: str) -> None:
    refused("METRIC_NAME_INVALID", content(None, {name: 1}), kind="query")
    refused("METRIC_NAME_INVALID", RecordDict({name: MetricRecord({"a": 1})}), kind="query")
    refused("METRIC_NAME_INVALID", RecordDict({name: MetricRecord()}), kind="query")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [1.0, math.nan]])
def test_a_metric_that_is_not_finite_is_refused(value: object) -> None:
    refused("UPDATE_NOT_FINITE", content(None, {"loss": value}), kind="evaluate")
    refused("UPDATE_NOT_FINITE", content(model(), {"loss": value}))


# Finite arrays


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", ">f4"])
@pytest.mark.parametrize("place", [0, 65_535, 65_536, 99_999])
def test_an_array_that_is_not_finite_somewhere_is_refused(value: float, dtype: str, place: int) -> None:
    sent = content({"w": np.zeros(100_000, dtype)})
    array = np.zeros(100_000, dtype)
    array[place] = complex(0, value) if array.dtype.kind == "c" else value
    limit = {"max_update_bytes": 1 << 30}
    assert check(sent, sent=sent, **limit).passed
    refused("UPDATE_NOT_FINITE", content({"w": array}), sent=sent, **limit)


# Norm


def norm(one: Arrays, two: Arrays) -> float:
    differences = [
        np.asarray(one[n], "c16") - np.asarray(two[n], "c16") for n in one if one[n].dtype.kind in "fc"
    ]
    return math.sqrt(sum(float((np.abs(d) ** 2).sum()) for d in differences))


def test_a_difference_within_the_norm_is_left_alone() -> None:
    reply = model(w=np.ones((2, 3), "f4") + 1, steps=np.array([1000]))
    result = check(content(reply), max_norm=2.5)
    assert (result.clipped, result.norm) == (False, pytest.approx(math.sqrt(6)))
    assert result.content == content(reply)


def test_a_larger_difference_is_scaled_over_all_arrays() -> None:
    reply = model(w=np.full((2, 3), 4, "f4"), b=np.full(3, -3, "f8"), steps=np.array([1000]))
    result = check(content(reply), max_norm=0.9)
    assert result.clipped
    assert result.norm == pytest.approx(9)
    arrays = arrays_of(result)
    np.testing.assert_allclose(arrays["w"], 1 + 0.3, rtol=1e-6)
    np.testing.assert_allclose(arrays["b"], -0.3)
    assert arrays["w"].dtype == np.dtype("f4")
    assert arrays["steps"].tolist() == [1000]
    assert norm(arrays, model()) <= 0.9 * (1 + 1e-12)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16", ">f4", ">c8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_clipping_keeps_type_shape_and_places(dtype: str, order: str) -> None:
    old = np.arange(12).reshape(3, 4).astype(dtype)
    new = np.asarray(old + (1 + 1j if old.dtype.kind == "c" else 1), dtype=dtype, order=order)
    new[0, 1] = old[0, 1]
    arrays = arrays_of(check(content({"w": new}), sent=content({"w": old}), max_norm=0.5))
    assert (arrays["w"].dtype, arrays["w"].shape) == (np.dtype(dtype), (3, 4))
    assert arrays["w"][0, 1] == old[0, 1]
    assert (np.real(arrays["w"])[1:] > np.real(old)[1:]).all() or dtype == "f2"
    assert norm(arrays, {"w": old}) <= 0.5 * (1 + 1e-12)


@given(data=st.data(), limit=st.floats(1e-6, 1e3), dtype=st.sampled_from(["f2", "f4", "f8", "c8"]))
@settings(max_examples=200, deadline=None)
def test_no_difference_is_ever_larger_than_the_norm(data: st.DataObject, limit: float, dtype: str) -> None:
    """Also where values are so large that the nearest number is further away than the limit allows."""
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=5))
    numbers = hnp.arrays("f8", shape, elements=st.floats(-60_000, 60_000))
    old, new = (np.asarray(data.draw(numbers), dtype) for _ in range(2))
    result = check(content({"w": new}), sent=content({"w": old}), max_norm=limit)
    assert norm(arrays_of(result), {"w": old}) <= limit * (1 + 1e-9)
    assert result.clipped == (norm({"w": new}, {"w": old}) > limit)


def test_blocks_meet_without_a_gap() -> None:
    generator = np.random.default_rng(0)
    old, new = (generator.normal(size=200_001).astype("f4") for _ in range(2))
    result = check(content({"w": new}), sent=content({"w": old}), max_norm=1, max_update_bytes=1 << 30)
    scale = 1 / norm({"w": new}, {"w": old})
    np.testing.assert_allclose(arrays_of(result)["w"], old + scale * (new - old), rtol=1e-4, atol=1e-6)


def test_a_difference_that_cannot_be_measured_is_refused() -> None:
    sent, reply = content({"w": np.array([-1e308])}), content({"w": np.array([1e308])})
    refused("UPDATE_NOT_FINITE", reply, sent=sent, max_norm=1)
    assert check(reply, sent=sent).passed


def test_a_model_sent_with_nan_cannot_switch_the_norm_off() -> None:
    refused(
        "UPDATE_NOT_FINITE",
        content({"w": np.ones(2)}),
        sent=content({"w": np.array([np.nan, 0])}),
        max_norm=1,
    )


@pytest.mark.parametrize(
    "limits",
    [{"max_norm": math.nan}, {"max_norm": math.inf}, {"max_norm": -1.0}, {"max_update_bytes": -1}, {"min_rows": -1},
     {"max_metrics": -1}],
)  # fmt: skip
def test_limits_that_hold_nothing_back_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(LIMITS, **limits)
    assert caught.value.reason == "LIMITS_INVALID"


def test_what_is_told_names_what_the_app_wrote_in_plain_ascii() -> None:
    text = refused("METRIC_NAME_INVALID", content(None, {"\x1b[31mé" * 100: 1}), kind="query").text
    assert text.isascii()
    assert text.isprintable()
    assert len(text) < 2000


@given(value=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
def test_a_number_leaves_as_it_was(value: float) -> None:
    reply = write_update(Update(metric_records={"metrics": {"x": value}}))
    assert check(reply, kind="query").content == reply
