"""The bus of an installed hub is full: senders, writers and operators are told so by name, and nothing goes round."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from syftmesh_standalone.demo.cluster.installation import HUB, ClusterOptions, Installation
from syftmesh_standalone.demo.cluster.kubectl import Tool

sys.path.insert(0, str(Path(__file__).parent))

from mesh_load import load_namespace
from mesh_pod import KubectlFailed, eventually, helm, kubectl, restarted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small_hub(
    on_cluster: None, chart_values: dict[str, tuple[Path, ...]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """A hub whose bus may keep 12 MB."""
    del on_cluster
    small = tmp_path_factory.mktemp("small") / "small.yaml"
    small.write_text("nats: {maxFileStore: 12MB}\n")
    values = {**chart_values, "syftmesh": (*chart_values["syftmesh"], small)}
    options = ClusterOptions(f"meshtest-{secrets.token_hex(3)}", ROOT / "charts", values)
    made = Installation(options, (), Tool("kubectl"), Tool("helm"), lambda line: None)
    try:
        asyncio.run(made.install_hub())
        yield made
    finally:
        asyncio.run(made.uninstall())


def test_a_bus_that_is_full_is_told_by_name_to_all_whom_it_concerns(small_hub: Installation) -> None:
    with load_namespace(small_hub) as (load, mark):
        away, filler = f"away-{mark}@load.example", f"filler-{mark}@load.example"
        load.begin(small_hub, "away", "serve", away, filler)
        load.end("away")  # its site is not there: what is sent to it is kept
        load.begin(small_hub, "filler", "fill", filler, away)

        def told() -> list[str]:
            record = load.record("filler")
            return [line["kind"] for line in record] if record[-1]["kind"] == "write" else []

        eventually(told, 200, "the end of what the bus takes")
        [full] = [line for line in load.record("filler") if line["kind"] == "full"]
        [write] = [line for line in load.record("filler") if line["kind"] == "write"]
        sys.stdout.write(f"{full}\n{write}\n")
        assert full["sent"] > 20
        assert full["reason"] == "STREAM_FULL"
        assert write["reason"] == "STREAM_FULL"

    namespace = small_hub.options.hub_namespace
    with pytest.raises(KubectlFailed) as failed:
        helm("test", HUB, "--namespace", namespace, "--timeout", "180s")
    said = str(failed.value)
    sys.stdout.write(said)
    assert any("fail" in line and "bus space" in line for line in said.splitlines()), said
    kubectl("delete", "pod", f"{HUB}-doctor", "--namespace", namespace, "--ignore-not-found")
    assert restarted(namespace) == {}
