"""The file in which the operator names the providers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from syftmesh_core.errors import InvalidInput, MeshError, WrongState
from syftmesh_identity.adapters.provider_file import provider_clients, read_providers
from syftmesh_identity.domain.provider import Provider
from syftmesh_identity.settings import IdentitySettings
from syftmesh_kit.settings import ServiceSettings
from syftmesh_kit.testing import FakeClock
from syftmesh_kit.testing_authority import TestAuthority

PAGE = Path(__file__).parents[3] / "docs/operations/identity.md"
REASONS = {
    "PROVIDER_AWAY",
    "PROVIDER_TOKEN_INVALID",
    "EMAIL_NOT_VERIFIED",
    "LOGIN_INVALID",
    "TOO_MANY_LOGINS",
}
SECRET = "m4rk3d-s3cr3t"
ENTRY = {"name": "sso", "issuer": "https://sso.example", "client_id": "hub", "client_secret": SECRET}
TOML = """
[[providers]]
name = "sso"
issuer = "https://sso.example"
client_id = "hub"
client_secret = "m4rk3d-s3cr3t"
scopes = ["openid", "email", "profile"]
email_domains = ["x.example"]
hosts = ["api.example"]
email_claim = "mail"
verified_claim = "mail_verified"
"""


def written(tmp_path: Path, content: Any, name: str = "providers.json") -> Path:
    path = tmp_path / name
    path.touch(mode=0o600)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def refused(path: Path) -> MeshError:
    with pytest.raises(InvalidInput) as caught:
        read_providers(path)
    assert SECRET not in f"{caught.value.message}{caught.value.metadata}"
    assert SECRET not in str(caught.value.__cause__)
    return caught.value


def test_without_a_file_there_are_no_providers() -> None:
    assert read_providers(None) == []


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    (found,) = read_providers(written(tmp_path, TOML, "providers.toml"))
    assert found.provider == Provider(
        name="sso",
        issuer="https://sso.example",
        client_id="hub",
        client_secret=SECRET,
        scopes=("openid", "email", "profile"),
        email_domains=frozenset({"x.example"}),
        hosts=frozenset({"api.example"}),
        email_claim="mail",
        verified_claim="mail_verified",
    )
    assert SECRET not in repr(found)
    (plain,) = read_providers(written(tmp_path, {"providers": [ENTRY]}))
    assert plain.provider == Provider("sso", "https://sso.example", "hub", SECRET)


def test_a_client_secret_may_lie_in_a_file_of_its_own(tmp_path: Path) -> None:
    own = written(tmp_path, f"{SECRET}\n", "sso.secret")
    entry = {**ENTRY, "client_secret": "", "client_secret_file": str(own)}
    (found,) = read_providers(written(tmp_path, {"providers": [entry]}))
    assert found.provider.client_secret == SECRET
    assert (
        "one of both"
        in refused(written(tmp_path, {"providers": [{**entry, "client_secret": SECRET}]})).message
    )
    own.chmod(0o644)
    with pytest.raises(WrongState):
        read_providers(written(tmp_path, {"providers": [entry]}))
    own.unlink()
    assert "one of both" in refused(written(tmp_path, {"providers": [entry]})).message


def test_each_provider_is_asked_by_a_client_of_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, {"providers": [ENTRY, {**ENTRY, "name": "other"}]})
    assert sorted(provider_clients(read_providers(path), FakeClock())) == ["other", "sso"]


def test_a_ca_file_takes_the_place_of_the_well_known_authorities(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(TestAuthority().pem)
    (found,) = read_providers(written(tmp_path, {"providers": [{**ENTRY, "ca_file": str(authority)}]}))
    assert len(found.trust.get_ca_certs()) == 1


@pytest.mark.parametrize("content", ["", "no certificate", None])
def test_a_ca_file_that_holds_none_is_refused(tmp_path: Path, content: str | None) -> None:
    authority = tmp_path / "ca.pem"
    if content is not None:
        authority.write_text(content)
    error = refused(written(tmp_path, {"providers": [{**ENTRY, "ca_file": str(authority)}]}))
    assert error.reason == "TLS_FILES_INVALID"
    assert str(tmp_path) not in error.message


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"providers": [ENTRY]})
    path.chmod(0o640)
    with pytest.raises(WrongState) as caught:
        read_providers(path)
    assert caught.value.reason == "FILE_NOT_PRIVATE"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "neither"),
        ("{", "neither"),
        (f'{{"providers": [{SECRET}]}}', "neither"),
        ("[" * 50_000, "neither"),
        ([ENTRY], "wrong at"),
        ({}, "providers"),
        ({"providers": [ENTRY], "provider": []}, "provider"),
        ({"providers": [{**ENTRY, "secret": SECRET}]}, "providers.0.secret"),
        ({"providers": [{**ENTRY, "client_secret": [SECRET]}]}, "providers.0.client_secret"),
        ({"providers": [{**ENTRY, "scopes": "openid"}]}, "providers.0.scopes"),
        ({"providers": [{"name": "sso"}]}, "providers.0.client_id"),
        ({"providers": [ENTRY] * 17}, "providers"),
        ({"providers": [ENTRY, ENTRY]}, "twice: sso"),
        ({"providers": [{**ENTRY, "issuer": "http://sso.example"}]}, "issuer"),
    ],
)
def test_a_file_that_is_wrong_says_where_and_shows_no_secret(
    tmp_path: Path, content: Any, place: str
) -> None:
    error = refused(written(tmp_path, content))
    assert error.reason == "SETTING_INVALID"
    assert place in error.message


def test_the_example_of_the_operators_page_is_taken(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    authority = tmp_path / "ca.crt"
    authority.write_bytes(TestAuthority().pem)
    for name in ("hospital", "google"):
        written(tmp_path, SECRET, f"{name}.secret")
    here = example.replace("/etc/syftmesh/providers", str(tmp_path))
    hospital, google = read_providers(written(tmp_path, here, "providers.toml"))
    assert hospital.provider.email_domains == {"hospital.example"}
    assert google.provider.may_ask("https://oauth2.googleapis.com/device/code")
    assert google.provider.client_secret == SECRET


def test_the_operators_page_names_settings_that_are_there_and_leaves_none_of_them_out() -> None:
    own = set(IdentitySettings.model_fields) - set(ServiceSettings.model_fields)
    text = PAGE.read_text().replace("SYFTMESH_IDENTITY_", "")
    named = {name.lower() for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text)}
    assert own - named - {"administrators"} == set()
    assert named - own == {reason.lower() for reason in REASONS}
    assert "`ADMINISTRATORS`" in text


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    assert "missing" in refused(tmp_path / "providers.json").message
