"""Permission checks by RPC: one, and batches of a thousand different questions, against an empty echo."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import grpc
from bench.call import _peer
from bench.child import module, running
from bench.measure import Row, Target, compared, pairs, percentile
from bench.peer import SERVICE
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from mesh.permissions.v1 import permissions_pb2 as pb
from mesh.permissions.v1 import permissions_service_pb2 as rpc
from mesh.permissions.v1 import permissions_service_pb2_grpc as api
from prometheus_client import CollectorRegistry
from syftmesh_core.clock import SystemClock
from syftmesh_core.permission import RuleTree, parse_ruleset
from syftmesh_kit.channel import open_channel
from syftmesh_kit.interceptor import ServerInterceptor
from syftmesh_kit.interceptor.metric import RpcMetrics
from syftmesh_kit.server import ServiceHost
from syftmesh_kit.telemetry import configure_telemetry
from syftmesh_kit.token import StaticKeySet, TokenIssuer, TokenVerifier
from syftmesh_permissions import convert
from syftmesh_permissions.domain.accessible import ListAccessible
from syftmesh_permissions.domain.batch import AskMany
from syftmesh_permissions.domain.consistency import Token
from syftmesh_permissions.domain.inquiry import Ask
from syftmesh_permissions.domain.reader import ListReaders
from syftmesh_permissions.domain.ruling import Rulings
from syftmesh_permissions.domain.watch import WatchMany
from syftmesh_permissions.servicer import PermissionServicer, register

CLOCK: Final = SystemClock()
OWNER: Final = "alice@hospital.example"
PEOPLE: Final = 100
RULE_FILES: Final = 10_000
TEXTS: Final = 1000
"""Different rule files; the others have the text of one of these."""

PATTERNS: Final = ("**", "*.csv", "part-*/*.csv", "reports/**/*.md", "notes-?.txt")
BATCH: Final = 1000
CALLS: Final = 300
BATCHES: Final = 30
NAMES: Final = ("table.csv", "readme.md", "reports/2026/march.md", "notes-1.txt", "deep/er/file.bin")
KIT_ECHO: Final = "mesh.permissions.v1.Echo"
"""Of the service's own domain, so that its tokens are taken."""


async def check(folder: Path, count: int) -> list[Row]:
    """Measure single checks and batches through client, interceptor and token."""
    source = random.Random(11)  # noqa: S311 - the same questions every time
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(
            grpc.aio.insecure_channel(await stack.enter_async_context(_peer(folder)))
        )
        channel = await stack.enter_async_context(_service(folder))
        stub: Any = api.PermissionServiceStub(channel)
        echo: Any = bare.unary_unary(f"/{SERVICE}/Echo")
        kit_echo: Any = channel.unary_unary(f"/{KIT_ECHO}/Echo")
        new = _Questions(source)

        async def single() -> float:
            asked = [rpc.CheckPermissionRequest(question=new.drawn()) for _ in range(CALLS)]
            return await _p50_ms(asked, stub.CheckPermission)

        async def batch(question: Callable[[], pb.Question]) -> float:
            asked = [
                rpc.BatchCheckPermissionsRequest(questions=[question() for _ in range(BATCH)])
                for _ in range(BATCHES)
            ]
            return await _p50_ms(asked, stub.BatchCheckPermissions)

        async def empty() -> float:
            return await _p50_ms([b""] * CALLS, echo)

        for questions in new.each():  # the service has run for a while: paths were asked about before
            await stub.BatchCheckPermissions(rpc.BatchCheckPermissionsRequest(questions=questions))
        one = await pairs(count, single, empty)
        within = await pairs(count, single, lambda: _p50_ms([b""] * CALLS, kit_echo))
        many = await pairs(count, lambda: batch(new.drawn), empty)
        unseen = await pairs(count, lambda: batch(new.unseen), empty)
    name = "empty grpc.aio echo"
    what = f"permission check by RPC, batch of {BATCH}"
    rates = [(BATCH * 1000 / ours, 1000 / theirs) for ours, theirs in many]
    return [
        compared("permission check by RPC, p50", "ms", name, one, Target(1.25)),
        compared("permission check by RPC, p50", "ms", "echo with our interceptor", within, None),
        compared(f"{what}, p50", "ms", name, many, Target(4.0)),
        compared(what, "decisions/s", name, rates, Target(200_000, at_least=True, of_ratio=False, unit="/s")),
        compared(f"{what}, files never asked about, p50", "ms", name, unseen, None),
    ]


