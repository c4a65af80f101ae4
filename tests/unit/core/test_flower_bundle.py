"""Every reader of an app bundle is this one, and it believes nothing."""

from __future__ import annotations

import hashlib
import io
import random
import struct
import time
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from syftmesh_core.bundle import MAX_FILES, Bundle, archive, fused_config, read_bundle
from syftmesh_core.errors import InvalidInput, LimitExceeded, MeshError

MANIFEST = """
[project]
name = "small"
version = "1.2.3"

[tool.flwr.app]
publisher = "ann"

[tool.flwr.app.components]
serverapp = "small.server:app"
clientapp = "small.client:app"

[tool.flwr.app.config]
rounds = 3
rate = 0.5
verbose = false
mode = "fast"
[tool.flwr.app.config.model]
width = 16
"""

FILES = {"small/__init__.py": b"", "small/server.py": b"app = 1\n", "small/client.py": b"app = 2\n"}


def info(name: str, *, mode: int = 0o100600, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr, entry.compress_type = mode << 16, method
    return entry


def fab(
    *more: tuple[zipfile.ZipInfo | str, bytes], manifest: str = MANIFEST, listed: bytes | None = None
) -> bytes:
    """A zip as Flower writes it, with `more` entries; the list of contents fits unless it is given."""
    buffer = io.BytesIO()
    entries = [("pyproject.toml", manifest.encode()), *FILES.items(), *more]
    lines = []
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        for entry, content in entries:
            zipped.writestr(entry, content)
            name = entry if isinstance(entry, str) else entry.filename
            lines.append(f"{name},{hashlib.sha256(content).hexdigest()},{len(content) * 8}")
        zipped.writestr(".info/CONTENT", "\n".join(lines).encode() if listed is None else listed)
    return buffer.getvalue()


def refused(data: bytes, reason: str = "BUNDLE_INVALID") -> MeshError:
    with pytest.raises((InvalidInput, LimitExceeded)) as caught:
        read_bundle(data)
    assert caught.value.reason == reason
    return caught.value


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (MANIFEST, "a = [", "no TOML"),
        (MANIFEST, "", "[tool.flwr.app]"),
        (MANIFEST, "tool = 1", "[tool.flwr.app]"),
        (MANIFEST, "[tool]\nflwr = []", "[tool.flwr.app]"),
        ("[project]", "[other]", "[project]"),
        ('name = "small"', "", '"name"'),
        ('name = "small"', 'name = "../up"', '"name"'),
        ('name = "small"', f'name = "{"a" * 33}"', '"name"'),
        ('"1.2.3"', '"1..3"', '"version"'),
        ('"1.2.3"', "1.2", '"version"'),
        ('publisher = "ann"', "", '"publisher"'),
        ('"ann"', '"../../ann"', '"publisher"'),
        ('"ann"', '"an\\u0007na"', '"publisher"'),
        ('"ann"', f'"{"a" * 300}"', '"publisher"'),
        ("[tool.flwr.app.components]", "[tool.other]", "[tool.flwr.app.components]"),
        ("[tool.flwr.app.components]", "components = 'x'\n[tool.other]", "[tool.flwr.app.components]"),
        ('clientapp = "small.client:app"', "", '"clientapp"'),
        ('serverapp = "small.server:app"', "", '"serverapp"'),
        ('"small.client:app"', '"small.client"', '"clientapp"'),
        ('"small.client:app"', '""', '"clientapp"'),
        ('"small.client:app"', "1", '"clientapp"'),
        ('"small.client:app"', '"elsewhere:app"', "elsewhere:app"),
        (
            'clientapp = "small.client:app"',
            'clientapp = "small.client:app"\nagentapp = "small:a"',
            "agentapp",
        ),
        ("[tool.flwr.app.config]", "[tool.flwr.app]\nconfig = 3\n[other]", "no TOML"),
        ('publisher = "ann"', 'publisher = "ann"\nconfig = 3', "no TOML"),
        ("rounds = 3", "rounds = [3]", "'rounds'"),
        ("width = 16", "width = 2026-01-01", "'model.width'"),
        ("rounds = 3", f"rounds = {1 << 63}", "64-bit"),
        ("width = 16", "width = 16" + "#" * 70_000, "bytes"),
    ],
)
def test_a_manifest_that_lacks_something_is_refused(old: str, new: str, told: str) -> None:
    manifest = MANIFEST.replace(old, new)
    assert manifest != MANIFEST
    assert told in refused(fab(manifest=manifest)).message


