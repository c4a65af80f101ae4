"""Terms of a federated run have one encoding, every changed byte is named, and a proposal's life is a table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.approval import DatasetVersion, Recipient
from syftmesh_core.enc import canonical_json
from syftmesh_core.errors import IntegrityFailure, InvalidInput, PermissionDenied, WrongState
from syftmesh_core.federated import (
    ACTIVE,
    MAX_NORM,
    TERM_ORDER,
    TRANSITIONS,
    ProposalEvent,
    ProposalState,
    RunTerms,
    UpdateLimits,
    decimal_text,
    first_difference,
    is_run_id,
    parse_run_terms,
    transition,
)
from syftmesh_core.job import Role

TERMS = RunTerms(
    run_id="18446744073709551615",
    app_digest="a" * 64,
    run_config={"lr": 0.1, "name": "ä", "rounds": 3, "flag": True},
    dataset=DatasetVersion("breast-cancer", "b" * 64),
    aggregator="carol@lab.example",
    recipients=(Recipient("carol@lab.example", "c" * 64), Recipient("dan@lab.example", "d" * 64)),
    runtime_digest="e" * 64,
    train_tasks=5,
    evaluate_tasks=6,
    limits=UpdateLimits(max_update_bytes=1 << 26, max_norm=2.5, min_rows=5, max_metrics=64),
    purpose="prognosis",
    expires_ms=1_700_000_000_000,
)
CHANGES: dict[str, Any] = {
    "run_id": "1",
    "app_digest": "a" * 63 + "0",
    "run_config": {"lr": 0.2, "name": "ä", "rounds": 3, "flag": True},
    "dataset": DatasetVersion("breast-cancer", "0" * 64),
    "aggregator": "eve@evil.example",
    "recipients": TERMS.recipients[::-1],
    "runtime_digest": "0" * 64,
    "train_tasks": 6,
    "evaluate_tasks": 7,
    "limits": replace(TERMS.limits, max_norm=2.6),
    "purpose": "prognosis ",
    "expires_ms": 1_700_000_000_001,
}


def test_terms_survive_their_encoding() -> None:
    assert parse_run_terms(TERMS.to_json()) == TERMS
    assert first_difference(TERMS, json.loads(TERMS.to_json())) is None


def test_the_norm_is_text_so_that_no_rounding_is_signed() -> None:
    assert json.loads(TERMS.to_json())["limits"]["max_norm"] == "2.5"


@pytest.mark.parametrize("name", TERM_ORDER)
def test_a_changed_term_is_named(name: str) -> None:
    changed = replace(TERMS, **{name: CHANGES[name]})
    assert first_difference(TERMS, json.loads(changed.to_json())) == name


@pytest.mark.parametrize("name", ["max_update_bytes", "min_rows", "max_metrics"])
def test_every_limit_counts(name: str) -> None:
    changed = replace(TERMS, limits=replace(TERMS.limits, **{name: 7}))
    assert first_difference(TERMS, json.loads(changed.to_json())) == "limits"


def test_a_missing_and_a_surplus_term_are_named() -> None:
    body = json.loads(TERMS.to_json())
    assert first_difference(TERMS, {**body, "zeal": 1}) == "zeal"
    del body["purpose"]
    assert first_difference(TERMS, body) == "purpose"


@pytest.mark.parametrize(
    "change",
    [
        {"run_config": []},
        {"dataset": {"name": "x"}},
        {"dataset": {"name": "x", "digest": "B" * 64}},
        {"dataset": "x"},
        {"recipients": [{"email": "x", "root": "0"}]},
        {"recipients": {}},
        {"train_tasks": -1},
        {"train_tasks": True},
        {"evaluate_tasks": "1"},
        {"limits": {}},
        {"limits": None},
        {"limits": {"max_update_bytes": 1, "max_norm": 0, "min_rows": 1, "max_metrics": 1}},
        {"limits": {"max_update_bytes": 1, "max_norm": "nan", "min_rows": 1, "max_metrics": 1}},
        {"limits": {"max_update_bytes": 1, "max_norm": "-1", "min_rows": 1, "max_metrics": 1}},
        {"limits": {"max_update_bytes": 1, "max_norm": "1.0", "min_rows": 1, "max_metrics": 1}},
        {"limits": {"max_update_bytes": 1, "max_norm": "1e3", "min_rows": 1, "max_metrics": 1}},
        {"limits": {"max_update_bytes": 1, "max_norm": "x", "min_rows": 1, "max_metrics": 1}},
        {"aggregator": None},
        {"expires_ms": 1.5},
        {"surplus": 1},
    ],
)
def test_terms_of_another_form_are_refused(change: dict[str, object]) -> None:
    document = {**json.loads(TERMS.to_json()), **change}
    with pytest.raises(IntegrityFailure) as caught:
        parse_run_terms(canonical_json(document))
    assert caught.value.reason == "TERMS_INVALID"


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"\xff", b'{ "run_id":"1"}', b"[" * 100_000])
def test_what_is_no_terms_at_all_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        parse_run_terms(data)
    assert caught.value.reason == "TERMS_INVALID"


@given(st.floats(min_value=0, max_value=MAX_NORM))
def test_decimal_text_reads_back_and_has_no_exponent(value: float) -> None:
    text = decimal_text(value)
    assert float(text) == value
    assert set(text) <= set("0123456789.")
    assert decimal_text(float(text)) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, MAX_NORM * 2])
def test_a_norm_that_is_none_has_no_text(value: float) -> None:
    with pytest.raises(InvalidInput) as caught:
        decimal_text(value)
    assert caught.value.reason == "ENCODING_INVALID"


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("1", True),
        ("18446744073709551615", True),
        ("18446744073709551616", False),
        ("99999999999999999999", False),
        ("0", False),
        ("01", False),
        ("", False),
        ("-1", False),
        (" 1", False),
        ("\u0661", False),
        ("1" * 5000, False),
        ("../1", False),
    ],
)
def test_run_ids_are_decimal_numbers_of_64_bits(text: str, allowed: bool) -> None:  # noqa: FBT001
    assert is_run_id(text) is allowed


def test_every_step_that_is_not_in_the_table_is_refused() -> None:
    for state, event, role in product(ProposalState, ProposalEvent, Role):
        step = TRANSITIONS.get((state, event))
        if step is not None and role in step[1]:
            assert transition(state, event, role) is step[0]
        else:
            with pytest.raises((WrongState, PermissionDenied)):
                transition(state, event, role)


def test_nothing_leaves_a_final_state_and_only_the_owner_approves() -> None:
    assert {state for state, _ in TRANSITIONS} == ACTIVE
    assert transition(ProposalState.AWAITING_APPROVAL, ProposalEvent.APPROVE, Role.OWNER) == "approved"
    for role in (Role.RUNNER, Role.SUBMITTER):
        with pytest.raises(PermissionDenied) as caught:
            transition(ProposalState.AWAITING_APPROVAL, ProposalEvent.APPROVE, role)
        assert caught.value.reason == "ROLE_DENIED"
    with pytest.raises(WrongState):
        transition(ProposalState.AWAITING_APPROVAL, ProposalEvent.WITHDRAW, Role.OWNER)
