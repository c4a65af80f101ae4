from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from syftmesh_core.errors import InvalidInput
from syftmesh_core.path import MeshPath, check_creatable, parse_path


def refusal(text: str, *, drop: bool = False) -> InvalidInput:
    with pytest.raises(InvalidInput) as caught:
        parse_path(text, drop_trailing_slash=drop)
    assert caught.value.reason == "PATH_INVALID"
    assert {"path", "why"} <= caught.value.metadata.keys()
    assert caught.value.message.isascii()
    return caught.value


def test_first_segment_is_normalised_and_the_others_are_as_written() -> None:
    path = parse_path("Bob@X.org/Docs/A b%2F.txt")
    assert path == MeshPath("bob@x.org", ("Docs", "A b%2F.txt"))
    assert str(path) == "bob@x.org/Docs/A b%2F.txt"


def test_the_bare_address_is_the_root() -> None:
    root = parse_path("bob@x.org")
    assert root.is_root
    assert (root.name, root.parent, str(root)) == ("bob@x.org", root, "bob@x.org")
    assert not root.is_rules_file


def test_names_and_parents() -> None:
    path = parse_path("bob@x.org/a/syft.pub.yaml")
    assert path.is_rules_file
    assert path.name == "syft.pub.yaml"
    assert str(path.parent) == "bob@x.org/a"
    assert str(path.parent.child("c/d")) == "bob@x.org/a/c/d"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "bob@x.org/",
        "/bob@x.org",
        "bob@x.org//a",
        "bob@x.org/a/",
        "bob@x.org/.",
        "bob@x.org/a/../b",
        "bob@x.org/./b",
        "bob@x.org/a\\b",
        "bob",
        "bob/a",
        "*/a",
        "guest/a",
        "bob@x.org /a",
    ],
)
def test_malformed_paths_are_refused_and_not_cleaned(text: str) -> None:
    refusal(text)


FORBIDDEN = [
    *(chr(c) for c in range(0x20)),
    *(chr(c) for c in range(0x7F, 0xA0)),
    *map(chr, (0x2028, 0x2029, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, 0xD800, 0xDFFF)),
    *map(chr, range(0x202A, 0x202F)),
    *map(chr, range(0x2066, 0x206A)),
]


@pytest.mark.parametrize("character", FORBIDDEN, ids=lambda c: f"{ord(c):04X}")
def test_forbidden_characters_are_refused(character: str) -> None:
    assert f"U+{ord(character):04X}" in refusal(f"bob@x.org/a{character}b").metadata["why"]


@pytest.mark.parametrize("character", [0xA0, 0x200C, 0x200D, 0x202F, 0x2065, 0x206A, 0x2027, 0xE000, 0x1F600])
def test_neighbours_of_forbidden_characters_are_ordinary(character: int) -> None:
    assert parse_path(f"bob@x.org/a{chr(character)}b").name == f"a{chr(character)}b"


def test_canonical_form_is_nfc() -> None:
    assert parse_path("bob@x.org/e\u0301") == parse_path("bob@x.org/\u00e9")


def test_questions_drop_one_trailing_slash_and_no_more() -> None:
    assert parse_path("bob@x.org/a/", drop_trailing_slash=True) == parse_path("bob@x.org/a")
    assert parse_path("bob@x.org/", drop_trailing_slash=True).is_root
    refusal("bob@x.org/a//", drop=True)
    refusal("/", drop=True)
    refusal("/bob@x.org/a", drop=True)


def test_lengths_are_of_the_canonical_form() -> None:
    decomposed = "e\u0301" * 127
    assert parse_path(f"bob@x.org/{decomposed}").name == "\u00e9" * 127
    refusal("bob@x.org/" + "\u00e9" * 128)
    assert len(parse_path("bob@x.org/" + "a" * 255).name) == 255
    refusal("bob@x.org/" + "a" * 256)


