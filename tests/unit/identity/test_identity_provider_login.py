"""Login by a provider: who gets tokens, how often the provider is asked, and what ends a login."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from syftmesh_core.errors import (
    AlreadyExists,
    IntegrityFailure,
    InvalidInput,
    LimitExceeded,
    MeshError,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_identity.adapters.id_token import invalid
from syftmesh_identity.adapters.login_seal import LoginSeal
from syftmesh_identity.adapters.provider_login import PROVIDER_LOGINS
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.limit import Limiter
from syftmesh_identity.domain.provider import DeviceAuthorization, PollAnswer, PollState, Provider
from syftmesh_identity.domain.provider_login import (
    POLL_HOLD_MS,
    FinishedLogin,
    LoginLimits,
    PendingLogin,
    ProviderLogins,
    StartedLogin,
)

ALICE = "alice@x.example"
ADDRESS = "192.0.2.7"
CODE = "device-code-that-nobody-may-see"
PER_HOUR = 3
PENDING = PollAnswer(PollState.PENDING)
CONFIRMED = PollAnswer(PollState.CONFIRMED, {"sub": "1", "email": ALICE, "email_verified": True})


@dataclass
class FakeProvider:
    """Gives its answers in turn, the last one again and again; an answer may be an error, or an event to wait for."""

    answers: list[Any] = field(default_factory=lambda: [PENDING])
    provider: Provider = field(default_factory=lambda: Provider("sso", "https://sso.example", "hub"))
    asked: list[str] = field(default_factory=list)
    started: int = 0
    expires_s: int = 600

    async def authorize(self) -> DeviceAuthorization:
        self.started += 1
        return DeviceAuthorization(
            CODE, "WDJB-MJHT", "https://sso.example/device", "", expires_s=self.expires_s, interval_s=5
        )

    async def poll(self, device_code: str) -> PollAnswer:
        self.asked.append(device_code)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, tuple):
            began, goes_on, answer = answer
            began.set()
            await goes_on.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Place:
    """A hub with one provider; `replica` gives another process of the same service."""

    def __init__(self, world: Any) -> None:
        self.world = world
        self.sso = FakeProvider()
        records = type(world.stores.devices)
        self.logins, self.usages = records(), records()
        self.hub = self.replica()

    def replica(self, key: bytes = b"k" * 32) -> ProviderLogins:
        world = self.world
        limiter = Limiter(self.usages, Fingerprint(b"f" * 32), world.clock)
        return ProviderLogins(
            {"sso": self.sso},
            self.logins,
            LoginSeal(key, world.random),
            LoginLimits(limiter, PER_HOUR),
            world.enrolment,
            world.sessions,
            world.clock,
            world.random,
        )

    async def start(
        self, device_id: str = "dev-1", label: str = "profile", principal: str = ""
    ) -> StartedLogin:
        return await self.hub.start("sso", device_id, label, ADDRESS, principal)

    async def refused(self, secret: str, kind: type[MeshError] = Unauthenticated) -> str:
        with pytest.raises(kind) as caught:
            await self.hub.finish(secret)
        return caught.value.reason


@pytest.fixture
def place(world: Any) -> Place:
    return Place(world)


async def test_a_person_who_confirms_gets_tokens_for_the_device_that_asked(place: Place) -> None:
    place.sso.answers = [PENDING, CONFIRMED]
    started = await place.start(label="agent")
    assert await place.hub.finish(started.login_secret) == PendingLogin(5)
    place.world.clock.advance(5)
    finished = await place.hub.finish(started.login_secret)
    assert isinstance(finished, FinishedLogin)
    assert finished.principal == ALICE
    assert finished.tokens.access_token.startswith(f"{ALICE}|dev-1|")
    (device,) = await place.world.enrolment.devices_of(ALICE)
    assert (device.device_id, device.label) == ("dev-1", "agent")
    assert place.sso.asked == [CODE, CODE]


async def test_neither_secret_nor_device_code_is_stored_or_shown(place: Place) -> None:
    started = await place.start()
    kept = repr(place.logins.rows) + "".join(row.record.sealed_code for row in place.logins.rows.values())
    for hidden in (started.login_secret, started.login_secret.split(".")[1], CODE):
        assert hidden not in kept
        assert hidden not in repr(started)


async def test_a_login_works_once(place: Place) -> None:
    place.sso.answers = [CONFIRMED]
    started = await place.start()
    await place.hub.finish(started.login_secret)
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"
    (row,) = place.logins.rows.values()
    assert (row.record.ended, row.record.sealed_code) == (True, "")
    assert len(place.sso.asked) == 1


async def test_any_replica_finishes_a_login(place: Place) -> None:
    place.sso.answers = [CONFIRMED]
    started = await place.start()
    finished = await place.replica().finish(started.login_secret)
    assert isinstance(finished, FinishedLogin)
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"


async def test_of_many_that_finish_one_login_one_gets_tokens_and_the_provider_is_asked_once(
    place: Place,
) -> None:
    place.sso.answers = [CONFIRMED, Unauthenticated("used", reason="LOGIN_INVALID")]
    started = await place.start()
    found = await asyncio.gather(
        *(place.replica().finish(started.login_secret) for _ in range(8)), return_exceptions=True
    )
    assert len([item for item in found if isinstance(item, FinishedLogin)]) == 1
    others = [item for item in found if not isinstance(item, FinishedLogin)]
    assert all(item == PendingLogin(5) for item in others)
    assert len(place.sso.asked) == 1
    assert len(place.world.stores.families.rows) == 1


async def test_a_poll_that_outlives_its_hold_gives_no_second_pair(place: Place) -> None:
    began, goes_on = asyncio.Event(), asyncio.Event()
    place.sso.answers = [(began, goes_on, CONFIRMED), CONFIRMED]
    started = await place.start()
    slow = asyncio.ensure_future(place.hub.finish(started.login_secret))
    await began.wait()
    place.world.clock.advance(POLL_HOLD_MS / 1000)
    assert isinstance(await place.replica().finish(started.login_secret), FinishedLogin)
    goes_on.set()
    with pytest.raises(Unauthenticated):
        await slow
    assert len(place.world.stores.families.rows) == 1


async def test_a_poll_that_is_overtaken_before_it_began_asks_nobody(place: Place) -> None:
    started = await place.start()
    (key,) = place.logins.rows
    plain = place.logins.get

    async def overtaken(asked: str) -> Any:
        found = await plain(asked)
        if found.record.next_poll_ms > place.world.clock.now_ms():
            place.logins._put(key, replace(found.record, next_poll_ms=found.record.next_poll_ms + 1))
            found = await plain(asked)
        return found

    place.logins.get = overtaken
    assert await place.hub.finish(started.login_secret) == PendingLogin(5)
    assert place.sso.asked == []


async def test_a_login_whose_poll_died_with_its_replica_goes_on_at_another(place: Place) -> None:
    began, goes_on = asyncio.Event(), asyncio.Event()
    place.sso.answers = [(began, goes_on, CONFIRMED), CONFIRMED]
    started = await place.start()
    dying = asyncio.ensure_future(place.hub.finish(started.login_secret))
    await began.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    other = place.replica()
    assert await other.finish(started.login_secret) == PendingLogin(5)
    place.world.clock.advance(POLL_HOLD_MS / 1000)
    assert isinstance(await other.finish(started.login_secret), FinishedLogin)


async def test_the_provider_is_never_asked_sooner_than_its_interval(place: Place) -> None:
    started = await place.start()
    for _ in range(50):
        found = await place.hub.finish(started.login_secret)
        assert isinstance(found, PendingLogin)
        assert 1 <= found.interval_s <= 5
        place.world.clock.advance(1)
    assert len(place.sso.asked) == 10


async def test_a_provider_that_says_slow_down_is_asked_five_seconds_later_from_then_on(place: Place) -> None:
    place.sso.answers = [PollAnswer(PollState.SLOW_DOWN), PollAnswer(PollState.SLOW_DOWN), PENDING]
    started = await place.start()
    waits = []
    for _ in range(4):
        found = await place.hub.finish(started.login_secret)
        assert isinstance(found, PendingLogin)
        waits.append(found.interval_s)
        place.world.clock.advance(found.interval_s)
    assert waits == [10, 15, 15, 15]
    assert len(place.sso.asked) == 4


async def test_a_provider_that_is_away_leaves_the_login_open_and_is_asked_half_as_often(place: Place) -> None:
    place.sso.answers = [Unavailable("away", reason="PROVIDER_AWAY"), CONFIRMED]
    started = await place.start()
    with pytest.raises(Unavailable) as caught:
        await place.hub.finish(started.login_secret)
    assert caught.value.metadata["retry_after_ms"] == "10000"
    place.world.clock.advance(9)
    assert await place.hub.finish(started.login_secret) == PendingLogin(1)
    place.world.clock.advance(1)
    assert isinstance(await place.hub.finish(started.login_secret), FinishedLogin)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (PollAnswer(PollState.ENDED), "LOGIN_INVALID"),
        (invalid("signature"), "PROVIDER_TOKEN_INVALID"),
        (replace(CONFIRMED, claims={"email": ALICE, "email_verified": False}), "EMAIL_NOT_VERIFIED"),
        (replace(CONFIRMED, claims={}), "EMAIL_NOT_VERIFIED"),
    ],
)
async def test_what_does_not_hold_ends_the_login_and_registers_nobody(
    place: Place, answer: object, reason: str
) -> None:
    place.sso.answers = [answer, CONFIRMED]
    started = await place.start()
    assert await place.refused(started.login_secret) == reason
    place.world.clock.advance(60)
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"
    assert not place.world.stores.devices.rows
    assert not place.world.stores.families.rows


async def test_a_login_ends_by_time(place: Place) -> None:
    place.sso.answers = [CONFIRMED]
    started = await place.start()
    assert started.expires_ms == place.world.clock.now_ms() + 600_000
    place.world.clock.advance(600)
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"
    assert place.sso.asked == []


@pytest.mark.parametrize(
    "secret", ["", "sml1.", "sml1." + "A" * 43, "smr1." + "A" * 43, "A" * 100_000, "sml1." + "A" * 42 + "\n"]
)
async def test_a_secret_that_was_not_given_out_is_refused(place: Place, secret: str) -> None:
    await place.start()
    assert await place.refused(secret) == "LOGIN_INVALID"


async def test_a_provider_that_is_not_configured_is_unknown(place: Place) -> None:
    with pytest.raises(NotFound) as caught:
        await place.hub.start("\x1b[2J", "dev-1", "profile", ADDRESS)
    assert caught.value.reason == "PROVIDER_UNKNOWN"
    assert caught.value.message.isprintable()
    assert "sso" in caught.value.message
    assert not place.usages.rows


async def test_a_login_of_a_provider_that_was_taken_away_is_refused(place: Place) -> None:
    started = await place.start()
    place.hub._providers = {}
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"


@pytest.mark.parametrize(("device_id", "label"), [("", "profile"), ("a/b", "profile"), ("dev-1", "toaster")])
async def test_what_cannot_be_a_device_asks_no_provider(place: Place, device_id: str, label: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await place.start(device_id, label)
    assert caught.value.reason == "DEVICE_INVALID"
    assert place.sso.started == 0


async def test_one_address_starts_only_so_many_logins_within_an_hour(place: Place) -> None:
    for _ in range(PER_HOUR):
        await place.start()
    with pytest.raises(LimitExceeded) as caught:
        await place.start()
    assert caught.value.reason == "TOO_MANY_LOGINS"
    assert int(caught.value.metadata["retry_after_ms"]) == 3_600_000
    assert place.sso.started == PER_HOUR
    await place.hub.start("sso", "dev-1", "profile", "192.0.2.8")
    place.world.clock.advance(3600)
    await place.start()


async def test_a_login_for_one_person_registers_nobody_when_the_provider_names_another(place: Place) -> None:
    place.sso.answers = [CONFIRMED]
    started = await place.start(principal="bob@y.example")
    with pytest.raises(WrongState) as caught:
        await place.hub.finish(started.login_secret)
    assert (caught.value.reason, caught.value.metadata) == ("PRINCIPAL_DIFFERS", {"principal": ALICE})
    assert f"--email {ALICE}" in caught.value.hint
    stores = place.world.stores
    assert [stores.devices.rows, stores.accounts.rows, stores.families.rows] == [{}, {}, {}]
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"
    await place.world.login("bob@y.example", "dev-1")  # the id is still free for whom it is


async def test_a_login_for_one_person_is_finished_by_that_one_however_the_name_is_written(
    place: Place,
) -> None:
    place.sso.answers = [CONFIRMED]
    started = await place.start(principal="Alice@X.Example")
    finished = await place.replica().finish(started.login_secret)
    assert isinstance(finished, FinishedLogin)
    assert finished.principal == ALICE


async def test_a_name_that_cannot_be_a_persons_starts_no_login(place: Place) -> None:
    with pytest.raises(InvalidInput) as caught:
        await place.start(principal="bob")
    assert caught.value.reason == "PRINCIPAL_INVALID"
    assert (place.sso.started, place.usages.rows, place.logins.rows) == (0, {}, {})


async def test_a_login_that_was_stored_before_names_were_kept_is_still_read(place: Place) -> None:
    await place.start()
    (row,) = place.logins.rows.values()
    old = PROVIDER_LOGINS.encode(row.record).replace(b',"principal":""', b"")
    assert b"principal" not in old
    assert PROVIDER_LOGINS.decode(old) == row.record


async def test_a_device_of_somebody_else_is_refused_and_the_login_is_over(place: Place) -> None:
    await place.world.login("bob@y.example", "dev-1")
    place.sso.answers = [CONFIRMED]
    started = await place.start()
    assert await place.refused(started.login_secret, AlreadyExists) == "DEVICE_OF_ANOTHER"
    assert await place.refused(started.login_secret) == "LOGIN_INVALID"


async def test_a_revoked_device_is_refused(place: Place) -> None:
    await place.world.login(ALICE, "dev-1")
    await place.world.enrolment.revoke(ALICE, "dev-1")
    place.sso.answers = [CONFIRMED]
    started = await place.start()
    assert await place.refused(started.login_secret, PermissionDenied) == "DEVICE_REVOKED"


async def test_a_person_whom_an_administrator_has_ended_is_refused_until_reinstated(place: Place) -> None:
    place.sso.answers = [CONFIRMED]
    await place.world.people.revoke(ALICE)
    started = await place.start()
    assert await place.refused(started.login_secret, PermissionDenied) == "PRINCIPAL_REVOKED"
    assert not place.world.stores.families.rows
    await place.world.people.reinstate(ALICE)
    started = await place.start()
    assert isinstance(await place.hub.finish(started.login_secret), FinishedLogin)


async def test_a_code_that_was_moved_to_another_login_is_not_used(place: Place) -> None:
    mine, yours = await place.start(), await place.start("dev-2")
    first, second = list(place.logins.rows)
    stolen = replace(
        place.logins.rows[second].record, sealed_code=place.logins.rows[first].record.sealed_code
    )
    place.logins._put(second, stolen)
    assert await place.refused(yours.login_secret, IntegrityFailure) == "RECORD_DAMAGED"
    assert place.sso.asked == []
    assert await place.hub.finish(mine.login_secret) == PendingLogin(5)


async def test_a_replica_with_another_key_file_says_so(place: Place) -> None:
    started = await place.start()
    place.hub = place.replica(key=b"x" * 32)
    assert await place.refused(started.login_secret, IntegrityFailure) == "RECORD_DAMAGED"
    assert place.sso.asked == []


async def test_the_names_of_the_providers_are_listed(place: Place) -> None:
    assert place.hub.names == ("sso",)
