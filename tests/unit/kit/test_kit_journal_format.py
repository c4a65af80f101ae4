from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import IntegrityFailure
from syftmesh_kit.journal_format import decode, encode, object_key, parse_range
from syftmesh_kit.message import StreamMessage
from syftmesh_kit.testing import FakeObjectStore

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
messages = st.builds(
    StreamMessage,
    stream=st.just("S"),
    subject=names,
    sequence=st.integers(1, 2**63),
    time_ms=st.integers(0, 2**50),
    headers=st.dictionaries(names, names, max_size=4),
    payload=st.binary(max_size=300),
)


@given(st.lists(messages, max_size=5))
def test_what_is_encoded_is_decoded(batch: list[StreamMessage]) -> None:
    assert list(decode("S", "k", encode(batch))) == batch


@given(st.lists(messages, min_size=1, max_size=2), st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_noticed(batch: list[StreamMessage], position: int, change: int) -> None:
    raw = bytearray(encode(batch))
    raw[position % len(raw)] ^= change
    with pytest.raises(IntegrityFailure) as caught:
        list(decode("S", "k", bytes(raw)))
    assert caught.value.reason == "JOURNAL_CORRUPT"


@given(st.lists(messages, min_size=1, max_size=2), st.integers(1, 60))
def test_a_truncated_object_is_noticed(batch: list[StreamMessage], missing: int) -> None:
    with pytest.raises(IntegrityFailure):
        list(decode("S", "k", encode(batch)[:-missing]))


def test_keys_sort_as_their_sequences_and_are_valid_object_keys() -> None:
    keys = [object_key("FILES", 1, first, first + 5) for first in (9, 10, 100, 99_999)]
    assert keys == sorted(keys)
    assert [parse_range(key)[0] for key in keys] == [9, 10, 100, 99_999]
    assert FakeObjectStore().presign_get(keys[0], ttl_s=1)


@pytest.mark.parametrize("name", ["", "1-2", "x" * 41, f"{5:020d}-{4:020d}", f"{1:020d}-{2:020d}-"])
def test_foreign_keys_in_the_journal_are_refused(name: str) -> None:
    with pytest.raises(IntegrityFailure):
        parse_range(f"journal/FILES/1/{name}")
