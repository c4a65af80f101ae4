"""Login by a code that is sent by e-mail: whoever reads the mail of an address may log in as it.

Nobody learns from an answer, nor from how long it takes, whether an address is known here. For every address a code
is made and stored, a mail is written, and the mail server is asked to let us in; the one step in which they differ,
handing over the mail, comes after the answer.

Of a code only a keyed fingerprint is kept (see `fingerprint`). It dies by its use, by its age, by too many wrong
tries and by its successor, each one write that names the revision it was decided on. What a comparison gave is told
only after that write: of two who bring the same code at once one gets in, and no race gives a sixth try.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from syftmesh_core.clock import Clock, Random
from syftmesh_core.errors import LimitExceeded, Unauthenticated, Unavailable, WrongState
from syftmesh_core.principal import normalise_principal

from syftmesh_identity.domain.enrolment import RACE_TRIES, Enrolment, busy
from syftmesh_identity.domain.fingerprint import Fingerprint
from syftmesh_identity.domain.limit import Limiter, Quota, Ticket
from syftmesh_identity.domain.mail import CodeMail, Letter, Mailer
from syftmesh_identity.domain.model import TokenPair, checked_device_id, checked_label
from syftmesh_identity.domain.ports import RecordStore, Stores
from syftmesh_identity.domain.refresh import Sessions

ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base 32, which has one of each of 0/O, 1/I/L and U/V."""

CODE_CHARACTERS: Final = 8
CODE_TTL_S: Final = 600
CODE_TRIES: Final = 5
CODES_PER_EMAIL: Final = 5
ANY_DOMAIN: Final = "*"
_LOOK_ALIKES: Final = str.maketrans({"O": "0", "I": "1", "L": "1", " ": None, "-": None})
_MAX_TYPED_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class LoginCode:
    """The newest code of one address.

    Attributes:
        code_hash: Fingerprint of address and code.
        expires_ms: When it holds no longer, Unix milliseconds.
        tries_left: How many more codes are compared with it; 0 once it was used.
    """

    code_hash: str = field(repr=False)
    expires_ms: int
    tries_left: int = CODE_TRIES


@dataclass(frozen=True, slots=True)
class CodePolicy:
    """Who may log in by a code, and how often.

    Attributes:
        admitted_domains: Domains whose addresses may become known by a code; `ANY_DOMAIN` stands for all.
        codes_per_address: Codes that may be asked for from one address, each hour.
        tries_per_address: Wrong codes that may come from one address, each hour.
    """

    admitted_domains: frozenset[str] = frozenset({ANY_DOMAIN})
    codes_per_address: int = 5
    tries_per_address: int = 50


@dataclass(frozen=True, slots=True)
class CodeState:
    """What login by code reads and writes.

    Attributes:
        codes: The newest code of each principal.
        limiter: Counts codes and tries.
        fingerprint: Makes what is kept of codes.
    """

    codes: RecordStore[LoginCode]
    limiter: Limiter
    fingerprint: Fingerprint


