"""Published vectors, first of all."""

from __future__ import annotations

import base64

import pytest
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.keylog import merkle
from syftmesh_core.keylog.checkpoint import LogKey, open_checkpoint
from syftmesh_core.keylog.merkle import CompactRange, TreeHead
from syftmesh_core.keylog.note import NoteKey, open_note, sign_note
from syftmesh_core.keylog.proof import (
    consistency_proof,
    inclusion_proof,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from syftmesh_core.keylog.tile import Tile, grow, parse_tile_path


def unhex(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def key_of(text: str) -> tuple[NoteKey, str]:
    """Return the key of a verifier's text ``name+id+key`` and its id."""
    name, key_id, encoded = text.split("+", 2)
    return NoteKey(name, base64.b64decode(encoded)[1:]), key_id


@pytest.fixture(scope="module")
def reference(published, grown):
    return grown(unhex(published["tree"]["leaves"]))


def test_roots_are_those_of_the_reference_tree(published, reference):
    vector = published["tree"]
    assert merkle.EMPTY_ROOT.hex() == vector["empty_root"] == CompactRange().head().root.hex()
    for size, root in enumerate(unhex(vector["roots"]), start=1):
        assert reference.head(size).root == root
        assert root_of(size, reference.nodes()) == root


def test_inclusion_proofs_are_those_of_the_reference_tree(published, reference):
    vector = published["tree"]
    for case in vector["inclusion"]:
        proof = unhex(case["proof"])
        assert list(inclusion_proof(case["index"], case["size"], reference.nodes())) == proof
        head = TreeHead(case["size"], bytes.fromhex(vector["roots"][case["size"] - 1]))
        verify_inclusion(merkle.leaf_hash(reference.data[case["index"]]), case["index"], proof, head)


def test_consistency_proofs_are_those_of_the_reference_tree(published, reference):
    vector = published["tree"]
    for case in vector["consistency"]:
        proof = unhex(case["proof"])
        assert list(consistency_proof(case["first"], case["second"], reference.nodes())) == proof
        old, new = (
            TreeHead(n, bytes.fromhex(vector["roots"][n - 1])) for n in (case["first"], case["second"])
        )
        verify_consistency(old, new, proof)


def test_notes_are_signed_and_opened_as_by_go(published, held_key):
    vector = published["note"]
    keys = [key_of(text) for text in vector["verifier_keys"]]
    note = (vector["text"] + "\n" + "".join(vector["signatures"])).encode()
    for key, key_id in keys:
        assert key.key_id.hex() == key_id
        assert open_note(note, key) == vector["text"]
    seed = base64.b64decode(vector["private_key"].split("+", 4)[4])[1:]
    signer = held_key("PeterNeumann", seed)
    assert sign_note(vector["text"], signer.note_key, signer).decode() == (
        vector["text"] + "\n" + vector["signatures"][0]
    )


def test_note_of_go_with_a_wrong_line_is_refused(published):
    vector = published["note"]
    key, _ = key_of(vector["verifier_keys"][0])
    text, (peter, enoch) = vector["text"], vector["signatures"]
    for note in (
        text,
        text + "\n",
        text + "\n" + peter[:-1],
        "\x01" + text + "\n" + peter,
        text + "\n" + peter.replace("PeterNeumann", "Bad Name"),
        text + "\n" + peter + "Unexpected line.\n",
        text + "\n" + peter[:60] + "ABCD" + peter[60:],
        text + "\n" + peter * 17,
        text + "\n" + enoch,
    ):
        with pytest.raises(IntegrityFailure) as caught:
            open_note(note.encode(), key)
        assert caught.value.reason == "LOG_HEAD_INVALID"
    with pytest.raises(IntegrityFailure):
        open_note(b"\xff" + (text + "\n" + peter).encode(), key)


def test_heads_of_gos_checksum_database_hold(published):
    vector = published["checkpoint"]
    key, key_id = key_of(vector["verifier_key"])
    assert key.key_id.hex() == key_id
    for note in vector["notes"]:
        head = open_checkpoint(note.encode(), LogKey(vector["origin"], key))
        assert str(head.size) == note.split("\n")[1]
        assert base64.b64encode(head.root).decode() == note.split("\n")[2]


def test_tiles_are_named_and_partial_as_the_specification_says(published, memory_tiles):
    vector = published["tiles"]
    named = Tile(3, vector["index"], 112)
    assert named.path == f"tile/3/{vector['name']}.p/112"
    assert parse_tile_path(named.path) == named
    for tree in vector["trees"]:
        found = {tile for tile, _ in grow(0, [bytes(32)] * tree["size"], memory_tiles)}
        expected = set()
        for level, (full, partial) in enumerate(tree["levels"]):
            expected |= {Tile(level, index) for index in range(full)}
            expected |= {Tile(level, full, partial)} if partial else set()
        assert found == expected
