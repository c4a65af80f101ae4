"""Whom a client takes for the hub, and where objects lie whose URLs name no host."""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from syftmesh_client.traffic import Traffic
from syftmesh_client.transfer import Transfer
from syftmesh_client.trust import CA_FILE, HubTrust, rejection, untrusted
from syftmesh_client.wellknown import discover
from syftmesh_core.clock import SystemClock, to_datetime
from syftmesh_core.errors import IntegrityFailure, InvalidInput, NotFound

HUB = "https://hub.example:8443"
URL = "/objects/syftmesh/x?X-Amz-Signature=1"
BLOB = b"sealed"
DIGEST = hashlib.sha256(BLOB).hexdigest()


@pytest.fixture(scope="module")
def pem() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    now_ms = SystemClock().now_ms()
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(to_datetime(now_ms - 60_000))
        .not_valid_after(to_datetime(now_ms + 3_600_000))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(Encoding.PEM)


def test_only_certificates_of_a_file_are_kept(tmp_path: Path, pem: bytes) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(b"subject: an authority\n" + pem + b"\n" + pem)
    found = HubTrust.of_file(file).pem or b""
    assert found.count(b"BEGIN CERTIFICATE") == 2
    assert b"subject" not in found
    context = HubTrust(found).context()
    assert [c["subject"] for c in context.get_ca_certs()] == [((("commonName", "an authority"),),)]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no PEM certificate"),
        (b"<html>", "no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no certificate"),
        (b"%s-----BEGIN PRIVATE KEY-----\n", "private key"),
    ],
    ids=range(4),
)
def test_a_file_without_certificates_or_with_a_key_is_refused(
    tmp_path: Path, pem: bytes, content: bytes, words: str
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(content.replace(b"%s", pem))
    with pytest.raises(InvalidInput) as caught:
        HubTrust.of_file(file)
    assert caught.value.reason == "CA_FILE_INVALID"
    assert words in caught.value.message
    assert "--ca-file" in caught.value.hint


def test_a_file_that_is_named_and_missing_is_never_the_internets_authorities(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        HubTrust.of_folder(tmp_path, tmp_path / "none.pem")
    assert caught.value.reason == "CA_FILE_MISSING"
    (tmp_path / CA_FILE).write_bytes(b"")
    with pytest.raises(InvalidInput):
        HubTrust.of_folder(tmp_path)


def test_the_file_named_comes_before_the_folders_own_and_without_both_the_internet_counts(
    tmp_path: Path, pem: bytes
) -> None:
    assert HubTrust.of_folder(tmp_path).pem is None
    (tmp_path / CA_FILE).write_bytes(pem)
    assert HubTrust.of_folder(tmp_path).pem == HubTrust.of_file(tmp_path / CA_FILE).pem
    other = tmp_path / "other.pem"
    other.write_bytes(pem + pem)
    assert HubTrust.of_folder(tmp_path, other).pem == HubTrust.of_file(other).pem


def test_a_plaintext_hub_needs_no_certificates_and_trusts_none() -> None:
    assert HubTrust().verify("http://127.0.0.1:8080").get_ca_certs() == []
    assert HubTrust().verify("https://hub.example").get_ca_certs() != []


@pytest.mark.parametrize(
    ("code", "words", "hint"),
    [
        (10, "has expired", "renew"),
        (9, "not valid yet", "timedatectl"),
        (62, "another name", "names"),
        (64, "another address", "names"),
        (20, "nobody whom this program trusts", "--ca-file"),
        (18, "nobody whom this program trusts", "--ca-file"),
    ],
)
def test_a_refused_certificate_is_told_in_own_words(code: int, words: str, hint: str) -> None:
    cause = ssl.SSLCertVerificationError("[SSL: CERTIFICATE_VERIFY_FAILED] secret driver text")
    cause.verify_code = code
    error = untrusted(cause, HUB)
    assert error.reason == "SERVER_UNTRUSTED"
    assert words in error.message
    assert hint in error.hint
    assert "driver" not in error.message


def _failing(request: httpx.Request) -> httpx.Response:
    try:
        raise ssl.SSLCertVerificationError("no")
    except ssl.SSLError as error:
        raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED]", request=request) from error


def test_the_cause_of_a_failed_connection_is_found() -> None:
    with pytest.raises(httpx.ConnectError) as caught:
        _failing(httpx.Request("GET", HUB))
    assert isinstance(rejection(caught.value), ssl.SSLCertVerificationError)
    assert rejection(httpx.ConnectError("refused")) is None


async def test_discovery_tells_an_untrusted_hub_from_one_that_is_away() -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(_failing)) as client:
        with pytest.raises(IntegrityFailure) as caught:
            await discover(HUB, http=client)
    assert caught.value.reason == "SERVER_UNTRUSTED"


