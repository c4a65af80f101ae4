"""An owner's client at the end of `kubectl exec`: what it gives, and what becomes of it when the program ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from syftmesh.review import Finding
from syftmesh_core.errors import InvalidInput, MeshError, NotFound, Unavailable, WrongState
from syftmesh_standalone.demo.cluster import session as sessions
from syftmesh_standalone.demo.cluster.kubectl import Tool
from syftmesh_standalone.demo.cluster.session import ConsoleSession, RemoteClient
from syftmesh_standalone.demo.embedded import phrase_file

pytestmark = pytest.mark.timeout(60)

OWNER = "owner@hospital-a.example"
FAKE = Path(__file__).with_name("fake_kubectl.py")


@pytest.fixture
async def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ConsoleSession]:
    sent = sessions._sources()
    program = Path(__file__).with_name("console_program.py").read_text()
    monkeypatch.setattr(sessions, "_sources", lambda: [*sent, ("console_program", program)])
    monkeypatch.setenv("TEST_FOLDER", str(tmp_path))
    (tmp_path / "answers.json").write_text("{}")
    made = ConsoleSession(Tool(sys.executable, str(FAKE), str(tmp_path)), "demo-a", "site-0", OWNER)
    yield made
    await made.close()


async def test_a_method_of_the_client_runs_there_and_gives_its_own_types(session: ConsoleSession) -> None:
    client = RemoteClient(session)
    found = await client.site.jobs.get("7", times=2)
    assert found == [Finding("info", "RULE", "7", 0, "", "text")] * 2


async def test_a_method_of_a_result_is_called_there(session: ConsoleSession) -> None:
    client = RemoteClient(session)
    assert await client.follow("site.datasets.get", ("d",), "mock.read", ("f.csv",)) == b"mock f.csv"


async def test_errors_come_back_as_what_they_were(session: ConsoleSession) -> None:
    with pytest.raises(WrongState) as refused:
        await RemoteClient(session).site.jobs.approve("7")
    assert (refused.value.reason, refused.value.metadata) == ("APPROVAL_MISMATCH", {"job": "7"})


async def test_a_private_part_of_the_client_is_no_method(session: ConsoleSession) -> None:
    with pytest.raises(InvalidInput):
        await session.ask("client", "site._sockets")
    with pytest.raises(AttributeError):
        _ = RemoteClient(session)._session_of


@pytest.mark.parametrize(
    ("op", "args"), [("client", ("site.jobs.object",)), ("client", ("nothing",)), ("no", ())]
)
async def test_what_the_console_cannot_do_is_an_error_and_the_session_goes_on(
    session: ConsoleSession, op: str, args: tuple[str, ...]
) -> None:
    with pytest.raises(MeshError) as refused:
        await session.ask(op, *args)
    assert refused.value.reason == "CONSOLE_FAULT"
    assert await RemoteClient(session).site.jobs.get("1")


async def test_requests_run_at_once_and_one_that_is_given_up_is_cancelled_there(
    session: ConsoleSession, tmp_path: Path
) -> None:
    client = RemoteClient(session)
    hanging = asyncio.create_task(client.site.jobs.hang())
    assert await client.site.jobs.get("1")
    hanging.cancel()
    await asyncio.gather(hanging, return_exceptions=True)
    while not await client.site.jobs.cancelled():
        pass
    assert (tmp_path / "cancelled").exists()


async def test_a_program_that_ends_is_away_once_and_begun_again(session: ConsoleSession) -> None:
    client = RemoteClient(session)
    with pytest.raises(Unavailable) as away:
        await client.site.jobs.die()
    assert away.value.reason == "CONSOLE_AWAY"
    assert await client.site.jobs.get("1")


async def test_a_program_that_does_not_start_is_away_with_kubectls_words(tmp_path: Path) -> None:
    script = tmp_path / "kubectl.py"
    script.write_text("import sys; sys.exit('error: no such pod')")
    made = ConsoleSession(Tool(sys.executable, str(script)), "demo-a", "site-0", OWNER)
    with pytest.raises(Unavailable, match="no such pod"):
        await made.ask("phrase")


async def test_the_phrase_is_told_by_words_and_mode_alone(session: ConsoleSession, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await session.ask("phrase")
    path = tmp_path / "recovery" / f"{OWNER}.txt"
    path.parent.mkdir()
    path.write_text("one two three\n")
    path.chmod(0o600)
    assert tuple(await session.ask("phrase")) == (3, 0o600)
    assert (phrase_file(path).words, phrase_file(path).mode) == (3, 0o600)
