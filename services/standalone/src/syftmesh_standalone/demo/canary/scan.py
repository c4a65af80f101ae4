"""The scan itself: bytes in, findings out. Pure; what is scanned and how it is read is the readers' matter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from syftmesh_standalone.demo.canary.leveldb import is_table, log_content, table_content
from syftmesh_standalone.demo.canary.needle import Needle, Secret, needles_of
from syftmesh_standalone.demo.canary.s2 import DamagedError
from syftmesh_standalone.demo.canary.search import NeedleSearch
from syftmesh_standalone.demo.canary.unpack import members

MAX_DEPTH: Final = 3
"""Compression inside compression inside compression; a fourth layer is counted as not read."""
MAX_FINDINGS: Final = 100
MAX_UNPACKED_BYTES: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class CanaryFinding:
    """A private value at the hub.

    Attributes:
        place: Name of the file or object, with the layers that were unpacked.
        at: Place in the (unpacked) bytes.
        what: The secret's label.
        form: The form in which it stands there.
    """

    place: str
    at: int
    what: str
    form: str


@dataclass(slots=True)
class ScanReport:
    """What a scan looked at and what it found.

    Attributes:
        places: Files and objects by the part of the hub.
        scanned_bytes: Bytes as they lie there.
        unpacked_bytes: Bytes that came out of compressed members and tables.
        findings: At most 100.
        found: How many there were.
        damaged: Compressed members that broke off, by place.
        unreadable: Files and objects that could not be read at all.
    """

    places: dict[str, int] = field(default_factory=dict)
    scanned_bytes: int = 0
    unpacked_bytes: int = 0
    findings: list[CanaryFinding] = field(default_factory=list)
    found: int = 0
    damaged: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


class CanaryScan:
    """Scans bytes for secrets.

    Args:
        secrets: What must not be there.
    """

    def __init__(self, secrets: Iterable[Secret]) -> None:
        self._search = NeedleSearch(needles_of(secrets))

    def scan(self, report: ScanReport, part: str, place: str, data: bytes) -> None:
        """Scan one file or object and add what is found to `report`.

        Args:
            report: Takes the result.
            part: Which part of the hub it belongs to.
            place: Its name, which is scanned too.
            data: Its bytes.
        """
        report.places[part] = report.places.get(part, 0) + 1
        report.scanned_bytes += len(data)
        self._look(report, f"{place} (name)", place.encode())
        self._layers(report, place, data, depth=0)

    def _layers(self, report: ScanReport, place: str, data: bytes, depth: int) -> None:
        self._look(report, place, data)
        for layer, content in self._inner(report, place, data, whole=depth == 0):
            if depth == MAX_DEPTH or report.unpacked_bytes + len(content) > MAX_UNPACKED_BYTES:
                report.damaged.append(f"{place} > {layer}: not unpacked further")
                continue
            report.unpacked_bytes += len(content)
            self._layers(report, f"{place} > {layer}", content, depth + 1)

    def _inner(
        self, report: ScanReport, place: str, data: bytes, *, whole: bool
    ) -> Iterator[tuple[str, bytes]]:
        for member in members(data):
            layer = f"{member.form} at {member.at}"
            if member.damaged:
                report.damaged.append(f"{place} > {layer}: broken off")
            yield layer, member.data
        if is_table(data):
            try:
                for number, content in enumerate(table_content(data)):
                    yield f"table block {number}", content
            except DamagedError:
                report.damaged.append(f"{place} > table: a block cannot be read")
        elif whole and _is_leveldb_log(place):
            yield "log", log_content(data)

    def _look(self, report: ScanReport, place: str, data: bytes) -> None:
        for at, needle in self._search.find(data):
            report.found += 1
            if len(report.findings) < MAX_FINDINGS:
                report.findings.append(_finding(place, at, needle))


def _finding(place: str, at: int, needle: Needle) -> CanaryFinding:
    return CanaryFinding(place, at, needle.label, needle.form)


def _is_leveldb_log(place: str) -> bool:
    name = place.rpartition("/")[2]
    return name.startswith("MANIFEST-") or (name.endswith(".log") and name[:-4].isdigit())