@pytest.mark.parametrize(("url", "tls"), [(HUB, False), (HUB, True), ("http://hub.example:8080", False)])
async def test_a_hub_reached_by_tls_may_not_send_its_callers_to_plaintext(url: str, tls: object) -> None:
    answer = {"issuer": HUB, "grpc": "hub.example:8443", "version": "1", "grpc_tls": tls}
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=answer))
    async with httpx.AsyncClient(transport=transport) as client:
        if tls or url != HUB:
            assert (await discover(url, http=client)).grpc_tls is tls
            return
        with pytest.raises(IntegrityFailure) as caught:
            await discover(url, http=client)
    assert caught.value.reason == "SERVER_DOWNGRADE"


class Store:
    """An object store that notes where it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return httpx.Response(200, stream=httpx.ByteStream(BLOB))


@pytest.fixture
def store() -> Iterator[Store]:
    return Store()


def _transfer(store: Store, base_url: str) -> Transfer:
    http = httpx.AsyncClient(transport=httpx.MockTransport(store), base_url=base_url)
    return Transfer(http, Traffic())


@pytest.mark.parametrize("base_url", [HUB, f"{HUB}/"])
async def test_a_url_without_a_host_is_meant_for_the_hub(store: Store, base_url: str) -> None:
    transfer = _transfer(store, base_url)
    assert await transfer.get(URL, object_id=DIGEST, size_bytes=len(BLOB)) == BLOB
    await transfer.put(URL, {}, BLOB)
    assert store.asked == [f"{HUB}{URL}"] * 2


async def test_a_url_with_a_host_leads_there(store: Store) -> None:
    url = "https://store.example/b/x?s=1"
    await _transfer(store, HUB).get(url, object_id=DIGEST, size_bytes=len(BLOB))
    assert store.asked == [url]


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        (HUB, "//evil.example/x"),
        (HUB, "/\\evil.example/x"),
        (HUB, "objects/x"),
        (HUB, ""),
        (HUB, "ftp://store.example/x"),
        (HUB, "@evil.example/x"),
        ("", URL),
    ],
)
async def test_a_url_that_leads_elsewhere_is_refused(store: Store, base_url: str, url: str) -> None:
    transfer = _transfer(store, base_url)
    for work in (transfer.get(url, object_id=DIGEST, size_bytes=6), transfer.put(url, {}, BLOB)):
        with pytest.raises(IntegrityFailure) as caught:
            await work
        assert caught.value.reason == "URL_REFUSED"
    assert store.asked == []


async def test_a_store_whose_certificate_is_refused_is_not_asked_again() -> None:
    asked: list[httpx.Request] = []

    def failing(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return _failing(request)

    transfer = Transfer(httpx.AsyncClient(transport=httpx.MockTransport(failing), base_url=HUB), Traffic())
    with pytest.raises(IntegrityFailure) as caught:
        await transfer.get(URL, object_id=DIGEST, size_bytes=6)
    assert (caught.value.reason, len(asked)) == ("SERVER_UNTRUSTED", 1)
    assert caught.value.metadata == {"server": "'hub.example:8443'"}
