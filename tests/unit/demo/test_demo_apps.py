"""The apps that the demo carries: the trained one is the example, and the leaking one leaks what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest
from syftmesh_core.clock import system_random
from syftmesh_standalone.demo.data import private_tables
from syftmesh_standalone.demo.federated import APP
from syftmesh_standalone.demo.pooled import pooled_accuracy
from syftmesh_standalone.demo.story import OWNERS
from syftmesh_standalone.demo.unsealed_update import APP as LEAK
from syftmesh_standalone.demo.unsealed_update import _leaked

EXAMPLE = Path(__file__).parents[3] / "examples" / "breast-cancer-fl"


def _files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.suffix in {".py", ".toml"})
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_the_app_of_the_demo_is_the_example_byte_for_byte() -> None:
    assert _files(APP) == _files(EXAMPLE)
    assert len(_files(APP)) == 5


def test_neither_app_knows_anything_of_ours() -> None:
    for folder in (APP, LEAK):
        assert all(b"import syftmesh" not in content for content in _files(folder).values())
        assert all(b"from syftmesh" not in content for content in _files(folder).values())


def test_training_on_all_rows_in_one_place_is_good_and_the_same_every_time() -> None:
    tables = private_tables(OWNERS, system_random)
    first = pooled_accuracy(APP, tables)
    assert first >= 0.95
    assert pooled_accuracy(APP, tables) == first


@pytest.mark.filterwarnings("ignore:GitWildMatchPattern:DeprecationWarning")
async def test_the_leaking_app_answers_with_the_bytes_of_every_identifier() -> None:
    from syftmesh_flower.bundle import build_bundle

    names = ["9f86d081884c7d659a2feaa0c55ad015", "a3f5d081884c7d659a2feaa0c55ad0ff"]
    table = "record_id,value\n" + "".join(f"{name},1\n" for name in names)
    answer = await _leaked(build_bundle(LEAK), 7, table.encode())
    (array,) = answer.array_records["arrays"].to_numpy_ndarrays()
    assert array.tobytes() == b"".join(bytes.fromhex(name) for name in names)
