"""How a sealed content looks as a Flower message, and what is inside of it.

A message keeps its type, group and addresses, for Flower routes by them. Its content is one array of bytes, the
ciphertext, and the wrapped key for the site concerned. The plain content begins with a header that says again what
the envelope says, so that a hub cannot pass a training message off as an evaluation, or an old one as a new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.common.serde import recorddict_from_proto
from flwr.proto.recorddict_pb2 import RecordDict as Content
from google.protobuf.message import DecodeError
from syftmesh_core.errors import IntegrityFailure

from syftmesh_flower.seal import Direction, RunKey, open_content

BODY_RECORD: Final = "syftmesh.body"
KEY_RECORD: Final = "syftmesh.key"
SEALED_TYPE: Final = "syftmesh.sealed.1"
_MAX_HEADER_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class InnerHeader:
    """What the sealed part says of itself.

    Attributes:
        message_type: Flower's type of the message.
        group_id: Flower's group, the round as a rule.
        sequence: Grows with every message of a run in one direction; a site takes none twice.
    """

    message_type: str
    group_id: str
    sequence: int


def pack_plain(header: InnerHeader, content: bytes) -> bytes:
    """Return header and content as one text to seal."""
    head = json.dumps([header.message_type, header.group_id, header.sequence]).encode()
    return b"".join((len(head).to_bytes(2, "big"), head, content))


def unpack_plain(plain: bytes) -> tuple[InnerHeader, bytes]:
    """Return header and content of what was sealed.

    Raises:
        IntegrityFailure: UPDATE_UNREADABLE: it has no such form.
    """
    size = int.from_bytes(plain[:2], "big")
    try:
        message_type, group_id, sequence = json.loads(plain[2 : 2 + size])
        if size > _MAX_HEADER_BYTES or not isinstance(sequence, int):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise unreadable() from error
    return InnerHeader(str(message_type), str(group_id), sequence), plain[2 + size :]


def sealed_contents(ciphertext: bytes, wraps: Mapping[str, bytes]) -> dict[str, RecordDict]:
    """Return one content per site; all share the array, which therefore goes to the SuperLink once."""
    body = ArrayRecord(
        {"body": Array(dtype="uint8", shape=(len(ciphertext),), stype=SEALED_TYPE, data=ciphertext)}
    )
    return {
        site: RecordDict({BODY_RECORD: body, KEY_RECORD: ConfigRecord({"wrap": wrap})})
        for site, wrap in wraps.items()
    }


def sealed_parts(content: RecordDict) -> tuple[bytes, bytes]:
    """Return ciphertext and wrapped key of a sealed content.

    Raises:
        IntegrityFailure: UPDATE_NOT_SEALED: it is something else; nothing unsealed is ever taken.
    """
    try:
        if set(content.keys()) != {BODY_RECORD, KEY_RECORD}:
            raise KeyError
        body, key = content.array_records[BODY_RECORD], content.config_records[KEY_RECORD]
        array, wrap = body["body"], key["wrap"]
        if set(body.keys()) != {"body"} or array.stype != SEALED_TYPE or not isinstance(wrap, bytes):
            raise KeyError
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityFailure(
            "A message of the run is not sealed, so it was not taken.", reason="UPDATE_NOT_SEALED"
        ) from error
    return array.data, wrap


def open_message(
    message: Message, key: RunKey, *, run_id: str, direction: Direction, site: str, context: bytes
) -> tuple[InnerHeader, bytes]:
    """Return header and content of a sealed message, whose envelope says the same as its header.

    Args:
        message: As received.
        key: The secret of run and site.
        run_id: The run that it has to be of.
        direction: The direction that it has to have.
        site: The site that it has to be for or from.
        context: What it has to belong to.

    Raises:
        IntegrityFailure: UPDATE_NOT_SEALED, UPDATE_UNREADABLE.
    """
    ciphertext, wrap = sealed_parts(message.content)
    plain = open_content(
        ciphertext, wrap, key, run_id=run_id, direction=direction, site=site, context=context
    )
    header, content = unpack_plain(plain)
    if (header.message_type, header.group_id) != (message.metadata.message_type, message.metadata.group_id):
        raise unreadable()
    return header, content


def parse_content(data: bytes) -> RecordDict:
    """Return the records in `data`, which may come from anywhere.

    Raises:
        IntegrityFailure: UPDATE_MALFORMED.
    """
    try:
        return recorddict_from_proto(Content.FromString(data))
    except (DecodeError, ValueError, TypeError, KeyError) as error:
        raise IntegrityFailure("The content is no Flower record.", reason="UPDATE_MALFORMED") from error


def unreadable() -> IntegrityFailure:
    """Return the error for a sealed content that does not open."""
    return IntegrityFailure(
        "A message of the run does not open with the run's key.", reason="UPDATE_UNREADABLE"
    )
