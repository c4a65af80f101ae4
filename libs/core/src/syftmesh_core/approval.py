"""What an approval and a release bind, as RFC 8785 JSON that a reviewer's device signs.

Approval terms name the bytes of a job: code, entrypoint, parameters, runtime, dataset versions, recipients
with their root keys, purpose, expiry. The service and, right before the start, the executor's side each build
the terms again from what they hold and compare every one (docs/protocol/rds.md, "State machine").
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, TypeVar

from syftmesh_core.enc import canonical_json, parse_json
from syftmesh_core.errors import IntegrityFailure, InvalidInput

APPROVAL_KIND: Final = "job-approval"
RELEASE_KIND: Final = "job-release"

TERM_ORDER: Final = (
    "job_id",
    "code_digest",
    "entrypoint",
    "parameters",
    "runtime_digest",
    "datasets",
    "recipients",
    "purpose",
    "expires_ms",
)
"""Names of the terms of an approval, in the order in which differences are named."""

MAX_TERMS_BYTES: Final = 1 << 20
MAX_FILES: Final = 10_000

T = TypeVar("T")

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A dataset's name and the SHA-256 of its private part, hex."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who gets results: normalised e-mail and the account root's public key, 64 hex digits."""

    email: str
    root: str


@dataclass(frozen=True, slots=True)
class ApprovalTerms:
    """Everything that an approval binds; digests are 64 lower-case hex digits.

    Attributes:
        job_id: The job, a UUIDv7.
        code_digest: SHA-256 of the code archive.
        entrypoint: Script inside the archive.
        parameters: JSON object for the code.
        runtime_digest: Digest of the Python runtime that runs it.
        datasets: Versions of the private parts, in the order of the submission.
        recipients: Who gets what is released.
        purpose: What for, in the submitter's words.
        expires_ms: Unix milliseconds from which the approval counts no more.
    """

    job_id: str
    code_digest: str
    entrypoint: str
    parameters: Mapping[str, object]
    runtime_digest: str
    datasets: tuple[DatasetVersion, ...]
    recipients: tuple[Recipient, ...]
    purpose: str
    expires_ms: int

    def to_json(self) -> str:
        """Return the terms as RFC 8785 JSON.

        Raises:
            InvalidInput: ENCODING_INVALID when the parameters are not expressible.
        """
        return canonical_json(self._document()).decode()

    def _document(self) -> dict[str, object]:
        return {
            "job_id": self.job_id,
            "code_digest": self.code_digest,
            "entrypoint": self.entrypoint,
            "parameters": dict(self.parameters),
            "runtime_digest": self.runtime_digest,
            "datasets": [{"name": d.name, "digest": d.digest} for d in self.datasets],
            "recipients": [{"email": r.email, "root": r.root} for r in self.recipients],
            "purpose": self.purpose,
            "expires_ms": self.expires_ms,
        }


class Approvable(Protocol):
    """A job, as far as its approval terms need it."""

    @property
    def job_id(self) -> str:
        """The job, a UUIDv7."""
        ...

    @property
    def code_digest(self) -> str:
        """SHA-256 of the code archive, hex."""
        ...

    @property
    def entrypoint(self) -> str:
        """Script inside the archive."""
        ...

    @property
    def parameters_json(self) -> str:
        """RFC 8785 JSON of the parameters, an object."""
        ...

    @property
    def runtime_digest(self) -> str:
        """Digest of the runtime, hex."""
        ...

    @property
    def datasets(self) -> tuple[DatasetVersion, ...]:
        """Versions the job is bound to."""
        ...

    @property
    def recipients(self) -> tuple[Recipient, ...]:
        """Who gets what is released."""
        ...

    @property
    def purpose(self) -> str:
        """What for."""
        ...

    @property
    def approval_expires_ms(self) -> int:
        """Unix milliseconds from which an approval counts no more."""
        ...


def terms_of(job: Approvable) -> ApprovalTerms:
    """Return the terms that an approval of `job` has to bind.

    Raises:
        IntegrityFailure: ENCODING_INVALID when its parameters are not an object in RFC 8785 form.
    """
    return ApprovalTerms(
        job_id=job.job_id,
        code_digest=job.code_digest,
        entrypoint=job.entrypoint,
        parameters=parse_json(job.parameters_json.encode()),
        runtime_digest=job.runtime_digest,
        datasets=tuple(job.datasets),
        recipients=tuple(job.recipients),
        purpose=job.purpose,
        expires_ms=job.approval_expires_ms,
    )


