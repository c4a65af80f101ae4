"""Accounts and sites are made in steps that may be cut off anywhere, and never undo what an owner took away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from syftmesh_client.account import remove_devices
from syftmesh_client.keystore import KeyStore
from syftmesh_client.node import NodeLogin, open_node
from syftmesh_client.profile import Profile, ProfileStore, node_login
from syftmesh_client.site import SiteFolders, open_account, provision_site
from syftmesh_core.errors import Unauthenticated
from syftmesh_core.layout import standard_layout

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def _profile(mesh: Any, state: Path, email: str) -> tuple[Profile, NodeLogin]:
    return ProfileStore(state).save(email, mesh.server), node_login(mesh.state, mesh.server)


async def test_an_account_cut_off_before_its_keys_begins_anew(mesh: Any, tmp_path: Path) -> None:
    profile, login = _profile(mesh, tmp_path, "first@steps.example")

    def disk_full(_words: tuple[str, ...]) -> None:
        raise OSError

    with pytest.raises(OSError):  # noqa: PT011 - made by this test
        await open_account(profile, login, keep_phrase=disk_full)
    phrases: list[tuple[str, ...]] = []
    assert await open_account(profile, login, keep_phrase=phrases.append) is True
    assert len(phrases[0]) == 24
    assert await open_account(profile, login, keep_phrase=phrases.append) is False
    assert len(phrases) == 1


async def test_an_account_cut_off_before_its_list_was_published_publishes_it(
    mesh: Any, tmp_path: Path
) -> None:
    profile, login = _profile(mesh, tmp_path, "second@steps.example")
    phrases: list[tuple[str, ...]] = []
    with pytest.raises(Unauthenticated):
        await open_account(profile, NodeLogin(), keep_phrase=phrases.append)
    assert await open_account(profile, login, keep_phrase=phrases.append) is False
    assert len(phrases) == 1
    async with open_node(profile.folder, mesh.server, login=login) as node:
        found = await node.directory.devices_of(profile.email)
    assert (found.version, len(found.devices)) == (1, 1)


async def test_a_site_is_made_once_and_keeps_what_was_removed_removed(mesh: Any, tmp_path: Path) -> None:
    profile, login = _profile(mesh, tmp_path, "third@steps.example")
    await open_account(profile, login, keep_phrase=lambda _words: None)
    folders = SiteFolders.of(tmp_path, profile.email)
    async with open_node(profile.folder, mesh.server, login=login) as node:
        # As if an earlier try had been killed after the agent's keys.
        await provision_site(node, SiteFolders(folders.agent, tmp_path / "other", tmp_path / "other/keys"))
        (folders.agent.parent / "site.json").unlink()
        await provision_site(node, folders)
        assert folders.is_made
        agent = KeyStore.open(folders.agent).device.device_id
        runner = KeyStore.open(folders.runner_keys).device.device_id
        listed = await node.directory.list_of(profile.email, refresh=True)
        assert {agent, runner} <= {device.device_id for device in listed.devices if device.serves}
        layout = sorted(standard_layout(profile.email))
        for path in layout:
            assert await node.files.stat(path) is not None
        await node.directory.publish(remove_devices(listed, node.keystore.device, [runner]))
        await node.files.delete(layout[-1])
        await provision_site(node, folders)
        after = await node.directory.list_of(profile.email, refresh=True)
        assert after.find(runner) is None
        assert await node.files.stat(layout[-1]) is None
