"""Where Flower's services are, and how stock Flower clients name sites and dataset."""

from __future__ import annotations

import re

import pytest
from syftmesh.flower_address import FlowerAddress, federation_name, flower_address
from syftmesh_core.errors import IntegrityFailure

FLOWER_PATTERN = r"^@[a-zA-Z0-9\-_]+/[a-zA-Z0-9\-_]+$"
"""What `flwr.supercore.utils.check_federation_format` of 1.41 lets pass."""


@pytest.mark.parametrize(
    ("server", "announced", "address", "insecure"),
    [
        ("http://127.0.0.1:8080", None, "127.0.0.1:8080", True),
        ("http://127.0.0.1:8080", "127.0.0.1:9000", "127.0.0.1:9000", True),
        ("https://mesh.example", None, "mesh.example:443", False),
        ("https://mesh.example/", "flower.mesh.example:8443", "flower.mesh.example:8443", False),
        ("http://[::1]:8080", None, "[::1]:8080", True),
        ("http://mesh.example", "", "mesh.example:80", True),
    ],
)
def test_address_is_what_the_hub_announces_else_its_own(
    server: str, announced: str | None, address: str, insecure: object
) -> None:
    assert flower_address(server, announced) == FlowerAddress(address, bool(insecure))


@pytest.mark.parametrize(
    "announced",
    ["ftp://mesh.example", "http://", "mesh.example:port", "http://mesh.example/x", "u@x.example"],
)
def test_announcement_that_is_no_address_is_refused(announced: str) -> None:
    with pytest.raises(IntegrityFailure) as caught:
        flower_address("http://127.0.0.1:8080", announced)
    assert caught.value.reason == "SERVER_FOREIGN"


def test_a_hub_reached_by_tls_may_not_send_flower_to_plaintext() -> None:
    with pytest.raises(IntegrityFailure) as caught:
        flower_address("https://mesh.example", "http://mesh.example:8000")
    assert caught.value.reason == "SERVER_DOWNGRADE"


def test_federation_name_passes_flowers_own_check_and_is_read_back_by_the_hub() -> None:
    from syftmesh_superlink.domain.federation_name import parse_federation

    sites = ("alice@hospital.example", "bob_b+x@clinic-2.example")
    name = federation_name("breast_cancer-1.v2", sites)
    assert re.match(FLOWER_PATTERN, name)
    assert parse_federation(name) == ("breast_cancer-1.v2", sites)
