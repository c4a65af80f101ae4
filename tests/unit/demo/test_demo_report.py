"""What the demo says at its end, its state folder, and its plan."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.clock import SystemClock, system_random
from syftmesh_core.errors import WrongState
from syftmesh_standalone.demo.canary.scan import CanaryFinding
from syftmesh_standalone.demo.data import FEATURES, pooled
from syftmesh_standalone.demo.plan import STEPS
from syftmesh_standalone.demo.program import DemoOptions, run_demo
from syftmesh_standalone.demo.report import document, table
from syftmesh_standalone.demo.step import StepResult
from syftmesh_standalone.demo.story import OWNERS, Story


def _row(diagnosis: str, n: int) -> dict[str, Any]:
    numbers = {f"{name}_{kind}": 2.0 for name in FEATURES for kind in ("mean", "std")}
    return {"diagnosis": diagnosis, "n": n, **numbers}


@pytest.fixture
def story(tmp_path: Path) -> Story:
    mesh: Any = None
    made = Story(tmp_path, mesh, SystemClock(), system_random, AsyncExitStack())
    for number, owner in enumerate(OWNERS, start=1):
        made.answers[owner] = [_row("benign", 100 * number), _row("malignant", 50 * number)]
        made.bytes_out[owner] = {"object": 10, "message": 20}
        made.audit[owner] = {"entries": 3, "checkpoints": 1, "root": "00"}
    made.pooled = pooled(list(made.answers.values()), FEATURES)
    made.scan.scanned_bytes = 17
    made.controls = {"public copy": 2, "unsealed call": 1}
    return made


def test_the_document_has_stable_keys_and_is_json(story: Story) -> None:
    found = document(story, [StepResult(1, "one", 0.5, ("held",))], 1.25, kept=True)
    assert set(found) == {
        "ok",
        "seconds",
        "steps",
        "results",
        "federated",
        "bytes_out",
        "canary",
        "audit",
        "state",
    }
    assert found["steps"] == [{"number": 1, "title": "one", "seconds": 0.5, "checks": ["held"]}]
    assert found["results"]["pooled"][0]["n"] == 300
    assert set(found["results"]["sites"]) == set(OWNERS)
    assert found["canary"]["controls"] == {"public copy": 2, "unsealed call": 1}
    assert json.loads(json.dumps(found)) == found


def test_findings_of_the_document_say_no_value(story: Story) -> None:
    story.scan.found = 1
    story.scan.findings = [CanaryFinding("objects/x", 3, "record_id 1 of a", "text")]
    assert document(story, [], 1.0, kept=False)["canary"]["findings"] == 1


def test_the_table_has_a_line_per_site_and_group(story: Story) -> None:
    lines = list(table(story))
    assert len(lines) == 1 + 2 * len(OWNERS) + 2
    assert lines[1].split()[:3] == [OWNERS[0], "benign", "100"]
    assert lines[-1].split()[:3] == ["pooled", "malignant", "150"]


def test_the_plan_counts_its_steps_and_gives_each_a_deadline() -> None:
    assert [step.number for step in STEPS] == list(range(1, len(STEPS) + 1))
    assert len({step.title for step in STEPS}) == len(STEPS)
    assert all(0 < step.deadline_s <= 400 for step in STEPS)


def test_the_table_ends_with_what_was_learned(story: Story) -> None:
    story.training.rounds, story.training.accuracy, story.training.pooled = 3, 0.97354, 0.97
    story.training.sent = {OWNERS[0]: 4288, OWNERS[1]: 4300}
    lines = list(table(story))[-3:]
    assert lines[0] == "federated: 3 rounds, accuracy 0.9735; trained on all rows in one place: 0.9700"
    assert lines[1:] == [
        f"  {n} sealed bytes of updates left {o}" for n, o in zip(("4,288", "4,300"), OWNERS, strict=True)
    ]


async def test_a_state_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(WrongState) as refused:
        await run_demo(DemoOptions(state=tmp_path), lambda _: None, steps=())
    assert refused.value.reason == "STATE_NOT_EMPTY"
    assert (tmp_path / "mine").read_text() == "kept"
