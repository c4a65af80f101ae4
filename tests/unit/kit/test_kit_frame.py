"""Settings, exit codes, subjects, addresses: the small parts every service relies on."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from syftmesh_core.errors import InvalidInput, MeshError, PermissionDenied, Unavailable
from syftmesh_kit import subject, topology
from syftmesh_kit.address import grpc_target, socket_path
from syftmesh_kit.channel import channel_options
from syftmesh_kit.run import run_service
from syftmesh_kit.settings import S3Settings, ServiceSettings, load_settings, settings_config
from syftmesh_kit.testing import FakeRandom


class SyncSettings(ServiceSettings, S3Settings):
    model_config = settings_config("sync")

    quota_bytes: int
    """Required, to see it missed."""


def test_settings_come_from_prefixed_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYFTMESH_SYNC_QUOTA_BYTES", "5")
    monkeypatch.setenv("SYFTMESH_SYNC_NATS_PASSWORD", "hunter2")
    monkeypatch.setenv("NATS_URL", "nats://wrong:1")
    found = load_settings(SyncSettings)
    assert found.quota_bytes == 5
    assert found.nats_password.get_secret_value() == "hunter2"
    assert "hunter2" not in repr(found)
    assert found.nats_url == "nats://127.0.0.1:4222"
    with pytest.raises(ValueError, match="frozen"):
        found.nats_password = SecretStr("other")


def test_wrong_settings_name_every_variable_and_show_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYFTMESH_SYNC_DRAIN_S", "hunter2")
    with pytest.raises(InvalidInput) as caught:
        load_settings(SyncSettings)
    assert caught.value.reason == "SETTING_INVALID"
    for name in ("SYFTMESH_SYNC_DRAIN_S", "SYFTMESH_SYNC_QUOTA_BYTES"):
        assert name in caught.value.message
        assert name in caught.value.metadata["variable"]
    assert "hunter2" not in caught.value.message


def failing(error: BaseException, *, grouped: bool = False) -> int:
    async def fail() -> None:
        raise error

    async def main(_stop: asyncio.Event) -> None:
        if not grouped:
            await fail()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(fail())

    return run_service(main)


@pytest.mark.parametrize("grouped", [True, False])
def test_exit_codes(capsys: pytest.CaptureFixture[str], grouped: bool) -> None:  # noqa: FBT001
    assert failing(InvalidInput("Set SYFTMESH_X.", hint="Like so."), grouped=grouped) == 2
    assert capsys.readouterr().err == "Set SYFTMESH_X.\nLike so.\n"
    assert failing(Unavailable("Away."), grouped=grouped) == 6
    assert failing(RuntimeError("defect"), grouped=grouped) == 1


def test_signal_drains_and_exits_with_zero() -> None:
    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()

    assert run_service(main) == 0


def test_second_signal_ends_at_once() -> None:
    async def main(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    assert run_service(main) == 130


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
def test_no_identity_reaches_a_subject_as_it_is(site: str, sender: str) -> None:
    try:
        made = [subject.calls(site, sender), subject.replies(site, sender), subject.kv_key(site, sender)]
    except UnicodeEncodeError:
        return
    for name in made:
        assert not set(name) & set("*> \t\r\n")
        assert name.count(".") == (1 if name == made[2] else 2)
        assert name.isascii()


def test_different_identities_never_share_a_key() -> None:
    assert subject.kv_key("a", "b") != subject.kv_key("a.b") != subject.kv_key("ab")
    for bad in ((), ("",), ("a", "")):
        with pytest.raises(ValueError, match="part"):
            subject.kv_key(*bad)


def test_every_bucket_and_stream_name_is_declared_once() -> None:
    names = {value for name, value in vars(subject).items() if name.startswith("KV_")}
    declared = [spec.bucket for spec in topology.BUCKETS]
    assert sorted(declared) == sorted(names)
    streams = {
        value for name, value in vars(subject).items() if name.isupper() and not name.startswith("KV_")
    }
    assert {spec.name for spec in topology.STREAMS} == streams


def test_stream_subjects_match_the_builders() -> None:
    made = {
        "FILES": subject.files("a@x.org", "ab12"),
        "CALLS": subject.calls("a@x.org", "b@x.org"),
        "REPLIES": subject.replies("a@x.org", "call"),
        "DEAD": subject.dead("a@x.org", "call"),
        "KEYLOG": subject.keylog("a@x.org"),
    }
    for spec in topology.STREAMS:
        (pattern,) = spec.subjects
        tokens, found = pattern.split("."), made[spec.name].split(".")
        assert len(tokens) == len(found)
        assert tokens[0] == found[0]


def test_short_socket_path_stays_and_a_long_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path)[:60])
    Path(str(tmp_path)[:60]).mkdir(parents=True, exist_ok=True)
    assert socket_path(Path("/a/s.sock")) == Path("/a/s.sock")
    long = Path("/" + "x" * 200)
    assert socket_path(long) == socket_path(long)
    assert socket_path(long) != socket_path(Path("/" + "x" * 201))
    assert grpc_target(f"unix:{long}") == f"unix:{socket_path(long)}"
    assert grpc_target("host:1") == "host:1"


def test_socket_folder_open_to_others_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = tmp_path / f"syftmesh-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(PermissionDenied) as caught:
        socket_path(Path("/" + "x" * 200))
    assert caught.value.reason == "SOCKET_UNSAFE"
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(MeshError):
        socket_path(Path("/" + "x" * 200))


def test_retry_policy_names_idempotent_methods_only() -> None:
    options = dict(channel_options(["/a.B/Get", "/c.D/*"]))
    assert (
        '"name": [{"service": "a.B", "method": "Get"}, {"service": "c.D"}]' in options["grpc.service_config"]
    )
    assert "grpc.service_config" not in dict(channel_options())


def test_fake_random_repeats_itself_between_runs_and_not_within() -> None:
    one, two = FakeRandom(), FakeRandom()
    assert one(16) == two(16) != one(16)
