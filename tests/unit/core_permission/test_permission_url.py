from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput
from syftmesh_core.url import SyftUrl, parse_url

BASE = "syft://bob@x.org/app_data/pong/rpc"


def test_an_address_is_taken_apart() -> None:
    url = parse_url("SYFT://Bob@X.org/app_data/pong/rpc/users/42?b=2&a=1&b=3")
    assert url == SyftUrl("bob@x.org", "pong", "users/42", (("b", "2"), ("a", "1"), ("b", "3")))
    assert str(url.path) == "bob@x.org/app_data/pong/rpc/users/42"
    assert str(url) == f"{BASE}/users/42?b=2&a=1&b=3"


def test_segments_and_query_are_decoded_once() -> None:
    url = parse_url("syft://bob@x.org/app_data/my%20app/rpc/50%2525?k%20=a+b%2Bc&flag&e=")
    assert (url.app, url.endpoint) == ("my app", "50%25")
    assert url.query == (("k ", "a b+c"), ("flag", ""), ("e", ""))
    assert parse_url(str(url)) == url


def test_the_address_of_the_site_is_not_decoded() -> None:
    assert parse_url("syft://b%2eb@x.org/app_data/a/rpc/e").site == "b%2eb@x.org"


def test_segments_are_brought_to_nfc() -> None:
    assert parse_url(f"{BASE}/e%CC%81").endpoint == "\u00e9"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "syft:",
        "http://bob@x.org/app_data/a/rpc/e",
        "syft:/bob@x.org/app_data/a/rpc/e",
        "syft://bob/app_data/a/rpc/e",
        "syft:///app_data/a/rpc/e",
        "syft://bob@x.org",
        "syft://bob@x.org:80/app_data/a/rpc/e",
        "syft://bob@x.org/app_data/a/rpc",
        "syft://bob@x.org/app_data/a/rpc/",
        "syft://bob@x.org/app_data//rpc/e",
        "syft://bob@x.org/APP_DATA/a/rpc/e",
        "syft://bob@x.org/app_data/a/b/rpc/e",
        "syft://bob@x.org/public/a/rpc/e",
        f"{BASE}/e/",
        f"{BASE}//e",
        f"{BASE}/../e",
        f"{BASE}/%2e%2e/e",
        f"{BASE}/a%2Fb",
        f"{BASE}/a%5Cb",
        f"{BASE}/a%00",
        f"{BASE}/a%zz",
        f"{BASE}/a%2",
        f"{BASE}/%ff",
        f"{BASE}/%ed%a0%80",
        f"{BASE}/e#f",
        f"{BASE}/a b",
        f" {BASE}/e",
        f"{BASE}/e\n",
        f"{BASE}/e?=v",
        f"{BASE}/e?k=%ff",
        f"{BASE}/\ud800",
        f"{BASE}/e?k=" + "a" * 2048,
        f"{BASE}/" + "/".join(["é" * 100] * 5),
    ],
)
def test_anything_else_is_one_typed_error(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_url(text)
    assert caught.value.reason == "INVALID_URL"
    assert {"url", "why"} <= caught.value.metadata.keys()


def test_an_address_has_at_most_2048_bytes() -> None:
    start = f"{BASE}/e?k="
    text = start + "a" * (2048 - len(start))
    assert str(parse_url(text)) == text
    with pytest.raises(InvalidInput):
        parse_url(text + "a")


values = st.text(st.characters(codec="utf-8"), max_size=6)
names = values.filter(bool)


@given(names, st.lists(names, min_size=1, max_size=3), st.lists(st.tuples(names, values), max_size=3))
def test_what_is_printed_parses_to_the_same(
    app: str, endpoint: list[str], query: list[tuple[str, str]]
) -> None:
    printed = str(SyftUrl("bob@x.org", app, "/".join(endpoint), tuple(query)))
    try:
        url = parse_url(printed)
    except InvalidInput:
        return
    assert parse_url(str(url)) == url
    assert url.query == tuple(query)


@given(st.text(alphabet="/?=&%2fF+.# é", max_size=40))
def test_hostile_text_gives_an_address_or_the_typed_error(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        url = parse_url(f"{BASE}/{text}")
        assert parse_url(str(url)) == url