def test_a_path_has_at_most_1024_bytes() -> None:
    start = "bob@x.org/" + "/".join(["a" * 200] * 5)
    room = 1024 - len(start) - 1
    assert len(str(parse_path(f"{start}/{'b' * room}"))) == 1024
    refusal(f"{start}/{'b' * (room + 1)}")
    refusal("bob@x.org/" + "a" * 100_000)


def test_a_path_has_at_most_255_segments() -> None:
    assert len(parse_path("b@x.org" + "/a" * 254).segments) == 254
    refusal("b@x.org" + "/a" * 255)


LOOK_ALIKES = [
    "SYFT.PUB.YAML",
    "Syft.pub.yaml",
    "syft.pub.yaml.",
    "syft.pub.yaml ",
    "syft.pub.yaml. .",
    "syft.pub.yaml\u00a0",
    "SYFT.PUB.YAML..",
    "\uff53yft.pub.yaml",
    "\u017fyft.pub.yaml",
    "syft\uff0epub.yaml",
    "syft.pub.yaml\u2026",
]


@pytest.mark.parametrize("name", LOOK_ALIKES)
def test_a_look_alike_of_the_rule_file_can_be_created_by_nobody(name: str) -> None:
    path = parse_path(f"bob@x.org/docs/{name}")
    assert not path.is_rules_file
    with pytest.raises(InvalidInput) as caught:
        check_creatable(path)
    assert caught.value.reason == "PATH_INVALID"


GROUPS_LOOK_ALIKES = ["SYFT.GROUPS.YAML", "syft.groups.yaml.", "syft.groups.yaml ", "\uff53yft.groups.yaml"]


@pytest.mark.parametrize("name", GROUPS_LOOK_ALIKES)
def test_a_look_alike_of_the_groups_file_can_be_created_by_nobody_at_the_root(name: str) -> None:
    path = parse_path(f"bob@x.org/{name}")
    assert not path.is_groups_file
    with pytest.raises(InvalidInput) as caught:
        check_creatable(path)
    assert caught.value.reason == "PATH_INVALID"
    assert "looks like syft.groups.yaml" in caught.value.message
    check_creatable(parse_path(f"bob@x.org/docs/{name}"))


def test_a_refusal_names_the_file_that_is_looked_like() -> None:
    for directory in ("", "docs/"):
        with pytest.raises(InvalidInput, match=r"looks like syft\.pub\.yaml"):
            check_creatable(parse_path(f"bob@x.org/{directory}Syft.pub.yaml"))


@pytest.mark.parametrize(
    "name", ["syft.groups.yaml", "syft.groups.yml", "syft.groups.yaml.bak", "groups.yaml", "é"]
)
def test_other_names_at_the_root_can_be_created(name: str) -> None:
    check_creatable(parse_path(f"bob@x.org/{name}"))


@pytest.mark.parametrize(
    "name",
    ["syft.pub.yaml", "syft.pub.yml", "syft.pub.yaml.txt", " syft.pub.yaml", "a. ", "xsyft.pub.yaml", "é"],
)
def test_other_names_can_be_created(name: str) -> None:
    check_creatable(parse_path(f"bob@x.org/docs/{name}"))


def test_only_the_last_segment_is_looked_at() -> None:
    check_creatable(parse_path("bob@x.org/SYFT.PUB.YAML/a"))


@given(st.text(max_size=30))
def test_what_is_accepted_is_canonical_and_parses_to_itself(text: str) -> None:
    try:
        path = parse_path(f"bob@x.org/{text}")
    except InvalidInput:
        return
    assert unicodedata.is_normalized("NFC", str(path))
    assert parse_path(str(path)) == path


@given(st.text(alphabet="aé\u0301\u1fbe\u0308\u0341\uac00\u1100\u1161\U0001d15e", max_size=60))
def test_nfc_never_shrinks_text_to_less_than_a_quarter(text: str) -> None:
    assert 4 * len(unicodedata.normalize("NFC", text).encode()) >= len(text.encode())
