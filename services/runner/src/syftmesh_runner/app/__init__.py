"""Composition of the runner: the only place that builds its adapters."""

from syftmesh_runner.app.isolation import isolation_of
from syftmesh_runner.app.module import DATABASE_FILE, SOCKET_FILE, RunnerModule, assemble, build
from syftmesh_runner.app.surroundings import Surroundings

__all__ = [
    "DATABASE_FILE",
    "SOCKET_FILE",
    "RunnerModule",
    "Surroundings",
    "assemble",
    "build",
    "isolation_of",
]