def test_a_configuration_that_is_no_table_is_refused() -> None:
    manifest = MANIFEST.split("[tool.flwr.app.config]")[0].replace("publisher", "config = 3\npublisher")
    assert "no table" in refused(fab(manifest=manifest)).message


def test_a_manifest_that_is_no_text_or_missing_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("pyproject.toml", b"\xff")
        zipped.writestr(".info/CONTENT", f"pyproject.toml,{hashlib.sha256(bytes([255])).hexdigest()},8")
    assert "no TOML" in refused(buffer.getvalue()).message
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr(".info/CONTENT", "")
    refused(buffer.getvalue())


def test_an_app_without_configuration_has_none() -> None:
    assert dict(read_bundle(fab(manifest=MANIFEST.split("[tool.flwr.app.config]")[0])).config) == {}


def test_a_bundle_tells_what_it_is() -> None:
    data = fab()
    bundle = read_bundle(data)
    assert (bundle.name, bundle.version, bundle.digest) == (
        "ann/small",
        "1.2.3",
        hashlib.sha256(data).hexdigest(),
    )
    assert (bundle.server_app, bundle.client_app) == ("small.server:app", "small.client:app")
    assert dict(bundle.files) == {**FILES, "pyproject.toml": MANIFEST.encode()}
    assert list(bundle.files) == sorted(bundle.files)
    assert dict(bundle.config) == {
        "rounds": 3,
        "rate": 0.5,
        "verbose": False,
        "mode": "fast",
        "model.width": 16,
    }


@pytest.mark.parametrize(
    "name",
    ["/etc/x.py", "../x.py", "a/../x.py", "./x.py", "a//x.py", "a/", "", ".", "a\\x.py", "C:/x.py", "a\nb.py",
     "a\0b.py", "a,b.py", ".syftmesh", ".syftmesh_client.py", ".SYFTMESH/x.py", "small/.syftmesh-x/y.py", "\u202ex.py",
     "x" * 256 + ".py", "/".join("a" * 33)],
)  # fmt: skip
def test_a_name_that_leads_out_or_is_reserved_is_refused(name: str) -> None:
    entry = info("placeholder")
    entry.filename = name  # ZipInfo itself would tidy the name up
    refused(fab((entry, b"x")))


@pytest.mark.parametrize(
    "name",
    ["small/client.py", "small/CLIENT.py", "Small/other.py", "small/client.py/x", "small"],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_already_is_refused(name: str) -> None:
    refused(fab((name, b"x")))


def test_names_that_differ_in_unicode_form_only_are_one() -> None:
    assert "\u00fc.py" in read_bundle(fab(("\u00fc.py", b"x"))).files
    refused(fab(("\u00fc.py", b"x"), ("u\u0308.py", b"y")))


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o010600, 0o020600, 0o140600])
def test_what_is_no_regular_file_is_refused(mode: int) -> None:
    assert "link" in refused(fab((info("small/x.py", mode=mode), b"/etc/passwd"))).message


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_another_compression_is_refused(method: int) -> None:
    assert "compressed" in refused(fab((info("small/x.py", method=method), b"x"))).message


def test_a_stored_file_is_fine() -> None:
    data = fab((info("small/x.py", method=zipfile.ZIP_STORED, mode=0), b"x"))
    assert read_bundle(data).files["small/x.py"] == b"x"


def test_an_encrypted_file_is_refused() -> None:
    data = bytearray(fab())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.rindex(mark) + offset] |= 1
    assert "encrypted" in refused(bytes(data)).message


def test_a_bomb_stops_while_it_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 1 << 20)
    data = bytearray(fab(("small/x.json", b"0" * (3 << 20))))
    refused(bytes(data), "BUNDLE_TOO_LARGE")
    # The same with headers that tell a small size: only what comes out counts.
    local = data.index(b"small/x.json") - 30
    central = data.rindex(b"small/x.json") - 46
    for at in (local + 22, central + 24):
        struct.pack_into("<I", data, at, 10)
    assert "no readable zip" in refused(bytes(data)).message


def test_the_sum_of_the_files_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_UNPACKED_BYTES", 4096)
    read_bundle(fab(("small/a.json", b"0" * 2000)))
    refused(fab(("small/a.json", b"0" * 2000), ("small/b.json", b"0" * 2000)), "BUNDLE_TOO_LARGE")


