"""Flower's own program after `syftmesh login --flwr`: its own code reads what was written, and all else stays."""

from __future__ import annotations

import tomllib
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from syftmesh.cli import flower_login
from syftmesh.cli.flower_login import NO_REFRESH, write_connection, write_token
from syftmesh_client.profile import ProfileStore
from syftmesh_core.errors import WrongState

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from flwr.cli import constant
    from flwr.cli.flower_config import parse_superlink_connection
    from flwr.common.constant import AuthnType
    from flwr.supercore.credential_store.file_credential_store import FileCredentialStore

CAROL = "carol@lab.example"
TOKEN = "eyJhbGciOi.secret.token"
FEDERATION = "@breast-cancer/alice_40hospital_2eexample__bob_40clinic_2eexample"
SITES = ("--sites", "alice@hospital.example, bob@clinic.example", "--dataset", "breast-cancer")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "flwr"


@pytest.fixture
def login(program: Any, home: Path) -> list[Any]:
    """Simulate login and device of carol; give what the device was opened with."""
    opened: list[Any] = []

    def log_in(server: str | None, **options: Any) -> Any:
        address = server or "http://127.0.0.1:8080"
        program.state.mkdir(exist_ok=True, mode=0o700)
        ProfileStore(program.state).save(options["email"], address)
        return SimpleNamespace(email=options["email"], server=address, created=False)

    @asynccontextmanager
    async def open_node(folder: Path, server: str, **options: Any) -> AsyncIterator[Any]:
        opened.append((folder.name, server))

        async def token_for(*audiences: str) -> str:
            assert audiences == ("superlink",)
            return TOKEN

        hub = SimpleNamespace(flower_address=None)
        yield SimpleNamespace(session=SimpleNamespace(token_for=token_for), well_known=hub)

    program.environ["FLWR_HOME"] = str(home)
    program.more |= {"login": log_in, "open_node": open_node}
    return opened


def connection(home: Path) -> Any:
    """Return the connection as Flower's own code reads it."""
    found = tomllib.loads((home / "config.toml").read_text())
    return parse_superlink_connection(found["superlink"]["syftmesh"], "syftmesh")


def credential(home: Path, key: str, address: str) -> str | None:
    found = FileCredentialStore(home / "credentials.yaml").get(key % address)
    return None if found is None else found.decode()


def test_names_are_those_of_flower() -> None:
    assert flower_login.TYPE_KEY == constant.AUTHN_TYPE_STORE_KEY
    assert flower_login.ACCESS_KEY == constant.ACCESS_TOKEN_STORE_KEY
    assert flower_login.REFRESH_KEY == constant.REFRESH_TOKEN_STORE_KEY
    assert flower_login.TYPE == AuthnType.OIDC
    assert flower_login.CONFIG_FILE == constant.FLOWER_CONFIG_FILE


def test_login_gives_flower_connection_and_token_and_prints_no_token(
    program: Any, login: list[Any], home: Path
) -> None:
    done = program("login", "--email", CAROL, "--flwr", *SITES, "--json", "-v")
    assert done.code == 0
    found = connection(home)
    assert (found.address, found.insecure, found.federation) == ("127.0.0.1:8080", True, FEDERATION)
    assert done.json["flower"] == {
        "connection": "syftmesh",
        "address": "127.0.0.1:8080",
        "insecure": True,
        "federation": FEDERATION,
        "config": str(home / "config.toml"),
    }
    keys = (constant.AUTHN_TYPE_STORE_KEY, constant.ACCESS_TOKEN_STORE_KEY, constant.REFRESH_TOKEN_STORE_KEY)
    assert [credential(home, key, found.address) for key in keys] == ["oidc", TOKEN, NO_REFRESH]
    assert (home / "credentials.yaml").stat().st_mode & 0o777 == 0o600
    assert TOKEN not in done.out + done.err
    assert TOKEN not in (home / "config.toml").read_text()
    assert login == [(CAROL, "http://127.0.0.1:8080")]


def test_address_is_the_one_that_the_hub_announces(program: Any, login: list[Any], home: Path) -> None:
    announced = "flower.mesh.example:8443"
    opened = program.more["open_node"]

    @asynccontextmanager
    async def open_node(*arguments: Any, **options: Any) -> AsyncIterator[Any]:
        async with opened(*arguments, **options) as node:
            node.well_known.flower_address = announced
            yield node

    program.more["open_node"] = open_node
    done = program("login", "--email", CAROL, "--server", "https://mesh.example", "--flwr")
    assert done.code == 0
    found = connection(home)
    assert (found.address, found.insecure, found.federation) == (announced, False, None)
    assert credential(home, constant.ACCESS_TOKEN_STORE_KEY, announced) == TOKEN


def test_login_of_somebody_else_than_the_profile_in_use(program: Any, login: list[Any], home: Path) -> None:
    assert program("login", "--email", "dave@lab.example", "--profile", CAROL, "--flwr").code == 0
    assert login == [("dave@lab.example", "http://127.0.0.1:8080")]


@pytest.mark.parametrize(
    "options", [SITES, SITES[:2], SITES[2:], ("--flwr", *SITES[:2]), ("--flwr", *SITES[2:])]
)
def test_sites_and_dataset_go_together_and_with_flwr(
    program: Any, login: list[Any], home: Path, options: tuple[str, ...]
) -> None:
    done = program("login", "--email", CAROL, *options)
    assert (done.code, login, home.exists()) == (2, [], False)
    assert done.err.startswith("error: RUN_INVALID: ")


