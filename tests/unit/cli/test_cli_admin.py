"""What administrators do from the command line, by a login and at the operator's socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mesh.identity.v1 import identity_pb2, identity_service_pb2
from syftmesh_client.profile import ProfileStore

ADMIN, EVE = "admin@hub.example", "eve@lab.example"


class Identity:
    """Answers administrators."""

    def __init__(self) -> None:
        self.revoked: dict[str, bool] = {}
        self.asked = 0

    def _answer(self) -> None:
        self.asked += 1

    async def RevokePrincipal(self, request: Any) -> None:  # noqa: N802
        self._answer()
        self.revoked[request.principal] = True

    async def ReinstatePrincipal(self, request: Any) -> None:  # noqa: N802
        self._answer()
        self.revoked[request.principal] = False

    async def ListPrincipals(self, request: Any) -> Any:  # noqa: N802
        self._answer()
        names = sorted(self.revoked)
        place = names.index(request.page_token) if request.page_token else 0
        people = [
            identity_pb2.Principal(principal=name, devices=2, revoked=self.revoked[name])
            for name in names[place : place + 1]
        ]
        following = names[place + 1] if place + 1 < len(names) else ""
        return identity_service_pb2.ListPrincipalsResponse(principals=people, next_page_token=following)

    async def RotateSigningKey(self, _request: Any) -> Any:  # noqa: N802
        self._answer()
        return identity_service_pb2.RotateSigningKeyResponse(key_id="0123456789abcdef")


@pytest.fixture
def identity(program: Any) -> Identity:
    made = Identity()

    @asynccontextmanager
    async def open_node(_folder: Path, _server: str, **_options: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(principal=ADMIN, session=SimpleNamespace(identity=made))

    program.more["open_node"] = open_node
    program.state.mkdir(mode=0o700)
    ProfileStore(program.state).save(ADMIN, "https://hub.example")
    return made


def test_ending_a_person_asks_first(program: Any, identity: Identity) -> None:
    assert program("admin", "user", "revoke", EVE).err.startswith("error: CONFIRMATION_NEEDED: ")
    assert program("admin", "user", "revoke", EVE, terminal=True, answer="no\n").code == 130
    assert identity.revoked == {}
    assert program("admin", "user", "revoke", EVE.upper(), terminal=True, answer="y\n").code == 0
    assert identity.revoked == {EVE: True}
    assert program("admin", "user", "reinstate", EVE, "--json").json == {"email": EVE, "revoked": False}
    assert identity.revoked == {EVE: False}


def test_a_name_that_is_none_is_refused_before_anything_is_asked(program: Any, identity: Identity) -> None:
    for verb in ("revoke", "reinstate"):
        done = program("admin", "user", verb, "*@lab.example", "--yes")
        assert (done.code, done.err.split(": ")[1]) == (2, "PRINCIPAL_INVALID")
    assert identity.asked == 0


def test_people_are_listed_over_all_pages(program: Any, identity: Identity) -> None:
    assert program("admin", "user", "ls").err == ""
    identity.revoked = {EVE: True, ADMIN: False}
    assert program("admin", "user", "ls", "--json").json["items"] == [
        {"email": ADMIN, "devices": 2, "revoked": False},
        {"email": EVE, "devices": 2, "revoked": True},
    ]


def test_a_rotation_tells_the_new_key(program: Any, identity: Identity) -> None:
    assert program("admin", "keys", "rotate", "--json").json == {"key_id": "0123456789abcdef"}


def test_a_socket_that_is_missing_is_named_with_what_to_do(program: Any, tmp_path: Path) -> None:
    place = tmp_path / "admin.sock"
    program.environ["SYFTMESH_ADMIN_SOCKET"] = str(place)
    slept: list[float] = []
    program.more["sleep"] = slept.append
    done = program("admin", "keys", "rotate")
    assert done.code == 4
    assert done.err.startswith(f"error: ADMIN_SOCKET_MISSING: There is no socket {place}, ")
    assert "hint: In a cluster: kubectl exec " in done.err
    assert 5 < sum(slept) <= 15
