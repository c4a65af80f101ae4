"""Approval and release terms: one encoding, and every changed byte is named."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.approval import (
    TERM_ORDER,
    ApprovalTerms,
    DatasetVersion,
    Recipient,
    ReleasedFile,
    ReleaseTerms,
    compare_terms,
    parse_release,
    parse_terms,
)
from syftmesh_core.errors import IntegrityFailure

TERMS = ApprovalTerms(
    job_id="01890000-0000-7000-8000-000000000001",
    code_digest="a" * 64,
    entrypoint="main.py",
    parameters={"n": 3, "deep": {"list": [1, 2.5, None, True, "ä"]}},
    runtime_digest="b" * 64,
    datasets=(DatasetVersion("one", "c" * 64), DatasetVersion("two", "d" * 64)),
    recipients=(Recipient("carol@lab.example", "e" * 64),),
    purpose="prevalence",
    expires_ms=1_700_000_000_000,
)

CHANGES = {
    "job_id": {"job_id": "01890000-0000-7000-8000-000000000002"},
    "code_digest": {"code_digest": "a" * 63 + "0"},
    "entrypoint": {"entrypoint": "Main.py"},
    "parameters": {"parameters": {"n": 4, "deep": {"list": [1, 2.5, None, True, "ä"]}}},
    "runtime_digest": {"runtime_digest": "0" * 64},
    "datasets": {"datasets": (DatasetVersion("one", "c" * 64), DatasetVersion("two", "0" * 64))},
    "recipients": {"recipients": (Recipient("carol@lab.example", "0" * 64),)},
    "purpose": {"purpose": "prevalence "},
    "expires_ms": {"expires_ms": 1_700_000_000_001},
}


def test_terms_survive_their_encoding() -> None:
    assert compare_terms(TERMS, parse_terms(TERMS.to_json())) is None


@pytest.mark.parametrize("name", TERM_ORDER)
def test_a_changed_term_is_named(name: str) -> None:
    changed = replace(TERMS, **CHANGES[name])
    assert compare_terms(TERMS, changed) == name
    assert compare_terms(TERMS, parse_terms(changed.to_json())) == name


def test_the_order_of_datasets_and_recipients_counts() -> None:
    assert compare_terms(TERMS, replace(TERMS, datasets=TERMS.datasets[::-1])) == "datasets"


@pytest.mark.parametrize(
    "damaged",
    [
        lambda text: text[:-1],
        lambda text: text + " ",
        lambda text: text.replace('"purpose"', '"porpoise"'),
        lambda text: text.replace('"n":3', '"n":3.0'),
        lambda text: text.replace("1700000000000", "-1"),
        lambda text: text.replace("a" * 64, "A" * 64),
        lambda text: text.replace('"name":"one"', '"extra":1,"name":"one"'),
        lambda text: '{"a":1,' + text[1:],
        lambda text: "[]",
    ],
)
def test_terms_that_are_not_exactly_the_known_ones_are_refused(damaged) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(IntegrityFailure) as caught:
        parse_terms(damaged(TERMS.to_json()))
    assert caught.value.reason == "TERMS_INVALID"


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_with_one_error(data: bytes) -> None:
    with pytest.raises(IntegrityFailure):
        parse_terms(data)
    with pytest.raises(IntegrityFailure):
        parse_release(data)


def test_release_terms_survive_their_encoding_and_refuse_a_file_twice() -> None:
    terms = ReleaseTerms("j", (ReleasedFile("a.csv", "a" * 64),), TERMS.recipients, "plot is fine")
    assert parse_release(terms.to_json()) == terms
    twice = replace(terms, files=terms.files * 2)
    with pytest.raises(IntegrityFailure):
        parse_release(twice.to_json())
