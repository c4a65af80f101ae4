"""`syftmesh login` by code, as people and scripts use it: real processes, a real terminal, a real mail server."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from syftmesh_kit.native import NatsServer
from syftmesh_kit.process import free_ports

sys.path.insert(0, str(Path(__file__).parent))
from mail_host import MailHost
from oidc_provider import CLIENT_ID, CLIENT_SECRET

pytestmark = pytest.mark.integration

CAROL, DAVE, ADMIN = "carol@lab.example", "dave@lab.example", "admin@hub.example"
_KEPT = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}


@dataclass
class World:
    """A hub of processes, its mail server, and the state folder of one machine."""

    server: str
    mail: MailHost
    folder: Path

    @property
    def logs(self) -> bytes:
        return b"".join(place.read_bytes() for place in sorted(self.folder.glob("*.log")))

    def why(self, shown: str) -> str:
        """Return what a program showed and what the hub complained of, for a test that fails."""
        lines = self.logs.decode("utf-8", "replace").splitlines()
        marks = ("warning", "error", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED")
        complaints = [line for line in lines if any(mark in line for mark in marks)]
        return "\n".join([shown, "--- the hub:", *complaints[-20:]])

    def environ(self) -> dict[str, str]:
        return {**_KEPT, "HOME": str(self.folder), "SYFTMESH_STATE": str(self.folder / "state")}

    async def run(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run the program without a terminal; return exit code, stdout, stderr."""
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "syftmesh.cli", *arguments),
            env=self.environ(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(child.communicate(stdin.encode()), 60)
        return child.returncode or 0, out.decode(), err.decode()


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, world: World, *arguments: str) -> None:
        self._world = world
        self._arguments = arguments
        self.text = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Terminal]:
        ours, theirs = pty.openpty()
        os.set_blocking(ours, False)
        self._ours = ours
        try:
            self.child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "syftmesh.cli", *self._arguments),
                env={**self._world.environ(), "TERM": "dumb"},
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            )
            os.close(theirs)
            yield self
        finally:
            if self.child.returncode is None:
                self.child.kill()
                await self.child.wait()
            os.close(ours)

    async def until(self, text: str) -> None:
        """Read until `text` has been shown."""
        async with asyncio.timeout(60):
            while text not in self.text:
                self._read()
                await asyncio.sleep(0.02)

    def type(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    async def end(self) -> int:
        """Return the exit code; whatever is shown until then is read."""
        async with asyncio.timeout(60):
            while self.child.returncode is None:
                self._read()
                await asyncio.sleep(0.02)
        self._read()
        return self.child.returncode

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except (BlockingIOError, OSError):  # nothing more yet, or the program has ended
                return
            if not data:
                return
            self.text += data.decode("utf-8", "replace")


@asynccontextmanager
async def _process(service: str, folder: Path, settings: dict[str, str]) -> AsyncIterator[None]:
    prefix = f"SYFTMESH_{service.upper()}_"
    own = {f"{prefix}{name.upper()}": value for name, value in settings.items()}
    with (folder / f"{service}.log").open("wb") as log:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", f"syftmesh_{service}"),
            env={**_KEPT, "HOME": str(folder), f"{prefix}LOG_LEVEL": "debug", **own},
            stdout=log,
            stderr=log,
        )
    try:
        await _serving(settings["listen"])
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        async with asyncio.timeout(15):
            await child.wait()


async def _serving(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        async with asyncio.timeout(40):
            while True:
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2, wait_for_ready=True)
                except grpc.aio.AioRpcError:
                    continue
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
                await asyncio.sleep(0.05)


