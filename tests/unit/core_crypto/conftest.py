"""Two principals with fixed keys, so that failures can be repeated."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from syftmesh_core.identity.device import DevicePublic, DeviceSecret
from syftmesh_core.identity.phrase import AccountRoot

ASSETS = Path(__file__).parents[2] / "assets"


class Drbg:
    """Repeatable bytes in place of randomness."""

    def __init__(self, name: str) -> None:
        self._name, self._count = name, 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(f"{self._name}/{self._count}".encode()).digest(size)


@dataclass(frozen=True)
class Party:
    root: AccountRoot
    secret: DeviceSecret
    public: DevicePublic


def party(name: str, *, admin: bool = True) -> Party:
    random = Drbg(name)
    secret = DeviceSecret.generate(f"{name}@x.example", f"{name}-1", serves=True, admin=admin, random=random)
    return Party(AccountRoot(random(32)), secret, secret.public())


@pytest.fixture(scope="session")
def alice() -> Party:
    return party("alice")


@pytest.fixture(scope="session")
def bob() -> Party:
    return party("bob")


@pytest.fixture(scope="session")
def carol() -> Party:
    return party("carol")


@pytest.fixture(scope="session")
def published() -> dict[str, dict]:
    return json.loads((ASSETS / "published_vectors.json").read_text())
