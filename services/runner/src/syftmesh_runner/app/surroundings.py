"""What a runner is given by whoever composes it."""

from __future__ import annotations

from dataclasses import dataclass, field

from syftmesh_client.traffic import Traffic
from syftmesh_core.clock import Clock, Random
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_executor.port import Executor

from syftmesh_runner.domain.federated_port import HubRuns
from syftmesh_runner.domain.ports import HubFiles, KeyDirectory, RuntimeIdentity


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a runner is given by whoever composes it.

    Attributes:
        device: The runner's own device.
        keys: Verified device lists.
        hub: Files of the own datasite.
        executor: Runs code in isolation.
        clock: Source of times.
        random: Source of randomness.
        runtime: The runtime of jobs; the one that runs this process when None.
        runs: Federated runs at the hub; None for a runner without.
        traffic: What `hub`, `keys` and the calls count the bytes in that they send.
    """

    device: DeviceSecret
    keys: KeyDirectory
    hub: HubFiles
    executor: Executor
    clock: Clock
    random: Random
    runtime: RuntimeIdentity | None = None
    runs: HubRuns | None = None
    traffic: Traffic = field(default_factory=Traffic)
