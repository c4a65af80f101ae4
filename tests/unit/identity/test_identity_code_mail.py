"""What stands in the mail with a code, and which mail servers the settings let us talk to."""

from __future__ import annotations

import email
import email.policy
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from syftmesh_core.errors import InvalidInput, WrongState
from syftmesh_identity.adapters.derived_key import derived_key
from syftmesh_identity.adapters.mail_server import mail_server
from syftmesh_identity.adapters.mail_text import code_message
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.mail import CodeMail
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.settings import load_settings

MAIL = CodeMail("alice@x.example", "ABCD-EFGH", 600)
SENDER = "login@mesh.example"


def _message(mail: CodeMail = MAIL, sender: str = SENDER) -> email.message.EmailMessage:
    made = code_message(
        mail, sender=sender, issuer="https://mesh.example", message_id="m1", now_ms=1_767_225_600_000
    )
    return email.message_from_bytes(made.as_bytes(), policy=email.policy.default)


def test_the_mail_says_what_it_is_about():
    message = _message()
    text = message.get_content()
    for part in ("ABCD-EFGH", "mesh.example", "alice@x.example", "10 minutes", "do nothing"):
        assert part in text
    assert message.get_content_type() == "text/plain"
    assert (message["From"], message["To"]) == (SENDER, "alice@x.example")
    assert message["Date"] == "Thu, 01 Jan 2026 00:00:00 +0000"
    assert message["Message-ID"] == "<m1@mesh.example>"
    assert message["Auto-Submitted"] == "auto-generated"


def test_the_mail_has_no_link_and_no_code_in_its_headers():
    message = _message()
    assert "://" not in message.as_string()
    assert "ABCD" not in str(message.items())


@pytest.mark.parametrize(
    "principal",
    ["a@x.example\r\nBcc: eve@y.example", "a@x.example, eve@y.example", "a@x.example\n", "<a@x.example>", ""],
)
def test_no_address_brings_headers_along(principal):
    for changed in ({"mail": CodeMail(principal, "ABCD-EFGH", 600)}, {"sender": principal}):
        with pytest.raises(InvalidInput) as caught:
            _message(**changed)
        assert caught.value.reason == "PRINCIPAL_INVALID"


@pytest.mark.parametrize("local", [".a", "a.", "a..b", "..", "%", "-", "a+b", "a" * 64])
def test_whoever_can_be_a_principal_can_be_written_to(local):
    message = _message(CodeMail(f"{local}@x.example", "ABCD-EFGH", 600))
    (to,) = message["To"].addresses
    assert (to.username, to.domain) == (local, "x.example")


def _settings(tmp_path: Path, **given: object) -> IdentitySettings:
    values = {"smtp_host": "mail.example", "mail_from": SENDER, "signing_key_file": tmp_path / "key", **given}
    return load_settings(IdentitySettings, **values)


def test_without_a_mail_server_there_is_none(tmp_path):
    assert mail_server(_settings(tmp_path, smtp_host="", mail_from="")) is None


@pytest.mark.parametrize(("security", "port"), [("tls", 465), ("starttls", 587)])
def test_certificates_are_checked_and_ports_follow_the_security(tmp_path, security, port):
    server = mail_server(_settings(tmp_path, smtp_security=security))
    assert (server.port, server.security) == (port, security)
    assert server.context.verify_mode is ssl.CERT_REQUIRED
    assert server.context.check_hostname
    assert server.context.minimum_version is ssl.TLSVersion.TLSv1_2
    client = server.client("mesh.example")
    assert (client.use_tls, client._start_tls_on_connect) == (security == "tls", security == "starttls")


def test_the_default_is_starttls_which_the_server_must_offer(tmp_path):
    assert mail_server(_settings(tmp_path)).security == "starttls"


@pytest.mark.parametrize(
    "given",
    [
        {"smtp_security": "none"},
        {"smtp_security": "none", "smtp_host": "127.0.0.1.example"},
        {"smtp_security": "plain"},
        {"mail_from": ""},
        {"mail_from": "Mesh <login@mesh.example>"},
        {"mail_from": "login@mesh.example\r\nBcc: e@x.example"},
        {"smtp_user": "u"},
        {"smtp_password_file": "/run/p"},
        {"smtp_port": 65536},
        {"codes_per_address_hour": 0},
    ],
)
def test_contradictory_settings_are_refused(tmp_path, given):
    with pytest.raises(InvalidInput) as caught:
        _settings(tmp_path, **given)
    assert caught.value.reason == "SETTING_INVALID"


def test_mail_without_tls_stays_on_this_machine(tmp_path):
    server = mail_server(_settings(tmp_path, smtp_security="none", smtp_host="127.0.0.1"))
    assert (server.port, server.context) == (25, None)


def test_the_password_is_read_from_a_private_file_and_never_shown(tmp_path):
    place = tmp_path / "password"
    place.write_text("s3cret word\n")
    place.chmod(0o600)
    server = mail_server(_settings(tmp_path, smtp_user="u", smtp_password_file=place))
    assert server.password == "s3cret word"
    assert "s3cret" not in repr(server)
    place.chmod(0o644)
    with pytest.raises(WrongState) as caught:
        mail_server(_settings(tmp_path, smtp_user="u", smtp_password_file=place))
    assert caught.value.reason == "FILE_NOT_PRIVATE"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_password_file_that_holds_none_is_refused(tmp_path, content):
    place = tmp_path / "password"
    if content is not None:
        place.write_bytes(content)
        place.chmod(0o600)
    with pytest.raises(InvalidInput) as caught:
        mail_server(_settings(tmp_path, smtp_user="u", smtp_password_file=place))
    assert caught.value.metadata == {"variable": "SYFTMESH_IDENTITY_SMTP_PASSWORD_FILE"}


@pytest.mark.parametrize("content", [None, b"no certificate"])
def test_an_authority_file_that_holds_none_is_refused(tmp_path, content):
    place = tmp_path / "ca.pem"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(InvalidInput) as caught:
        mail_server(_settings(tmp_path, smtp_ca_file=place))
    assert caught.value.metadata == {"variable": "SYFTMESH_IDENTITY_SMTP_CA_FILE"}


def test_domains_as_variables(tmp_path, monkeypatch):
    assert _settings(tmp_path).admitted_domains == {"*"}
    monkeypatch.setenv("SYFTMESH_IDENTITY_ADMITTED_DOMAINS", "a.example, b.example")
    assert _settings(tmp_path).admitted_domains == {"a.example", "b.example"}
    monkeypatch.setenv("SYFTMESH_IDENTITY_ADMITTED_DOMAINS", "")
    assert _settings(tmp_path).admitted_domains == frozenset()


def test_fingerprints_of_other_parts_kinds_and_keys_differ():
    one = Fingerprint(b"1" * 32)
    made = {
        one.of("code", "ab", "c"),
        one.of("code", "a", "bc"),
        one.of("code", "abc"),
        one.of("limit", "ab", "c"),
        Fingerprint(b"2" * 32).of("code", "ab", "c"),
    }
    assert len(made) == 5
    assert one.of("code", "a") == Fingerprint(b"1" * 32).of("code", "a")


def test_keys_of_two_purposes_differ_and_outlive_a_restart():
    root = Ed25519PrivateKey.generate()
    again = Ed25519PrivateKey.from_private_bytes(root.private_bytes_raw())
    assert derived_key(root, "a") == derived_key(again, "a")
    assert len({derived_key(root, "a"), derived_key(root, "b"), root.private_bytes_raw()}) == 3
    assert len(derived_key(root, "a")) == 32
