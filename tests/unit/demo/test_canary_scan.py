"""The canary scanner: every form and every compression is found, clean bytes find nothing, damage is counted."""

from __future__ import annotations

import base64
import bz2
import gzip
import lzma
import sqlite3
import zlib
from collections.abc import Callable
from pathlib import Path

import cramjam
import numpy as np
import pytest
from syftmesh_core.errors import Unavailable
from syftmesh_kit.testing import FakeObjectStore
from syftmesh_standalone.demo.canary.hub import OBJECTS, scan_hub
from syftmesh_standalone.demo.canary.leveldb import TABLE_MAGIC, log_content
from syftmesh_standalone.demo.canary.needle import Secret, needles_of
from syftmesh_standalone.demo.canary.s2 import DamagedError, decode_block, decode_stream
from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport
from syftmesh_standalone.demo.canary.search import NeedleSearch


def noise(size: int) -> bytes:
    return np.random.default_rng(size).bytes(min(size, 4 << 20))


VALUE = "9f86d081884c7d659a2feaa0c55ad015"
ROW = "17.99,10.38,122.8,1001.0,0.1184,0.2776,0.3001,0.1471"
SECRETS = [Secret("record 1", VALUE), Secret("row 1", ROW, is_identifier=False)] + [
    Secret(f"record {n}", noise(900_000 + n)[:16].hex()) for n in range(2, 570)
]
SCAN = CanaryScan(SECRETS)


def scanned(data: bytes, place: str = "file") -> ScanReport:
    report = ScanReport()
    SCAN.scan(report, "part", place, data)
    return report


def around(data: bytes) -> bytes:
    return noise(1013) + data + noise(517)


def base64_at(shift: int, data: bytes) -> bytes:
    return base64.b64encode(b"xyz"[:shift] + data + b"the end")


FORMS: dict[str, bytes] = {
    "text": VALUE.encode(),
    "upper case": VALUE.upper().encode(),
    "mixed case": (VALUE[:16].upper() + VALUE[16:]).encode(),
    "backwards": VALUE[::-1].encode(),
    "UUID": b"9F86D081-884c-7d65-9a2f-eaa0c55ad015",
    "bytes": bytes.fromhex(VALUE),
    "bytes backwards": bytes.fromhex(VALUE)[::-1],
    "UTF-16-LE": VALUE.encode("utf-16-le"),
    "UTF-16-BE": VALUE.upper().encode("utf-16-be"),
    **{f"bytes base64 {n}": base64_at(n, bytes.fromhex(VALUE)) for n in range(3)},
    **{f"text base64 {n}": base64_at(n, VALUE.encode()) for n in range(3)},
    **{f"upper text base64 {n}": base64_at(n, VALUE.upper().encode()) for n in range(3)},
    "base64url": base64.urlsafe_b64encode(bytes.fromhex(VALUE)),
    "row": ROW.encode(),
    "row UTF-16": ROW.encode("utf-16-le"),
    **{f"row base64 {n}": base64_at(n, ROW.encode()) for n in range(3)},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shift", range(4))
def test_every_form_is_found_at_every_offset(form: str, shift: int) -> None:
    found = scanned(bytes(shift) + around(FORMS[form]))
    assert found.found >= 1
    assert {finding.what for finding in found.findings} == {"row 1" if form.startswith("row") else "record 1"}
    assert VALUE not in str(found.findings)


def test_a_value_across_two_search_windows_is_found_once() -> None:
    window = 1 << 20
    for cut in (1, 7, 16, 31):
        data = bytes(window - cut) + VALUE.encode() + bytes(50)
        assert [at for at, _ in NeedleSearch(needles_of(SECRETS)).find(data)] == [window - cut]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zlib fast": lambda data: zlib.compress(data, 1),
    "zlib": zlib.compress,
    "zlib best": lambda data: zlib.compress(data, 9),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
    "snappy": lambda data: bytes(cramjam.snappy.compress(data)),
}
LINES = {699: f"{VALUE[:20]}/{VALUE[20:]}", 700: VALUE}
"""The value follows its two halves, so that every compression writes it as references to them."""
PLAIN = b"".join(b"%d,%s\n" % (n, LINES.get(n, f"{n:032x}").encode()) for n in range(1400))


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_every_compression_is_read_wherever_it_stands(name: str) -> None:
    packed = COMPRESSIONS[name](PLAIN)
    assert VALUE.encode() not in packed
    found = scanned(around(packed))
    assert [(finding.what, finding.form) for finding in found.findings] == [("record 1", "text")]
    assert found.damaged == []
    assert found.unpacked_bytes >= len(PLAIN)


def test_a_framed_stream_of_several_chunks_is_read_whole() -> None:
    plain = noise(200_000) + PLAIN
    packed = bytes(cramjam.snappy.compress(plain))
    assert decode_stream(b"before" + packed + b"\xff after", 6) == (plain, 6 + len(packed))


def test_compression_in_compression_is_read_three_layers_deep() -> None:
    three = gzip.compress(zlib.compress(bytes(cramjam.zstd.compress(PLAIN))))
    assert scanned(three).found >= 1
    deeper = scanned(gzip.compress(gzip.compress(three)))
    assert any("not unpacked further" in said for said in deeper.damaged)


