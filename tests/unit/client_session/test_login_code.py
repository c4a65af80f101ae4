"""Logins by what a person brings, on a stub that plays the hub."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from mesh.identity.v1 import identity_pb2
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh_client import login_code, node
from syftmesh_client.account import create_account
from syftmesh_client.keystore import KeyStore
from syftmesh_client.login_code import LoginMethods, by_code, by_provider, login_methods, request_code
from syftmesh_client.login_provider import ProviderPrompt
from syftmesh_client.node import NodeLogin, _relogin
from syftmesh_client.profile import ProfileStore
from syftmesh_client.site import open_account
from syftmesh_client.token_file import StoredTokens, TokenFile
from syftmesh_client.token_source import TokenSource
from syftmesh_client.wellknown import WellKnown
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import Unauthenticated, WrongState
from syftmesh_kit.testing import FakeClock

ALICE = "alice@x.example"
HUB = "127.0.0.1:8081"


@dataclass
class Identity:
    """The hub's identity service; every answer is the same."""

    principal: str = ALICE
    error: Exception | None = None
    asked: list[Any] = field(default_factory=list)
    addresses: list[tuple[str, Any]] = field(default_factory=list)

    async def _answer(self, request: Any, answer: Any) -> Any:
        self.asked.append(request)
        if self.error is not None:
            raise self.error
        return answer

    def _pair(self) -> identity_pb2.TokenPair:
        pair = identity_pb2.TokenPair(access_token="access", refresh_token="refresh")
        pair.access_expires_at.seconds, pair.refresh_expires_at.seconds = 2_000_000_000, 2_100_000_000
        return pair

    async def ListLoginMethods(self, request: Any, **_: Any) -> Any:  # noqa: N802 - name of the RPC
        return await self._answer(request, rpc.ListLoginMethodsResponse(code=True, providers=["a", "b"]))

    async def RequestCode(self, request: Any, **_: Any) -> Any:  # noqa: N802 - name of the RPC
        return await self._answer(request, rpc.RequestCodeResponse())

    async def LoginWithCode(self, request: Any, **_: Any) -> Any:  # noqa: N802 - name of the RPC
        return await self._answer(request, rpc.LoginWithCodeResponse(tokens=self._pair()))


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Identity:
    made = Identity()

    @asynccontextmanager
    async def identity_stub(address: str, tls: Any) -> AsyncIterator[Any]:
        made.addresses.append((address, tls))
        yield made

    async def provider(
        _stub: Any, name: str, device_id: str, label: str, show: Any, _sleep: Any, *, principal: str
    ) -> tuple[str, identity_pb2.TokenPair]:
        made.asked.append((name, device_id, label, principal))
        show(ProviderPrompt("https://idp.example", "", "WX", 1))
        return made.principal, made._pair()

    monkeypatch.setattr(login_code, "identity_stub", identity_stub)
    monkeypatch.setattr(login_code, "login_by_provider", provider)
    return made


async def test_the_hub_says_how_one_can_log_in(identity: Identity) -> None:
    found = await login_methods(HUB)
    assert found == LoginMethods(local=False, code=True, providers=("a", "b"), guests=False)
    assert identity.addresses == [(HUB, None)]


async def test_a_code_is_asked_for(identity: Identity) -> None:
    await request_code(HUB, principal=ALICE)
    assert identity.asked == [rpc.RequestCodeRequest(principal=ALICE)]


async def test_a_code_gives_tokens(identity: Identity) -> None:
    tokens = await by_code("abcd efgh")(HUB, principal=ALICE, device_id="d", label="profile", tls=None)
    asked = rpc.LoginWithCodeRequest(principal=ALICE, code="abcd efgh", device_id="d", label="profile")
    assert identity.asked == [asked]
    assert tokens == StoredTokens(ALICE, "d", "access", 2_000_000_000_000, "refresh", 2_100_000_000_000)


async def test_a_wrong_code_is_brought_once(identity: Identity) -> None:
    identity.error = Unauthenticated("no", reason="CODE_INVALID")
    with pytest.raises(Unauthenticated):
        await by_code("x")(HUB, principal=ALICE, device_id="d", label="profile", tls=None)
    assert len(identity.asked) == 1


async def test_a_provider_gives_tokens_when_it_knows_the_same_person(identity: Identity) -> None:
    shown: list[ProviderPrompt] = []
    log_in = by_provider("corp", shown.append)
    tokens = await log_in(HUB, principal=ALICE, device_id="d", label="profile", tls=None)
    assert (tokens.principal, tokens.access_token) == (ALICE, "access")
    assert identity.asked == [("corp", "d", "profile", ALICE)]
    assert shown[0].user_code == "WX"


async def test_tokens_of_somebody_else_are_not_taken_where_the_hub_does_not_look_at_it(
    identity: Identity,
) -> None:
    identity.principal = "bob@y.example"
    with pytest.raises(WrongState) as caught:
        await by_provider("corp", lambda _: None)(
            HUB, principal=ALICE, device_id="d", label="profile", tls=None
        )
    assert caught.value.reason == "PRINCIPAL_DIFFERS"
    assert "bob@y.example" in caught.value.hint


def test_a_device_that_was_never_logged_in_needs_a_way(tmp_path: Any) -> None:
    assert not NodeLogin().has_way
    for login in (NodeLogin(tmp_path), NodeLogin(join_token_file=tmp_path), NodeLogin(person=by_code("x"))):
        assert login.has_way


async def test_what_the_person_brings_is_used_when_there_are_no_tokens_or_they_have_ended(
    identity: Identity, tmp_path: Any
) -> None:
    account = create_account(ALICE, SystemClock())
    keys = KeyStore.create(tmp_path, device=account.device, own_root=account.root_public)
    known = WellKnown("embedded", HUB, "1")
    relogin = _relogin(known, NodeLogin(person=by_code("ABCD-EFGH")), keys, None)
    source = TokenSource(TokenFile(tmp_path), FakeClock(), relogin=relogin)
    assert (await source.open()).device_id == account.device.device_id
    await source.open()
    assert len(identity.asked) == 1

    async def ended(_tokens: StoredTokens) -> StoredTokens:
        raise Unauthenticated("no", reason="REFRESH_INVALID")

    source.refuse("access")
    await source.access_token(ended)
    assert len(identity.asked) == 2


async def test_a_code_that_is_wrong_makes_neither_keys_nor_phrase(
    identity: Identity, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def discover(_server: str, **_: Any) -> WellKnown:
        return WellKnown("embedded", HUB, "1")

    monkeypatch.setattr(node, "discover", discover)
    profile = ProfileStore(tmp_path).save(ALICE, "http://127.0.0.1:8080")
    before = sorted(profile.folder.iterdir())
    phrases: list[tuple[str, ...]] = []
    for login, error in (
        (by_code("x"), Unauthenticated("no", reason="CODE_INVALID")),
        (by_provider("corp", lambda _: None), None),
    ):
        identity.error, identity.principal = error, "bob@y.example"
        with pytest.raises((Unauthenticated, WrongState)):
            await open_account(profile, NodeLogin(person=login), keep_phrase=phrases.append)
    assert sorted(profile.folder.iterdir()) == before
    assert phrases == []