class _Questions:
    """Different questions without end: paths, requesters and levels over all rule files."""

    def __init__(self, source: random.Random) -> None:
        self._source = source
        self._directories = _directories()
        self._number = 0

    def each(self) -> Iterator[list[pb.Question]]:
        """Iterate over batches that ask about each of the fifty thousand paths."""
        for name in NAMES:
            for start in range(0, RULE_FILES, BATCH):
                yield [self._about(d, name) for d in self._directories[start : start + BATCH]]

    def drawn(self) -> pb.Question:
        """Return a question about one of fifty thousand paths."""
        return self._question(self._source.choice(NAMES))

    def unseen(self) -> pb.Question:
        """Return a question about a path that nobody has asked about before."""
        self._number += 1
        return self._question(f"file-{self._number}.csv")

    def _question(self, name: str) -> pb.Question:
        return self._about(self._source.choice(self._directories), name)

    def _about(self, directory: tuple[str, ...], name: str) -> pb.Question:
        path, level = "/".join((OWNER, *directory, name)), self._source.randint(1, 4)
        return pb.Question(path=path, level=level, requester=_person(self._source))


@asynccontextmanager
async def _service(folder: Path) -> AsyncIterator[grpc.aio.Channel]:
    async with running(*module("bench.permission_service"), log=folder / "permissions.log") as (_, line):
        _, address, token = line.split()

        async def provide() -> str:
            return token

        channel = open_channel(address, token_provider=provide)
        try:
            yield channel
        finally:
            await channel.close()


async def _p50_ms(requests: list[Any], call: Any) -> float:
    times = []
    for request in requests:
        started = time.perf_counter()
        await call(request)
        times.append((time.perf_counter() - started) * 1000)
    return percentile(times, 0.5)


def _directories() -> list[tuple[str, ...]]:
    return [(f"area-{n % 20}", f"project-{n // 20 % 500}", f"set-{n}") for n in range(RULE_FILES)]


def _rules(source: random.Random) -> str:
    rules = [
        f'  - pattern: "{pattern}"\n    access: {{read: [{_person(source)}, {_person(source)}]}}'
        for pattern in PATTERNS
    ]
    return "\n".join(["rules:", *rules, ""])


def _person(source: random.Random) -> str:
    return f"person{source.randrange(PEOPLE)}@lab.example"


class _World:
    """The rules of one datasite that never change: `Rules`, `Model` and `Files`."""

    def __init__(self, tree: RuleTree) -> None:
        self._tree = tree

    def tree(self, site: str) -> RuleTree:
        """Return the rules."""
        return self._tree if site == OWNER else RuleTree(site)

    def token(self) -> Token:
        """Return the one point."""
        return Token(1, RULE_FILES)

    async def wait_for(self, _sequence: int, _timeout_s: float) -> bool:
        """Return that it is reached."""
        return True

    def sites(self) -> list[str]:
        """Return the one datasite."""
        return [OWNER]

    def below(self, _directory: str, _after: str) -> list[Any]:
        """Return no files."""
        return []


class _Module:
    """The service as its host sees it, and an echo beside it."""

    public_methods: frozenset[str] = frozenset()
    name = "permissions"

    def __init__(self, world: _World) -> None:
        many = AskMany(Rulings(world, CLOCK, convert.entry), world, CLOCK)
        self._servicer = PermissionServicer(
            world,
            ask=Ask(world, CLOCK),
            ask_many=many,
            readers=ListReaders(world, CLOCK),
            accessible=ListAccessible(world, world, world, CLOCK),
            watch=WatchMany(many, world, world, CLOCK),
        )

    def register(self, server: grpc.aio.Server) -> tuple[str, ...]:
        """Add the handlers."""

        async def echo(request: bytes, _context: Any) -> bytes:
            return request

        handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(KIT_ECHO, handlers),))
        return (register(self._servicer, server),)

    async def start(self, _tasks: asyncio.TaskGroup) -> None:
        """Do nothing."""

    async def ready(self) -> None:
        """Do nothing."""

    async def drain(self) -> None:
        """Do nothing."""


async def serve() -> None:
    """Serve ten thousand rule files until told to end; logs as a service does."""
    configure_telemetry("permissions")
    source = random.Random(7)  # noqa: S311 - the same rules every time
    parsed = [parse_ruleset(_rules(source).encode()) for _ in range(TEXTS)]
    files = ((d, parsed[n % TEXTS], n + 1) for n, d in enumerate(_directories()))
    world = _World(RuleTree.build(OWNER, files))
    key = Ed25519PrivateKey.generate()
    verifier = TokenVerifier(StaticKeySet({"k": key.public_key()}), "embedded", CLOCK)
    token = TokenIssuer(key, "k", "embedded", CLOCK, ttl_s=24 * 3600).issue(OWNER, "device")[0]
    interceptor = ServerInterceptor(verifier=verifier, metrics=RpcMetrics(CollectorRegistry()))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    host = ServiceHost([_Module(world)], interceptor=interceptor)
    async with host.running() as address:
        await host.wait_ready()
        sys.stdout.write(f"ready {address} {token}\n")
        sys.stdout.flush()
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve())
