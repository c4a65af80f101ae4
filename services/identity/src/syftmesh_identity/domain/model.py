"""What identity keeps: devices, refresh families, join tokens, sites. Times are Unix milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Generic, TypeVar

from syftmesh_core.errors import InvalidInput
from syftmesh_core.identity.device import is_device_id
from syftmesh_core.quote import quoted

LABEL_PROFILE: Final = "profile"
LABELS: Final = frozenset({LABEL_PROFILE, "agent", "runner"})
SITE_LABELS: Final = frozenset({"agent", "runner"})
"""A principal becomes a site when a device of one of these kinds joins."""

MAX_DEVICES: Final = 32

OPERATOR: Final = "operator"
"""Who made a join token that came from the hub's admin socket; no e-mail address, hence nobody who can log in."""

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class Device:
    """One key-holding program of a principal.

    Attributes:
        device_id: The id it has in the signed device list.
        principal: Its owner, a normalised e-mail address.
        label: One of `LABELS`.
        created_ms: When it logged in first.
        revoked_ms: When it was revoked, None while it may log in.
    """

    device_id: str
    principal: str
    label: str
    created_ms: int
    revoked_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Account:
    """One person.

    Attributes:
        principal: The e-mail.
        device_ids: Their devices, oldest first; at most `MAX_DEVICES`, revoked ones among them.
        revoked_ms: When an administrator ended the person; None while they may log in.
    """

    principal: str
    device_ids: tuple[str, ...] = ()
    revoked_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AccessRecord:
    """An access token given out for a family: its id and its end."""

    token_id: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class Family:
    """The refresh tokens that descend from one login; only the newest may be used.

    Attributes:
        family_id: Names it, part of each of its tokens.
        principal: Whose tokens they are.
        device_id: Which device's.
        proof_hash: SHA-256 of the secret that all its tokens share, so that an old token is told from a
            forged one.
        secret_hash: SHA-256 of the newest token's own secret.
        expires_ms: End of the newest token.
        access: Access tokens given out and not yet expired, oldest first.
        revoked: Whether none of its tokens may be used any more.
        prior_hash: SHA-256 of the secret of the token before the newest; empty while there was none.
        renewed_ms: When that one was used first, 0 while there was none.
        repeated: Whether that one was used a second time, see `refresh.REPEAT_S`.
    """

    family_id: str
    principal: str
    device_id: str
    proof_hash: str = field(repr=False)
    secret_hash: str = field(repr=False)
    expires_ms: int
    access: tuple[AccessRecord, ...] = ()
    revoked: bool = False
    prior_hash: str = field(default="", repr=False)
    renewed_ms: int = 0
    repeated: bool = False


class JoinState(Enum):
    """Life of a join token; everything but OPEN is final."""

    OPEN = "open"
    REDEEMED = "redeemed"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A single-use right to become a device of one principal, or of anybody of one domain.

    Attributes:
        token_id: Names it in lists; not the secret.
        principal: The only e-mail that may redeem it; of a domain's token who did, empty before.
        label: The kind of device it admits.
        created_by: The principal that made it.
        created_ms: When.
        expires_ms: When it can no longer be redeemed.
        secret_hash: SHA-256 of its secret.
        state: OPEN, REDEEMED or REVOKED as stored; see `state_at`.
        domain: What must stand behind the @ of who redeems it; empty for one of a principal.
        redeemed_ms: When it was redeemed first, 0 before.
        device_id: The device that redeemed it, empty before.
        family_id: The refresh family that the device got, empty before.
        retry_hash: SHA-256 of what the device names to ask again; empty when it may not.
    """

    token_id: str
    principal: str
    label: str
    created_by: str
    created_ms: int
    expires_ms: int
    secret_hash: str = field(repr=False)
    state: JoinState = JoinState.OPEN
    domain: str = ""
    redeemed_ms: int = 0
    device_id: str = ""
    family_id: str = ""
    retry_hash: str = field(default="", repr=False)

    def state_at(self, now_ms: int) -> JoinState:
        """Return the state at `now_ms`: an open token expires by time alone."""
        if self.state is JoinState.OPEN and now_ms >= self.expires_ms:
            return JoinState.EXPIRED
        return self.state


@dataclass(frozen=True, slots=True)
class Site:
    """A principal whose agent or runner has joined."""

    principal: str
    display_name: str
    joined_ms: int


@dataclass(frozen=True, slots=True)
class Stored(Generic[Record]):
    """A record with the revision that a compare-and-set names."""

    record: Record
    revision: int


@dataclass(frozen=True, slots=True)
class IssuedAccess:
    """A signed access token, its id and its end."""

    token: str = field(repr=False)
    token_id: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a login gives: access token and refresh token, with their ends."""

    access_token: str = field(repr=False)
    access_expires_ms: int
    refresh_token: str = field(repr=False)
    refresh_expires_ms: int


def checked_device_id(text: str) -> str:
    """Return `text` when it may be a device id.

    Raises:
        InvalidInput: DEVICE_INVALID.
    """
    if not is_device_id(text):
        raise InvalidInput(
            f"{quoted(text)} is no device id: give 1 to 64 of [A-Za-z0-9._-].",
            reason="DEVICE_INVALID",
            metadata={"device_id": quoted(text)},
        )
    return text


def checked_label(text: str) -> str:
    """Return the kind of device that `text` names; empty is a profile.

    Raises:
        InvalidInput: DEVICE_INVALID.
    """
    label = text or LABEL_PROFILE
    if label not in LABELS:
        raise InvalidInput(
            f"{quoted(text)} is no kind of device: give profile, agent or runner.",
            reason="DEVICE_INVALID",
            metadata={"label": quoted(text)},
        )
    return label
