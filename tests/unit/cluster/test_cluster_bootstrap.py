"""The bootstrap fills what is missing, keeps what is there, and never shows a secret."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID
from syftmesh_cluster import bootstrap
from syftmesh_cluster.bootstrap import Bootstrap
from syftmesh_cluster.kubernetes_secret import KubernetesTarget
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import IntegrityFailure, NotFound, PermissionDenied, Unavailable, WrongState

sys.path.insert(0, str(Path(__file__).parent))
from secret_world import NAMES, FakeApi, plan

DAY_MS = 86_400_000


class At(SystemClock):
    """The clock some days from now."""

    def __init__(self, days: float = 0) -> None:
        self._days = days

    def now_ms(self) -> int:
        return super().now_ms() + int(self._days * DAY_MS)


@pytest.fixture
def api() -> FakeApi:
    return FakeApi(plan().secrets())


async def run(api: FakeApi, days: float = 0, wait_s: float = 0, **changes: object) -> None:
    async with api.client() as client:
        await Bootstrap(plan(**changes), KubernetesTarget(client, "hub", wait_s), At(days)).run()


async def failure(api: FakeApi, kind: type[Exception], **changes: object) -> Exception:
    with pytest.raises(BaseExceptionGroup) as found:
        await run(api, **changes)
    error: BaseException = found.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, kind)
    return error


def certificate(api: FakeApi, name: str, key: str = "tls.crt") -> x509.Certificate:
    return x509.load_pem_x509_certificate(api.data[name][key])


async def test_every_secret_gets_its_keys(api):
    await run(api)
    assert {name: set(data) for name, data in api.data.items()} == {
        "m-ca": {"ca.crt", "ca.key"},
        "m-tls-sync": {"tls.crt", "tls.key", "ca.crt"},
        "m-nats-identity": {"password"},
        "m-nats-tools": {"password"},
        "m-nats-server": {"passwords.conf"},
        "m-store": {"access-key", "secret-key"},
        "m-signing-key": {"signing.pem"},
    }
    assert isinstance(load_pem_private_key(api.data["m-signing-key"]["signing.pem"], None), Ed25519PrivateKey)
    passwords = {user: api.data[f"m-nats-{user}"]["password"].decode() for user in ("identity", "tools")}
    assert api.data["m-nats-server"]["passwords.conf"].decode() == (
        f'IDENTITY_PASSWORD: "{passwords["identity"]}"\nTOOLS_PASSWORD: "{passwords["tools"]}"\n'
    )
    assert len({*passwords.values(), api.data["m-store"]["secret-key"].decode()}) == 3
    assert all(len(password) == 43 for password in passwords.values())


async def test_leaf_is_signed_by_the_authority_for_its_names_and_both_ends(api):
    await run(api)
    ca, leaf = certificate(api, "m-ca", "ca.crt"), certificate(api, "m-tls-sync")
    leaf.verify_directly_issued_by(ca)
    sans = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {str(name.value) for name in sans} == set(NAMES)
    assert [str(address) for address in sans.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usages) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert ca.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert api.data["m-tls-sync"]["ca.crt"] == api.data["m-ca"]["ca.crt"]
    assert (leaf.not_valid_after_utc - leaf.not_valid_before_utc).days == 365


async def test_public_certificate_proves_no_client(api):
    await run(api, leaves=[{"secret": "m-tls-sync", "names": ["hub.example"], "client": False}])
    usages = certificate(api, "m-tls-sync").extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]


async def test_second_run_writes_nothing(api):
    await run(api)
    before, api.writes = json.dumps(str(api.data)), []
    await run(api, days=200)
    assert api.writes == []
    assert json.dumps(str(api.data)) == before


async def test_leaf_with_less_than_a_third_of_its_life_is_renewed_and_nothing_else(api):
    await run(api)
    old = dict(api.data["m-tls-sync"])
    api.writes = []
    await run(api, days=250)
    assert api.writes == ["m-tls-sync"]
    assert api.data["m-tls-sync"]["tls.crt"] != old["tls.crt"]
    assert api.data["m-tls-sync"]["tls.key"] != old["tls.key"]


@pytest.mark.parametrize("names", [[*NAMES, "more"], NAMES[:-1], [*NAMES[:-1], "10.0.0.1"]])
async def test_leaf_is_renewed_when_its_names_change(api, names):
    await run(api)
    api.writes = []
    await run(api, leaves=[{"secret": "m-tls-sync", "names": names}])
    assert api.writes == ["m-tls-sync"]


@pytest.mark.parametrize("key", ["tls.crt", "tls.key"])
async def test_damaged_or_mixed_leaf_is_renewed(api, key):
    await run(api)
    other = FakeApi(plan().secrets())
    await run(other)
    for value in (b"damaged", other.data["m-tls-sync"][key]):
        api.put("m-tls-sync", {key: value})
        api.writes = []
        await run(api)
        assert api.writes == ["m-tls-sync"]
        certificate(api, "m-tls-sync").verify_directly_issued_by(certificate(api, "m-ca", "ca.crt"))


async def test_leaves_follow_a_new_authority(api):
    await run(api)
    api.data["m-ca"] = {}
    api.writes = []
    await run(api)
    assert api.writes == ["m-ca", "m-tls-sync"]
    certificate(api, "m-tls-sync").verify_directly_issued_by(certificate(api, "m-ca", "ca.crt"))


async def test_leaf_never_outlives_the_authority(api):
    await run(api, days=3600)
    await run(api, days=3600 + 3600)
    leaf = certificate(api, "m-tls-sync")
    assert leaf.not_valid_after_utc == certificate(api, "m-ca", "ca.crt").not_valid_after_utc


async def test_what_somebody_gave_stays(api):
    api.put("m-nats-tools", {"password": b"given-by-hand"})
    api.put("m-store", {"access-key": b"mine"})
    await run(api)
    assert api.data["m-nats-tools"] == {"password": b"given-by-hand"}
    assert b'TOOLS_PASSWORD: "given-by-hand"' in api.data["m-nats-server"]["passwords.conf"]
    assert api.data["m-store"]["access-key"] == b"mine"
    assert len(api.data["m-store"]["secret-key"]) == 43


async def test_list_of_passwords_follows_the_users(api):
    await run(api)
    api.put("m-nats-tools", {"password": b"turned-round"})
    await run(api)
    assert b'TOOLS_PASSWORD: "turned-round"' in api.data["m-nats-server"]["passwords.conf"]


@pytest.mark.parametrize("password", [b'with"quote', b"line\nend88", b"short", b"\xff" * 20])
async def test_password_that_the_server_cannot_hold_is_refused(api, password):
    api.put("m-nats-tools", {"password": password})
    error = await failure(api, WrongState)
    assert error.reason == "PASSWORD_UNUSABLE"


async def test_parts_that_others_provide_are_not_looked_at(api):
    seen: list[str] = []
    api.before = lambda _method, name: seen.append(name)
    await run(api, ca=None, leaves=[], store=None, signing_key=None)
    assert set(seen) == {"m-nats-server", "m-nats-identity", "m-nats-tools"}


async def test_concurrent_runs_agree(api):
    await asyncio.gather(*(run(api) for _ in range(4)))
    assert sorted(set(api.writes)) == sorted(plan().secrets())
    certificate(api, "m-tls-sync").verify_directly_issued_by(certificate(api, "m-ca", "ca.crt"))
    for user in ("identity", "tools"):
        assert api.data[f"m-nats-{user}"]["password"] in api.data["m-nats-server"]["passwords.conf"]


async def test_who_writes_between_read_and_write_wins(api):
    def other_run(method: str, name: str) -> None:
        if method == "PATCH" and name == "m-nats-tools" and not api.data[name]:
            api.put(name, {"password": b"quicker-one"})

    api.before = other_run
    await run(api)
    assert api.data["m-nats-tools"] == {"password": b"quicker-one"}
    assert b"quicker-one" in api.data["m-nats-server"]["passwords.conf"]


async def test_secret_that_changes_for_ever_ends_the_run(api):
    api.before = lambda method, name: (
        httpx.Response(409) if method == "PATCH" and name == "m-store" else None
    )
    assert (await failure(api, Unavailable)).reason == "SECRET_BUSY"


@pytest.mark.parametrize(("method", "verb"), [("GET", "get"), ("PATCH", "patch")])
async def test_missing_right_is_named(api, method, verb):
    api.before = lambda found, name: httpx.Response(403) if (found, name) == (method, "m-store") else None
    error = await failure(api, PermissionDenied)
    assert error.reason == "CLUSTER_RIGHTS_MISSING"
    assert f"the verb {verb} on secrets with resourceNames m-store" in error.message


async def test_missing_secret_is_named(api):
    del api.data["m-signing-key"]
    error = await failure(api, NotFound)
    assert error.reason == "SECRET_MISSING"
    assert "m-signing-key" in error.message


async def test_api_that_does_not_answer_is_waited_for_only_so_long(api):
    api.before = lambda _method, _name: httpx.Response(503)
    assert (await failure(api, Unavailable)).reason == "CLUSTER_UNREACHABLE"


async def test_api_that_answers_late_is_waited_for(api, monkeypatch):
    monkeypatch.setattr("syftmesh_cluster.kubernetes_secret._PAUSE_S", 0.001)
    refusals = iter([httpx.Response(500), httpx.Response(429)])
    api.before = lambda _method, _name: next(refusals, None)
    await run(api, wait_s=5)
    assert all(api.data.values())


async def test_authority_whose_key_was_written_alone_is_finished(api):
    await run(api)
    key = api.data["m-ca"]["ca.key"]
    api.data["m-ca"] = {"ca.key": key}
    await run(api)
    assert api.data["m-ca"]["ca.key"] == key
    certificate(api, "m-tls-sync").verify_directly_issued_by(certificate(api, "m-ca", "ca.crt"))


async def test_certificate_of_an_authority_without_key_is_refused(api):
    await run(api)
    del api.data["m-ca"]["ca.key"]
    assert (await failure(api, WrongState)).reason == "CA_INCOMPLETE"


@pytest.mark.parametrize("key", ["ca.crt", "ca.key"])
async def test_damaged_authority_is_refused_and_left(api, key):
    await run(api)
    other = FakeApi(plan().secrets())
    await run(other)
    for value in (b"damaged", other.data["m-ca"][key], api.data["m-signing-key"]["signing.pem"]):
        api.put("m-ca", {key: value})
        assert (await failure(api, IntegrityFailure)).reason == "CA_DAMAGED"
        assert api.data["m-ca"][key] == value


def test_program_fills_a_folder_privately_and_shows_no_secret(tmp_path, capfd):
    config, folder = tmp_path / "plan.json", tmp_path / "out"
    config.write_text(plan().model_dump_json())
    arguments = ["--config", str(config), "--folder", str(folder)]
    assert bootstrap.main(arguments) == 0
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 12
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.parent.stat().st_mode) for path in files} == {0o700}
    kept = {path: path.read_bytes() for path in files}
    assert bootstrap.main(arguments) == 0
    assert {path: path.read_bytes() for path in files} == kept
    shown = "".join(capfd.readouterr())
    assert "m-store: wrote access-key, secret-key (missing)" in shown
    assert "m-store: kept" in shown
    for path, value in kept.items():
        if path.name not in {"tls.crt", "ca.crt", ".lock"}:
            assert value.decode().strip() not in shown


def test_program_refuses_a_file_that_is_open_to_others(tmp_path, capfd):
    config, folder = tmp_path / "plan.json", tmp_path / "out"
    config.write_text(plan().model_dump_json())
    assert bootstrap.main(["--config", str(config), "--folder", str(folder)]) == 0
    (folder / "m-ca" / "ca.key").chmod(0o644)
    assert bootstrap.main(["--config", str(config), "--folder", str(folder)]) == 1
    assert "FILE_NOT_PRIVATE: The file m-ca/ca.key" in capfd.readouterr().err


def test_program_outside_a_pod_says_so(tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    config = tmp_path / "plan.json"
    config.write_text(plan().model_dump_json())
    assert bootstrap.main(["--config", str(config)]) == 1
    assert capfd.readouterr().err.startswith("NOT_IN_CLUSTER: ")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"leafs": []}', "leafs: Extra inputs are not permitted"),
        ('{"leaves": [{"secret": "a", "names": ["b"]}]}', "leaves need the part ca"),
        ('{"ca": {"secret": "a"}, "store": {"secret": "a"}}', "Secrets named twice: a"),
        ('{"ca": {"secret": "../a"}}', "ca.secret: String should match"),
        ('{"ca": {"secret": "a"}, "days": 20}', "days: Input should be greater than or equal to 90"),
        ('{"ca": {"secret": "a"}, "leaves": [{"secret": "b", "names": []}]}', "leaves.0.names: List should"),
        ("[", "neither JSON nor YAML"),
        ("", "document: Input should be a valid dictionary"),
    ],
)
def test_wrong_document_is_refused_with_what_is_wrong(tmp_path, capfd, text, what):
    config = tmp_path / "plan.json"
    config.write_text(text)
    assert bootstrap.main(["--config", str(config), "--folder", str(tmp_path)]) == 2
    shown = capfd.readouterr().err
    assert shown.startswith("BOOTSTRAP_PLAN_INVALID: ")
    assert what in shown


def test_missing_document_is_refused(tmp_path, capfd):
    assert bootstrap.main(["--config", str(tmp_path / "none")]) == 2
    assert "none cannot be read" in capfd.readouterr().err
