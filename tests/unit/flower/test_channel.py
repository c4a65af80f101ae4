"""Frames over two pipes: what is sent arrives whole, and a liar cannot make anybody reserve memory."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syftmesh_flower.launch.syftmesh_channel import PUSH, TASK, Channel, ChannelClosed, FrameTooLarge


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel, int]]:
    a_read, b_write = os.pipe()
    b_read, a_write = os.pipe()
    yield Channel(a_read, a_write, limit_bytes=1 << 20), Channel(b_read, b_write), b_write
    for fd in (a_read, b_read, a_write):
        os.close(fd)
    try:
        os.close(b_write)
    except OSError:
        return


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(kind=st.integers(0, 255), parts=st.lists(st.binary(max_size=200), max_size=20))
def test_a_frame_arrives_as_it_was_sent(
    pair: tuple[Channel, Channel, int], kind: int, parts: list[bytes]
) -> None:
    ours, theirs, _ = pair
    theirs.send(kind, parts)
    assert ours.receive() == (kind, parts)


def test_a_frame_larger_than_a_pipe_arrives(pair: tuple[Channel, Channel, int]) -> None:
    ours, theirs, _ = pair
    big = os.urandom(1 << 20)
    thread = threading.Thread(target=theirs.send, args=(TASK, [big]))
    thread.start()
    assert ours.receive() == (TASK, [big])
    thread.join()


def test_a_frame_that_says_it_is_huge_is_refused_before_it_is_read(
    pair: tuple[Channel, Channel, int],
) -> None:
    ours, _, write = pair
    os.write(write, bytes([PUSH, 1]) + (1 << 62).to_bytes(8, "big"))
    with pytest.raises(FrameTooLarge):
        ours.receive()


@pytest.mark.parametrize(
    "cut", [b"", b"\x07", b"\x07\x01\x00\x00", b"\x07\x01" + (9).to_bytes(8, "big") + b"ab"]
)
def test_an_end_in_the_middle_is_an_end(pair: tuple[Channel, Channel, int], cut: bytes) -> None:
    ours, _, write = pair
    os.write(write, cut)
    os.close(write)
    with pytest.raises(ChannelClosed):
        ours.receive()


def test_sending_to_nobody_is_an_end() -> None:
    read, write = os.pipe()
    os.close(read)
    other, unused = os.pipe()
    with pytest.raises(ChannelClosed):
        Channel(other, write).send(TASK, [b"x"])
    for fd in (write, other, unused):
        os.close(fd)
