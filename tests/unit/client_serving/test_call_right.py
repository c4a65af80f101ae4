"""The site decides about a caller by itself, from rules that it has verified."""

from __future__ import annotations

import pytest
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_client.call_right import SignedRights
from syftmesh_client.incoming import IncomingCall
from syftmesh_core.errors import IntegrityFailure, PermissionDenied
from syftmesh_core.path import MeshPath
from syftmesh_core.permission import RuleTree, parse_ruleset
from syftmesh_kit.testing import FakeClock

SITE = "bob@y.example"


class Rules:
    def __init__(self, **files: bytes) -> None:
        parsed = [(tuple(k.split("__")), parse_ruleset(v), 1) for k, v in files.items()]
        self.found = RuleTree.build(SITE, parsed)
        self.forged = False
        self.asked: list[str] = []

    async def tree(self, path: MeshPath) -> RuleTree:
        self.asked.append(str(path))
        if self.forged:
            raise IntegrityFailure("forged", reason="RULES_UNTRUSTED")
        return self.found


def incoming(sender: str, endpoint: str = "say") -> IncomingCall:
    return IncomingCall("1", sender, b"", "dev", SITE, "chat", endpoint, RequestContent(), 1)


def rule(access: str) -> bytes:
    return f'rules:\n  - pattern: "**"\n    access: {access}\n'.encode()


async def test_write_on_the_endpoints_directory_is_the_right_to_call():
    rules = Rules(app_data__chat__rpc=rule('{write: ["alice@x.example"]}'))
    check = SignedRights(rules, FakeClock())  # type: ignore[arg-type]
    await check(incoming("alice@x.example"))
    with pytest.raises(PermissionDenied):
        await check(incoming("eve@z.example"))
    assert rules.asked[0] == f"{SITE}/app_data/chat/rpc/say/call"


@pytest.mark.parametrize("access", ['{read: ["USER"]}', '{create: ["USER"]}'])
async def test_lesser_rights_do_not_let_anybody_call(access):
    check = SignedRights(Rules(app_data__chat__rpc=rule(access)), FakeClock())  # type: ignore[arg-type]
    with pytest.raises(PermissionDenied):
        await check(incoming("alice@x.example"))


async def test_rule_file_in_the_endpoints_own_folder_applies():
    rules = Rules(app_data__chat__rpc=rule('{write: ["USER"]}'), app_data__chat__rpc__admin=b"rules: []\n")
    check = SignedRights(rules, FakeClock())  # type: ignore[arg-type]
    await check(incoming("alice@x.example"))
    with pytest.raises(PermissionDenied):
        await check(incoming("alice@x.example", "admin"))


async def test_owner_needs_no_rules_and_forged_ones_let_nobody_in():
    rules = Rules()
    rules.forged = True
    check = SignedRights(rules, FakeClock())  # type: ignore[arg-type]
    await check(incoming(SITE))
    with pytest.raises(IntegrityFailure):
        await check(incoming("alice@x.example"))