def parse_terms(data: bytes | str) -> ApprovalTerms:
    """Return the approval terms in `data`.

    Raises:
        IntegrityFailure: TERMS_INVALID when it is not RFC 8785 JSON of exactly these terms.
    """
    document = _document(data, TERM_ORDER)
    return ApprovalTerms(
        job_id=_text(document, "job_id"),
        code_digest=_digest(document, "code_digest"),
        entrypoint=_text(document, "entrypoint"),
        parameters=_object(document["parameters"]),
        runtime_digest=_digest(document, "runtime_digest"),
        datasets=_items(document, "datasets", ("name", "digest"), DatasetVersion),
        recipients=_items(document, "recipients", ("email", "root"), Recipient),
        purpose=_text(document, "purpose"),
        expires_ms=_integer(document, "expires_ms"),
    )


def compare_terms(expected: ApprovalTerms, signed: ApprovalTerms) -> str | None:
    """Return the name of the first term of `TERM_ORDER` whose bytes differ, None when all are equal."""
    return first_difference(expected, json.loads(signed.to_json()))


def first_difference(expected: ApprovalTerms, signed: Mapping[str, object]) -> str | None:
    """Return the first term of `expected` that `signed` has not byte for byte, or a surplus one of `signed`.

    Args:
        expected: Built from what the site holds.
        signed: Body of a statement whose signature holds; nothing else of it is assumed.
    """
    held = json.loads(expected.to_json())
    for name in TERM_ORDER:
        if name not in signed or canonical_json({name: held[name]}) != canonical_json({name: signed[name]}):
            return name
    return next((name for name in sorted(signed) if name not in held), None)


@dataclass(frozen=True, slots=True)
class ReleasedFile:
    """A file that may leave: its name among the job's outputs and its SHA-256, hex."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ReleaseTerms:
    """Everything that a release binds.

    Attributes:
        job_id: The job.
        files: What leaves, by name and digest.
        recipients: Who gets it.
        override_reason: Why it leaves in spite of blocking findings; empty when there is no such reason.
    """

    job_id: str
    files: tuple[ReleasedFile, ...]
    recipients: tuple[Recipient, ...]
    override_reason: str = ""

    def to_json(self) -> str:
        """Return the terms as RFC 8785 JSON."""
        return canonical_json(
            {
                "job_id": self.job_id,
                "files": [{"name": f.name, "sha256": f.sha256} for f in self.files],
                "recipients": [{"email": r.email, "root": r.root} for r in self.recipients],
                "override_reason": self.override_reason,
            }
        ).decode()


def parse_release(data: bytes | str) -> ReleaseTerms:
    """Return the release terms in `data`.

    Raises:
        IntegrityFailure: TERMS_INVALID when it is not RFC 8785 JSON of exactly these terms.
    """
    document = _document(data, ("job_id", "files", "recipients", "override_reason"))
    files = _items(document, "files", ("name", "sha256"), ReleasedFile)
    if len({file.name for file in files}) != len(files):
        _refuse("a file is named twice")
    return ReleaseTerms(
        job_id=_text(document, "job_id"),
        files=files,
        recipients=_items(document, "recipients", ("email", "root"), Recipient),
        override_reason=_text(document, "override_reason"),
    )


def _document(data: bytes | str, names: Sequence[str]) -> dict[str, object]:
    raw = data.encode() if isinstance(data, str) else data
    if len(raw) > MAX_TERMS_BYTES:
        _refuse(f"they have more than {MAX_TERMS_BYTES} bytes")
    try:
        document = parse_json(raw)
    except (IntegrityFailure, InvalidInput):
        _refuse("they are not an object in RFC 8785 JSON")
    if set(document) != set(names):
        _refuse("a term is missing or unknown")
    return document


def _text(document: Mapping[str, object], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        _refuse(f"{name} is not text")
    return value


def _digest(document: Mapping[str, object], name: str) -> str:
    value = _text(document, name)
    if not _HEX_DIGEST.fullmatch(value):
        _refuse(f"{name} is not 64 lower-case hex digits")
    return value


def _integer(document: Mapping[str, object], name: str) -> int:
    value = document[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        _refuse(f"{name} is not a non-negative integer")
    return value


def _object(value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        _refuse("parameters are not an object")
    return value


def _items(
    document: Mapping[str, object], name: str, keys: tuple[str, str], make: Callable[[str, str], T]
) -> tuple[T, ...]:
    items = document[name]
    if not isinstance(items, list) or len(items) > MAX_FILES:
        _refuse(f"{name} is not a list of at most {MAX_FILES} items")
    made = []
    for item in items:
        if not isinstance(item, dict) or set(item) != set(keys):
            _refuse(f"an item of {name} has other keys than {keys[0]} and {keys[1]}")
        if not _HEX_DIGEST.fullmatch(_text(item, keys[1])):
            _refuse(f"{keys[1]} of an item of {name} is not 64 lower-case hex digits")
        made.append(make(_text(item, keys[0]), _text(item, keys[1])))
    return tuple(made)


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The signed terms are refused: {what}.", reason="TERMS_INVALID")
