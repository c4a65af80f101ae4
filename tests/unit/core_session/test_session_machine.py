"""Two devices under everything a network and a crash can do, as a stateful property.

SESSION_MACHINE_STEPS raises the number of steps, e.g. to 10000.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run
from syftmesh_core.errors import IntegrityFailure
from syftmesh_core.session.peer import MAX_OLD_SESSIONS

STEPS_PER_RUN = 50
RUNS = max(1, int(os.environ.get("SESSION_MACHINE_STEPS", "600")) // STEPS_PER_RUN)

sides = st.integers(0, 1)
places = st.integers(0, 1 << 16)


@dataclass
class InFlight:
    """A published message, and whether its receiver has stored it."""

    to: int
    data: bytes = field(repr=False)
    text: bytes
    read: bool = False


class SessionMachine(RuleBasedStateMachine):
    """Whatever happens, a message opens exactly once and to what was sent."""

    make_pair = None

    @initialize(both=st.booleans())
    def begin(self, both):
        self.ends = type(self).make_pair()
        self.network: list[InFlight] = []
        self.count = self.starts = 0
        for side in (0, 1) if both else (0,):
            self.starts += 1
            self._publish(side, self.ends[side].start(self._text()))

    @precondition(lambda self: self.starts <= MAX_OLD_SESSIONS)  # one more, and the oldest is given up
    @rule(side=sides, reset=st.booleans(), one_time=st.booleans(), kem=st.booleans())
    def start_anew(self, side, reset, one_time, kem):
        self.starts += 1
        self.ends[side].now_ms += 1
        data = self.ends[side].start(self._text(), reset=reset, one_time=one_time, kem=kem)
        self._publish(side, data)

    @rule(side=sides, many=st.integers(1, 4))
    def send(self, side, many):
        if self.ends[side].sessions.current is None:
            return
        for _ in range(many):
            self._publish(side, self.ends[side].send(self._text()))

    @rule(side=sides)
    def crash_before_the_sender_stores(self, side):
        if self.ends[side].sessions.current is not None:
            self.ends[side].try_send(b"never published")

    @precondition(lambda self: self.network)
    @rule(place=places)
    def deliver(self, place):
        self._deliver(self._pick(place))

    @precondition(lambda self: self.network)
    @rule()
    def deliver_in_order(self):
        for message in [one for one in self.network if not one.read][:6]:
            self._deliver(message)

    @precondition(lambda self: self.network)
    @rule(place=places)
    def crash_before_the_receiver_stores(self, place):
        message = self._pick(place)
        if not message.read:
            assert self.ends[message.to].try_receive(message.data).received.plaintext == message.text

    @precondition(lambda self: self.network)
    @rule(place=places)
    def lose(self, place):
        self.network.remove(self._pick(place))

    @precondition(lambda self: self.network)
    @rule(place=places, at=places, mask=st.integers(1, 255))
    def tamper_with_the_ciphertext(self, place, at, mask):
        message = self._pick(place)
        tampered = bytearray(message.data)
        tampered[-1 - at % 64] ^= mask
        self._refused(message.to, bytes(tampered))

    @rule(side=sides)
    def restart(self, side):
        self.ends[side].restart()

    @invariant()
    def no_more_sessions_than_allowed(self):
        for end in self.ends:
            assert len(end.sessions.old) <= MAX_OLD_SESSIONS

    def teardown(self):
        if not hasattr(self, "ends"):
            return
        for message in self.network:
            self._deliver(message)

    def _text(self) -> bytes:
        self.count += 1
        return b"message %d" % self.count

    def _publish(self, side: int, data: bytes) -> None:
        self.network.append(InFlight(1 - side, data, b"message %d" % self.count))

    def _pick(self, place: int) -> InFlight:
        return self.network[place % len(self.network)]

    def _deliver(self, message: InFlight) -> None:
        if message.read:
            self._refused(message.to, message.data)
            return
        assert self.ends[message.to].receive(message.data) == message.text
        message.read = True

    def _refused(self, to: int, data: bytes) -> None:
        end = self.ends[to]
        before = (end.sessions, dict(end.store.skipped), dict(end.store.prekeys))
        with pytest.raises(IntegrityFailure) as caught:
            end.try_receive(data)
        assert caught.value.reason == "SESSION_MESSAGE_INVALID"
        assert (end.sessions, end.store.skipped, end.store.prekeys) == before


def test_every_message_opens_once_whatever_is_lost_reordered_repeated_or_crashes(new_pair):
    class Machine(SessionMachine):
        make_pair = staticmethod(new_pair)

    run(
        Machine,
        settings=settings(
            max_examples=RUNS,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
