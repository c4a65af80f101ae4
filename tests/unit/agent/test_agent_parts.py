"""The agent's own small parts; what it does with a hub is tested with one."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from mesh.agent.v1 import agent_service_pb2 as pb
from mesh.rpc.v1.content_pb2 import RequestContent
from syftmesh_agent.app import build, listen_address
from syftmesh_agent.consumers import UnknownApp
from syftmesh_agent.domain.status import AgentStatus
from syftmesh_agent.servicer import PUBLIC_METHODS, AgentServicer
from syftmesh_agent.settings import AgentSettings
from syftmesh_client.incoming import IncomingCall, Transaction
from syftmesh_client.node import read_private
from syftmesh_client.traffic import Traffic, TrafficKind
from syftmesh_client.traffic_ledger import TrafficLedger
from syftmesh_core.errors import InvalidInput, NotFound, Unavailable, WrongState
from syftmesh_kit.settings import load_settings
from syftmesh_kit.testing import FakeClock


def test_counters_add_up_over_restarts_and_never_fall():
    connection = sqlite3.connect(":memory:", isolation_level=None)
    lock, first, second = threading.RLock(), Traffic(), Traffic()
    ledger = TrafficLedger(connection, lock, first)
    assert ledger.totals() == {"message": 0, "object": 0, "update": 0}
    first.add_sent(TrafficKind.MESSAGE, 10)
    ledger.save()
    again = TrafficLedger(connection, lock, second)
    second.add_sent(TrafficKind.MESSAGE, 5)
    second.add_sent(TrafficKind.OBJECT, 7)
    assert again.totals() == {"message": 15, "object": 7, "update": 0}
    again.save()
    ledger.save()  # of an earlier run that ends late
    assert TrafficLedger(connection, lock, Traffic()).totals() == {"message": 15, "object": 7, "update": 0}
    connection.close()


async def test_status_names_what_the_proto_asks_for():
    status = AgentStatus("bob@y.example", "dev", is_connected=True, bytes_sent={"message": 3})
    answer = await AgentServicer(lambda: status, "1.2").GetStatus(pb.GetStatusRequest(), None)
    assert answer == pb.GetStatusResponse(
        site="bob@y.example", device_id="dev", connected=True, version="1.2", bytes_sent={"message": 3}
    )
    assert {"/mesh.agent.v1.AgentService/GetStatus"} == PUBLIC_METHODS


async def test_starting_agent_says_so(tmp_path):
    settings = AgentSettings(folder=tmp_path / "site", hub_url="http://127.0.0.1:9")
    module = await build(settings, clock=FakeClock())
    with pytest.raises(Unavailable) as caught:
        module.status()
    assert caught.value.reason == "STARTING"
    with pytest.raises(Unavailable):
        await module.ready()
    module._connection.close()


async def test_app_that_nobody_hosts_is_unknown():
    call = IncomingCall("1", "a@x.example", b"", "d", "b@y.example", "chat", "say", RequestContent(), 1)
    with pytest.raises(NotFound) as caught:
        await UnknownApp().handle(call, Transaction())
    assert caught.value.reason == "APP_UNKNOWN"


def test_local_api_is_a_socket_in_the_folder_unless_said_otherwise():
    settings = AgentSettings(folder=Path("/state"), hub_url="http://h")
    assert listen_address(settings) == "unix:/state/agent.sock"
    other = AgentSettings(folder=Path("/state"), hub_url="http://h", listen="127.0.0.1:1")
    assert listen_address(other) == "127.0.0.1:1"


def test_missing_settings_are_named(monkeypatch):
    monkeypatch.delenv("SYFTMESH_AGENT_FOLDER", raising=False)
    monkeypatch.delenv("SYFTMESH_AGENT_HUB_URL", raising=False)
    with pytest.raises(InvalidInput) as caught:
        load_settings(AgentSettings)
    assert "SYFTMESH_AGENT_FOLDER" in caught.value.message
    assert "SYFTMESH_AGENT_HUB_URL" in caught.value.message


def test_secret_file_that_others_may_read_is_refused(tmp_path):
    file = tmp_path / "join.token"
    with pytest.raises(NotFound):
        read_private(file)
    file.write_text("secret\n")
    file.chmod(0o640)
    with pytest.raises(WrongState) as caught:
        read_private(file)
    assert caught.value.reason == "FILE_NOT_PRIVATE"
    assert "secret" not in repr(caught.value)
    file.chmod(0o600)
    assert read_private(file) == "secret"
