"""The steps of the demo in their order; a further one is a further line."""

from __future__ import annotations

from typing import Final

from syftmesh_standalone.demo.decision import approval, submission
from syftmesh_standalone.demo.federated import model, proposal, rounds
from syftmesh_standalone.demo.guard import answer, gate, isolation
from syftmesh_standalone.demo.opening import datasets, discovery, mesh_up, people, rehearsal
from syftmesh_standalone.demo.proof import audit, canary
from syftmesh_standalone.demo.step import Step
from syftmesh_standalone.demo.story import Story

STEPS: Final[tuple[Step[Story], ...]] = (
    Step(1, "the mesh is up", mesh_up, 400),
    Step(2, "three people, each with keys of their own", people),
    Step(3, "two owners register private tables", datasets),
    Step(4, "the scientist finds them and reads the mocks", discovery),
    Step(5, "the analysis runs on a mock", rehearsal),
    Step(6, "the scientist submits it to both owners", submission),
    Step(7, "each owner reviews it and signs", approval, 120),
    Step(8, "nothing gets out of the sandbox", isolation, 150),
    Step(9, "nothing private passes the release gate", gate, 150),
    Step(10, "the scientist opens the results", answer),
    Step(11, "nothing private is at the hub", canary, 300),
    Step(12, "the owners' audit proves it", audit),
    Step(13, "a Flower app is submitted; each owner reviews and signs it", proposal, 150),
    Step(14, "it trains over both sites", rounds, 400),
    Step(15, "what was learned, a changed app refused, and the proof over everything", model, 400),
)
