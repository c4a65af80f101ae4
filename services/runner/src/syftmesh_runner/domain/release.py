"""Releases: what a reviewer signed leaves the site, and nothing else.

A release is written down before the first byte leaves and finished after the last, so that a crash in between
is continued and not forgotten. Files are compared with what was signed once more when they are read.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import structlog
from syftmesh_core.approval import RELEASE_KIND, ReleaseTerms, parse_release
from syftmesh_core.enc import canonical_json
from syftmesh_core.errors import IntegrityFailure, MeshError, NotFound, WrongState
from syftmesh_core.job import JobEvent, JobState, Role, transition
from syftmesh_core.statement import parse_statement, statement_digest

from syftmesh_runner.domain.hub_path import LINEAGE, STATUS, result_path
from syftmesh_runner.domain.job import Job, Output
from syftmesh_runner.domain.ledger import Ledger, audit_fields
from syftmesh_runner.domain.ports import KeyDirectory
from syftmesh_runner.domain.publication import Publication
from syftmesh_runner.domain.signature import ReviewerCheck
from syftmesh_runner.domain.state import SiteState

RESERVED: Final = frozenset({STATUS, LINEAGE})


class Release:
    """Takes signed releases and carries them out.

    Args:
        state: What the site keeps.
        ledger: Moves jobs.
        reviewers: Verifies signed releases.
        keys: Verified device lists of recipients.
        publication: Writes to the hub.
    """

    def __init__(
        self,
        state: SiteState,
        ledger: Ledger,
        reviewers: ReviewerCheck,
        keys: KeyDirectory,
        publication: Publication,
    ) -> None:
        self._state = state
        self._ledger = ledger
        self._reviewers = reviewers
        self._keys = keys
        self._publication = publication
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._log: Any = structlog.get_logger("syftmesh.runner")

    async def release(self, job_id: str, signed: bytes) -> tuple[Job, int]:
        """Let chosen outputs leave; return the job and the bytes that left. The same again changes nothing.

        Raises:
            NotFound: JOB_UNKNOWN, OUTPUT_UNKNOWN.
            WrongState: WRONG_STATE; RELEASE_MISMATCH (metadata `term`): job, digests or recipients differ.
            IntegrityFailure: RELEASE_REFUSED, SIGNATURE_INVALID, KEY_CHANGED, OUTPUT_CHANGED.
            PermissionDenied: NOT_A_REVIEWER.
        """
        job = self._ledger.get(job_id)
        async with self._locks[job_id]:
            try:
                statement = await self._reviewers.verify(signed, kind=RELEASE_KIND, submitter=job.submitter)
                job = self._ledger.get(job_id)
                begun = self._state.releases.get(job_id)
                if begun is not None and begun[0] == signed:
                    return await self._carry_out(job, signed) if not begun[1] else (job, begun[2])
                self._check_free(job, begun is not None)
                terms = _parse(canonical_json(statement.body))
                await self._check(job, terms)
            except MeshError as refusal:
                self._ledger.refused(job, JobEvent.RELEASE.value, self._state.owner, refusal)
                raise
            with self._state.unit.transaction():
                self._state.releases.begin(job_id, signed)
                self._state.audit.append("job.release_begun", statement.issuer, _facts(job, terms, signed))
            return await self._carry_out(job, signed)

    async def withholdable(self, job_id: str) -> None:
        """Refuse to withhold what is leaving.

        Raises:
            WrongState: WRONG_STATE: a release of the job was begun.
        """
        async with self._locks[job_id]:
            if self._state.releases.get(job_id) is not None:
                raise WrongState("A release of the job was begun; it cannot be withheld any more.")

    async def resume(self) -> None:
        """Carry out what was granted before the runner ended; returns when nothing is pending."""
        while pending := self._state.releases.pending():
            for job_id in pending:
                found = self._state.releases.get(job_id)
                async with self._locks[job_id]:
                    try:
                        if found is not None and not found[1]:
                            await self._carry_out(self._ledger.get(job_id), found[0])
                    except MeshError as error:
                        self._log.warning("release.delayed", job_id=job_id, reason=error.reason)
            await asyncio.sleep(5.0)

    @staticmethod
    def _check_free(job: Job, begun: bool) -> None:  # noqa: FBT001 - private
        transition(job.state, JobEvent.RELEASE, Role.OWNER)
        if begun:
            raise WrongState("Another release of the job was begun already.")

    async def _check(self, job: Job, terms: ReleaseTerms) -> None:
        if terms.job_id != job.job_id:
            raise _mismatch("job_id")
        outputs = [self._chosen(job, file.name, file.sha256) for file in terms.files]
        if not terms.recipients or not set(terms.recipients) <= set(job.recipients):
            raise _mismatch("recipients")
        for recipient in terms.recipients:
            if (await self._keys.devices_of(recipient.email, refresh=True)).root.hex() != recipient.root:
                raise IntegrityFailure(
                    f"The account key of {recipient.email} is not the one that was approved: check it first.",
                    reason="KEY_CHANGED",
                    metadata={"principal": recipient.email},
                    hint=f"syftmesh keys verify {recipient.email}",
                )
        self._check_gate(job, outputs, overridden=bool(terms.override_reason.strip()))

    def _chosen(self, job: Job, name: str, sha256: str) -> Output:
        output = job.output(name)
        if output is None or (job.state is JobState.FAILED and not output.is_log) or name in RESERVED:
            raise NotFound(
                f"The job has no output {name[:120]!r} that could be released.",
                reason="OUTPUT_UNKNOWN",
                metadata={"output": name[:120]},
            )
        if output.sha256 != sha256:
            raise _mismatch("files")
        return output

    def _check_gate(self, job: Job, outputs: Sequence[Output], *, overridden: bool) -> None:
        if overridden:
            return
        blocked = [output.name for output in outputs if output.is_blocked]
        limit = self._state.policy_of(job).max_result_bytes
        size = sum(output.size_bytes for output in outputs)
        if blocked:
            why = f"the gate blocks {', '.join(blocked[:5])}"
        elif size > limit:
            why = f"the files have {size} bytes together, at most {limit} may leave"
        else:
            return
        raise IntegrityFailure(
            f"Nothing was released: {why}. Leave these out, or sign a release with a reason to override.",
            reason="RELEASE_REFUSED",
            metadata={"outputs": ",".join(blocked)[:500]},
        )

    async def _carry_out(self, job: Job, signed: bytes) -> tuple[Job, int]:
        statement = parse_statement(signed)
        terms = _parse(canonical_json(statement.body))
        bytes_out = 0
        lineage = canonical_json(self._lineage(job, terms, signed))
        contents = [(LINEAGE, lineage)]
        for file in terms.files:
            data = await asyncio.to_thread(self._state.folder.output, job.job_id, file.name)
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise IntegrityFailure(
                    f"The output {file.name!r} is not as it was signed any more.", reason="OUTPUT_CHANGED"
                )
            contents.append((file.name, data))
        for recipient in terms.recipients:
            readers = frozenset({recipient.email}) - {self._state.owner}
            for name, data in contents:
                path = result_path(self._state.owner, recipient.email, job.job_id, name)
                bytes_out += await self._publication.write(path, data, readers)
        return self._finish(job, terms, signed, bytes_out), bytes_out

    def _finish(self, job: Job, terms: ReleaseTerms, signed: bytes, bytes_out: int) -> Job:
        names = {file.name for file in terms.files}
        outputs = tuple(replace(output, released=output.name in names) for output in job.outputs)
        with self._state.unit.transaction():
            self._state.releases.finish(job.job_id, bytes_out)
            facts = {
                **_facts(job, terms, signed),
                "bytes_out": bytes_out,
                "bytes_out_total": self._state.releases.total_bytes(),
            }
            return self._ledger.step(
                job.job_id,
                JobEvent.RELEASE,
                Role.OWNER,
                parse_statement(signed).issuer,
                message="Its results are with the recipients.",
                changes={"outputs": outputs},
                fields=facts,
            )

    def _lineage(self, job: Job, terms: ReleaseTerms, signed: bytes) -> dict[str, object]:
        approvals = [bytes.fromhex(text) for text in job.approvals]
        return {
            "job_id": job.job_id,
            "site": self._state.owner,
            "datasets": [{"name": d.name, "digest": d.digest} for d in job.datasets],
            "code_digest": job.code_digest,
            "entrypoint": job.entrypoint,
            "runtime_digest": job.runtime_digest,
            "approvals": [statement_digest(approval).hex() for approval in approvals],
            "reviewers": [parse_statement(approval).issuer for approval in approvals],
            "run": {
                "started_ms": job.run_started_ms,
                "ended_ms": job.run_ended_ms,
                "state": JobState.SUCCEEDED.value if not job.end_reason else JobState.FAILED.value,
                "end_reason": job.end_reason,
            },
            "release": statement_digest(signed).hex(),
            "released_by": parse_statement(signed).issuer,
            "files": [{"name": file.name, "sha256": file.sha256} for file in terms.files],
        }


def _parse(body: bytes) -> ReleaseTerms:
    try:
        return parse_release(body)
    except IntegrityFailure:
        raise IntegrityFailure(
            "The signed release is refused: its terms are not those of a release.", reason="SIGNATURE_INVALID"
        ) from None


def _facts(job: Job, terms: ReleaseTerms, signed: bytes) -> dict[str, object]:
    return {
        **audit_fields(job),
        "release": statement_digest(signed).hex(),
        "files": {file.name: file.sha256 for file in terms.files},
        "recipients": [recipient.email for recipient in terms.recipients],
        "override_reason": terms.override_reason,
    }


def _mismatch(term: str) -> WrongState:
    return WrongState(
        f"The release does not fit the job: {term} differs. Read the job again and sign what is there.",
        reason="RELEASE_MISMATCH",
        metadata={"term": term},
    )
