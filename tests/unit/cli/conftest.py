"""The program in this process, with streams of its own and a client that is made of dictionaries."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from syftmesh_kit.testing import FakeClock

with warnings.catch_warnings():
    # Typer 0.20, which Flower dictates, uses names that click 8.5 warns of.
    warnings.simplefilter("ignore", DeprecationWarning)
    from syftmesh.cli.__main__ import run
    from syftmesh.cli.frame import Surroundings

NOW_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning:typer"))


class Stream(io.TextIOWrapper):
    """A text stream in memory that may pose as a terminal."""

    def __init__(self, text: str = "", *, terminal: bool = False) -> None:
        super().__init__(io.BytesIO(text.encode()), encoding="utf-8", newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    def data(self) -> bytes:
        self.flush()
        buffer: Any = self.buffer
        return bytes(buffer.getvalue())


@dataclass
class Done:
    """What a command line did."""

    code: int
    data: bytes
    err: str

    @property
    def out(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.data)


@dataclass
class Program:
    """Runs command lines against `client`."""

    state: Path
    client: Any = None
    connected: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    environ: dict[str, str] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    clock: FakeClock = field(default_factory=lambda: FakeClock(now_ms=NOW_MS))

    def __call__(self, *arguments: str, terminal: bool = False, answer: str = "") -> Done:
        out, err = Stream(terminal=terminal), Stream(terminal=terminal)

        @contextmanager
        def connect(server: str | None, **options: Any) -> Iterator[Any]:
            self.connected.append((server, options))
            yield self.client

        around = Surroundings(
            stdin=Stream(answer, terminal=terminal),
            stdout=out,
            stderr=err,
            environ={"SYFTMESH_STATE": str(self.state), **self.environ},
            clock=self.clock,
            connect=connect,
            **self.more,
        )
        code = run(list(arguments), around)
        return Done(code, out.data(), err.data().decode())


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "state")


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises `error`."""

    def raises(*_arguments: object, **_options: object) -> Any:
        raise error

    return raises


@pytest.fixture(name="raising")
def raising_fixture() -> Callable[[BaseException], Callable[..., Any]]:
    return raising
