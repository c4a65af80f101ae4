"""Datasets of a site: the card, the shape of their tables, and what the owner demands of jobs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from syftmesh_core.enc import encode
from syftmesh_core.errors import InvalidInput, Unimplemented
from syftmesh_core.principal import normalise_principal

EVERYONE: Final = "*"
DEFAULT_MIN_CELL: Final = 5
DEFAULT_MAX_RESULT_BYTES: Final = 1 << 20
DEFAULT_WALL_S: Final = 600
MAX_TEXT_BYTES: Final = 256 * 1024
MAX_ENTRIES: Final = 1000

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name and its type as pandas names it, e.g. ``float64``, ``int64``, ``str``."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Table:
    """One file of a dataset; without columns where the file is opaque.

    Attributes:
        file: Path inside the dataset.
        columns: In order.
        mock_rows: Rows of the mock.
    """

    file: str
    columns: tuple[Column, ...]
    mock_rows: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the owner demands of jobs on a dataset.

    Attributes:
        min_cell: Smallest group that a result may show.
        max_result_bytes: Most that one job may release, in bytes.
        required_reviewers: Approvals by different reviewers that a job needs.
        identifier_columns: Columns whose values may never appear in a result.
        wall_s: Longest run in seconds.
    """

    min_cell: int = DEFAULT_MIN_CELL
    max_result_bytes: int = DEFAULT_MAX_RESULT_BYTES
    required_reviewers: int = 1
    identifier_columns: tuple[str, ...] = ()
    wall_s: int = DEFAULT_WALL_S


def strictest(policies: Iterable[Policy]) -> Policy:
    """Return the policy that demands what the strictest of `policies` does in every respect."""
    found = list(policies) or [Policy()]
    return Policy(
        min_cell=max(policy.min_cell for policy in found),
        max_result_bytes=min(policy.max_result_bytes for policy in found),
        required_reviewers=max(policy.required_reviewers for policy in found),
        identifier_columns=tuple(sorted({name for policy in found for name in policy.identifier_columns})),
        wall_s=min(policy.wall_s for policy in found),
    )


@dataclass(frozen=True, slots=True)
class Dataset:
    """A registered dataset.

    Attributes:
        name: ``[a-z0-9][a-z0-9_-]{0,62}``, never changed.
        summary: One line for people.
        readme: Markdown.
        tags: Free words.
        audience: E-mails that may read card and mock, or ``*``.
        private_digest: Version of the private part, hex.
        mock_digest: Version of the mock, hex.
        tables: Shape of both parts.
        policy: What the owner demands.
        created_ms: Unix milliseconds.
        mock_generated: Whether the mock was drawn from schema and marginals.
        published: Whether card and mock are at the hub for exactly this audience.
    """

    name: str
    summary: str
    readme: str
    tags: tuple[str, ...]
    audience: tuple[str, ...]
    private_digest: str
    mock_digest: str
    tables: tuple[Table, ...]
    policy: Policy
    created_ms: int
    mock_generated: bool
    published: bool = field(default=False)

    def may_be_read_by(self, principal: str) -> bool:
        """Return whether `principal` is of the audience (the owner is asked elsewhere)."""
        return EVERYONE in self.audience or principal in self.audience


def check_name(name: str) -> str:
    """Return `name` when it may name a dataset.

    Raises:
        InvalidInput: DATASET_INVALID.
    """
    if not _NAME.fullmatch(name):
        raise dataset_invalid(
            f"{name[:80]!r} cannot name a dataset: use 1 to 63 of a-z, 0-9, _ and -, first a-z or 0-9."
        )
    return name


def check_audience(audience: Sequence[str]) -> tuple[str, ...]:
    """Return the audience normalised, without repeats, in order.

    Raises:
        InvalidInput: DATASET_INVALID for an entry that is none.
        Unimplemented: OPEN_READERS for ``USER``, a glob or a group: such readers are not a closed set.
    """
    if len(audience) > MAX_ENTRIES:
        raise dataset_invalid(f"An audience has at most {MAX_ENTRIES} entries.")
    found: dict[str, None] = {}
    for entry in audience:
        if entry == EVERYONE:
            found[entry] = None
        elif entry == "USER" or entry.startswith("group:") or "*" in entry:
            raise Unimplemented(
                f"The audience entry {entry[:80]!r} is open: who reads is not known when the mock is sealed. "
                "Name e-mail addresses, or '*' for everyone.",
                reason="OPEN_READERS",
                metadata={"entry": entry[:80]},
            )
        else:
            try:
                found[normalise_principal(entry)] = None
            except InvalidInput:
                raise dataset_invalid(f"{entry[:80]!r} in the audience is no e-mail and not '*'.") from None
    return tuple(found)


def check_policy(policy: Policy, tables: Iterable[Table]) -> Policy:
    """Return `policy` when every identifier column is one of `tables`.

    Raises:
        InvalidInput: DATASET_INVALID for an unknown column: a typing error would open it.
    """
    known = {column.name for table in tables for column in table.columns}
    for name in policy.identifier_columns:
        if name not in known:
            raise dataset_invalid(f"The identifier column {name[:80]!r} is in no table of the private part.")
    return policy


def version_digest(files: Mapping[str, str]) -> str:
    """Return the version of a part, hex: SHA-256 of ``ENC('dataset', [names, digests])`` in name order.

    Args:
        files: Path inside the part to its SHA-256, hex.
    """
    names = sorted(files)
    digests = [bytes.fromhex(files[name]) for name in names]
    return hashlib.sha256(encode("dataset", [names, digests])).hexdigest()


def dataset_invalid(message: str) -> InvalidInput:
    """Return the error for a dataset that cannot be registered as described."""
    return InvalidInput(message, reason="DATASET_INVALID")
