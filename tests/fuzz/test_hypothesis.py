"""Arbitrary bytes, arbitrary text, text of each grammar's own characters, and changed seeds."""

from __future__ import annotations

import pytest
from fuzz_seed import ALPHABETS, SEEDS
from fuzz_target import REASONS, TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st
from mesh.common.v1 import error_reason_pb2

many = settings(max_examples=300, deadline=None)
each_target = pytest.mark.parametrize("target", TARGETS)


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[bytes, ...], alphabet: str) -> bytes:
    """Return a seed of which a few places were cut out, doubled or filled with characters of the grammar."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(len(data), start + 12)))
        piece = draw(st.text(alphabet, max_size=6)).encode() * draw(st.sampled_from([1, 1, 1, 40]))
        data = data[:start] + piece + data[end - draw(st.integers(0, end - start)) :]
    return data


@each_target
@many
@given(data=st.data())
def test_every_input_is_understood_or_refused_with_its_reason(target: str, data: st.DataObject) -> None:
    given_bytes = data.draw(
        st.one_of(
            st.binary(max_size=200),
            st.text(max_size=100).map(str.encode),
            st.text(ALPHABETS[target], max_size=80).map(str.encode),
            changed(SEEDS[target], ALPHABETS[target]),
        )
    )
    TARGETS[target](given_bytes)


@each_target
def test_seeds_hold(target: str) -> None:
    for seed in SEEDS[target]:
        TARGETS[target](seed)


def test_reasons_are_those_of_the_catalogue() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - an enum wrapper is no mapping
    assert set(REASONS.values()) <= names
