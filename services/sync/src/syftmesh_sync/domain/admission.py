"""The second half of a commit: whether a candidate may take its place in the datasite as it is now."""

from __future__ import annotations

from dataclasses import dataclass

from syftmesh_core.errors import Conflict, InvalidInput, LimitExceeded, PermissionDenied
from syftmesh_core.permission.engine import LIMIT_REASONS, Question, decide, level_for_write
from syftmesh_core.permission.reader import ReaderKind, readers_of
from syftmesh_core.permission.right import may_read
from syftmesh_core.permission.ruleset import Level

from syftmesh_sync.domain.candidate import Candidate, object_missing
from syftmesh_sync.domain.ports import Entry, NewRecord, SiteView


@dataclass(frozen=True, slots=True)
class Admitted:
    """A candidate that may be appended; or, with `sequence`, one that is in the log already."""

    candidate: Candidate
    new: NewRecord | None
    sequence: int = 0


def admit(candidate: Candidate, site: SiteView, requester: str, now_ms: int) -> Admitted:
    """Return `candidate` ready to be appended behind what `site` holds. Pure.

    Raises:
        PermissionDenied: PERMISSION_DENIED, ADMIN_DEVICE_REQUIRED.
        LimitExceeded: (LIMIT_EXCEEDED) a limit of the deciding rule.
        Conflict: STALE_PREVIOUS, NOT_LIVE, PATH_COLLISION.
        InvalidInput: OBJECT_MISSING, PLAIN_NOT_ALLOWED.
    """
    current = site.find(candidate.text)
    if current is not None and current.digest == candidate.digest:
        return Admitted(candidate, None, current.sequence)
    _check_right(candidate, site, requester, current, now_ms)
    _check_place(candidate, site, current)
    if candidate.content is not None:
        _check_content(candidate, site, requester, now_ms)
    new = NewRecord(
        candidate.path,
        candidate.signed,
        candidate.digest,
        expected_last=current.sequence if current else 0,
        checked_at=site.rules_changed_at,
        fence=site.fence if _is_judged(candidate, requester) else None,
    )
    return Admitted(candidate, new)


def _is_judged(candidate: Candidate, requester: str) -> bool:
    """Return whether rules or groups had a say: over others than the owner, and over content that is plain."""
    content, path = candidate.content, candidate.path
    if requester != path.site:
        return True
    return content is not None and not content.sealed and not path.is_policy_file


def _check_right(
    candidate: Candidate, site: SiteView, requester: str, current: Entry | None, now_ms: int
) -> None:
    path, record = candidate.path, candidate.record
    exists = current is not None and current.is_live
    level = Level.WRITE if record.deleted else level_for_write(path, exists)
    if record.deleted and (needed := level_for_write(path, exists=True)) is not Level.WRITE:
        level = needed
    if path.is_policy_file and requester == path.site and not candidate.signer_is_admin:
        raise _no_admin_device(candidate)
    if level is None:
        if requester != path.site:
            raise _denied(candidate, "ownership")
        return
    question = Question(
        requester,
        path,
        level,
        now_ms,
        size_bytes=candidate.size_bytes,
        live_files=lambda key: site.count(key, now_ms, excluding=candidate.text),
        deletes=record.deleted,
    )
    decision = decide(site.tree, question)
    if decision.reason in LIMIT_REASONS:
        raise LimitExceeded(
            f"{path} passes a limit of the rules there. Needed: {decision.needed}",
            reason="LIMIT_EXCEEDED",
            metadata={"path": candidate.text, "limit": decision.reason},
        )
    if not decision.allowed:
        raise _denied(candidate, decision.level.value)
    if path.is_policy_file and not candidate.signer_is_admin:
        raise _no_admin_device(candidate)


def _no_admin_device(candidate: Candidate) -> PermissionDenied:
    kind = "groups file" if candidate.path.is_groups_file else "rule file"
    return PermissionDenied(
        f"The {kind} {candidate.path} has to be signed by an admin device; this device is none.",
        reason="ADMIN_DEVICE_REQUIRED",
        metadata={"path": candidate.text},
        hint="Write it with the command line or SDK of a person's own profile.",
    )


def _denied(candidate: Candidate, needed: str) -> PermissionDenied:
    return PermissionDenied(
        f"You have no right to change {candidate.path}; it needs {needed}.",
        metadata={"path": candidate.text, "needed": needed},
    )


def _check_place(candidate: Candidate, site: SiteView, current: Entry | None) -> None:
    record, path = candidate.record, candidate.path
    follows = (current.revision, current.digest) if current else (0, None)
    if (record.revision - 1, record.previous_digest) != follows:
        raise Conflict(
            f"{path} is not at the revision that this record replaces: read it again, then decide.",
            reason="STALE_PREVIOUS",
            metadata={"path": candidate.text},
        )
    if record.deleted:
        if current is None or not current.is_live:
            raise Conflict(
                f"{path} is deleted already.", reason="NOT_LIVE", metadata={"path": candidate.text}
            )
        return
    if site.collision(path):
        raise Conflict(
            f"{path} cannot be a file: a file lies above it, or it is a directory with files.",
            reason="PATH_COLLISION",
            metadata={"path": candidate.text},
        )


def _check_content(candidate: Candidate, site: SiteView, requester: str, now_ms: int) -> None:
    content, path = candidate.content, candidate.path
    if content is None:
        return
    if not candidate.was_put and not any(
        may_read(site.tree, requester, entry.path, now_ms) for entry in site.named_by(content.object_id)
    ):
        raise object_missing(content)
    if content.sealed or path.is_policy_file:
        return
    if readers_of(site.tree, path, now_ms).kind is not ReaderKind.PUBLIC:
        raise InvalidInput(
            f"{path} is not readable by everyone, so its content must be sealed and this is not.",
            reason="PLAIN_NOT_ALLOWED",
            metadata={"path": candidate.text},
            hint="Seal it for its readers; the client does so by itself.",
        )
