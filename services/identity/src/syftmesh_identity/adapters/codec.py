"""Records as JSON in key-value buckets; what does not parse is damage, never an absent record."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final, Protocol, TypeVar

from syftmesh_core.errors import IntegrityFailure

from syftmesh_identity.domain.model import AccessRecord, Account, Device, Family, JoinState, JoinToken, Site

Record = TypeVar("Record")


class Codec(Protocol[Record]):
    """Encodes one kind of record."""

    def encode(self, record: Record) -> bytes:
        """Return the record's bytes."""
        ...

    def decode(self, data: bytes) -> Record:
        """Return the record in `data`.

        Raises:
            IntegrityFailure: RECORD_DAMAGED.
        """
        ...


class JsonCodec(Codec[Record]):
    """A dataclass as one JSON object.

    Args:
        build: Makes the record of the parsed object.
    """

    def __init__(self, build: Callable[[dict[str, Any]], Record]) -> None:
        self._build = build

    def encode(self, record: Record) -> bytes:
        """Return the record's bytes."""
        return json.dumps(asdict(record), separators=(",", ":"), default=_plain).encode()  # type: ignore[call-overload]

    def decode(self, data: bytes) -> Record:
        """Return the record in `data`; raises as `Codec.decode`."""
        try:
            return self._build(json.loads(data))
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityFailure(
                "A record of the identity service is damaged. Restore it from a backup.",
                reason="RECORD_DAMAGED",
            ) from error


def _plain(value: object) -> object:
    if isinstance(value, JoinState):
        return value.value
    raise TypeError(type(value).__name__)


def _account(found: dict[str, Any]) -> Account:
    return Account(**{**found, "device_ids": tuple(found["device_ids"])})


def _family(found: dict[str, Any]) -> Family:
    return Family(**{**found, "access": tuple(AccessRecord(**record) for record in found["access"])})


def _join_token(found: dict[str, Any]) -> JoinToken:
    return JoinToken(**{**found, "state": JoinState(found["state"])})


DEVICES: Final = JsonCodec(lambda found: Device(**found))
ACCOUNTS: Final = JsonCodec(_account)
FAMILIES: Final = JsonCodec(_family)
JOIN_TOKENS: Final = JsonCodec(_join_token)
SITES: Final = JsonCodec(lambda found: Site(**found))
