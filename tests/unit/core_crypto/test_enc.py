"""The encoding: one form for every value, all others refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.enc import Reader, as_text, encode, item_fields, parse_json
from syftmesh_core.errors import IntegrityFailure, InvalidInput

SEVEN = (7).to_bytes(8, "big")


def refused(call, *args):
    with pytest.raises(IntegrityFailure) as caught:
        call(*args)
    assert caught.value.reason == "ENCODING_INVALID"


def test_encode_writes_the_bytes_of_the_contract():
    fields = [7, "\u00e9", b"\1\2", True, False, None, ["a", b"bc"], {"b": 1, "a": [True]}, []]
    assert encode("x", fields) == (
        b"SyftMesh/v1/x\0"
        b"\0\0\0\x08\0\0\0\0\0\0\0\7"
        b"\0\0\0\2\xc3\xa9"
        b"\0\0\0\2\1\2"
        b"\0\0\0\1\1"
        b"\0\0\0\1\0"
        b"\xff\xff\xff\xff"
        b"\0\0\0\x0f\0\0\0\2\0\0\0\1a\0\0\0\2bc"
        b'\0\0\0\x12{"a":[true],"b":1}'
        b"\0\0\0\4\0\0\0\0"
    )


def test_text_is_brought_to_normal_form_c():
    assert encode("x", ["e\u0301"]) == encode("x", ["\u00e9"])


def test_reader_reads_back_every_kind_of_field():
    data = encode("x", [7, "t", b"b", True, None, 9, "o", b"p", None, None, [b"1", b"2"], ["y"], {"k": "v"}])
    reader = Reader("x", data)
    assert (reader.integer(), reader.text(), reader.raw(), reader.boolean()) == (7, "t", b"b", True)
    assert (reader.optional_integer(), reader.optional_integer()) == (None, 9)
    assert (reader.optional_text(), reader.optional_raw()) == ("o", b"p")
    assert (reader.optional_text(), reader.optional_raw()) == (None, None)
    assert (reader.items(2), reader.texts(1), reader.json()) == ((b"1", b"2"), ("y",), {"k": "v"})
    reader.end()


@pytest.mark.parametrize(
    "value",
    [
        -1,
        1 << 64,
        "\ud800",
        [None],
        1.5,
        {"a": 1 << 60},
        {"a": float("nan")},
        {1: 2},
        object(),
        {"a": "\ud800"},
    ],
)
def test_what_has_no_encoding_is_refused(value):
    with pytest.raises(InvalidInput) as caught:
        encode("x", [value])
    assert caught.value.reason == "ENCODING_INVALID"


@pytest.mark.parametrize("label", ["", "a\0b", "\u00e9", "a" * 65])
def test_labels_are_short_printable_ascii(label):
    with pytest.raises(InvalidInput):
        encode(label, [])


@pytest.mark.parametrize(
    "data", [b"", b"SyftMesh/v1/y\0", b"SyftMesh/v2/x\0", b"SyftMesh/v1/x", b"SyftMesh/v1/xx\0"]
)
def test_another_label_or_version_is_refused(data):
    refused(Reader, "x", data)


def test_surplus_bytes_are_refused():
    reader = Reader("x", encode("x", [1]) + b"\0")
    reader.integer()
    refused(reader.end)


def test_input_longer_than_allowed_is_refused():
    with pytest.raises(IntegrityFailure):
        Reader("x", encode("x", [b"0123456789"]), max_bytes=20)


@pytest.mark.parametrize(
    ("value", "method"),
    [
        (b"", "boolean"),
        (b"\2", "boolean"),
        (b"\1\0", "boolean"),
        (b"\0" * 7, "integer"),
        (b"\0" * 9, "optional_integer"),
        (b"\xff", "text"),
        (b"e\xcc\x81", "text"),
        (b"\xed\xa0\x80", "optional_text"),
        (None, "text"),
        (None, "integer"),
        (None, "raw"),
        (None, "boolean"),
        (None, "json"),
    ],
)
def test_a_field_that_is_not_canonical_is_refused(value, method):
    refused(getattr(Reader("x", encode("x", [value])), method))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"1",
        b'{"a": 1}',
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"a":1.0}',
        b'{"a":NaN}',
        b'{"a":-0}',
        b'{"a":1e400}',
        b'{"a":9007199254740993}',
        b'{"a":"\\ud800"}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_json_outside_its_canonical_form_is_refused(data):
    refused(parse_json, data)


@pytest.mark.parametrize(
    "field",
    [b"", b"\0\0\0\1", b"\0\0\0\2\0\0\0\1a", b"\0\0\0\1\0\0\0\1ab", b"\0\0\0\1\xff\xff\xff\xff", b"\xff" * 4],
)
def test_a_list_that_does_not_add_up_is_refused(field):
    refused(Reader("x", encode("x", [field])).items, 5)
    refused(item_fields, field, 5)


def test_a_list_longer_than_allowed_is_refused():
    refused(Reader("x", encode("x", [[b""] * 3])).items, 2)


values = st.one_of(
    st.integers(0, (1 << 64) - 1),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.booleans(),
)


@given(st.lists(st.one_of(st.none(), values, st.lists(values, max_size=4)), max_size=6))
def test_different_fields_never_share_an_encoding_and_no_cut_parses(fields):
    data = encode("x", fields)
    reader = Reader("x", data)
    kept = [reader.optional_raw() for _ in fields]
    reader.end()
    assert encode("x", kept) == data
    for cut in range(len(data)):
        with pytest.raises(IntegrityFailure):
            _read_all(data[:cut], len(fields))


def _read_all(data: bytes, count: int) -> None:
    reader = Reader("x", data)
    for _ in range(count):
        reader.optional_raw()
    reader.end()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_text_round_trips_in_normal_form(text):
    once = Reader("x", encode("x", [text])).text()
    assert Reader("x", encode("x", [once])).text() == once
    assert as_text(once.encode()) == once


@given(st.binary(max_size=200))
def test_hostile_bytes_give_only_the_one_error(data):
    reasons = set()
    for method in ("integer", "text", "boolean", "json", "optional_raw", "optional_integer"):
        try:
            getattr(Reader("x", b"SyftMesh/v1/x\0" + data), method)()
        except IntegrityFailure as error:
            reasons.add(error.reason)
    assert reasons <= {"ENCODING_INVALID"}
