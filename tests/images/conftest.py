"""The images that `make images` built, unpacked once for all tests."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from image_builder import Image, builder, reference

_REQUIRED = os.environ.get("SYFTMESH_IMAGES") == "1"


def _missing(what: str) -> None:
    if _REQUIRED:
        pytest.fail(f"SYFTMESH_IMAGES=1 asks for the images, but {what}")
    pytest.skip(f"{what}; run: make images")


@pytest.fixture(scope="session")
def image_named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Image]]:
    """Gives an image by its name; skips where it was not built, and fails there with SYFTMESH_IMAGES=1."""
    shown, known, containers = builder(), dict[str, Image](), list[str]()

    def named(name: str) -> Image:
        if shown is None:
            _missing("neither a docker daemon nor buildah (as root) is here")
        if shutil.which("bwrap") is None:
            _missing("bubblewrap, which runs them read-only, is not installed")
        assert shown is not None
        if name not in known:
            found = shown.inspect(reference(name))
            if found is None:
                _missing(f"there is no image {reference(name)}")
            assert found is not None
            container, root = shown.unpack(reference(name), tmp_path_factory.mktemp(name))
            containers.append(container)
            known[name] = Image(name, *found, root)
        return known[name]

    yield named
    for container in containers:
        assert shown is not None
        shown.remove(container)


@pytest.fixture
def image(request: pytest.FixtureRequest, image_named: Callable[[str], Image]) -> Image:
    """The image that the test is parametrized with."""
    return image_named(request.param)