def test_login_without_flwr_leaves_flower_alone(program: Any, login: list[Any], home: Path) -> None:
    assert program("login", "--email", CAROL).code == 0
    assert (login, home.exists()) == ([], False)


def test_new_configuration_has_flowers_own_local_connection(home: Path) -> None:
    write_connection(home, "127.0.0.1:1", insecure=True, federation=None)
    found = tomllib.loads((home / "config.toml").read_text())["superlink"]
    assert found["default"] == "local"
    assert found["local"] == {"address": constant.LOCAL_SUPERLINK_ADDRESS_MAGIC_VALUE}


KEPT = """# mine
[superlink]
default = "prod" # comment

[superlink.prod]
address = "x:1"
options.num-supernodes = 3

[[other]]
text = \"\"\"
[superlink.prod]
\"\"\"
"""
OLD = '[superlink.syftmesh]\naddress = "old:1"\n[superlink.syftmesh.options]\nnum-supernodes = 1\n'


@pytest.mark.parametrize("insecure", [False, True])
def test_flower_trusts_the_hubs_own_authority_where_there_is_tls(
    home: Path,
    tmp_path: Path,
    insecure: bool,  # noqa: FBT001
) -> None:
    ca_file = tmp_path / "hub-ca.pem"
    path = write_connection(home, "new:2", insecure=insecure, federation=None, ca_file=ca_file)
    found = tomllib.loads(path.read_text())["superlink"]["syftmesh"]
    assert parse_superlink_connection(found, "syftmesh").root_certificates == (
        None if insecure else str(ca_file)
    )


@pytest.mark.parametrize(
    "before",
    [
        KEPT + OLD,
        OLD + KEPT,
        KEPT + OLD.replace("superlink.syftmesh", ' superlink . "syftmesh" '),
        KEPT + "[superlink.syftmesh] # ours\n",
        KEPT,
    ],
)
def test_everything_else_of_the_configuration_stays_as_it_was_written(home: Path, before: str) -> None:
    home.mkdir()
    (home / "config.toml").write_text(before)
    for _ in range(2):
        write_connection(home, "new:2", insecure=False, federation=FEDERATION)
        text = (home / "config.toml").read_text()
        assert KEPT.strip() in text
        assert text.count("syftmesh") == 1
        found = connection(home)
        assert (found.address, found.insecure, found.federation, found.options) == (
            "new:2",
            False,
            FEDERATION,
            None,
        )


def test_configuration_with_nothing_but_the_connection(home: Path) -> None:
    home.mkdir()
    (home / "config.toml").write_text(OLD)
    write_connection(home, "new:2", insecure=True, federation=None)
    text = '[superlink.syftmesh]\naddress = "new:2"\ninsecure = true\n'
    assert (home / "config.toml").read_text() == text


@pytest.mark.parametrize(
    "before",
    [
        '[superlink]\nsyftmesh.address = "x:1"\n',
        'superlink.syftmesh = {address = "x:1"}\n',
        'superlink = "x"\n',
        "text = '''\n[superlink.syftmesh]\n'''\n",
        "no toml",
    ],
)
def test_configuration_that_cannot_be_changed_safely_stays_as_it_is(home: Path, before: str) -> None:
    home.mkdir()
    (home / "config.toml").write_text(before)
    with pytest.raises(WrongState) as caught:
        write_connection(home, "new:2", insecure=True, federation=None)
    assert caught.value.reason == "FLOWER_CONFIG_UNUSABLE"
    assert (home / "config.toml").read_text() == before


def test_configuration_behind_a_link_is_changed_where_it_lies(home: Path, tmp_path: Path) -> None:
    home.mkdir()
    (tmp_path / "dotfiles.toml").write_text(KEPT)
    (home / "config.toml").symlink_to(tmp_path / "dotfiles.toml")
    write_connection(home, "new:2", insecure=True, federation=None)
    assert (home / "config.toml").is_symlink()
    assert "syftmesh" in (tmp_path / "dotfiles.toml").read_text()


def test_credentials_of_other_hosts_stay(home: Path) -> None:
    store = FileCredentialStore(home / "credentials.yaml")
    store.set("flower.account-auth.x:1.oidc-access-token", b"other")
    (home / "credentials.yaml").chmod(0o644)
    write_token(home, "new:2", "first")
    write_token(home, "new:2", TOKEN)
    assert credential(home, constant.ACCESS_TOKEN_STORE_KEY, "x:1") == "other"
    assert credential(home, constant.ACCESS_TOKEN_STORE_KEY, "new:2") == TOKEN
    assert (home / "credentials.yaml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("before", ["[1, 2]", "a: [", "text"])
def test_damaged_credentials_are_not_thrown_away(home: Path, before: str) -> None:
    home.mkdir()
    (home / "credentials.yaml").write_text(before)
    with pytest.raises(WrongState) as caught:
        write_token(home, "new:2", TOKEN)
    assert caught.value.reason == "FLOWER_CONFIG_UNUSABLE"
    assert TOKEN not in caught.value.message
    assert (home / "credentials.yaml").read_text() == before
