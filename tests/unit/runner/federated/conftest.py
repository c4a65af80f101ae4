"""Proposals at the site of `world`: what the aggregator sends, what the owner decides."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from mesh.federated.v1 import proposal_pb2, site_service_pb2
from syftmesh_core.federated import FEDERATED_APPROVAL_KIND
from syftmesh_core.identity.device import DeviceSecret
from syftmesh_runner.domain.federated_port import HubRun
from syftmesh_runner.domain.proposal import terms_of

CAROL, OWNER = "carol@lab.example", "alice@hospital.example"
RUN = "17446744073709551615"
RUN_KEY = b"\xfe\xedsecret-of-the-run-and-the-site"
PROJECT = b"""
[project]
name = "breast-cancer"
version = "1.0.0"

[tool.flwr.app]
publisher = "carol"

[tool.flwr.app.components]
serverapp = "app.server:app"
clientapp = "app.client:app"
"""
FILES = {"pyproject.toml": PROJECT, "app/client.py": b"app = 1\n", "app/server.py": b"app = 2\n"}


def make_zip(files: Mapping[str, bytes]) -> bytes:
    """Return the bundle of `files`, as Flower writes it."""
    lines = [f"{name},{hashlib.sha256(data).hexdigest()},{len(data) * 8}" for name, data in files.items()]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**files, ".info/CONTENT": "\n".join(lines).encode()}.items():
            archive.writestr(zipfile.ZipInfo(name), content, compress_type=zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@dataclass
class Federated:
    """The site as aggregator and owner use it."""

    world: Any
    bundle: bytes = make_zip(FILES)

    @property
    def parts(self) -> Any:
        return self.world.module.federated

    @property
    def runs(self) -> Any:
        """What the executor of tasks asks."""
        return self.parts.tasks._approved

    @property
    def proposals(self) -> Any:
        return self.world.module._state.proposals

    def message(self, **changes: Any) -> proposal_pb2.RunProposal:
        root = self.world.roots[CAROL].hex()
        fields: dict[str, Any] = {
            "run_id": RUN,
            "app_digest": hashlib.sha256(self.bundle).hexdigest(),
            "dataset": "people",
            "run_config_json": '{"lr":0.1}',
            "recipients": [proposal_pb2.RunRecipient(email=CAROL, root=root)],
            "train_tasks": 3,
            "evaluate_tasks": 2,
            "limits": proposal_pb2.UpdateLimits(max_update_bytes=1 << 20, max_norm=2.5, min_rows=10),
            "purpose": "prognosis",
            "deadline_unix_ms": self.world.clock.ms + 3_600_000,
            "run_key": RUN_KEY,
            "partition": 1,
            "partitions": 3,
            **changes,
        }
        return proposal_pb2.RunProposal(**fields)

    async def prepare(self) -> None:
        """Let there be the dataset and the run at the hub."""
        if self.world.module._state.datasets.get("people") is None:
            await self.world.create_dataset()
        self.world.runs.runs.setdefault(RUN, HubRun(CAROL, "awaiting_approval"))
        self.world.runs.bundles.setdefault(RUN, self.bundle)

    async def call(self, endpoint: str, message: Any, sender: str = CAROL) -> proposal_pb2.ProposalStatus:
        body = await self.world.reply_to("fl", self.parts.endpoints, endpoint, message, sender)
        return proposal_pb2.ProposalStatus.FromString(body)

    async def propose(self, sender: str = CAROL, **changes: Any) -> proposal_pb2.ProposalStatus:
        await self.prepare()
        return await self.call("propose", self.message(**changes), sender)

    async def approval(self, by: DeviceSecret | None = None, /, **changes: Any) -> bytes:
        terms = json.loads(terms_of(self.proposals.get(RUN)).to_json())
        return self.world.signed(FEDERATED_APPROVAL_KIND, {**terms, **changes}, by)

    async def approve(self, signed: bytes | None = None) -> proposal_pb2.Proposal:
        request = site_service_pb2.ApproveProposalRequest(
            run_id=RUN, signed_approval=signed or await self.approval()
        )
        return (await self.parts.servicer.ApproveProposal(request, None)).proposal

    async def deny(self, reason: str = "") -> proposal_pb2.Proposal:
        request = site_service_pb2.DenyProposalRequest(run_id=RUN, reason=reason)
        return (await self.parts.servicer.DenyProposal(request, None)).proposal

    async def withdraw(self, reason: str = "") -> proposal_pb2.Proposal:
        request = site_service_pb2.WithdrawApprovalRequest(run_id=RUN, reason=reason)
        return (await self.parts.servicer.WithdrawApproval(request, None)).proposal

    async def get(self, run_id: str = RUN) -> proposal_pb2.Proposal:
        request = site_service_pb2.GetProposalRequest(run_id=run_id)
        return (await self.parts.servicer.GetProposal(request, None)).proposal

    async def approved(self, **changes: Any) -> None:
        await self.propose(**changes)
        await self.approve()

    async def authorise(self, **changes: Any) -> Any:
        fields = {
            "run_id": RUN,
            "app_digest": hashlib.sha256(self.bundle).hexdigest(),
            "now_ms": self.world.clock.ms,
            **changes,
        }
        kind = fields.pop("kind", None)
        return await self.runs.authorise(**fields, kind=kind)

    def state(self) -> str:
        return str(self.proposals.get(RUN).state)

    def kinds(self) -> list[str]:
        return [kind for kind in self.world.audit_kinds() if kind.startswith("federated.")]


@pytest.fixture
def fl(world: Any) -> Federated:
    return Federated(world)


@pytest.fixture
def zipped() -> Callable[..., bytes]:
    return make_zip


@pytest.fixture
def app_files() -> dict[str, bytes]:
    return dict(FILES)


@pytest.fixture
def run_key() -> bytes:
    assert len(RUN_KEY) == 32
    return RUN_KEY