@asynccontextmanager
async def hub(folder: Path, **identity: str) -> AsyncIterator[World]:
    """Identity, key directory and gateway as processes, each with its log in `folder`."""
    names = ("identity", "crypto", "gateway", "http", "grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    address = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    nats = NatsServer(folder / "nats")
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        bus = await nats.start(tasks)
        mail = await stack.enter_async_context(MailHost().serving())
        common = {"nats_url": bus.url, "nats_user": bus.user, "nats_password": bus.password}
        settings = {
            "identity": {
                "signing_key_file": str(folder / "signing.pem"),
                "smtp_host": "127.0.0.1",
                "smtp_port": str(mail.port),
                "smtp_security": "none",
                "mail_from": "login@mesh.example",
                "administrators": ADMIN,
                "codes_per_address_hour": "100",
                **identity,
            },
            "crypto": {"journal": "false"},
            "gateway": {
                "http_port": str(ports["http"]),
                "advertised_grpc": address["grpc"],
                "forward_listen": address["grpc"],
                "backends": json.dumps({name: address[name] for name in ("identity", "crypto")}),
            },
        }
        async with AsyncExitStack() as services:
            for name, own in settings.items():
                given = {**common, "listen": address[name], **own}
                await services.enter_async_context(_process(name, folder, given))
            server = f"http://{address['http']}"
            async with httpx.AsyncClient(trust_env=False) as client:
                assert (await client.get(f"{server}/.well-known/syftmesh.json")).status_code == 200
            yield World(server, mail, folder)
        await nats.stop()


@pytest.mark.timeout(240)
async def test_people_and_scripts_log_in_by_code_and_no_log_shows_it(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    async with hub(tmp_path) as world:
        codes = [*await _person(world), *await _script(world)]
        await _whoami(world)
        logs = world.logs
    assert b"rpc.handled" in logs
    assert b"RequestCode" in logs
    shown = [code for code in (*codes, *(code.replace("-", "") for code in codes)) if code.encode() in logs]
    assert shown == []
    # Whose code it is stands in no line either; later calls, with a token, name their principal.
    of_codes = b"\n".join(line for line in logs.splitlines() if b"RequestCode" in line or b"WithCode" in line)
    assert CAROL.encode() not in of_codes


async def _person(world: World) -> list[str]:
    """Carol mistypes her code once, then logs in; later she is still logged in, until she logs out."""
    arguments = ("login", "--email", CAROL, "--server", world.server)
    async with Terminal(world, *arguments).running() as terminal:
        await terminal.until("Code:")
        assert f"has sent a code to {CAROL}" in terminal.text
        terminal.type("0000-0000")
        await terminal.until("4 tries left")
        assert sorted(place.name for place in (world.folder / "state").rglob("*") if place.is_file()) == []
        first = await world.mail.code(1, CAROL)
        terminal.type(first.lower().replace("-", " "))
        assert await terminal.end() == 0, world.why(terminal.text)
        assert "Recovery phrase, shown once" in terminal.text
        assert f"Logged in as {CAROL} at {world.server} with a new account" in terminal.text.replace(
            "\r\n", " "
        )
    code, out, err = await world.run(*arguments, "--json")
    assert code == 0, world.why(err)
    assert (code, json.loads(out)["created"]) == (0, False)
    assert len(world.mail.mails) == 1
    code, _, err = await world.run("logout", "--profile", CAROL)
    assert code == 0, world.why(err)
    async with Terminal(world, *arguments).running() as terminal:
        await terminal.until("Code:")
        second = await world.mail.code(2, CAROL)
        terminal.type(second)
        assert await terminal.end() == 0, world.why(terminal.text)
    return [first, second]


async def _script(world: World) -> list[str]:
    """Dave's script has no terminal: it has a code sent, and brings it in a file, or on stdin."""
    arguments = ("login", "--email", DAVE, "--server", world.server)
    code, _, err = await world.run(*arguments)
    assert (code, err.split(":")[1].strip()) == (2, "CODE_MISSING")
    assert not (world.folder / "state" / "profiles" / DAVE).exists()
    code, _, err = await world.run(*arguments, "--send-code")
    assert code == 0, world.why(err)
    first = await world.mail.code(3, DAVE)
    place = world.folder / "code"
    place.touch(mode=0o600)
    place.write_text(f"{first}\n")
    code, out, err = await world.run(*arguments, "--code-file", str(place), "--json")
    assert code == 0, world.why(err)
    assert (code, json.loads(out)["created"]) == (0, True)
    code, _, err = await world.run("logout", "--profile", DAVE)
    assert code == 0, world.why(err)
    code, _, err = await world.run(*arguments, "--code-file", str(place))
    assert (code, err.split(":")[1].strip()) == (3, "CODE_INVALID")
    code, _, err = await world.run(*arguments, "--send-code")
    assert code == 0, world.why(err)
    second = await world.mail.code(4, DAVE)
    code, _, err = await world.run(*arguments, "--code-file", "-", stdin=f"{second}\n")
    assert code == 0, world.why(err)
    return [first, second]


async def _whoami(world: World) -> None:
    code, out, err = await world.run("whoami", "--profile", DAVE, "--json")
    assert code == 0, world.why(err)
    said = json.loads(out)
    assert (said["email"], said["issuer"], said["administrator"]) == (DAVE, "embedded", False)


@asynccontextmanager
async def _provider(folder: Path) -> AsyncIterator[tuple[str, Path]]:
    """A provider as a process; gives its issuer and the hub's file of providers."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("oidc_provider.py"))),
        env={**_KEPT, "AUTHLIB_INSECURE_TRANSPORT": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        issuer = (await asyncio.wait_for(child.stdout.readline(), 30)).decode().strip()
        known = {"name": "corp", "issuer": issuer, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        providers = folder / "providers.json"
        providers.touch(mode=0o600)
        providers.write_text(json.dumps({"providers": [known]}))
        yield issuer, providers
    finally:
        child.kill()
        await child.communicate()


async def _confirm(terminal: Terminal, issuer: str, email: str) -> None:
    """Play the person who follows what the program says, signed in at the provider as `email`."""
    await terminal.until("Waiting until you have confirmed")
    found = re.search(rf"Open {issuer}/device in a browser, on any device, and type (\S+)\.", terminal.text)
    assert found is not None, terminal.text
    async with httpx.AsyncClient(trust_env=False) as client:
        (
            await client.post(f"{issuer}/control", json={"confirm": found[1], "email": email})
        ).raise_for_status()


@pytest.mark.timeout(240)
async def test_people_log_in_by_a_provider_and_as_nobody_else(tmp_path):
    (tmp_path / "state").mkdir(mode=0o700)
    async with (
        _provider(tmp_path) as (issuer, providers),
        hub(tmp_path, providers_file=str(providers)) as world,
    ):
        arguments = ("login", "--email", CAROL, "--server", world.server, "--provider", "corp")
        async with Terminal(world, *arguments).running() as terminal:
            await _confirm(terminal, issuer, DAVE)
            assert await terminal.end() == 5
            assert "error: PRINCIPAL_DIFFERS: " in terminal.text
            assert f"--email {DAVE}" in terminal.text
        assert [place.name for place in (world.folder / "state").rglob("*") if place.is_file()] == []
        async with Terminal(world, *arguments).running() as terminal:
            await _confirm(terminal, issuer, CAROL)
            assert await terminal.end() == 0, world.why(terminal.text)
            assert "with a new account" in terminal.text.replace("\r\n", " ")
        code, _, err = await world.run(*arguments[:-1], "nobody")
        assert code == 0, world.why(err)  # who is logged in already is asked nothing
        code, _, err = await world.run("logout", "--profile", CAROL)
        assert code == 0, world.why(err)
        code, _, err = await world.run(*arguments[:-1], "nobody")
        assert (code, err.split(":")[1].strip()) == (4, "PROVIDER_UNKNOWN")
        assert world.mail.mails == []
