"""The release gate: small cells, private rows, identifiers in every encoding, types and sizes."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import random
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from syftmesh_runner.domain.dataset import Policy
from syftmesh_runner.domain.finding import Finding, Severity
from syftmesh_runner.domain.gate import Gate

ROWS = 300
_RANDOM = np.random.default_rng(7)


def _private() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "patient": [f"{_RANDOM.integers(2**63):016x}" for _ in range(ROWS)],
            "age": _RANDOM.integers(20, 90, ROWS),
            "ward": _RANDOM.choice(["north", "south", "east"], ROWS, p=[0.6, 0.39, 0.01]),
            "radius": _RANDOM.normal(14, 3, ROWS).round(4),
            "texture": _RANDOM.normal(19, 4, ROWS).round(4),
            "record": _RANDOM.choice(np.arange(842_000, 995_000), ROWS, replace=False),
        }
    )


FRAME = _private()
GATE = Gate.of_frames([FRAME], Policy())
ID = str(FRAME["patient"][3])
RECORD = str(FRAME["record"][3])


def rules(name: str, data: bytes | str, gate: Gate = GATE) -> set[str]:
    findings = gate.check(name, data.encode() if isinstance(data, str) else data)
    return {finding.rule for finding in findings if finding.severity is Severity.BLOCK}


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x", data)
    return buffer.getvalue()


PLAIN: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda v: v,
    "upper": bytes.upper,
    "reversed": lambda v: v[::-1],
    "dashes": lambda v: b"-".join(v[i : i + 4] for i in range(0, len(v), 4)),
    "spaces": lambda v: b" ".join(bytes((c,)) for c in v),
    "lines": lambda v: b"\n".join(bytes((c,)) for c in v),
    "commas": lambda v: b",".join(bytes((c,)) for c in v),
    "base64": base64.b64encode,
    "base64 in a sentence": lambda v: base64.b64encode(b"of patient " + v + b" we know"),
    "base64url": base64.urlsafe_b64encode,
    "base64 without padding": lambda v: base64.b64encode(v).rstrip(b"="),
    "base64 in lines": lambda v: b"\n".join(base64.b64encode(v)[i : i + 3] for i in range(0, 24, 3)),
    "base64 reversed": lambda v: base64.b64encode(v)[::-1],
    "base32": base64.b32encode,
    "base32 lower": lambda v: base64.b32encode(v).lower(),
    "hex": lambda v: v.hex().encode(),
    "hex upper": lambda v: v.hex().upper().encode(),
    "hex with prefix": lambda v: " ".join(f"0x{c:02x}" for c in v).encode(),
    "percent": lambda v: "".join(f"%{c:02x}" for c in v).encode(),
    "json escapes": lambda v: "".join(f"\\u{c:04x}" for c in v).encode(),
    "utf-16": lambda v: v.decode().encode("utf-16"),
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zip": zipped,
    "base64 of gzip": lambda v: base64.b64encode(gzip.compress(v)),
    "hex of zlib": lambda v: zlib.compress(v).hex().encode(),
    "base64 of base64": lambda v: base64.b64encode(base64.b64encode(v)),
    "base32 of hex": lambda v: base64.b32encode(v.hex().encode()),
}


@pytest.mark.parametrize("encoding", PLAIN)
@pytest.mark.parametrize(
    "around", [b"%s", b"result of the analysis: %s, thank you\n"], ids=["alone", "in text"]
)
def test_an_identifier_is_found_in_every_encoding(encoding: str, around: bytes) -> None:
    data = around.replace(b"%s", PLAIN[encoding](ID.encode()))
    assert "PRIVATE_VALUE" in rules("notes.txt", data)


@pytest.mark.parametrize("name", ["out.csv", "out.json", "logs/stdout.txt"])
def test_an_identifier_is_found_in_every_kind_of_file(name: str) -> None:
    assert "PRIVATE_VALUE" in rules(name, json.dumps({"a": ID}))


@pytest.mark.parametrize("text", [RECORD, f"record {RECORD}.0 is odd", f"x,{RECORD[:3]}-{RECORD[3:]}"])
def test_a_number_that_identifies_is_found(text: str) -> None:
    assert "PRIVATE_VALUE" in rules("a.csv", f"k,v\n1,2\n{text}\n")


def test_an_identifier_in_a_file_name_is_found() -> None:
    assert "PRIVATE_VALUE" in rules(f"{ID}.txt", "hello")


def test_findings_never_carry_the_private_value() -> None:
    data = "\n".join(FRAME.to_csv(index=False).splitlines()[:30])
    for finding in GATE.check("rows.csv", data.encode()):
        shown = f"{finding.text} {finding.cell}"
        assert not any(str(value) in shown for value in FRAME["patient"])
        assert not any(str(value) in shown for value in FRAME["radius"])


def test_honest_statistics_pass() -> None:
    summary = FRAME[FRAME["ward"] != "east"].groupby("ward")[["radius", "texture"]].mean().round(2)
    assert rules("means.csv", summary.to_csv()) == set()
    assert rules("counts.csv", "ward,count\nnorth,180\nsouth,117\n") == set()
    assert (
        rules("model.json", json.dumps({"auc": 0.93, "coefficients": [0.1, -2.5, 3.25], "n": 300})) == set()
    )
    assert rules("logs/stdout.txt", "epoch 1 loss 0.41\nepoch 2 loss 0.39\ndone\n") == set()


def test_random_bytes_as_text_do_not_raise_alarms() -> None:
    # Drawn from a fixed seed: six digits of an identifier do stand in random text now and then, and must block.
    draw = random.Random(20261124).randbytes  # noqa: S311 - no secret, a fixed sample
    encoded = ((draw(32).hex(), base64.urlsafe_b64encode(draw(32)).decode().rstrip("=")) for _ in range(200))
    text = "\n".join(" ".join(line) for line in encoded)
    assert "PRIVATE_VALUE" not in rules("weights.txt", text)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "ward,count\nnorth,180\neast,3\n"),
        ("a.csv", "bucket,north,south\nlow,90,4\nhigh,90,113\n"),
        ("a.csv", "bucket,x,y\nlow,90,4\nhigh,90,113\n"),
        ("a.csv", "stage,nPatients\none,1\n"),
        ("a.tsv", "stage\tn\none\t2\n"),
        ("a.json", '{"counts": {"north": 180, "east": 3}}'),
        ("a.json", '[{"ward": "east", "n": 2}]'),
        ("logs/stdout.txt", "east: n = 3\n"),
    ],
)
def test_a_count_below_the_smallest_cell_blocks(name: str, text: str) -> None:
    findings = [f for f in GATE.check(name, text.encode()) if f.rule == "SMALL_CELL"]
    assert findings
    assert all(f.severity is Severity.BLOCK and f.file == name for f in findings)


def test_small_cell_names_row_and_column() -> None:
    found = [f for f in GATE.check("a.csv", b"ward,count\nnorth,180\neast,3\n") if f.rule == "SMALL_CELL"]
    assert found == [Finding(Severity.BLOCK, "SMALL_CELL", "a.csv", 2, "count", "a count below 5")]


def test_the_smallest_cell_is_the_owners() -> None:
    text = "ward,count\nnorth,9\n"
    assert rules("a.csv", text) == set()
    assert rules("a.csv", text, Gate.of_frames([FRAME], Policy(min_cell=10))) == {"SMALL_CELL"}


def test_a_group_of_few_private_rows_blocks_without_a_count() -> None:
    assert "SMALL_GROUP" in rules("a.csv", "ward,mean\nnorth,14.1\neast,13.9\n")


def _renamed(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.rename(columns={name: f"c{at}" for at, name in enumerate(frame.columns)})


HIDDEN = FRAME[["age", "radius", "texture", "ward"]]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", HIDDEN.iloc[[5]].to_csv(index=False)),
        ("a.csv", _renamed(FRAME[["radius", "texture", "record"]]).iloc[[5]].to_csv(index=False)),
        ("a.csv", _renamed(FRAME[["texture", "record", "radius"]]).iloc[[5]].T.to_csv()),
        ("a.json", json.dumps({"x": FRAME.loc[5, ["radius", "texture", "record"]].tolist()}, default=float)),
        ("logs/stdout.txt", "| ".join(str(v) for v in FRAME.loc[5, ["radius", "texture", "record"]])),
    ],
)
def test_a_private_row_blocks_under_any_name_order_and_format(name: str, text: str) -> None:
    assert "PRIVATE_ROW" in rules(name, text)


def test_a_private_column_written_out_blocks() -> None:
    assert "PRIVATE_COLUMN" in rules("a.csv", "weights\n" + "\n".join(str(v) for v in FRAME["radius"][:80]))
    assert "PRIVATE_COLUMN" in rules("logs/stdout.txt", "\n".join(str(v) for v in FRAME["texture"][:80]))


@pytest.mark.parametrize(
    ("name", "data", "rule"),
    [
        ("model.pkl", b"\x80\x04\x95", "UNKNOWN_BINARY"),
        ("table.csv", b"\xff\xfe\x00", "UNKNOWN_BINARY"),
        ("esc.txt", b"\x1b[2J", "UNKNOWN_BINARY"),
        ("run.sh", b"echo", "UNKNOWN_TYPE"),
        ("plot.png", b"\x89PNG\r\n\x1a\n" + bytes(20), "IMAGE_NOT_READ"),
        ("broken.json", b"{", "OUTPUT_UNREADABLE"),
        ("big.txt", b"a" * ((1 << 20) + 1), "OUTPUT_TOO_LARGE"),
        ("huge.txt", b"a" * ((8 << 20) + 1), "NOT_SCANNED"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_gate_cannot_read_blocks(name: str, data: bytes, rule: str) -> None:
    assert rule in rules(name, data)


def test_a_bomb_is_reported_and_not_unpacked() -> None:
    bomb = zlib.compress(bytes(100 << 20), 9)
    assert "NOT_SCANNED" in rules("a.txt", base64.b64encode(bomb))


def test_a_named_identifier_column_of_short_values_is_looked_at_cell_by_cell() -> None:
    frame = pd.DataFrame({"bed": [str(n) for n in range(1, 31)], "x": range(30)})
    gate = Gate.of_frames([frame], Policy(identifier_columns=("bed",)))
    assert "PRIVATE_VALUE" in rules("a.csv", "bed,mean\n17,3.5\n", gate)
    assert "PRIVATE_VALUE" not in rules("a.csv", "k,mean\n17,3.5\n", gate)
