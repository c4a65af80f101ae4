"""Login by e-mailed code: how long a code lives, how often it may be tried, and what nobody can learn."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from syftmesh_core.errors import (
    AlreadyExists,
    InvalidInput,
    LimitExceeded,
    MeshError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    WrongState,
)
from syftmesh_identity.domain.code import (
    ALPHABET,
    CodeLogin,
    CodePolicy,
    CodeState,
    LoginCode,
    new_code,
    read_code,
)
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.limit import Limiter
from syftmesh_identity.domain.mail import CodeMail, Letter
from syftmesh_identity.domain.model import Account
from syftmesh_kit.testing import FakeRandom

ALICE, BOB = "alice@x.example", "bob@y.example"
HOME, CAFE = "192.0.2.1", "192.0.2.2"
WRONG = "00000000"


@dataclass
class FakeMailer:
    """Takes the part of the mail server and keeps what it was given; `error` keeps us out."""

    error: MeshError | None = None
    opened: int = 0
    written: list[CodeMail] = field(default_factory=list)
    finished: list[CodeMail | None] = field(default_factory=list)
    failures: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def write(self, mail: CodeMail) -> Letter:
        self.written.append(mail)
        return Letter(mail.principal, mail.code.encode())

    async def open(self) -> FakeMailer:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.opened += 1
        return self

    def finish(self, letter: Letter | None, failed: Callable[[], Awaitable[None]]) -> None:
        written = [mail for mail in self.written if letter and mail.code.encode() == letter.data]
        self.finished.append(written[-1] if written else None)
        self.failures.append(failed)

    @property
    def code(self) -> str:
        """The code of the newest mail."""
        return next(mail for mail in reversed(self.finished) if mail is not None).code


class Desk:
    """Login by code on fakes."""

    def __init__(self, world, policy: CodePolicy | None = None, mailer: FakeMailer | None = None) -> None:
        self.world, self.mailer = world, mailer or FakeMailer()
        records = type(world.stores.devices)
        self.codes, self.usages = records(), records()
        fingerprint = Fingerprint(b"k" * 32)
        state = CodeState(self.codes, Limiter(self.usages, fingerprint, world.clock), fingerprint)
        self.login_ = CodeLogin(
            state,
            self.mailer,
            world.stores,
            world.enrolment,
            world.sessions,
            policy or CodePolicy(),
            world.clock,
            FakeRandom(),
        )

    async def request(self, principal: str = ALICE, address: str = HOME) -> None:
        await self.login_.request(principal, address)

    async def login(self, code: str, principal: str = ALICE, device_id: str = "dev-1", address: str = HOME):
        return await self.login_.login(principal, code, device_id, "profile", address)

    async def outcome(self, code: str, **options: str) -> str:
        """Return the reason of the refusal, empty when the login went well."""
        try:
            await self.login(code, **options)
        except MeshError as error:
            return error.reason
        return ""


@pytest.fixture
def desk(world) -> Desk:
    return Desk(world)


async def test_the_code_that_was_sent_gives_a_pair(desk):
    await desk.request("Alice@X.Example")
    (mail,) = desk.mailer.finished
    assert (mail.principal, mail.ttl_s, len(mail.code)) == (ALICE, 600, 9)
    assert mail.code not in repr(mail)
    pair = await desk.login(mail.code)
    assert pair.access_token.startswith(f"{ALICE}|dev-1|")


@pytest.mark.parametrize("turn", [str.lower, str.upper, lambda c: c.replace("-", ""), lambda c: f" {c} "])
async def test_a_code_may_be_typed_in_any_case_with_and_without_dash(desk, turn):
    await desk.request()
    assert await desk.outcome(turn(desk.mailer.code)) == ""


def test_look_alikes_are_one_and_what_is_no_code_is_none():
    assert read_code("oOiI-lL01") == "00111101"
    for typed in (
        "",
        "ABCD",
        "ABCD-EFGHJ",
        "ABCD-EFGU",
        "\u0410BCD-EFGH",
        "A" * 65,
        "ABCD\nEFG",
        "ABCDEF\x00G",
    ):
        assert read_code(typed) is None
    assert not set("ILOU") & set(ALPHABET)
    assert len(set(ALPHABET)) == 32


def test_every_code_can_be_drawn():
    assert new_code(lambda _: b"\xff" * 5) == "Z" * 8
    assert new_code(lambda _: bytes(5)) == "0" * 8
    assert new_code(lambda _: (1).to_bytes(5, "big")) == "0000000" + ALPHABET[1]


async def test_a_code_works_once(desk):
    await desk.request()
    code = desk.mailer.code
    await desk.login(code)
    assert await desk.outcome(code, device_id="dev-2") == "CODE_INVALID"


async def test_a_code_holds_for_ten_minutes(desk):
    await desk.request()
    desk.world.clock.advance(599.999)
    code = desk.mailer.code
    desk.world.clock.advance(0.001)
    assert await desk.outcome(code) == "CODE_INVALID"
    await desk.request()
    desk.world.clock.advance(599.9)
    assert await desk.outcome(desk.mailer.code) == ""


async def test_the_right_code_is_refused_after_five_wrong_ones(desk):
    await desk.request()
    for _ in range(5):
        assert await desk.outcome(WRONG) == "CODE_INVALID"
    assert await desk.outcome(desk.mailer.code) == "CODE_INVALID"
    await desk.request()
    for _ in range(4):
        assert await desk.outcome(WRONG) == "CODE_INVALID"
    assert await desk.outcome(desk.mailer.code) == ""


async def test_a_new_code_ends_the_one_before_it(desk):
    await desk.request()
    first = desk.mailer.code
    await desk.request()
    assert await desk.outcome(first) == "CODE_INVALID"
    assert await desk.outcome(desk.mailer.code) == ""


async def test_a_code_is_one_principals(desk):
    await desk.request(ALICE)
    assert await desk.outcome(desk.mailer.code, principal=BOB) == "CODE_INVALID"
    assert await desk.outcome(desk.mailer.code) == ""


async def test_of_many_who_bring_one_code_at_once_exactly_one_gets_in(desk):
    await desk.request()
    code = desk.mailer.code
    found = await asyncio.gather(*(desk.outcome(code, device_id=f"dev-{n}") for n in range(6)))
    assert sorted(found) == ["", *["CODE_INVALID"] * 5]
    assert len(desk.world.stores.families.rows) == 1


async def test_no_race_gives_a_sixth_try(desk):
    await desk.request()
    tries = [desk.outcome(f"0000000{digit}", address=f"192.0.2.{digit}") for digit in range(10)]
    found = await asyncio.gather(*tries)
    # Who lost every race is told to try again, and was not told whether the code was right.
    assert set(found) <= {"CODE_INVALID", "CONFLICT"}
    assert desk.codes.rows[ALICE].record.tries_left == 0
    assert await desk.outcome(desk.mailer.code) == "CODE_INVALID"


async def test_a_try_that_loses_the_race_to_a_new_code_says_nothing_of_it(desk):
    await desk.request()
    old = desk.mailer.code

    def replaced() -> None:
        desk.codes._put(ALICE, LoginCode("other", desk.world.clock.now_ms() + 1000))

    desk.codes.before_write = replaced
    desk.usages.before_write = None
    assert await desk.outcome(old) == "CODE_INVALID"
    assert desk.codes.rows[ALICE].record.tries_left == 4


async def test_nothing_that_is_kept_holds_code_or_address_or_a_plain_hash_of_them(desk):
    await desk.request()
    typed = read_code(desk.mailer.code)
    kept = repr([(key, row.record) for rows in (desk.codes, desk.usages) for key, row in rows.rows.items()])
    kept += str([row.record.code_hash for row in desk.codes.rows.values()])
    for text in (typed, desk.mailer.code, HOME):
        assert text not in kept
        assert hashlib.sha256(text.encode()).hexdigest() not in kept
        assert hashlib.sha256(f"{ALICE}{text}".encode()).hexdigest() not in kept


async def test_five_codes_an_hour_for_one_email_from_wherever_they_are_asked_for(desk):
    for number in range(5):
        await desk.request(address=f"192.0.2.{number}")
        desk.world.clock.advance(60)
    with pytest.raises(LimitExceeded) as caught:
        await desk.request(address=CAFE)
    assert caught.value.reason == "TOO_MANY_CODES"
    wait_ms = int(caught.value.metadata["retry_after_ms"])
    assert wait_ms == (3600 - 5 * 60) * 1000
    desk.world.clock.advance(wait_ms / 1000 - 0.001)
    with pytest.raises(LimitExceeded):
        await desk.request(address=CAFE)
    desk.world.clock.advance(0.001)
    await desk.request(address=CAFE)
    assert desk.mailer.opened == 6


async def test_codes_from_one_address_are_limited_for_whomever_they_are_asked(desk):
    for number in range(5):
        await desk.request(f"p{number}@x.example")
    with pytest.raises(LimitExceeded) as caught:
        await desk.request("p9@x.example")
    assert caught.value.reason == "TOO_MANY_CODES"
    await desk.request("p9@x.example", CAFE)


async def test_who_is_refused_for_the_email_keeps_the_places_of_the_address(desk):
    for number in range(5):
        await desk.request(address=f"192.0.2.{number + 10}")
    for _ in range(9):
        with pytest.raises(LimitExceeded):
            await desk.request(ALICE, CAFE)
    for number in range(5):
        await desk.request(f"p{number}@x.example", CAFE)


async def test_a_mail_server_that_is_away_counts_for_nobody_and_ends_no_code(desk):
    await desk.request()
    code = desk.mailer.code
    desk.mailer.error = Unavailable("away", reason="MAIL_AWAY")
    for _ in range(20):
        with pytest.raises(Unavailable) as caught:
            await desk.request()
        assert caught.value.reason == "MAIL_AWAY"
    assert await desk.outcome(code) == ""
    desk.mailer.error = None
    for _ in range(4):
        await desk.request()


async def test_a_mail_that_the_server_did_not_take_counts_for_nobody_and_its_code_ends(desk):
    for _ in range(12):
        await desk.request()
        await desk.mailer.failures[-1]()
        assert await desk.outcome(desk.mailer.code, address=CAFE) == "CODE_INVALID"


async def test_a_newer_code_outlives_the_failure_of_an_older_mail(desk):
    await desk.request()
    await desk.request()
    await desk.mailer.failures[0]()
    assert await desk.outcome(desk.mailer.code) == ""


async def test_the_conversation_is_ended_when_the_state_is_out_of_reach(desk):
    async def away(*_arguments):
        raise Unavailable("away")

    desk.codes.create = away
    with pytest.raises(Unavailable):
        await desk.request()
    assert desk.mailer.finished == [None]


@pytest.mark.parametrize("domains", [set(), {"x.example"}, {"*"}])
async def test_a_closed_mesh_writes_to_whom_it_knows_or_admits_alone(world, domains):
    desk = Desk(world, CodePolicy(admitted_domains=frozenset(domains)))
    world.stores.accounts._put("known@z.example", Account("known@z.example"))
    for principal, has_mail in (
        ("known@z.example", True),
        (ALICE, bool(domains)),
        ("eve@sub.x.example", "*" in domains),
        ("eve@notx.example", "*" in domains),
    ):
        await desk.request(principal)
        assert (desk.mailer.finished[-1] is not None) is has_mail, principal


class _Counting:
    """Counts what is asked of a store."""

    def __init__(self, inner) -> None:
        self.inner, self.asked = inner, []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self.inner, name)


async def test_known_or_not_the_same_is_asked_and_answered_in_the_same_order(world):
    asked = []
    for principal in ("known@z.example", "nobody@z.example"):
        desk = Desk(world, CodePolicy(admitted_domains=frozenset()))
        world.stores.accounts._put("known@z.example", Account("known@z.example"))
        stores = [_Counting(store) for store in (desk.codes, desk.usages)]
        desk.login_._codes, desk.login_._limiter._usages = stores
        assert await desk.login_.request(principal, HOME) is None
        done = (len(desk.mailer.written), desk.mailer.opened, len(desk.mailer.finished))
        asked.append(([store.asked for store in stores], done))
    assert asked[0] == asked[1]
    assert asked[0][1] == (1, 1, 1)


async def test_a_code_that_was_made_for_a_stranger_is_not_open_to_more_tries(world):
    desk = Desk(world, CodePolicy(admitted_domains=frozenset()))
    await desk.request()
    for _ in range(6):
        assert await desk.outcome(WRONG) == "CODE_INVALID"
    assert desk.codes.rows[ALICE].record.tries_left == 0


async def test_wrong_codes_from_one_address_are_limited_and_right_ones_do_not_count(world):
    desk = Desk(world, CodePolicy(tries_per_address=3))
    for number in range(5):
        await desk.request(f"p{number}@x.example")
        assert (
            await desk.outcome(desk.mailer.code, principal=f"p{number}@x.example", device_id=f"d{number}")
            == ""
        )
    await desk.request(address=CAFE)
    assert [await desk.outcome(WRONG) for _ in range(3)] == ["CODE_INVALID"] * 3
    with pytest.raises(LimitExceeded) as caught:
        await desk.login(desk.mailer.code)
    assert caught.value.reason == "TOO_MANY_TRIES"
    assert caught.value.metadata["retry_after_ms"] == "3600000"
    assert await desk.outcome(desk.mailer.code, address=CAFE) == ""


async def test_a_mesh_without_mail_says_so(world):
    desk = Desk(world)
    desk.login_._mailer = None
    for work in (desk.request(), desk.login("ABCD-EFGH")):
        with pytest.raises(WrongState) as caught:
            await work
        assert caught.value.reason == "CODE_LOGIN_DISABLED"


@pytest.mark.parametrize(
    "principal", ["", "alice", "a@x", "a@x.example\r\nBcc: b@y.example", "<a@x.example>"]
)
async def test_what_is_no_email_is_refused_before_anything_is_done(desk, principal):
    for work in (desk.request(principal), desk.login("ABCD-EFGH", principal=principal)):
        with pytest.raises(InvalidInput) as caught:
            await work
        assert caught.value.reason == "PRINCIPAL_INVALID"
    assert (desk.mailer.opened, desk.usages.rows) == (0, {})


async def test_what_is_no_device_id_is_refused_and_the_code_lives(desk):
    await desk.request()
    assert await desk.outcome(desk.mailer.code, device_id="a b") == "DEVICE_INVALID"
    assert await desk.outcome(desk.mailer.code) == ""


async def test_nothing_is_told_of_a_device_without_the_code(desk):
    await desk.world.login(BOB, "dev-bob")
    await desk.world.login(ALICE, "dev-old")
    await desk.world.enrolment.revoke(ALICE, "dev-old")
    await desk.request()
    for device_id in ("dev-bob", "dev-old"):
        with pytest.raises(Unauthenticated):
            await desk.login(WRONG, device_id=device_id)
    with pytest.raises(AlreadyExists) as caught:
        await desk.login(desk.mailer.code, device_id="dev-bob")
    assert caught.value.reason == "DEVICE_OF_ANOTHER"
    await desk.request()
    with pytest.raises(PermissionDenied) as denied:
        await desk.login(desk.mailer.code, device_id="dev-old")
    assert denied.value.reason == "DEVICE_REVOKED"