@pytest.mark.parametrize("name", COMPRESSIONS)
def test_a_member_that_breaks_off_is_counted(name: str) -> None:
    packed = COMPRESSIONS[name](noise(50_000) + PLAIN)
    found = scanned(packed[: len(packed) - 3000])
    assert len(found.damaged) == 1


def test_what_stands_before_the_break_is_scanned() -> None:
    packed = gzip.compress(PLAIN + noise(50_000))
    found = scanned(packed[:20_000])
    assert found.found == 1
    assert len(found.damaged) == 1


def test_clean_data_finds_nothing_and_is_not_damaged() -> None:
    data = noise(4 << 20) + gzip.compress(noise(1000)) + noise(100_000).hex().encode()
    found = scanned(data)
    assert (found.found, found.damaged, found.scanned_bytes) == (0, [], len(data))


def test_a_value_in_a_name_is_found() -> None:
    assert scanned(b"nothing", place=f"packs/{VALUE}").found == 1


def test_findings_are_kept_up_to_a_hundred_and_counted_beyond() -> None:
    found = scanned(VALUE.encode() * 300)
    assert (found.found, len(found.findings)) == (300, 100)


def test_s2_repeats_the_last_offset() -> None:
    # 26 bytes: "abcd", copy 4 from 4 back, then repeats of 8 (code 4), of 10 (code 5).
    block = bytes([26, 3 << 2]) + b"abcd" + bytes([0 << 2 | 1, 4]) + bytes([4 << 2 | 1, 0])
    block += bytes([5 << 2 | 1, 0, 2])
    assert decode_block(block) == (b"abcd" * 7)[:26]


def test_a_raw_snappy_block_is_read() -> None:
    assert decode_block(bytes(cramjam.snappy.compress_raw(PLAIN))) == PLAIN


@pytest.mark.parametrize("data", [b"", b"\x05\x10abc", b"\x08\x0cabcd\x01\x09", b"\xff\xff\xff\xff\x7f"])
def test_a_damaged_block_is_refused(data: bytes) -> None:
    with pytest.raises(DamagedError):
        decode_block(data)


def table_of(entries: list[tuple[bytes, bytes]]) -> bytes:
    """Return a LevelDB table with one compressed data block, keys prefix-coded."""

    def varint(value: int) -> bytes:
        out = bytearray()
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*out, value])

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        out, last = b"", b""
        for key, value in pairs:
            shared = next((n for n, (a, b) in enumerate(zip(key, last, strict=False)) if a != b), 0)
            out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        return out + bytes(4) + (1).to_bytes(4, "little")

    packed = bytes(cramjam.snappy.compress_raw(block(entries)))
    data = packed + b"\x01" + bytes(4)
    index = block([(entries[-1][0], varint(0) + varint(len(packed)))])
    handle = varint(len(data)) + varint(len(index))
    footer = (varint(0) + varint(0) + handle).ljust(40, b"\0") + TABLE_MAGIC
    return data + index + b"\x00" + bytes(4) + footer


def test_a_leveldb_table_gives_compressed_values_and_prefix_coded_keys() -> None:
    head, tail = VALUE[:20], VALUE[20:]
    keys = [f"{head}00", f"{head}{tail}", "zz"]
    table = table_of([(key.encode(), b"v" * 500) for key in keys])
    assert VALUE.encode() not in table
    found = scanned(table, place="s3/000012.ldb")
    assert [(finding.form, finding.what) for finding in found.findings] == [("text", "record 1")]


def test_a_leveldb_log_is_read_across_its_block_headers() -> None:
    def record(kind: int, payload: bytes) -> bytes:
        return bytes(4) + len(payload).to_bytes(2, "little") + bytes([kind]) + payload

    first = b"." * (32768 - 7 - 10) + VALUE[:10].encode()
    data = record(2, first) + record(4, VALUE[10:].encode())
    assert len(record(2, first)) == 32768
    assert log_content(data) == first + VALUE[10:].encode()
    assert scanned(data, place="s3/other.txt").found == 0
    assert scanned(data, place="s3/filerldb2/00/000004.log").found == 1


async def test_objects_files_and_database_rows_are_scanned(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    (hub / "nats/jetstream").mkdir(parents=True)
    (hub / "nats/jetstream/1.blk").write_bytes(around(bytes.fromhex(VALUE)))
    database = sqlite3.connect(hub / "state.sqlite")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE t (a BLOB)")
    database.execute("INSERT INTO t VALUES (?)", (b"." * 4050 + VALUE.encode() + b"." * 9000,))
    database.commit()
    store = FakeObjectStore()
    await store.put("packs/1", around(gzip.compress(PLAIN)))
    found = await scan_hub(SCAN, hub, store)
    database.close()
    assert found.unreadable == []
    places = {finding.place.split(" > ")[0] for finding in found.findings}
    assert {"objects/packs/1", "nats/jetstream/1.blk", "state.sqlite"} <= places
    assert (found.places[OBJECTS], found.places["nats"]) == (1, 1)


class _AwayForOne(FakeObjectStore):
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        if key == "packs/bad":
            raise Unavailable("away", reason="OBJECT_STORE_AWAY")
        return await super().get(key, start=start, end=end)


async def test_what_cannot_be_read_is_counted(tmp_path: Path) -> None:
    store = _AwayForOne()
    await store.put("packs/bad", b"1")
    await store.put("packs/good", VALUE.encode())
    found = await scan_hub(SCAN, tmp_path, store)
    assert found.unreadable == ["objects/packs/bad"]
    assert found.found == 1
