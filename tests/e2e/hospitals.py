"""Two hospitals with the breast-cancer table and a scientist, each with the command line alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from syftmesh_standalone.demo.data import private_tables

APP = Path(__file__).parents[2] / "examples" / "breast-cancer-fl"
A, B = "owner@hospital-a.example", "owner@hospital-b.example"
SITES = f"{A},{B}"
CAROL, DAVE = "carol@lab.example", "dave@lab.example"
DATASET = "breast-cancer"
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "COLUMNS": "200",
}


@dataclass(frozen=True)
class Done:
    """A program that has ended."""

    code: int
    out: str
    err: str


@dataclass
class Background:
    """A program that goes on while others run."""

    process: subprocess.Popen[bytes]
    folder: Path
    name: str

    @property
    def out(self) -> str:
        return (self.folder / f"{self.name}.out").read_text()

    @property
    def err(self) -> str:
        return (self.folder / f"{self.name}.err").read_text()

    def until(self, pattern: str, within_s: float = 40) -> re.Match[str]:
        """Return the match in what it said, on either stream, as soon as it is there."""
        return until(lambda: re.search(pattern, self.out + self.err), lambda: self.out + self.err, within_s)

    def end(self, within_s: float = 90) -> Done:
        self.process.wait(within_s)
        return Done(self.process.returncode, self.out, self.err)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


@dataclass
class Person:
    """Runs programs as one person."""

    state: Path
    email: str
    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)

    def start(self, name: str, *arguments: str, program: str = "syftmesh") -> Background:
        kept = {k: os.environ[k] for k in ("PATH", "HOME", "PYTHONPATH") if k in os.environ}
        mine = {"SYFTMESH_STATE": str(self.state), "SYFTMESH_PROFILE": self.email}
        command = [str(Path(sys.executable).with_name(program)), *arguments]
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            process = subprocess.Popen(
                command,
                env={**kept, **QUIET, **mine, **self.more},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        return Background(process, self.folder, name)

    def run(self, *arguments: str, code: int = 0, program: str = "syftmesh", within_s: float = 90) -> Done:
        begun = self.start(f"{self.email}-{time.monotonic_ns()}", *arguments, program=program)
        try:
            done = begun.end(within_s)
        finally:
            begun.stop()
        assert done.code == code, (arguments, done)
        return done

    def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(self.run(*arguments, "--json", code=code).out)


@dataclass
class Hospitals:
    """A mesh that runs, and who is in it."""

    server: str
    folder: Path
    a: Person
    b: Person
    carol: Person
    dave: Person

    @property
    def owners(self) -> tuple[Person, Person]:
        return self.a, self.b

    def proposed(self, owner: Person, run_id: str) -> dict[str, Any]:
        """Return what an owner sees of a run, as soon as it is proposed at the site."""

        def shown() -> dict[str, Any] | None:
            found = {item["id"]: item for item in owner.json("fl", "ls")["items"]}
            item: dict[str, Any] = found.get(run_id, {})
            return item if item.get("proposal") else None

        return until(shown)

    def approve(self, run_id: str, owners: Sequence[Person] = ()) -> None:
        for owner in owners or self.owners:
            self.proposed(owner, run_id)
            approved = owner.json("fl", "approve", run_id, "--yes")
            assert approved["state"] == "approved"


def until(look: Callable[[], Any], told: Callable[[], object] = str, within_s: float = 40) -> Any:
    """Return what `look` gives as soon as it is something."""
    end = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < end, told()
        time.sleep(0.2)
    return found


@contextmanager
def hospitals(folder: Path) -> Iterator[Hospitals]:
    """Run a mesh of two hospitals with the table registered, for the block."""
    with _conftest().mesh_process(folder / "state", ["--sites", SITES]) as mesh:
        people = [Person(mesh.state, email, folder) for email in (A, B, CAROL, DAVE)]
        for person in people[2:]:
            person.run("login", "--email", person.email, "--recovery-out", str(folder / person.email))
        tables = private_tables([A, B], os.urandom)
        for owner, table in zip(people, tables, strict=False):
            private = table.write(folder / f"data-{owner.email}").parent
            owner.run(
                "dataset", "create", DATASET, "--private", str(private), "--identifier", "record_id",
                "--audience", CAROL,
            )  # fmt: skip
        yield Hospitals(mesh.server, folder, *people)


def _conftest() -> Any:
    """Return the module of the shared fixtures, which pytest does not let others import by name."""
    place = Path(__file__).with_name("conftest.py")
    spec = spec_from_file_location("syftmesh_e2e_conftest", place)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module
