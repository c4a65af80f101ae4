"""Checkpoints: heads of the log, signed.

Source: C2SP tlog-checkpoint. The text of the note is the origin, the size in decimal and the root in base64,
a line each. Extension lines, which nobody could audit, are refused.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import NoReturn

from syftmesh_core.errors import IntegrityFailure, InvalidInput
from syftmesh_core.keylog.merkle import TreeHead
from syftmesh_core.keylog.note import NoteKey, Signer, decode_base64, open_note, sign_note

_LINES = 3
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class LogKey:
    """Which log this is: what a client pins at login or join.

    Attributes:
        origin: The log's name, e.g. ``hub.example/keys``: one line, not empty.
        key: Its key; the key's name is usually the origin.

    Raises:
        InvalidInput: LOG_KEY_INVALID for an origin that is no line.
    """

    origin: str
    key: NoteKey

    def __post_init__(self) -> None:
        if not self.origin or not self.origin.isprintable():
            raise InvalidInput("The origin of a log is one line of text.", reason="LOG_KEY_INVALID")


def sign_checkpoint(head: TreeHead, log: LogKey, signer: Signer) -> bytes:
    """Return `head`, signed by the key of `log`; only over leaves that are journaled already.

    Raises:
        IntegrityFailure: SIGNATURE_INVALID when `signer` signs by another key.
    """
    root = base64.b64encode(head.root).decode()
    return sign_note(f"{log.origin}\n{head.size}\n{root}\n", log.key, signer)


def open_checkpoint(data: bytes, log: LogKey) -> TreeHead:
    """Return the head in `data`, once it is of `log` and signed by its key.

    Raises:
        IntegrityFailure: LOG_HEAD_INVALID.
    """
    lines = open_note(data, log.key).split("\n")[:-1]
    if len(lines) != _LINES:
        _refuse("it is not three lines")
    origin, size, encoded = lines
    if origin != log.origin:
        _refuse("it is of another log")
    root = decode_base64(encoded)
    if _SIZE.fullmatch(size) is None or root is None:
        _refuse("its size or its root has not its form")
    return TreeHead(int(size), root)


def _refuse(what: str) -> NoReturn:
    raise IntegrityFailure(f"The head of the key log is refused: {what}.", reason="LOG_HEAD_INVALID")
