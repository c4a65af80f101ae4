"""What the hub's operator may do on the admin socket, and that nobody else is an operator."""

from __future__ import annotations

import pytest
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_core.errors import InvalidInput, NotFound, PermissionDenied
from syftmesh_core.principal import is_principal
from syftmesh_identity.domain.join import JoinTokens
from syftmesh_identity.domain.model import OPERATOR
from syftmesh_identity.domain.person import Administrators
from syftmesh_identity.servicer import ADMIN_CALLER, ADMIN_METHODS, admin_servicer

ALICE, BOB = "alice@x.example", "bob@y.example"
METHODS = sorted(method.name for method in rpc.DESCRIPTOR.services_by_name["IdentityService"].methods)


class _Servicer:
    """Answers every method with its name."""

    def __getattr__(self, name):
        async def answer(_request, _context):
            return name

        return answer


@pytest.fixture
def tokens(world) -> JoinTokens:
    return JoinTokens(
        world.stores,
        world.enrolment,
        world.sessions,
        Administrators(frozenset({OPERATOR})),
        world.clock,
        world.random,
    )


@pytest.mark.parametrize("name", METHODS)
async def test_every_method_is_either_the_operators_or_refused(name):
    method = getattr(admin_servicer(_Servicer()), name)
    if name in ADMIN_METHODS:
        assert await method(None, None) == name
        return
    with pytest.raises(PermissionDenied) as caught:
        await method(None, None)
    assert (caught.value.reason, caught.value.metadata) == ("ADMIN_SOCKET_LIMITED", {"method": name})


def test_no_person_can_be_the_operator():
    assert not is_principal(OPERATOR)
    assert (ADMIN_CALLER.principal, ADMIN_CALLER.kind) == (OPERATOR, "service")


async def test_the_operator_makes_tokens_for_anybody_and_sees_its_own(tokens, world):
    made, secret = await tokens.create(OPERATOR, ALICE, "profile", 0)
    assert made.created_by == OPERATOR
    own, _ = await tokens.create(BOB, BOB, "agent", 0)
    assert [token.token_id for token in await tokens.list(OPERATOR)] == [made.token_id]
    with pytest.raises(NotFound):
        await tokens.revoke(OPERATOR, own.token_id)
    await tokens.redeem(secret, ALICE, "dev-1")
    with pytest.raises(InvalidInput):
        await tokens.create(OPERATOR, OPERATOR, "profile", 0)