class CodeLogin:
    """Sends codes, and logs in against them.

    Args:
        state: Codes, limits, fingerprints.
        mailer: Sends them; None for a mesh that sends no mail.
        stores: Tells who is known.
        enrolment: Registers the device.
        sessions: Gives the tokens.
        policy: Who, and how often.
        clock: Wall time.
        random: Source of codes.
    """

    def __init__(
        self,
        state: CodeState,
        mailer: Mailer | None,
        stores: Stores,
        enrolment: Enrolment,
        sessions: Sessions,
        policy: CodePolicy,
        clock: Clock,
        random: Random,
    ) -> None:
        self._codes, self._limiter, self._fingerprint = state.codes, state.limiter, state.fingerprint
        self._mailer = mailer
        self._stores = stores
        self._enrolment = enrolment
        self._sessions = sessions
        self._domains = policy.admitted_domains
        self._clock = clock
        self._random = random
        self._per_email = _codes_quota("code_email", CODES_PER_EMAIL, "for this e-mail")
        self._per_address = _codes_quota("code_address", policy.codes_per_address, "from this address")
        self._tries = _tries_quota(policy.tries_per_address)

    async def request(self, principal: str, address: str) -> None:
        """Make a code and have it sent; the one before it ends.

        Args:
            principal: Whom it goes to.
            address: From where it is asked for.

        Raises:
            WrongState: This mesh sends no mail (CODE_LOGIN_DISABLED).
            InvalidInput: PRINCIPAL_INVALID.
            LimitExceeded: TOO_MANY_CODES.
            Unavailable: The mail server takes nothing now (MAIL_AWAY); this counts for nobody.
        """
        mailer = self._working_mailer()
        name = normalise_principal(principal)
        code = new_code(self._random)
        code_hash = self._fingerprint.of("code", name, code)
        letter = mailer.write(CodeMail(name, shown_code(code), CODE_TTL_S))
        tickets = await self._take_places(name, address)
        may_enter = await self._may_enter(name)
        try:
            session = await mailer.open()
        except Unavailable:
            await self._give_back(tickets)
            raise
        due: Letter | None = None
        try:
            await self._put(name, LoginCode(code_hash, self._clock.now_ms() + CODE_TTL_S * 1000))
            due = letter if may_enter else None
        finally:
            session.finish(due, partial(self._withdraw, name, code_hash, tickets))

    async def login(self, principal: str, code: str, device_id: str, label: str, address: str) -> TokenPair:
        """Return a fresh pair for the device.

        The code is used up whatever becomes of the login: nobody learns anything about devices without one.

        Raises:
            WrongState: This mesh sends no mail (CODE_LOGIN_DISABLED).
            InvalidInput: PRINCIPAL_INVALID, DEVICE_INVALID.
            LimitExceeded: TOO_MANY_TRIES, TOO_MANY_DEVICES.
            Unauthenticated: Wrong, used, expired, tried too often or replaced (CODE_INVALID).
            PermissionDenied: PRINCIPAL_REVOKED, DEVICE_REVOKED.
            AlreadyExists: DEVICE_OF_ANOTHER.
            Conflict: The state changes too quickly (CONFLICT).
        """
        self._working_mailer()
        name, device, kind = (
            normalise_principal(principal),
            checked_device_id(device_id),
            checked_label(label),
        )
        # Taken before anything is compared and given back when it was right: no race gives more wrong tries.
        ticket = await self._limiter.take(self._tries, address)
        typed = read_code(code)
        if typed is None or not await self._use(name, typed):
            raise Unauthenticated(
                "The code is wrong, used, expired, or was tried too often. Ask for a new one.",
                reason="CODE_INVALID",
            )
        await self._limiter.give_back(ticket)
        admitted = await self._enrolment.admit(name, device, kind)
        return await self._sessions.open(admitted)

    def _working_mailer(self) -> Mailer:
        if self._mailer is None:
            raise WrongState(
                "This mesh sends no codes by e-mail. Use another login, or redeem a join token.",
                reason="CODE_LOGIN_DISABLED",
            )
        return self._mailer

    async def _take_places(self, name: str, address: str) -> tuple[Ticket, ...]:
        mine = await self._limiter.take(self._per_address, address)
        try:
            return mine, await self._limiter.take(self._per_email, name)
        except LimitExceeded:
            await self._limiter.give_back(mine)
            raise

    async def _give_back(self, tickets: tuple[Ticket, ...]) -> None:
        for ticket in tickets:
            await self._limiter.give_back(ticket)

    async def _may_enter(self, name: str) -> bool:
        is_known = await self._stores.accounts.get(name) is not None
        return is_known or not self._domains.isdisjoint({ANY_DOMAIN, name.partition("@")[2]})

    async def _put(self, name: str, code: LoginCode) -> None:
        for _ in range(RACE_TRIES):
            found = await self._codes.get(name)
            if found is None:
                written = await self._codes.create(name, code)
            else:
                written = await self._codes.replace(name, code, found.revision)
            if written:
                return
        raise busy()

    async def _use(self, name: str, typed: str) -> bool:
        typed_hash = self._fingerprint.of("code", name, typed)
        for _ in range(RACE_TRIES):
            found = await self._codes.get(name)
            if (
                found is None
                or found.record.tries_left < 1
                or self._clock.now_ms() >= found.record.expires_ms
            ):
                return False
            is_right = hmac.compare_digest(typed_hash, found.record.code_hash)
            tries_left = 0 if is_right else found.record.tries_left - 1
            if await self._codes.replace(name, replace(found.record, tries_left=tries_left), found.revision):
                return is_right
        raise busy()

    async def _withdraw(self, name: str, code_hash: str, tickets: tuple[Ticket, ...]) -> None:
        """End a code whose mail the server did not take, unless a newer one is there."""
        found = await self._codes.get(name)
        if found is not None and found.record.code_hash == code_hash:
            await self._codes.replace(name, replace(found.record, tries_left=0), found.revision)
        await self._give_back(tickets)


def new_code(random: Random) -> str:
    """Return a fresh code of 40 random bits."""
    bits = int.from_bytes(random(5), "big")
    return "".join(ALPHABET[bits >> 5 * place & 31] for place in reversed(range(CODE_CHARACTERS)))


def shown_code(code: str) -> str:
    """Return the code as people read it, in two halves."""
    return f"{code[:4]}-{code[4:]}"


def read_code(typed: str) -> str | None:
    """Return the code that somebody typed, None when it is none: spaces, dashes, case and look-alikes are as one."""
    if len(typed) > _MAX_TYPED_CHARACTERS or not typed.isascii():
        return None
    code = typed.strip().upper().translate(_LOOK_ALIKES)
    return code if len(code) == CODE_CHARACTERS and set(code) <= set(ALPHABET) else None


def _codes_quota(name: str, limit: int, whose: str) -> Quota:
    return Quota(name, limit, "TOO_MANY_CODES", f"More than {limit} codes within an hour {whose}.")


def _tries_quota(limit: int) -> Quota:
    return Quota("code_try", limit, "TOO_MANY_TRIES", "Too many wrong codes came from this address.")
