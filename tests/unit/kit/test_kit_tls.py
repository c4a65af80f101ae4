"""TLS settings, the files of an identity, and why a connection is not made."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest
import structlog
from syftmesh_core.clock import SystemClock
from syftmesh_core.errors import InvalidInput, Unauthenticated, Unavailable, WrongState
from syftmesh_kit.fault import connect_error
from syftmesh_kit.s3 import S3Config, S3ObjectStore
from syftmesh_kit.settings import S3Settings, ServiceSettings, load_settings, settings_config
from syftmesh_kit.store_trust import is_untrusted, store_context
from syftmesh_kit.testing_authority import TestAuthority
from syftmesh_kit.tls import TlsIdentity, certificate_names, check_peer, follow, peer_names
from syftmesh_kit.waiting import Waiting
from urllib3 import HTTPConnectionPool
from urllib3.exceptions import MaxRetryError, SSLError

PREFIX = "SYFTMESH_SYNC_"


class SyncSettings(ServiceSettings, S3Settings):
    model_config = settings_config("sync")


@pytest.fixture(scope="module")
def authority() -> TestAuthority:
    return TestAuthority()


@pytest.fixture
def identity(tmp_path: Path, authority: TestAuthority) -> TlsIdentity:
    return authority.issue(tmp_path / "tls", "sync")


def _set(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"{PREFIX}{name}", value)


def test_three_files_make_an_identity_and_none_makes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(SyncSettings).tls is None
    _set(monkeypatch, TLS_CERT_FILE="/t/tls.crt", TLS_KEY_FILE="/t/tls.key", TLS_CA_FILE="/t/ca.crt")
    expected = TlsIdentity(Path("/t/tls.crt"), Path("/t/tls.key"), Path("/t/ca.crt"))
    assert load_settings(SyncSettings).tls == expected
    _set(monkeypatch, TLS_CERT_FILE="", TLS_KEY_FILE="", TLS_CA_FILE="", S3_CA_FILE="")
    assert load_settings(SyncSettings).tls is None
    assert load_settings(SyncSettings).s3_ca_file is None


@pytest.mark.parametrize("missing", ["TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CA_FILE"])
def test_half_an_identity_is_refused(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    given = {name: "/t/x" for name in ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CA_FILE") if name != missing}
    _set(monkeypatch, **given)
    with pytest.raises(InvalidInput, match="go together") as caught:
        load_settings(SyncSettings)
    assert caught.value.reason == "SETTING_INVALID"
    assert missing in caught.value.message


def test_peers_without_tls_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, TLS_PEERS="gateway")
    with pytest.raises(InvalidInput, match="TLS_PEERS needs"):
        load_settings(SyncSettings)


@pytest.mark.parametrize("text", ["gateway, tools", '["gateway", "tools"]', "gateway,,tools,"])
def test_peers_are_a_list_in_either_form(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    _set(monkeypatch, TLS_CERT_FILE="/t/1", TLS_KEY_FILE="/t/2", TLS_CA_FILE="/t/3", TLS_PEERS=text)
    assert load_settings(SyncSettings).tls_peers == {"gateway", "tools"}


@pytest.mark.parametrize("text", ["[gateway", '["gateway", 5]'])
def test_a_broken_list_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    _set(monkeypatch, TLS_CERT_FILE="/t/1", TLS_KEY_FILE="/t/2", TLS_CA_FILE="/t/3", TLS_PEERS=text)
    with pytest.raises(InvalidInput) as caught:
        load_settings(SyncSettings)
    assert "SYFTMESH_SYNC_TLS_PEERS" in caught.value.metadata["variable"]


def test_files_that_belong_together_are_read(identity: TlsIdentity, authority: TestAuthority) -> None:
    found = identity.read()
    assert found.ca == authority.pem
    assert b"PRIVATE KEY" in found.key
    assert b"PRIVATE KEY" not in repr(found).encode()
    assert isinstance(identity.client_context(), ssl.SSLContext)
    assert identity.server_context().verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", ["cert_file", "key_file", "ca_file"])
@pytest.mark.parametrize("content", [None, b"", b"rubbish", b"-----BEGIN CERTIFICATE-----\nAA\n"])
def test_a_missing_or_damaged_file_is_refused(
    identity: TlsIdentity, name: str, content: bytes | None
) -> None:
    path: Path = getattr(identity, name)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        identity.read()
    assert caught.value.reason == "TLS_FILES_INVALID"
    assert str(path.parent) not in caught.value.message
    for make in (identity.server_credentials, identity.channel_credentials, identity.client_context):
        with pytest.raises(InvalidInput):
            make()


def test_a_key_of_another_certificate_is_refused(
    tmp_path: Path, identity: TlsIdentity, authority: TestAuthority
) -> None:
    other = authority.issue(tmp_path / "other", "sync")
    identity.key_file.write_bytes(other.key_file.read_bytes())
    with pytest.raises(InvalidInput) as caught:
        identity.read()
    assert caught.value.reason == "TLS_FILES_INVALID"


def test_a_key_open_to_others_is_refused(identity: TlsIdentity) -> None:
    identity.key_file.chmod(0o644)
    with pytest.raises(WrongState) as caught:
        identity.read()
    assert caught.value.reason == "FILE_NOT_PRIVATE"


async def test_contexts_follow_the_files_and_outlive_a_broken_moment(
    identity: TlsIdentity, authority: TestAuthority
) -> None:
    class Contexts(list[ssl.SSLContext]):
        loads = 0

        def __iter__(self):  # type: ignore[no-untyped-def]
            Contexts.loads += 1
            return super().__iter__()

    task = asyncio.create_task(follow(identity, Contexts([identity.client_context()]), pause_s=0.001))
    await asyncio.sleep(0.05)
    assert Contexts.loads == 0
    kept = identity.key_file.read_bytes()
    identity.key_file.write_bytes(b"half")
    await asyncio.sleep(0.05)
    assert (Contexts.loads, task.done()) == (0, False)
    identity.key_file.write_bytes(kept)
    authority.issue(identity.cert_file.parent, "sync")
    async with asyncio.timeout(5):
        while not Contexts.loads:
            await asyncio.sleep(0.005)
    task.cancel()


def test_names_of_a_peer_are_read_from_both_kinds_of_certificates() -> None:
    assert peer_names({"x509_subject_alternative_name": [b"gateway", b"localhost"]}) == {
        "gateway",
        "localhost",
    }
    assert peer_names({}) == peer_names(None) == frozenset()
    found = certificate_names({"subjectAltName": (("DNS", "gateway"), ("IP Address", "127.0.0.1"))})
    assert found == {"gateway", "127.0.0.1"}
    assert certificate_names(None) == frozenset()


def test_a_peer_needs_one_of_the_names() -> None:
    check_peer({"anything"}, frozenset())
    check_peer({"gateway", "localhost"}, frozenset({"gateway", "tools"}))
    for names in ({"router"}, set(), {"gateway.evil"}, {"Gateway"}):
        with pytest.raises(Unauthenticated) as caught:
            check_peer(names, frozenset({"gateway"}))
        assert caught.value.reason == "PEER_REFUSED"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("refused"), "BUS_UNREACHABLE"),
        (TimeoutError(), "BUS_UNREACHABLE"),
        (Exception("nats: 'Authorization Violation'"), "BUS_REFUSED"),
        (ssl.SSLCertVerificationError("self-signed"), "BUS_UNTRUSTED"),
        (ssl.SSLError("alert"), "BUS_UNTRUSTED"),
        (Exception("TLS was expected"), "BUS_UNTRUSTED"),
    ],
)
def test_why_the_bus_is_not_reached(error: BaseException, reason: str) -> None:
    found = connect_error(error)
    assert isinstance(found, Unavailable)
    assert found.reason == reason


def test_waiting_is_told_once_for_each_reason() -> None:
    with structlog.testing.capture_logs() as lines:
        waiting = Waiting("sync.waiting")
        for reason in ("A", "A", "B", "B", "A"):
            waiting.note(Unavailable("Away.", reason=reason))
        waiting.clear()
        waiting.note(Unavailable("Away.", reason="A"))
    assert [line["reason"] for line in lines] == ["A", "B", "A", "A"]
    assert {line["event"] for line in lines} == {"sync.waiting"}


@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_authorities_of_the_store_must_be_there(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "store-ca.crt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        store_context(path)
    assert caught.value.reason == "TLS_FILES_INVALID"
    with pytest.raises(InvalidInput):
        S3ObjectStore(S3Config("https://store:9000", "k", "s", ca_file=path))


def test_the_systems_authorities_stay_as_they_are(
    identity: TlsIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    S3ObjectStore(S3Config("https://store:9000", "k", "s", ca_file=identity.ca_file))
    assert "SSL_CERT_FILE" not in os.environ
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/own.pem")
    S3ObjectStore(S3Config("https://store:9000", "k", "s", ca_file=identity.ca_file))
    assert os.environ["SSL_CERT_FILE"] == "/etc/own.pem"


def test_an_untrusted_store_is_told_from_one_that_is_away() -> None:
    request = OSError("request failed")
    request.__cause__ = ssl.SSLCertVerificationError("unable to get local issuer certificate")
    assert is_untrusted(request)
    assert is_untrusted(MaxRetryError(HTTPConnectionPool("store"), "/", SSLError(request.__cause__)))
    assert is_untrusted(Exception("error: InvalidCertificate(\n UnknownIssuer,\n)"))
    assert not is_untrusted(OSError("connection refused"))


def test_presigned_urls_below_a_path_are_relative_and_signed_for_the_store() -> None:
    config = S3Config(
        "https://store:9000", "key", "secret", signing_host="hub-store:9000", url_base="/objects"
    )
    request = S3ObjectStore(config, SystemClock()).presign_get("packs/a", ttl_s=30)
    assert request.url.startswith("/objects/syftmesh/packs/a?X-Amz-Algorithm=")
    assert "https" not in request.url