def test_too_many_files_are_refused() -> None:
    most = [(f"d/{number}.py", b"") for number in range(MAX_FILES - len(FILES) - 1)]
    assert len(read_bundle(fab(*most)).files) == MAX_FILES
    refused(fab(*most, ("d/more.py", b"")), "BUNDLE_TOO_LARGE")


def test_a_bundle_over_the_limit_is_not_looked_at() -> None:
    refused(b"\0" * ((4 << 20) + 1), "BUNDLE_TOO_LARGE")


@pytest.mark.parametrize("listed", [b"", b"\xff", b"pyproject.toml,00,8"])
def test_files_that_are_not_as_flowers_list_says_are_refused(listed: bytes) -> None:
    assert ".info/CONTENT" in refused(fab(listed=listed)).message


def test_a_bundle_without_the_list_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("pyproject.toml", MANIFEST)
    assert ".info/CONTENT" in refused(buffer.getvalue()).message


def test_a_file_that_the_list_does_not_name_is_refused() -> None:
    data = fab()
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        listed = zipped.read(".info/CONTENT")
    assert ".info/CONTENT" in refused(fab(("small/hidden.py", b"x"), listed=listed)).message


def test_a_manifest_with_a_deep_key_is_refused_at_once() -> None:
    started = time.perf_counter()
    for deep in ("a." * 15_000 + "b = 1", "'a' . " * 10_000 + "b = 1", "[" + "a." * 15_000 + "b]"):
        refused(fab(manifest=MANIFEST + "\n" + deep))
    refused(fab(manifest=MANIFEST + "\nx = " + "[" * 30_000))
    read_bundle(fab(manifest=MANIFEST + "\n[other]\n" + "a" * 30_000 + " = 1"))
    assert time.perf_counter() - started < 2


@given(st.binary(max_size=200))
@settings(max_examples=100)
def test_noise_is_no_bundle(data: bytes) -> None:
    refused(data)
    refused(b"PK\3\4" + data)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_bundle_is_refused_or_still_whole(data: st.DataObject) -> None:
    good = fab()
    damaged = bytearray(good)
    damaged[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 30))
    try:
        files = dict(read_bundle(bytes(damaged[: len(damaged) - cut])).files)
    except (InvalidInput, LimitExceeded):
        return
    assert files == dict(read_bundle(good).files)


def test_the_digest_changes_with_every_bit() -> None:
    assert read_bundle(fab()).digest != read_bundle(fab(("x.py", b""))).digest


def test_bytes_damaged_at_random_are_refused_for_a_known_reason_or_read() -> None:
    data = fab()
    reasons: set[str] = set()
    source = random.Random(7)  # noqa: S311
    for _ in range(2000):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(len(damaged))] = source.randrange(256)
        if source.random() < 0.2:
            damaged = damaged[: source.randrange(len(damaged))]
        try:
            read_bundle(bytes(damaged))
        except MeshError as error:
            reasons.add(error.reason)
    assert reasons == {"BUNDLE_INVALID"}


@pytest.fixture(scope="module")
def small() -> Bundle:
    return read_bundle(fab())


def test_a_whole_number_for_a_float_is_a_float(small: Bundle) -> None:
    value = fused_config(small, {"rate": 1})["rate"]
    assert (value, type(value)) == (1.0, float)


@pytest.mark.parametrize(
    ("key", "value"),
    [("unknown", 1), ("model", {"width": 1}), ("model", 1), ("rounds", 3.0), ("rounds", True), ("rounds", "3"),
     ("rounds", None), ("rounds", 1 << 63), ("rounds", -(1 << 63) - 1), ("rounds", [3]), ("verbose", 1),
     ("verbose", "true"), ("rate", "0.5"), ("rate", True), ("rate", float("nan")), ("rate", float("inf")),
     ("rate", 10**400), ("mode", 3), ("mode", b"x"), ("", 1)],
)  # fmt: skip
def test_an_unknown_key_or_another_type_is_refused(small: Bundle, key: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        fused_config(small, {key: value})
    assert caught.value.reason == "CONFIG_INVALID"
    assert caught.value.metadata == {"key": repr(key)}


def test_a_bundle_cannot_be_changed_after_the_check(small: Bundle) -> None:
    with pytest.raises(TypeError):
        small.files["small/client.py"] = b"other"  # type: ignore[index]
    with pytest.raises(TypeError):
        small.config["rounds"] = 99  # type: ignore[index]
