"""Declarations of JetStream streams and key-value buckets, made in code and ensured at start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from nats.js import api

EPOCH_KEY: Final = "syftmesh-epoch"
DAY_S: Final = 86_400.0


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream: file storage, and a full stream refuses new messages instead of dropping old ones.

    Attributes:
        name: Upper case, e.g. ``FILES``.
        subjects: Subject filters it captures.
        max_messages_per_subject: Newest messages kept per subject; -1 keeps all.
        max_age_s: Seconds a message is kept; 0 keeps it for ever.
        max_bytes: Size limit of the stream in bytes; -1 for none.
        duplicate_window_s: Seconds in which a repeated ``Nats-Msg-Id`` is recognised.
        atomic_batches: Whether `Bus.publish_batch` may write to it.
        message_ttl: Whether messages may carry a time to live of their own.
        work_queue: Whether acknowledged messages are removed.
        replicas: Copies in a cluster.
        metadata: Free text pairs kept with the stream.
    """

    name: str
    subjects: tuple[str, ...]
    max_messages_per_subject: int = -1
    max_age_s: float = 0.0
    max_bytes: int = -1
    duplicate_window_s: float = 120.0
    atomic_batches: bool = False
    message_ttl: bool = False
    work_queue: bool = False
    replicas: int = 1
    metadata: dict[str, str] = field(default_factory=dict)

    def config(self, *, epoch: int, first_sequence: int = 0) -> api.StreamConfig:
        """Return the server's configuration of this stream.

        Args:
            epoch: First part of every cursor; changes when the stream is rebuilt.
            first_sequence: Where a rebuilt stream starts; 0 is the server's default (1).
        """
        window_s = min(self.duplicate_window_s, self.max_age_s) if self.max_age_s else self.duplicate_window_s
        return api.StreamConfig(
            name=self.name,
            subjects=list(self.subjects),
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            retention=api.RetentionPolicy.WORK_QUEUE if self.work_queue else api.RetentionPolicy.LIMITS,
            max_msgs_per_subject=self.max_messages_per_subject,
            max_age=self.max_age_s,
            max_bytes=self.max_bytes,
            duplicate_window=window_s,
            num_replicas=self.replicas,
            allow_direct=True,
            allow_atomic=self.atomic_batches or None,
            allow_msg_ttl=self.message_ttl or None,
            first_seq=first_sequence or None,
            metadata={**self.metadata, EPOCH_KEY: str(epoch)},
        )


@dataclass(frozen=True, slots=True)
class KvSpec:
    """A key-value bucket.

    Attributes:
        bucket: Name, ``[a-z_]``.
        history: Revisions kept per key, 1 to 64.
        ttl_s: Seconds after which a key vanishes; 0 never.
        key_ttl: Whether `KvBucket.create` may give a key its own time to live.
        max_bytes: Size limit in bytes; -1 for none.
        replicas: Copies in a cluster.
    """

    bucket: str
    history: int = 1
    ttl_s: float = 0.0
    key_ttl: bool = False
    max_bytes: int = -1
    replicas: int = 1

    @property
    def stream(self) -> str:
        """Return the name of the stream that holds the bucket."""
        return f"KV_{self.bucket}"

    def config(self, *, epoch: int, first_sequence: int = 0) -> api.StreamConfig:
        """Return the configuration of the bucket's stream (NATS ADR-8); see `StreamSpec.config`."""
        return api.StreamConfig(
            name=self.stream,
            subjects=[f"$KV.{self.bucket}.>"],
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            max_msgs_per_subject=self.history,
            max_age=self.ttl_s,
            max_bytes=self.max_bytes,
            duplicate_window=min(120.0, self.ttl_s) if self.ttl_s else 120.0,
            num_replicas=self.replicas,
            allow_rollup_hdrs=True,
            deny_delete=True,
            allow_direct=True,
            allow_atomic=True,
            allow_msg_ttl=self.key_ttl or None,
            first_seq=first_sequence or None,
            metadata={EPOCH_KEY: str(epoch)},
        )


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream holds: epoch, first and last sequence, number of messages."""

    epoch: int
    first_sequence: int
    last_sequence: int
    messages: int
