"""The state of a call as data: which states follow which, and the record that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from syftmesh_core.errors import Conflict, WrongState

from syftmesh_router.domain.envelope import CallMessage


class CallState(Enum):
    """Where a call is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    NOT_FOUND = "not_found"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return not FOLLOWERS[self]


_FINAL: Final = frozenset(
    {
        CallState.COMPLETED,
        CallState.FAILED,
        CallState.REJECTED,
        CallState.NOT_FOUND,
        CallState.EXPIRED,
        CallState.CANCELLED,
    }
)

FOLLOWERS: Final[Mapping[CallState, frozenset[CallState]]] = {
    # A reply may overtake the note that its call was delivered.
    CallState.PENDING: _FINAL | {CallState.DELIVERED},
    CallState.DELIVERED: _FINAL,
    **dict.fromkeys(_FINAL, frozenset[CallState]()),
}
"""The states that may follow a state; the first final one stands."""

REPLY_STATES: Final = frozenset(
    {CallState.COMPLETED, CallState.FAILED, CallState.REJECTED, CallState.NOT_FOUND}
)
"""Final states that a site may give."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of a call.

    Attributes:
        call_id: The call that it ends.
        state: A final state.
        body: Sealed for the caller's device, empty where there is none.
        failure_reason: Constant of ErrorReason where the state is no success.
        replier: Principal that answered, empty when the router did.
        replier_device: Its device.
    """

    call_id: str
    state: CallState
    body: bytes = field(default=b"", repr=False)
    failure_reason: str = ""
    replier: str = ""
    replier_device: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is kept of a call beside its message and its reply.

    Attributes:
        call_id: The call.
        caller: The principal that may read the reply.
        site: The datasite called.
        app: The app called.
        digest: `CallMessage.digest`.
        expires_ms: Unix milliseconds.
        state: Where it is.
        attempts: Deliveries that failed.
        failure_reason: Why, when the router ended it.
        has_reply: Whether the end is a stored reply of the site.
    """

    call_id: str
    caller: str
    site: str
    app: str
    digest: str
    expires_ms: int
    state: CallState = CallState.PENDING
    attempts: int = 0
    failure_reason: str = ""
    has_reply: bool = False

    @classmethod
    def of(cls, message: CallMessage) -> CallRecord:
        """Return the record of a call that was just accepted."""
        e = message.envelope
        return cls(e.call_id, e.sender, e.site, e.app, message.digest, e.expires_ms)

    def check_same(self, message: CallMessage) -> None:
        """Check that the record is of this very call.

        Raises:
            Conflict: CALL_ID_REUSED when the id stands for another caller, address or body.
        """
        if self.caller != message.envelope.sender or self.digest != message.digest:
            raise Conflict(
                "The call id was used for another call: choose a new one for each call.",
                reason="CALL_ID_REUSED",
                metadata={"call_id": self.call_id},
            )

    def moved(self, state: CallState, *, failure_reason: str = "", has_reply: bool = False) -> CallRecord:
        """Return the record in `state`.

        Raises:
            WrongState: CALL_FINAL when `state` cannot follow.
        """
        if state not in FOLLOWERS[self.state]:
            raise WrongState(
                f"The call is {self.state.name} and cannot become {state.name}.",
                reason="CALL_FINAL",
                metadata={"state": self.state.name},
            )
        return replace(self, state=state, failure_reason=failure_reason, has_reply=has_reply)

    def failed_once_more(self) -> CallRecord:
        """Return the record with one more failed delivery."""
        return replace(self, attempts=self.attempts + 1)

    def router_reply(self) -> Reply:
        """Return the end of a call that the router ended itself."""
        return Reply(self.call_id, self.state, failure_reason=self.failure_reason)
