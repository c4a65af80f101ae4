"""Readers of the hub: every object through S3, every file below the hub's folder, databases row by row."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from syftmesh_core.errors import MeshError, NotFound
from syftmesh_kit.object_store import ObjectStore

from syftmesh_standalone.demo.canary.scan import CanaryScan, ScanReport

OBJECTS: Final = "objects"
MAX_FILE_BYTES: Final = 512 << 20
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"
_OBJECTS_AT_ONCE: Final = 8


async def scan_hub(scan: CanaryScan, hub: Path, store: ObjectStore) -> ScanReport:
    """Scan everything that a hub holds.

    Args:
        scan: Looks for the secrets.
        hub: The hub's folder.
        store: Its object store.

    Returns:
        What was found; `ScanReport.places` counts objects under ``objects`` and files by the first folder.

    Raises:
        Unavailable: The object store does not answer.
    """
    report = ScanReport()
    await _objects(scan, report, store)
    await asyncio.to_thread(_files, scan, report, hub)
    return report


async def _objects(scan: CanaryScan, report: ScanReport, store: ObjectStore) -> None:
    report.places[OBJECTS] = 0
    keys = [found.key async for found in store.list("")]
    gate = asyncio.Semaphore(_OBJECTS_AT_ONCE)

    async def read(key: str) -> tuple[str, bytes | MeshError]:
        async with gate:
            try:
                return key, await store.get(key)
            except MeshError as error:
                return key, error

    for key, data in await asyncio.gather(*(read(key) for key in keys)):
        if isinstance(data, bytes):
            await asyncio.to_thread(scan.scan, report, OBJECTS, f"{OBJECTS}/{key}", data)
        elif not isinstance(data, NotFound):
            # One that is gone was deleted since the listing; the raw files still hold it, and are scanned.
            report.unreadable.append(f"{OBJECTS}/{key}")


def _files(scan: CanaryScan, report: ScanReport, hub: Path) -> None:
    for path in _regular_files(hub):
        name = path.relative_to(hub).as_posix()
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                report.unreadable.append(name)
                continue
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # merged into another file since the listing
        except OSError:
            report.unreadable.append(name)
            continue
        part = name.split("/", 1)[0] if "/" in name else "hub"
        scan.scan(report, part, name, data)
        if data.startswith(_SQLITE_MAGIC):
            _database(scan, report, part, path, name)


def _regular_files(folder: Path) -> Iterator[Path]:
    for base, _, names in os.walk(folder, onerror=_raise):
        for name in sorted(names):
            path = Path(base) / name
            try:
                if stat.S_ISREG(path.lstat().st_mode):
                    yield path
            except FileNotFoundError:
                continue


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _database(scan: CanaryScan, report: ScanReport, part: str, path: Path, name: str) -> None:
    """Scan the rows of a database, because pages cut long values; a copy, so that nothing is disturbed."""
    with tempfile.TemporaryDirectory(prefix="syftmesh-canary-") as folder:
        copy = Path(folder) / "copy.sqlite"
        try:
            for suffix in ("", "-wal"):
                source = path.with_name(path.name + suffix)
                if source.exists():
                    shutil.copyfile(source, copy.with_name(copy.name + suffix))
            with closing(sqlite3.connect(copy)) as database:
                rows = b"\n".join(_rows(database))
        except (OSError, sqlite3.Error):
            report.damaged.append(f"{name} > rows: cannot be read")
            return
    scan.scan(report, part, f"{name} > rows", rows)


def _rows(database: sqlite3.Connection) -> Iterator[bytes]:
    database.text_factory = bytes
    tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for (table,) in tables:
        quoted = table.decode().replace('"', '""')
        for row in database.execute(f'SELECT * FROM "{quoted}"'):  # noqa: S608 - the name is the database's own
            for value in row:
                yield value if isinstance(value, bytes) else str(value).encode()
