"""Services as processes of their own, and the word of a detached one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from syftmesh_core.errors import Internal, InvalidInput, Unavailable, WrongState
from syftmesh_kit.native import NatsAddress
from syftmesh_kit.s3 import S3Config
from syftmesh_standalone import process_mesh
from syftmesh_standalone.detach import Reporter, outcome
from syftmesh_standalone.info import MeshInfo
from syftmesh_standalone.options import HubPlace
from syftmesh_standalone.process_mesh import ServiceSpec, hub_specs, site_specs

INFO = MeshInfo("http://127.0.0.1:1", "127.0.0.1:2", 7, "0", True, ("a@x.example",), {"sync": 9}, "now")
SECRETS = ("nats-secret", "s3-access", "s3-secret")


class FakeStores:
    bus = NatsAddress("nats://127.0.0.1:3", "http://127.0.0.1:4", "syftmesh", SECRETS[0])
    s3 = S3Config("http://127.0.0.1:5", SECRETS[1], SECRETS[2], url_base="http://127.0.0.1:1/objects")


@pytest.fixture
def specs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ServiceSpec]:
    monkeypatch.setattr(process_mesh, "free_ports", lambda count: list(range(30_000, 30_000 + count)))
    place = HubPlace(tmp_path / "hub", 8080, 8081)
    found = hub_specs(place, FakeStores())  # type: ignore[arg-type]
    found += site_specs(tmp_path, "a@x.example", place.server, tmp_path / "hub/local.token")
    return {spec.name: spec for spec in found}


def test_every_service_is_there_with_an_address_of_its_own(specs: dict[str, ServiceSpec]) -> None:
    hub = ["identity", "sync", "permissions", "crypto", "router", "superlink", "gateway"]
    assert list(specs) == [*hub, "agent a@x.example", "runner a@x.example"]
    assert len({spec.address for spec in specs.values()}) == len(specs)


def test_secrets_are_in_the_environment_of_those_who_need_them_and_never_in_arguments(
    specs: dict[str, ServiceSpec],
) -> None:
    for spec in specs.values():
        assert not any(secret in " ".join(spec.command()) for secret in SECRETS)
        told = {s for s in SECRETS if s in spec.environment({}).values()}
        needs_store = spec.service in {"sync", "permissions", "crypto", "router"}
        on_bus = spec.service not in {"gateway", "agent", "runner"}
        assert told == {*(SECRETS[:1] if on_bus else ()), *(SECRETS[1:] if needs_store else ())}, spec.name


def test_a_service_inherits_its_own_settings_and_nothing_else(specs: dict[str, ServiceSpec]) -> None:
    ours = {
        "PYTHONPATH": "/p",
        "AWS_SECRET_ACCESS_KEY": "x",
        "SYFTMESH_SYNC_HEARTBEAT_S": "5",
        "SYFTMESH_ROUTER_LEASE_S": "2",
        "SYFTMESH_SYNC_NATS_URL": "nats://elsewhere",
    }
    found = specs["sync"].environment(ours)
    assert found["PYTHONPATH"] == "/p"
    assert found["SYFTMESH_SYNC_HEARTBEAT_S"] == "5"
    assert found["SYFTMESH_SYNC_NATS_URL"] == "nats://127.0.0.1:3"
    assert not {"AWS_SECRET_ACCESS_KEY", "SYFTMESH_ROUTER_LEASE_S"} & set(found)


def test_the_gateway_forwards_every_domain_from_the_grpc_port(specs: dict[str, ServiceSpec]) -> None:
    found = specs["gateway"].environment({})
    backends = json.loads(found["SYFTMESH_GATEWAY_BACKENDS"])
    assert backends["rpc"] == specs["router"].address
    assert backends["federated"] == specs["superlink"].address
    assert len(set(backends.values())) == 6
    assert found["SYFTMESH_GATEWAY_FORWARD_LISTEN"] == "127.0.0.1:8081"
    assert found["SYFTMESH_GATEWAY_ADVERTISED_GRPC"] == "127.0.0.1:8081"
    assert found["SYFTMESH_GATEWAY_HTTP_PORT"] == "8080"


def test_every_process_names_the_state_it_belongs_to(specs: dict[str, ServiceSpec], tmp_path: Path) -> None:
    assert {spec.environment({})["SYFTMESH_STATE"] for spec in specs.values()} == {str(tmp_path)}


@pytest.fixture
def pipe() -> Iterator[tuple[int, Reporter]]:
    reading, writing = os.pipe()
    yield reading, Reporter(writing)
    os.close(reading)


def test_progress_and_readiness_reach_the_one_who_started_it(pipe: tuple[int, Reporter]) -> None:
    said: list[str] = []
    pipe[1].progress("first")
    pipe[1].progress("second\nline")
    pipe[1].ready(INFO)
    pipe[1].progress("told to the log alone")
    assert outcome(pipe[0], said.append, 1.0) == INFO
    assert said == ["first", "second\nline"]


def test_an_error_arrives_as_it_was_raised(pipe: tuple[int, Reporter]) -> None:
    pipe[1].error(WrongState("held", reason="STATE_LOCKED", metadata={"pid": "5"}, hint="do"))
    with pytest.raises(WrongState) as raised:
        outcome(pipe[0], lambda _: None, 1.0)
    error = raised.value
    assert (error.message, error.reason, error.metadata, error.hint) == (
        "held",
        "STATE_LOCKED",
        {"pid": "5"},
        "do",
    )


def test_a_child_that_dies_without_a_word_is_said() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    with pytest.raises(Internal) as raised:
        outcome(reading, lambda _: None, 1.0)
    os.close(reading)
    assert raised.value.reason == "MESH_DIED"


def test_a_child_that_says_nothing_is_given_up(pipe: tuple[int, Reporter]) -> None:
    with pytest.raises(Unavailable) as raised:
        outcome(pipe[0], lambda _: None, 0.0)
    assert raised.value.reason == "START_TIMEOUT"
    pipe[1].error(InvalidInput("closes the pipe"))


def test_a_reader_that_has_gone_does_not_stop_the_mesh() -> None:
    reading, writing = os.pipe()
    reporter = Reporter(writing)
    os.close(reading)
    reporter.progress("nobody reads")
    reporter.ready(INFO)
