"""A device that its owner ends: its calls are refused, its streams end, and nothing is sealed for it any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mesh.identity.v1 import identity_service_pb2 as rpc
from syftmesh.device import end_device
from syftmesh.key import AsyncKeys
from syftmesh_client.account import add_devices
from syftmesh_client.files import FileClient
from syftmesh_client.keystore import KeyStore
from syftmesh_client.node import Node, NodeLogin, open_node
from syftmesh_client.profile import ProfileStore, node_login
from syftmesh_client.site import open_account
from syftmesh_core.clock import uuid7
from syftmesh_core.errors import MeshError, NotFound, PermissionDenied, Unavailable, WrongState
from syftmesh_core.identity.device import DeviceSecret

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ENDS_WITHIN_S = 10.0
"""More than the 5 s in which what is open ends after a revocation."""


@asynccontextmanager
async def person(mesh: Any, state: Path, email: str) -> AsyncIterator[tuple[Node, NodeLogin]]:
    profile, login = ProfileStore(state).save(email, mesh.server), node_login(mesh.state, mesh.server)
    await open_account(profile, login, keep_phrase=lambda _words: None)
    async with open_node(profile.folder, mesh.server, login=login) as node:
        yield node, login


async def enlist(node: Node, folder: Path, *, admin: bool = False) -> str:
    """Make the keys of another device in `folder` and put it into the list."""
    folder.mkdir(mode=0o700)
    secret = DeviceSecret.generate(node.principal, uuid7(node.clock, node.random), serves=False, admin=admin)
    KeyStore.create(folder, device=secret, own_root=node.keystore.own_root)
    current = await node.directory.list_of(node.principal, refresh=True)
    await node.directory.publish(add_devices(current, node.keystore.device, [secret.public()]))
    return secret.device_id


async def who_am_i(node: Node) -> str:
    return (await node.session.identity.WhoAmI(rpc.WhoAmIRequest())).device_id


async def reason_of(call: Any) -> str:
    with pytest.raises(MeshError) as caught:
        await call
    return caught.value.reason


async def test_an_ended_device_can_call_watch_and_read_nothing_any_more(mesh: Any, tmp_path: Path) -> None:
    async with person(mesh, tmp_path, "carol@ended.example") as (carol, login):
        phone_id = await enlist(carol, tmp_path / "phone")
        path = f"{carol.principal}/private/note.txt"
        await carol.files.write(path, b"before")
        async with open_node(tmp_path / "phone", mesh.server, login=login) as phone:
            assert await who_am_i(phone) == phone_id
            assert (await phone.files.read(path)).data == b"before"
            caught_up = asyncio.Event()

            async def watch() -> None:
                async for change in phone.files.watch([carol.principal]):
                    if change.path == "":
                        caught_up.set()

            watching = asyncio.ensure_future(watch())
            await asyncio.wait_for(caught_up.wait(), ENDS_WITHIN_S)
            end = await end_device(carol, phone_id)
            assert (end.unlisted, end.revoked, end.known, end.own) == (True, True, True, False)
            ended = await asyncio.wait_for(asyncio.gather(watching, return_exceptions=True), ENDS_WITHIN_S)
            assert isinstance(ended[0], MeshError)
            assert await reason_of(who_am_i(phone)) == "DEVICE_REVOKED"
            assert await reason_of(phone.files.read(path)) == "DEVICE_REVOKED"
            await carol.files.write(path, b"after")
            assert (await carol.files.read(path)).data == b"after"
            # Not by the hub's refusal alone: whoever gave the bytes away gives nothing away to its keys.
            assert await _opened_by(carol.keystore, carol, mesh, path) == b"after"
            assert await reason_of(_opened_by(phone.keystore, carol, mesh, path)) == "NO_KEY_FOR_DEVICE"
        assert await reason_of(_reopened(tmp_path / "phone", mesh, login)) == "DEVICE_REVOKED"
        (seen,) = [d for d in await AsyncKeys(carol).devices() if d.device_id == phone_id]
        assert (seen.listed, seen.revoked, seen.label) == (False, True, "profile")
        again = await end_device(carol, phone_id)
        assert (again.unlisted, again.revoked, again.known) == (False, False, True)


async def test_what_was_cut_off_between_list_and_hub_is_completed(mesh: Any, tmp_path: Path) -> None:
    async with person(mesh, tmp_path, "dave@ended.example") as (dave, login):
        phone_id = await enlist(dave, tmp_path / "phone")
        async with open_node(tmp_path / "phone", mesh.server, login=login) as phone:
            plain, dave.session.identity = dave.session.identity, _CutOff(dave.session.identity)
            with pytest.raises(MeshError) as caught:
                await end_device(dave, phone_id)
            assert f"syftmesh keys devices revoke {phone_id}" in caught.value.hint
            dave.session.identity = plain
            assert await who_am_i(phone) == phone_id
            end = await end_device(dave, phone_id)
            assert (end.unlisted, end.revoked) == (False, True)
            assert await reason_of(who_am_i(phone)) == "DEVICE_REVOKED"


async def test_who_may_end_which_device(mesh: Any, tmp_path: Path) -> None:
    async with person(mesh, tmp_path, "erin@ended.example") as (erin, login):
        own = erin.keystore.device.device_id
        with pytest.raises(WrongState) as last:
            await end_device(erin, own)
        assert last.value.reason == "LAST_ADMIN_DEVICE"
        with pytest.raises(NotFound) as unknown:
            await end_device(erin, uuid7(erin.clock, erin.random))
        assert unknown.value.reason == "DEVICE_UNKNOWN"
        never_in = await enlist(erin, tmp_path / "never")
        phone_id = await enlist(erin, tmp_path / "phone")
        async with open_node(tmp_path / "phone", mesh.server, login=login) as phone:
            with pytest.raises(PermissionDenied) as plain:
                await end_device(phone, never_in)
            assert plain.value.reason == "ADMIN_DEVICE_REQUIRED"
            assert await who_am_i(phone) == phone_id
        end = await end_device(erin, never_in)
        assert (end.unlisted, end.revoked, end.known) == (True, False, False)
        await enlist(erin, tmp_path / "second", admin=True)
        end = await end_device(erin, own)
        assert (end.unlisted, end.revoked, end.own) == (True, True, True)
        folder = ProfileStore(tmp_path).save(erin.principal, mesh.server).folder
        assert not (folder / "tokens.json").exists()
        assert await reason_of(who_am_i(erin)) in {"NOT_LOGGED_IN", "DEVICE_REVOKED"}


async def _opened_by(keystore: KeyStore, node: Node, mesh: Any, path: str) -> bytes:
    """Fetch `path` with the login of `node`, and open it with the keys of `keystore`."""
    async with node.trust.object_client(mesh.server, timeout_s=30) as http:
        files = FileClient(node.session, node.directory, keystore, node.clock, node.random, http)
        return (await files.read(path)).data


async def _reopened(folder: Path, mesh: Any, login: NodeLogin) -> None:
    async with open_node(folder, mesh.server, login=login) as node:
        await who_am_i(node)


class _CutOff:
    """The identity service, which this machine cannot reach any more when a device is to be revoked."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stub, name)

    async def RevokeDevice(self, _request: Any) -> Any:  # noqa: N802 - name of the RPC
        raise Unavailable("The hub does not answer.")
