"""Blocking calls on the loop: results, errors, interruptions, ends."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from syftmesh.async_client import AsyncClient
from syftmesh.portal import Portal
from syftmesh_client.profile import Profile
from syftmesh_core.errors import Cancelled, MeshError, NotFound, WrongState


@pytest.fixture
def portal() -> Portal:
    return Portal()


async def seven() -> int:
    return 7


def test_results_and_errors_come_through_from_any_thread(portal: Portal) -> None:
    async def missing() -> None:
        raise NotFound("no")

    assert portal.run(seven()) == 7
    with pytest.raises(NotFound):
        portal.run(missing())
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(portal.run(seven())))
    thread.start()
    thread.join(5)
    assert found == [7]


async def test_it_works_where_a_loop_is_running() -> None:
    assert Portal().run(seven()) == 7


def test_ctrl_c_ends_the_call_before_it_is_raised_and_the_portal_lives_on(portal: Portal) -> None:
    main, ended = threading.main_thread().ident, []
    assert main is not None

    async def interrupted() -> None:
        signal.pthread_kill(main, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    with pytest.raises(KeyboardInterrupt):
        portal.run(interrupted())
    assert ended == [True]
    assert portal.run(seven()) == 7


def test_closing_ends_what_other_threads_wait_for_and_does_the_last_thing_once() -> None:
    portal, begun, done = Portal(), threading.Event(), []
    errors: list[MeshError] = []

    async def forever() -> None:
        begun.set()
        await asyncio.Event().wait()

    async def last() -> None:
        done.append("last")

    def call() -> None:
        try:
            portal.run(forever())
        except MeshError as error:
            errors.append(error)

    portal.finally_run(last)
    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(5)
    portal.close()
    portal.close()
    thread.join(5)
    assert ([type(error) for error in errors], done) == ([Cancelled], ["last"])
    with pytest.raises(WrongState) as closed:
        portal.run(seven())
    assert closed.value.reason == "CLIENT_CLOSED"
    assert Portal().run(seven()) == 7, "others are not closed with it"


def test_a_portal_that_nobody_holds_is_closed() -> None:
    portal, done = Portal(), threading.Event()

    async def last() -> None:
        done.set()

    portal.finally_run(last)
    del portal
    gc.collect()
    assert done.wait(5)


def test_a_blocking_call_on_the_loop_itself_is_refused_instead_of_waiting_for_ever(portal: Portal) -> None:
    async def reentered() -> int:
        return portal.run(seven())

    with pytest.raises(WrongState):
        portal.run(reentered())


def test_iterating_ends_the_source_when_it_is_left(portal: Portal) -> None:
    ended = []

    async def numbers() -> AsyncIterator[int]:
        try:
            for number in range(10):
                yield number
        finally:
            ended.append(True)

    assert list(portal.iterate(numbers())) == list(range(10))
    feed = portal.iterate(numbers())
    assert [next(feed), next(feed)] == [0, 1]
    feed.close()  # type: ignore[attr-defined]
    assert ended == [True, True]


async def test_an_asynchronous_client_that_is_not_open_says_so(tmp_path: Path) -> None:
    client = AsyncClient(
        Profile("carol@lab.example", "http://127.0.0.1:9", tmp_path), "http://127.0.0.1:9", tmp_path
    )
    for part in ("datasets", "jobs", "files", "permissions", "rpc", "keys", "site"):
        with pytest.raises(WrongState) as closed:
            getattr(client, part)
        assert closed.value.reason == "CLIENT_CLOSED"
    assert not hasattr(client, "nothing")
    await client.close()
    await client.close()
    with pytest.raises(WrongState):
        await client.open()
