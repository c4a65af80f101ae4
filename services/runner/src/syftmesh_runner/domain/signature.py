"""Who may decide at this site, and whether a signed statement is of such a person's admin device."""

from __future__ import annotations

from collections.abc import Collection

from syftmesh_core.clock import Clock
from syftmesh_core.errors import IntegrityFailure, NotFound, PermissionDenied, WrongState
from syftmesh_core.statement import Statement, parse_statement, verify_statement

from syftmesh_runner.domain.ports import KeyDirectory


class ReviewerCheck:
    """Verifies statements of reviewers.

    Args:
        keys: Verified device lists.
        owner: The site's owner, always a reviewer.
        reviewers: Further principals whom the owner lets decide.
        clock: Source of times.
    """

    def __init__(self, keys: KeyDirectory, owner: str, reviewers: Collection[str], clock: Clock) -> None:
        self._keys = keys
        self._reviewers = frozenset({owner, *reviewers})
        self._clock = clock

    async def verify(self, signed: bytes, *, kind: str, submitter: str) -> Statement:
        """Return what a reviewer's admin device states.

        Args:
            signed: ``ENC('statement-signed', …)`` as received.
            kind: The kind this place takes.
            submitter: Who sent the job; never decides on it.

        Raises:
            IntegrityFailure: SIGNATURE_INVALID; KEY_CHANGED and DEVICE_LIST_ROLLBACK of the directory.
            PermissionDenied: NOT_A_REVIEWER.
            WrongState: APPROVAL_EXPIRED: the statement has ended.
            Unavailable: The directory cannot be reached.
        """
        try:
            claimed = parse_statement(signed)
        except IntegrityFailure:
            raise _signature_invalid() from None
        if claimed.issuer not in self._reviewers:
            raise _not_a_reviewer("its issuer is not the owner and no reviewer of this site")
        if claimed.issuer == submitter:
            raise _not_a_reviewer("nobody decides on a job of their own")
        try:
            keys = await self._keys.devices_of(claimed.issuer, refresh=True)
        except NotFound:
            raise _not_a_reviewer("its issuer has no devices") from None
        device = next((device for device in keys.devices if device.device_id == claimed.device_id), None)
        if device is None:
            raise _not_a_reviewer("the device that signed it is not in its issuer's device list")
        try:
            statement = verify_statement(signed, device, kind=kind, now_ms=self._clock.now_ms())
        except IntegrityFailure as failure:
            if failure.reason == "STATEMENT_EXPIRED":
                raise approval_expired() from None
            raise _signature_invalid() from None
        if not device.admin:
            raise _not_a_reviewer("the device that signed it is not flagged admin")
        return statement


def approval_expired() -> WrongState:
    """Return the error for an approval that counts no more."""
    return WrongState(
        "The approval has ended: read the job again and sign its terms anew.", reason="APPROVAL_EXPIRED"
    )


def _signature_invalid() -> IntegrityFailure:
    return IntegrityFailure(
        "The signed statement is refused: its form, its kind or its signature does not hold.",
        reason="SIGNATURE_INVALID",
    )


def _not_a_reviewer(why: str) -> PermissionDenied:
    return PermissionDenied(f"The statement does not count: {why}.", reason="NOT_A_REVIEWER")
