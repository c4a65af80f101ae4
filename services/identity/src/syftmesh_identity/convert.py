"""Domain records to messages of mesh.identity.v1."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from mesh.identity.v1 import identity_pb2 as pb

from syftmesh_identity.domain.model import Account, Device, JoinState, JoinToken, Site, TokenPair
from syftmesh_identity.domain.ring import RingKey

_JOIN_STATES = {
    JoinState.OPEN: pb.JOIN_TOKEN_STATE_OPEN,
    JoinState.REDEEMED: pb.JOIN_TOKEN_STATE_REDEEMED,
    JoinState.REVOKED: pb.JOIN_TOKEN_STATE_REVOKED,
    JoinState.EXPIRED: pb.JOIN_TOKEN_STATE_EXPIRED,
}


def timestamp(unix_ms: int) -> Timestamp:
    """Return Unix milliseconds as a Timestamp."""
    return Timestamp(seconds=unix_ms // 1000, nanos=unix_ms % 1000 * 1_000_000)


def token_pair(pair: TokenPair) -> pb.TokenPair:
    """Return the pair as a message."""
    return pb.TokenPair(
        access_token=pair.access_token,
        access_expires_at=timestamp(pair.access_expires_ms),
        refresh_token=pair.refresh_token,
        refresh_expires_at=timestamp(pair.refresh_expires_ms),
    )


def device(record: Device) -> pb.Device:
    """Return the device as a message."""
    return pb.Device(
        device_id=record.device_id,
        principal=record.principal,
        label=record.label,
        created_at=timestamp(record.created_ms),
        revoked=record.revoked_ms is not None,
    )


def join_token(record: JoinToken, now_ms: int) -> pb.JoinToken:
    """Return the token as a message, its state as of `now_ms`; the secret is not in it."""
    return pb.JoinToken(
        token_id=record.token_id,
        principal=record.principal,
        label=record.label,
        created_by=record.created_by,
        expires_at=timestamp(record.expires_ms),
        state=_JOIN_STATES[record.state_at(now_ms)],
        domain=record.domain,
    )


def principal(record: Account) -> pb.Principal:
    """Return the person as a message."""
    return pb.Principal(
        principal=record.principal,
        devices=len(record.device_ids),
        revoked=record.revoked_ms is not None,
    )


def verifying_key(key: RingKey, end_ms: int | None) -> pb.VerifyingKey:
    """Return the public half of a key as a message, with the end of its last token where that is known."""
    return pb.VerifyingKey(
        key_id=key.kid,
        public_key=bytes.fromhex(key.public_key),
        not_after=None if end_ms is None else timestamp(end_ms),
    )


def site(record: Site) -> pb.Site:
    """Return the site as a message."""
    return pb.Site(
        principal=record.principal,
        display_name=record.display_name,
        joined_at=timestamp(record.joined_ms),
    )
