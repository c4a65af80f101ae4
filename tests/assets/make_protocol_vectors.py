"""Writes protocol_vectors.json from fixed keys; run by hand, and only when the protocol's version changes.

Everything but the sealed blob is repeatable: HPKE draws its own randomness, so that vector is for the
receiving side.
"""

from __future__ import annotations

import json
from pathlib import Path

from syftmesh_core.audit_chain import append, entry_digest, sign_checkpoint
from syftmesh_core.enc import encode
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_core.identity.device_list import parse_list, sign_first_list, sign_next_list
from syftmesh_core.identity.phrase import AccountRoot, phrase_of
from syftmesh_core.identity.safety_number import safety_number
from syftmesh_core.record import ContentHeader, FileRecord, content_digest, record_digest, sign_record
from syftmesh_core.sealed import SealHeader, seal
from syftmesh_core.statement import Statement, sign_statement

ALICE, BOB = "alice@x.example", "bob@x.example"
ENTROPY = bytes(range(32))


def device(principal: str, device_id: str, first: int, *, serves: bool, admin: bool) -> DeviceSecret:
    """Return a device whose three seeds are 32 equal bytes each: `first`, and the next two numbers."""
    seeds = (bytes([first]) * 32, bytes([first + 1]) * 32, bytes([first + 2]) * 32)
    return DeviceSecret(principal, device_id, seeds, epoch=1, serves=serves, admin=admin)


def repeatable() -> dict[str, object]:
    """Return all vectors that are the same at each run."""
    root = AccountRoot(ENTROPY)
    alice = device(ALICE, "device-a", 0x10, serves=True, admin=True)
    bob = device(BOB, "device-b", 0x20, serves=True, admin=False)
    first = sign_first_list(ALICE, [alice.public()], root)
    added = device(ALICE, "device-c", 0x30, serves=False, admin=False).public()
    second = sign_next_list(parse_list(first), [alice.public(), added], alice)
    content = ContentHeader(
        sealed=False,
        object_id="ab" * 32,
        stored_size_bytes=1234,
        plain_blake3=b"\x07" * 32,
        plain_size_bytes=1234,
    )
    record = FileRecord(
        site=ALICE,
        path="public/h\u00e9llo.txt",
        revision=1,
        previous_digest=None,
        content_digest=content_digest(content),
        epoch=0,
        deleted=False,
        rules_checkpoint=None,
        author=ALICE,
        device_id="device-a",
        created_ms=1_700_000_000_000,
    )
    signed = sign_record(record, content, alice)
    statement = Statement(
        kind="rds.approval",
        issuer=ALICE,
        device_id="device-a",
        issued_ms=1_700_000_000_000,
        expires_ms=1_700_000_600_000,
        body={"job": "j-1", "epsilon": 0.5, "recipients": [BOB], "note": "\u00e9", "all": None},
    )
    one = append(None, at_ms=1, kind="job.submitted", actor=BOB, fields={"job": "j-1"})
    two = append(one, at_ms=2, kind="job.approved", actor=ALICE, fields={"job": "j-1", "k": 1})
    point = sign_checkpoint(ALICE, two, 3, alice)
    return {
        "enc": {
            "label": "example",
            "fields": "7, 'h\u00e9' decomposed, bytes 0102, true, false, absent, ['a', bytes 6263], {'b': 1, "
            "'a': [true]}, []",
            "encoded": encode(
                "example",
                [7, "he\u0301", b"\1\2", True, False, None, ["a", b"bc"], {"b": 1, "a": [True]}, []],
            ).hex(),
        },
        "root": {
            "phrase": " ".join(phrase_of(ENTROPY)),
            "entropy": ENTROPY.hex(),
            "public": root.public_key.hex(),
        },
        "device": {
            "seeds": ["10" * 32, "11" * 32, "12" * 32],
            "alice": alice.public().encoded.hex(),
            "bob": bob.public().encoded.hex(),
        },
        "device_list": {"lists": [first.hex(), second.hex()], "digest": parse_list(second).digest.hex()},
        "record": {
            "record": signed.record.hex(),
            "content": signed.content.hex(),
            "signature": signed.signature.hex(),
            "digest": record_digest(signed).hex(),
        },
        "statement": {"signed": sign_statement(statement, alice).hex()},
        "audit": {
            "digests": [entry_digest(one).hex(), entry_digest(two).hex()],
            "checkpoint_signature": point.signature.hex(),
        },
        "safety_number": safety_number(ALICE, root.public_key, BOB, AccountRoot(bytes(32)).public_key),
    }


def sealed() -> dict[str, object]:
    """Return a blob from alice to bob, which differs at each run."""
    alice = device(ALICE, "device-a", 0x10, serves=True, admin=True)
    bob = device(BOB, "device-b", 0x20, serves=True, admin=False)
    header = SealHeader(
        kind="rds.submission",
        sender_root=AccountRoot(ENTROPY).public_key,
        sender=ALICE,
        sender_device="device-a",
        receiver=BOB,
        ids=("j-1", "c-1"),
        expires_ms=1_700_000_600_000,
    )
    plaintext = b"sealed for bob"
    blob = seal(plaintext, header=header, readers=[bob.public()], signer=alice, pad_to_bytes=64)
    seeds = ["20" * 32, "21" * 32, "22" * 32]
    return {"reader_seeds": seeds, "plaintext": plaintext.hex(), "blob": blob.hex()}


if __name__ == "__main__":
    target = Path(__file__).with_name("protocol_vectors.json")
    target.write_text(json.dumps({**repeatable(), "sealed": sealed()}, indent=1) + "\n")
